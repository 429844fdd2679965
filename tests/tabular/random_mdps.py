"""Random finite MDPs for the property tests."""

from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from sb3_softac.tabular import TabularMDP

two_hundred_mdps = settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


class Problem(NamedTuple):
    mdp: TabularMDP
    alpha: float
    rng: np.random.Generator


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """MDPs of 2 to 6 states and 1 to 4 actions with sparse rows, 0 or 1 terminal state, any discount and temperature."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n_states, n_actions = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    transitions = rng.dirichlet(np.full(n_states, 0.3), size=(n_states, n_actions))
    rewards = rng.normal(size=(n_states, n_actions)) * draw(st.sampled_from([0.1, 1.0, 10.0]))
    terminal = []
    if draw(st.booleans()):
        terminal = [n_states - 1]
        transitions[-1], rewards[-1] = np.eye(n_states)[-1], 0.0
    mdp = TabularMDP.from_arrays(transitions, rewards, draw(st.sampled_from([0.0, 0.5, 0.9, 0.97])), terminal)
    return Problem(mdp, draw(st.sampled_from([0.01, 0.2, 1.0, 5.0])), rng)
