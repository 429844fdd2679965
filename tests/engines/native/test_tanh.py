"""Tanh as network.c computes it: close to the exact one, relative to its size, also next to 0."""

import ctypes

import pytest
import torch as th

from sb3_softac.engines.native.library import Layer, Network, load

TANH = 1


class Rows(ctypes.Structure):
    """``Rows`` of step.h."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("x_stride", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("hidden", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
        ("out", ctypes.c_void_p),
    )


def tanh_in_c(x):
    """What the hidden layer of a network gives whose only unit sees its input as it is."""
    one, zero, hidden, out = th.ones(1), th.zeros(1), th.empty_like(x), th.empty_like(x)
    layers = (Layer * 2)(*[Layer(one.data_ptr(), zero.data_ptr(), -1, -1, 1, 1, 0)] * 2)
    rows = Rows(x.data_ptr(), 1, len(x), hidden.data_ptr(), len(x), out.data_ptr())
    load()[0].forward(ctypes.byref(Network(layers, 1, 1, TANH)), ctypes.byref(rows))
    assert th.equal(out.nan_to_num(), hidden.nan_to_num())
    return hidden


def test_error():
    x = th.cat([th.logspace(-30, 1.5, 20_000), th.linspace(0.2, 0.3, 1_000), th.linspace(8.9, 9.1, 100)])
    exact = x.double().tanh()
    assert ((tanh_in_c(x).double() - exact).abs() / exact).max() < 3e-7
    assert th.equal(tanh_in_c(-x), -tanh_in_c(x))


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0.0), (th.inf, 1.0), (-th.inf, -1.0), (1e30, 1.0)])
def test_ends(value, expected):
    assert tanh_in_c(th.tensor([value])).item() == pytest.approx(expected, abs=1e-7)


def test_nan():
    assert tanh_in_c(th.tensor([th.nan, 1.0])).isnan().tolist() == [True, False]
