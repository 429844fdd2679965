"""No equation broadcasts: tensors of different shapes are refused with their names and shapes."""

import pytest
import torch as th

from sb3_softac.equations.bellman import q_loss, soft_bellman_target
from sb3_softac.equations.discrete_sac import policy_loss as discrete_policy_loss
from sb3_softac.equations.discrete_sac import soft_state_value
from sb3_softac.equations.flow import affine, inverse_affine, stretch
from sb3_softac.equations.mixture import mean_over_components, mixture_log_prob
from sb3_softac.equations.soft_q import (
    effective_sample_size,
    importance_sampled_soft_value,
    mean_of_continuing,
    soft_policy_entropy,
)
from sb3_softac.equations.softac_v1 import likelihood_ratio_loss, policy_loss, soft_value_target, value_loss
from sb3_softac.equations.squashing import gaussian_log_prob, squashed_log_prob
from sb3_softac.equations.stable_discrete_sac import clipped_q_loss, entropy_penalty
from sb3_softac.equations.stein import sampler_loss, svgd_direction, unsquashed_score

# An equation, the shapes of its first arguments, and what follows them
CASES = [
    (soft_bellman_target, [(3,), (3,), (3, 1)], [0.9]),
    (soft_bellman_target, [(3, 1), (3, 1), (3, 1), (3,)], []),
    (q_loss, [(2, 3), (3, 1)], []),
    (soft_state_value, [(4, 3), (4, 1)], [0.2]),
    (discrete_policy_loss, [(2, 4, 3), (4, 3)], [0.2]),
    (affine, [(3,), (1,), (3,)], []),
    (inverse_affine, [(3,), (1,), (3,)], []),
    (stretch, [(3,), (1,)], []),
    (mixture_log_prob, [(1, 2), (3, 5), (3, 5, 2), (3, 5, 2)], []),
    (mixture_log_prob, [(5, 2), (1, 5), (3, 5, 2), (3, 5, 2)], []),
    (mean_over_components, [(5,), (3, 5)], []),
    (importance_sampled_soft_value, [(4, 8), (8,)], [1.0]),
    (effective_sample_size, [(4, 8), (8,)], [1.0]),
    (soft_policy_entropy, [(4, 8), (8,)], [1.0]),
    (mean_of_continuing, [(3,), (3, 1)], []),
    (soft_value_target, [(3,), (3, 1)], [0.2]),
    (value_loss, [(3,), (3, 1)], []),
    (policy_loss, [(3,), (3, 1)], [0.2]),
    (likelihood_ratio_loss, [(3,), (3,), (3, 1)], [0.5]),
    (squashed_log_prob, [(5, 1), (5, 2)], []),
    (gaussian_log_prob, [(5, 2), (5, 1)], []),
    (clipped_q_loss, [(2, 5), (2, 1), (5,)], [0.5]),
    (clipped_q_loss, [(2, 5), (2, 5), (5, 1)], [0.5]),
    (entropy_penalty, [(5,), (5, 1)], []),
    (unsquashed_score, [(3, 2), (2,)], [1.0]),
    (svgd_direction, [(4, 2), (3, 2), (4, 1)], []),
    (svgd_direction, [(5, 4, 2), (3, 2), (5, 4, 2)], []),
    (sampler_loss, [(3, 2), (2,)], []),
]


@pytest.mark.parametrize(("equation", "shapes", "more"), CASES, ids=lambda part: getattr(part, "__name__", None))
def test_no_silent_broadcast(equation, shapes, more):
    with pytest.raises(ValueError, match=r"one shape, got \w+ \(.*\), \w+ \("):
        equation(*map(th.ones, shapes), *more)
