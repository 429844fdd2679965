"""
The same batches and noise give the plain path's parameters, moments, targets, temperature and logs.

After one step they agree to 1e-5 of the largest element of a tensor (about 1e-7 is what is seen: rounding errors). After 100
steps they still do, as long as no rounding error falls on a kink. A ReLU whose input is 0 but for rounding is on in one of
the two ways and off in the other; the gradient of one unit of one layer then differs for one transition, and Adam makes a step
of 3 learning rates of it where that unit's gradients were 0 before, whatever their size. Some 1e8 inputs of ReLUs, as 100
steps of networks of 256 units have, make such a case likely; the plain path against itself, its parameters off by one rounding
error, drifts as far (1e-2). So the networks that do 100 steps here are small, or smooth.
"""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import ReplayBuffer
from torch import nn

from sb3_softac import DiscreteSAC, SoftAC_v1
from tests.engines.native.helpers import assert_close, both, is_fast, plan_of
from tests.toys import VECTOR, train

TOLERANCE = 1e-5
OBSERVATIONS = {
    "float32": VECTOR,
    "float64": spaces.Box(-2, 2, (3,), np.float64),
    "matrix": spaces.Box(-1, 1, (3, 2), np.float32),
    "uint8": spaces.Box(0, 3, (5,), np.uint8),
    "image": spaces.Box(0, 255, (5, 5, 1), np.uint8),
    "Discrete": spaces.Discrete(5),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "MultiBinary": spaces.MultiBinary(3),
}
BOXES = [spaces.Box(-1.0, 3.0, (size,)) for size in (1, 2, 5)]
DISCRETE = [
    spaces.Discrete(1),
    spaces.Discrete(2),
    spaces.Discrete(5, start=-1),
    spaces.MultiDiscrete([3, 3]),
    spaces.MultiDiscrete([2, 4, 1]),
    spaces.MultiBinary(3),
]
FEW = settings(max_examples=30, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
WIDTHS = st.lists(st.integers(1, 40), max_size=3)


@st.composite
def settings_of(draw, algorithm):
    """Arguments of make_model that C knows."""
    discrete, one_of = algorithm is DiscreteSAC, st.sampled_from
    obs = draw(one_of(sorted(OBSERVATIONS)))
    ent_coef = draw(one_of([0.2, "lin_0.5", lambda progress: 0.1 + progress, "auto", "auto_0.5"]))
    optimizer = dict(
        betas=draw(one_of([(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)])),
        eps=draw(one_of([1e-8, 1e-4])),
        weight_decay=draw(one_of([0.0, 0.1])),
        amsgrad=draw(st.booleans()),
        **draw(one_of([{}, dict(fused=False), dict(foreach=True)])),
    )
    arch = {name: draw(WIDTHS) for name in (("pi", "qf") if discrete else ("pi", "qf", "vf"))}
    n_critics = draw(st.integers(1, 4))
    policy_kwargs = dict(
        net_arch=arch,
        activation_fn=draw(one_of([nn.ReLU, nn.Tanh])),
        optimizer_class=draw(one_of([th.optim.Adam, th.optim.AdamW])),
        optimizer_kwargs=optimizer,
        **(dict(n_critics=n_critics) if discrete else {}),
    )
    own = (
        dict(
            critic_ent_coef_scale=draw(one_of([1.0, 0.3, 0.0])),
            q_aggregation=draw(one_of(["min", "mean"])),
            target_entropy=draw(one_of(["auto", "ratio_0.3", dict(schedule="linear", start=0.9, end=0.1)])),
            masked=draw(st.booleans()),
        )
        if discrete
        else dict(actor_q=draw(one_of(["min", "first"])), n_critics=n_critics, target_entropy=draw(one_of(["auto", -0.5])))
    )
    return dict(
        obs=OBSERVATIONS[obs],
        actions=draw(one_of(DISCRETE if discrete else BOXES)),
        normalized="float" in obs and draw(st.booleans()),
        n_envs=draw(st.integers(1, 2)),
        ent_coef=ent_coef,
        ent_coef_bounds=draw(one_of([None, (0.4995, 1.0005)])) if str(ent_coef).startswith("auto") else None,
        n_steps=draw(st.integers(1, 3)),
        gamma=draw(one_of([0.0, 0.9, 0.99])),
        tau=draw(one_of([0.0, 0.005, 0.5, 0.8, 1.0])),
        target_update_interval=draw(st.integers(1, 3)),
        batch_size=draw(one_of([1, 2, 7, 8, 33])),
        learning_rate=draw(one_of([1e-3, lambda progress: 1e-2 * progress])),
        policy_kwargs=policy_kwargs,
        **own,
    )


def compare(fast, plain, n_threads=1, steps=1, rtol=TOLERANCE):
    th.set_num_threads(n_threads)
    try:
        train(fast, steps)
    finally:
        th.set_num_threads(1)
    drawn = th.get_rng_state(), np.random.get_state()[1:3]
    train(plain, steps)
    assert is_fast(fast)
    assert plan_of(fast).n_threads == min(n_threads, fast.batch_size)
    assert th.equal(drawn[0], th.get_rng_state())
    assert all(np.array_equal(*pair) for pair in zip(drawn[1], np.random.get_state()[1:3], strict=True))
    assert_close(fast, plain, rtol)


def check(algorithm, n_threads=1, prepare=None, **kwargs):
    models = both(algorithm, **kwargs)
    for model in models if prepare else []:
        with th.no_grad():
            prepare(model)
    compare(*models, n_threads)
    compare(*models, n_threads, steps=3)


@given(chosen=settings_of(SoftAC_v1), n_threads=st.integers(1, 3))
@FEW
def test_drawn_softac_v1(chosen, n_threads):
    check(SoftAC_v1, n_threads, **chosen)


@given(chosen=settings_of(DiscreteSAC), n_threads=st.integers(1, 3))
@FEW
def test_drawn_discretesac(chosen, n_threads):
    check(DiscreteSAC, n_threads, **chosen)


def equal_critics(model):
    """Ties between the critics, of which each has its part of the gradient."""
    for weight in model.critic.parameters():
        weight[1:] = weight[:1]


def saturated(model):
    """Standard deviations at, within and beyond their bounds; actions at the ends of tanh."""
    model.actor.log_std.weight.zero_()
    model.actor.log_std.bias.copy_(th.tensor([2.0, -20.0, 1.9, 2.1, -20.5, -1.0]))
    model.actor.mu.bias.copy_(th.tensor([0.0, 0.1, 0.5, -0.5, -60.0, 30.0]))


def dead_units(model):
    """ReLUs whose inputs are 0 for all transitions, where PyTorch's gradient is 0."""
    for weight in (model.critic.q_networks.layers[0].weight, model.actor.latent_pi[0].weight):
        weight[..., :2, :] = 0.0
        weight[..., :, :2] = 0.0
    model.critic.q_networks.layers[0].bias.zero_()
    model.actor.latent_pi[0].bias.zero_()


def far_apart(model):
    """Logits of which all but one lose, and utilities of all sizes."""
    model.actor.logits[-1].bias.mul_(30.0)
    model.critic.q_networks.layers[-1].weight.mul_(20.0)


WIDE = dict(net_arch=[40, 300], activation_fn=nn.Tanh)
CORNERS = {
    "ties": (SoftAC_v1, dict(prepare=equal_critics, n_critics=3)),
    "ties, first": (SoftAC_v1, dict(prepare=equal_critics, n_critics=3, actor_q="first")),
    "saturated": (SoftAC_v1, dict(prepare=saturated, actions=spaces.Box(-1, 1, (6,)), ent_coef="auto")),
    "dead units": (SoftAC_v1, dict(prepare=dead_units)),
    "several threads": (SoftAC_v1, dict(n_threads=3, batch_size=11, ent_coef="auto", n_critics=3)),
    "more threads than transitions": (SoftAC_v1, dict(n_threads=3, batch_size=2, ent_coef="auto")),
    "wide": (SoftAC_v1, dict(n_threads=2, batch_size=260, policy_kwargs=WIDE, obs=spaces.Box(-1, 1, (300,)))),
    "buffer of SB3": (SoftAC_v1, dict(replay_buffer_class=ReplayBuffer)),
    "no hidden layers": (SoftAC_v1, dict(policy_kwargs=dict(net_arch=[]), n_threads=2)),
    "masks": (DiscreteSAC, dict(masked=True, actions=spaces.MultiDiscrete([3, 2, 4]), n_threads=2, prepare=far_apart)),
    "several branches": (DiscreteSAC, dict(actions=spaces.MultiDiscrete([3, 5]), n_threads=3, prepare=far_apart)),
    "mean": (DiscreteSAC, dict(actions=spaces.MultiDiscrete([3, 5]), q_aggregation="mean", prepare=far_apart)),
    "scale": (DiscreteSAC, dict(critic_ent_coef_scale=0.4, n_steps=3)),
    "wide, discrete": (DiscreteSAC, dict(n_threads=2, batch_size=260, policy_kwargs=WIDE, actions=spaces.Discrete(40))),
    "no hidden layers, discrete": (DiscreteSAC, dict(policy_kwargs=dict(net_arch=[]), n_threads=2)),
}


def test_more_threads_than_c_starts():
    """It starts 255; the first thread does the shares of the others."""
    fast, plain = both(SoftAC_v1, batch_size=300, n_critics=1, policy_kwargs=dict(net_arch=[2]))
    compare(fast, plain, n_threads=280)


@pytest.mark.parametrize("name", CORNERS)
def test_corners(name):
    algorithm, arguments = CORNERS[name]
    check(algorithm, **arguments)


def adam(algorithm, **kwargs):
    smooth = dict(net_arch=[16, 12], activation_fn=nn.Tanh)
    return algorithm, dict(batch_size=16, ent_coef="auto", policy_kwargs={**smooth, **kwargs})


LONG = {
    "SoftAC_v1": adam(SoftAC_v1),
    "SoftAC_v1, ReLU": (SoftAC_v1, dict(ent_coef="lin_0.5", tau=0.05)),
    "SoftAC_v1, AdamW": adam(
        SoftAC_v1, optimizer_class=th.optim.AdamW, optimizer_kwargs=dict(weight_decay=0.5, amsgrad=True, betas=(0.8, 0.9))
    ),
    "DiscreteSAC": adam(DiscreteSAC),
    "DiscreteSAC, ReLU": (DiscreteSAC, dict(masked=True, actions=spaces.MultiDiscrete([2, 3]), tau=0.05)),
    "DiscreteSAC, Adam with decay": adam(DiscreteSAC, optimizer_kwargs=dict(weight_decay=0.5, amsgrad=True)),
}


@pytest.mark.parametrize("name", LONG)
def test_after_100_steps(name):
    algorithm, arguments = LONG[name]
    compare(*both(algorithm, **arguments), steps=100)


def test_a_small_gradient_after_a_large_one():
    """Its digits are not lost in the moment of the large one."""
    models = both(SoftAC_v1, policy_kwargs=dict(optimizer_kwargs=dict(betas=(0.0, 0.999))))
    for scale in (1e8, 1e-8):
        for model in models:
            model.replay_buffer.rewards *= scale
        compare(*models)
    moments = [[state["exp_avg"] for state in model.policy.optimizer.state.values()] for model in models]
    for mine, theirs in zip(*moments, strict=True):
        th.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-6)


def test_learning_is_the_same():
    """Acting and storing in between: rounding errors of actions do not matter to the random environment."""
    fast, plain = both(DiscreteSAC, ent_coef="auto")
    for model in (fast, plain):
        model.learning_starts = 0
        model.set_random_seed(3)
        model.learn(60, reset_num_timesteps=False)
    assert is_fast(fast) and fast._n_updates == 61
    assert_close(fast, plain, TOLERANCE)
