"""Matrix products of product.c, against PyTorch's in double precision."""

from ctypes import Structure, c_int, c_int64, c_void_p

import pytest
import torch as th
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sb3_softac.engines.native.library import load

MARGIN, UNTOUCHED = 40, 7.25


class Matrix(Structure):
    """``Matrix`` of product.h."""

    _fields_ = (("data", c_void_p), ("row", c_int64), ("column", c_int64))


def in_memory(matrix, transposed, gap, offset):
    """:return: The matrix as C reads it; memory that holds it, rows of its layout `gap` elements apart from each other."""
    laid_out = matrix.T if transposed else matrix
    memory = th.full((offset + laid_out.shape[0] * (laid_out.shape[1] + gap) + MARGIN,), th.nan)
    stride = laid_out.shape[1] + gap
    view = memory[offset:].as_strided(laid_out.shape, (stride, 1))
    view.copy_(laid_out)
    where = memory.data_ptr() + 4 * offset
    return Matrix(where, 1, stride) if transposed else Matrix(where, stride, 1), memory


def check(m, n, k, transposed=(False, False), add=False, gaps=(0, 0, 0), offset=0, seed=0):
    product = load()[0].product
    product.argtypes = [c_int64, c_int64, c_int64, Matrix, Matrix, c_void_p, c_int64, c_int]
    product.restype = None
    generator = th.Generator().manual_seed(seed)
    a, b, before = (th.randn(shape, generator=generator) for shape in ((m, k), (k, n), (m, n)))
    a_in_c, keep_a = in_memory(a, transposed[0], gaps[0], offset)
    b_in_c, keep_b = in_memory(b, transposed[1], gaps[1], offset)
    stride = n + gaps[2]
    memory = th.full((MARGIN + m * stride + MARGIN,), UNTOUCHED)
    out = memory[MARGIN:].as_strided((m, n), (stride, 1))
    out.copy_(before)
    product(m, n, k, a_in_c, b_in_c, out.data_ptr(), stride, int(add))
    expected = a.double() @ b.double() + (before.double() if add else 0.0)
    bound = a.double().abs() @ b.double().abs() + before.double().abs()  # no cancellation may hide an error
    assert ((out.double() - expected).abs() <= 1e-6 * bound).all()
    out.fill_(UNTOUCHED)
    assert (memory == UNTOUCHED).all()
    del keep_a, keep_b


@given(
    m=st.integers(1, 300),
    n=st.integers(1, 300),
    k=st.integers(1, 300),
    transposed=st.tuples(st.booleans(), st.booleans()),
    add=st.booleans(),
    gaps=st.tuples(*[st.integers(0, 9)] * 3),
    offset=st.integers(0, 9),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
@example(300, 300, 600, (False, True), False, (1, 2, 3), 1, 0)
def test_drawn_products(m, n, k, transposed, add, gaps, offset, seed):
    check(m, n, k, transposed, add, gaps, offset, seed)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("transposed", [(False, False), (False, True), (True, False), (True, True)])
def test_remainders_of_tiles_and_panels(transposed, add):
    """Rows that fill no tile, columns that fill no panel, sums of more than one panel, vectors on both sides."""
    sizes = [
        (13, 33, 5),
        (6, 16, 256),
        (12, 32, 257),
        (7, 31, 513),
        (1, 40, 70),
        (40, 1, 70),
        (1, 1, 33),
        (5, 17, 1),
        (1, 9, 1),
    ]
    for m, n, k in [*sizes, (2, 2, 2), (1, 1, 1), (24, 64, 4), (25, 48, 6)]:
        check(m, n, k, transposed, add)
        check(m, n, k, transposed, add, gaps=(3, 5, 7), offset=3)


def test_no_rows():
    check(0, 5, 3)
    check(0, 1, 3)
