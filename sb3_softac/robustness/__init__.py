"""
Perturbations: Gymnasium wrappers that make an environment differ from that of the training, each with one strength.

``python -m sb3_softac.zoo robustness`` evaluates trained models under them. As an ``env_wrapper`` of RL Zoo they perturb the
training: ``env_wrapper: {sb3_softac.robustness.ActionNoise: {strength: 0.1}}``.
"""

from sb3_softac.robustness.noise import ActionNoise, DelayedActions, DroppedActions, ObservationNoise
from sb3_softac.robustness.parameters import PARAMETERS, Parameter
from sb3_softac.robustness.perturbation import Perturbation
from sb3_softac.robustness.plane import MovedGoals, Obstacle
from sb3_softac.robustness.simulator import BodyMass, Friction, Gravity, JointDamping, Push

PERTURBATIONS: dict[str, type[Perturbation]] = {
    "action_noise": ActionNoise,
    "observation_noise": ObservationNoise,
    "dropped_actions": DroppedActions,
    "delayed_actions": DelayedActions,
    "push": Push,
    "mass": BodyMass,
    "friction": Friction,
    "gravity": Gravity,
    "damping": JointDamping,
    "parameter": Parameter,
    "moved_goals": MovedGoals,
    "obstacle": Obstacle,
}
"""By the names that the command and the declaration of a study use."""

__all__ = ["PARAMETERS", "PERTURBATIONS", "Perturbation", *(cls.__name__ for cls in PERTURBATIONS.values())]
