"""Tensors, networks and optimizers that do not fit: what PyTorch refuses C refuses, and what it accepts C computes too."""

import pytest

from tests.engines.native.misfits import ALGORITHMS, differing


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("first", range(2))
def test_some_of_them(algorithm, first):
    """Each 41st; the sanitizers look at all of them."""
    wrong, tried = differing(algorithm, every=41, first=20 * first)
    assert not wrong, wrong
    assert sum(tried.values()) > 10
