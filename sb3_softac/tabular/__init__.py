"""
Exact answers: finite MDPs by soft value and soft policy iteration, Boltzmann policies of continuous actions by quadrature.

NumPy in float64 and SciPy's sparse matrices; no networks. The solutions are meant for teaching, and the tests compare the
algorithms with them.
"""

from sb3_softac.tabular.env import TabularEnv
from sb3_softac.tabular.mdp import TabularMDP
from sb3_softac.tabular.oracles import BoltzmannOracle, ks_distance, sliced_wasserstein_distance
from sb3_softac.tabular.playground import write_playground
from sb3_softac.tabular.solvers import (
    SoftSolution,
    soft_policy_evaluation,
    soft_policy_improvement,
    soft_policy_iteration,
    soft_value_iteration,
)

__all__ = [
    "BoltzmannOracle",
    "SoftSolution",
    "TabularEnv",
    "TabularMDP",
    "ks_distance",
    "sliced_wasserstein_distance",
    "soft_policy_evaluation",
    "soft_policy_improvement",
    "soft_policy_iteration",
    "soft_value_iteration",
    "write_playground",
]
