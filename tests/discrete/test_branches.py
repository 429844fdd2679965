"""Branches against torch.distributions and plain loops, for each kind of discrete action space."""

import itertools
import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch.distributions import Categorical

from sb3_softac import DiscreteSAC
from sb3_softac.discrete.branches import Branches
from tests.toys import VECTOR, RandomEnv, make_model

SPACES = [spaces.Discrete(5), spaces.MultiDiscrete([2, 1, 3]), spaces.MultiDiscrete([3, 3]), spaces.MultiBinary(3)]
SIZES = [[5], [2, 1, 3], [3, 3], [2, 2, 2]]
every_space = pytest.mark.parametrize(("space", "sizes"), list(zip(SPACES, SIZES, strict=True)), ids=str)


def random_masks(sizes, batch):
    """Masks that leave every branch at least one option."""
    masks = th.rand(batch, sum(sizes)) < 0.5
    for start, size in zip(np.cumsum([0, *sizes[:-1]]), sizes, strict=True):
        masks[th.arange(batch), start + th.randint(size, (batch,))] = True
    return masks


@every_space
def test_sizes(space, sizes):
    branches = Branches(space)
    assert branches.sizes == sizes and branches.n == sum(sizes)
    assert branches.max_entropy == pytest.approx(math.log(math.prod(sizes)))


@every_space
def test_log_softmax_is_that_of_each_branch(space, sizes):
    logits = 3 * th.randn(2, 7, sum(sizes))
    expected = th.cat([Categorical(logits=branch).logits for branch in logits.split(sizes, dim=-1)], dim=-1)
    th.testing.assert_close(Branches(space).log_softmax(logits), expected)


@every_space
def test_forbidden_options_have_no_probability_and_no_gradient(space, sizes):
    branches = Branches(space)
    logits = (3 * th.randn(50, branches.n)).requires_grad_()
    masks = random_masks(sizes, 50)
    assert not masks.all()
    log_pi = branches.log_softmax(logits, masks)
    pi = log_pi.exp()
    assert (pi[~masks] == 0.0).all()
    infinite = logits.detach().masked_fill(~masks, -math.inf)
    expected = th.cat([Categorical(logits=branch).probs for branch in infinite.split(sizes, dim=-1)], dim=-1)
    th.testing.assert_close(pi, expected)
    (pi * (log_pi - th.randn_like(log_pi))).sum().backward()
    assert logits.grad.isfinite().all() and (logits.grad[~masks] == 0.0).all() and (logits.grad[masks] != 0.0).any()


@every_space
def test_sampled_frequencies(space, sizes):
    branches = Branches(space)
    log_pi = branches.log_softmax(th.randn(1, branches.n), random_masks(sizes, 1))
    draws = branches.sample(log_pi.expand(20_000, -1))
    assert draws.shape == (20_000, len(sizes)) and draws.dtype == th.int64
    for actions, probabilities in zip(draws.T, log_pi[0].exp().split(sizes), strict=True):
        frequencies = th.bincount(actions, minlength=len(probabilities)) / 20_000
        assert (frequencies[probabilities == 0.0] == 0.0).all()
        th.testing.assert_close(frequencies, probabilities, atol=0.015, rtol=0.0)


def test_branches_are_drawn_independently():
    draws = Branches(spaces.MultiDiscrete([2, 2])).sample(th.full((20_000, 4), math.log(0.5)))
    assert np.corrcoef(draws.T.numpy())[0, 1] == pytest.approx(0.0, abs=0.03)


@every_space
def test_the_most_extreme_noise_cannot_draw_a_forbidden_option(space, sizes, monkeypatch):
    monkeypatch.setattr(th.Tensor, "exponential_", th.Tensor.zero_)
    branches = Branches(space)
    masks = random_masks(sizes, 50)
    draws = branches.sample(branches.log_softmax(th.randn(50, branches.n), masks))
    assert (branches.select(masks.float(), draws) == len(sizes)).all()


@every_space
def test_argmax_and_select_against_a_loop(space, sizes):
    branches = Branches(space)
    scores = th.randn(3, 10, branches.n)
    best, total = th.zeros(3, 10, len(sizes), dtype=th.int64), th.zeros(3, 10)
    for critic, row in itertools.product(range(3), range(10)):
        offset = 0
        for branch, size in enumerate(sizes):
            values = scores[critic, row, offset : offset + size].tolist()
            best[critic, row, branch] = values.index(max(values))
            total[critic, row] += max(values)
            offset += size
    assert th.equal(branches.argmax(scores), best)
    th.testing.assert_close(branches.select(scores, best), total)
    last = th.tensor(sizes) - 1
    expected = scores[0, :, np.cumsum(sizes) - 1].sum(dim=1)
    th.testing.assert_close(branches.select(scores[0], last.expand(10, -1)), expected)


@every_space
def test_max_entropies_are_those_of_the_uniform_policy(space, sizes):
    branches = Branches(space)
    masks = random_masks(sizes, 30)
    expected = [sum(math.log(branch.sum()) for branch in row.split(sizes)) for row in masks]
    th.testing.assert_close(branches.max_entropies(masks), th.tensor(expected))
    everything = branches.max_entropies(th.ones(4, branches.n, dtype=th.bool))
    th.testing.assert_close(everything, th.full((4,), branches.max_entropy))


@every_space
def test_good_masks(space, sizes):
    branches = Branches(space)
    masks = random_masks(sizes, 4).numpy()
    for given in (masks, masks.astype(np.int8), masks.astype(float), masks.tolist(), masks.reshape(4, 1, -1), list(masks)):
        checked = branches.check_masks(given, 4)
        assert checked.dtype == bool
        np.testing.assert_array_equal(checked, masks)
    assert branches.check_masks(masks[0], 1).shape == (1, branches.n)


def test_masks_that_forbid_everything():
    branches = Branches(spaces.MultiDiscrete([2, 3]))
    masks = np.ones((3, 5), dtype=bool)
    masks[2, 2:] = False  # all of the second branch, in the third environment
    with pytest.raises(ValueError, match=r"environment 2 forbids every option of branch 1 \(of 2\)"):
        branches.check_masks(masks, 3)
    with pytest.raises(ValueError, match=r"environment 0 forbids every option of branch 0 \(of 1\)"):
        Branches(spaces.Discrete(4)).check_masks(np.zeros(4), 1)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        # What is added to logits is 0 where an action is allowed: as a truth value it would be the opposite of a mask
        (np.array([[0.0] * 5, [0.0] * 4 + [-math.inf]]), r"True or 1 where an action is allowed .* got -inf.*values == 0"),
        (np.full((2, 5), 0.5), r"True or 1 where an action is allowed .* got 0\.5"),
        ([np.ones(5), np.ones(4)], r"need shape \(2, 5\).* masks of the shapes \[\(5,\), \(4,\)\]"),
        (np.ones((2, 4)), r"need shape \(2, 5\).*sizes \[2, 3\]"),
        (np.ones((5, 2)), r"need shape \(2, 5\).*got \(5, 2\)"),
        (np.ones(5), r"need shape \(2, 5\)"),
    ],
)
def test_wrong_masks(masks, message):
    with pytest.raises(ValueError, match=message):
        Branches(spaces.MultiDiscrete([2, 3])).check_masks(masks, 2)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (2,)),
        spaces.Dict(a=spaces.Discrete(2)),
        spaces.Tuple([spaces.Discrete(2)]),
        spaces.MultiDiscrete([[2, 3], [4, 2]]),
        spaces.MultiBinary([2, 2]),
    ],
    ids=str,
)
def test_refused_spaces(space):
    with pytest.raises(AssertionError, match=r"(?s)Expected .* for a Box use SoftAC_v1 .*ActionWrapper"):
        Branches(space)


@pytest.mark.parametrize("target_entropy", ["auto", 0.0, {"schedule": "linear", "start": 0.98, "end": 0.3}], ids=str)
def test_nothing_to_choose(target_entropy):
    """As in the first lesson of a curriculum. The ratio of two entropies that are 0 is no reason for NaN."""
    space = spaces.MultiDiscrete([1, 1])
    branches = Branches(space)
    log_pi = branches.log_softmax(th.randn(6, 2))
    assert (log_pi == 0.0).all() and (branches.sample(log_pi) == 0).all() and (branches.argmax(log_pi) == 0).all()
    assert branches.max_entropy == 0.0 and (branches.max_entropies(th.ones(6, 2, dtype=th.bool)) == 0.0).all()
    model = make_model(DiscreteSAC, RandomEnv(VECTOR, space), target_entropy=target_entropy).learn(40)
    assert model.target_entropy == 0.0 and all(p.isfinite().all() for p in model.policy.parameters())
