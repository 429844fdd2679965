"""Perturbations of MuJoCo: pushes, and changed masses, friction, gravity and damping."""

from typing import Any, ClassVar

import gymnasium as gym
import mujoco
import numpy as np

from sb3_softac.robustness.base import Perturbation


def model_of(env: gym.Env, who: str) -> mujoco.MjModel:
    """
    :param env: Environment.
    :param who: Who asks, for the error.
    :return: Its MuJoCo model.
    :raises ValueError: if it has none.
    """
    model = getattr(env.unwrapped, "model", None)
    if not isinstance(model, mujoco.MjModel):
        raise ValueError(f"{who} needs a MuJoCo environment, got {env.unwrapped}")
    return model


def body_of(model: mujoco.MjModel, name: str) -> int:
    """
    :param model: MuJoCo model.
    :param name: Name of a body.
    :return: Its number.
    :raises ValueError: if there is no such body.
    """
    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name)
    if number < 1:  # 0 is the world, which nothing moves
        names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, k) for k in range(1, model.nbody)]
        raise ValueError(f"The MuJoCo model has no movable body {name!r}; it has {', '.join(filter(None, names))}")
    return number


class Push(Perturbation):
    """
    Pushes on the centre of mass of a body, forwards or backwards along the x axis of the world, along which Gymnasium's robots
    run. In each step without a push one begins with probability ``1 / every``; both directions are equally likely.

    :param env: MuJoCo environment.
    :param strength: Force in newtons (where the model is in SI units, as Gymnasium's are).
    :param body: Name of the body.
    :param steps: Duration of a push in environment steps.
    :param every: Mean number of environment steps between the end of a push and the next one.
    :raises ValueError: if the environment is not a MuJoCo environment or has no such body, or a number is out of range.
    """

    unit = "force in N"
    strengths = (25.0, 50.0, 100.0, 200.0)

    def __init__(self, env: gym.Env, strength: float, body: str = "torso", steps: int = 5, every: int = 100):
        super().__init__(env)
        self._body = body_of(model_of(env, "Push"), body)
        for name, number in (("steps", steps), ("every", every)):
            if not isinstance(number, int) or number < 1:
                raise ValueError(f"Push: {name} must be a whole number of environment steps, at least 1, got {number!r}")
        self.steps, self.every = steps, every
        self._left, self._direction = 0, 1.0
        self.strength = strength

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """
        :param seed: Seed of the environment, and of the times and directions of the pushes.
        :param options: Options of the environment.
        :return: Observation and info.
        """
        self._left = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        :param action: Action.
        :return: What the environment returns while the body is pushed.
        """
        if self._left == 0 and self.generator.random() < 1 / self.every:
            self._left, self._direction = self.steps, self.generator.choice((-1.0, 1.0))
        pushed = self._left > 0 and self.strength > 0
        self.env.unwrapped.data.xfrc_applied[self._body, 0] = self.strength * self._direction if pushed else 0.0  # type: ignore[attr-defined]
        self._left = max(self._left - 1, 0)
        return self.env.step(action)


class ScaledModel(Perturbation):
    """
    Multiplies numbers of the MuJoCo model by the strength.

    All wrappers of the environment share this model; a strength of 1 restores its numbers.

    :param env: MuJoCo environment.
    :param strength: Factor.
    :raises ValueError: if the environment is not a MuJoCo environment, or the factor is negative.
    """

    unit = "factor"
    neutral = 1.0
    strengths = (0.5, 0.75, 1.25, 1.5, 2.0)
    arrays: ClassVar[tuple[str, ...]]
    """Names of the arrays in the model."""

    def __init__(self, env: gym.Env, strength: float):
        super().__init__(env)
        model = model_of(env, type(self).__name__)
        self._nominal = {name: array.copy() for name in self.arrays if (array := getattr(model, name, None)) is not None}
        self.strength = strength

    def _apply(self) -> None:
        for name, nominal in self._nominal.items():
            getattr(self.env.unwrapped.model, name)[...] = self.strength * nominal  # type: ignore[attr-defined]


class BodyMass(ScaledModel):
    """
    Scales the masses and moments of inertia of the bodies; what MuJoCo derives from them is recomputed.

    :param env: MuJoCo environment.
    :param strength: Factor, above 0.
    :param body: Name of the body; None for all.
    :raises ValueError: if the environment is not a MuJoCo environment or has no such body, or the factor is not positive.
    """

    lowest = 1e-3  # MuJoCo cannot simulate bodies without a mass
    arrays = ("body_mass", "body_inertia")

    def __init__(self, env: gym.Env, strength: float, body: str | None = None):
        model = model_of(env, "BodyMass")
        self._chosen = np.ones(model.nbody, bool) if body is None else np.arange(model.nbody) == body_of(model, body)
        super().__init__(env, strength)

    def _apply(self) -> None:
        model = self.env.unwrapped.model  # type: ignore[attr-defined]
        for name, nominal in self._nominal.items():
            getattr(model, name)[self._chosen] = self.strength * nominal[self._chosen]
        mujoco.mj_setConst(model, mujoco.MjData(model))


class Friction(ScaledModel):
    """
    Scales the friction of all contacts: sliding, torsional and rolling. Friction within joints does not change.

    :param env: MuJoCo environment.
    :param strength: Factor, at least 0.
    """

    arrays = ("geom_friction", "pair_friction")


class JointDamping(ScaledModel):
    """
    Scales the damping of the joints: the coefficients of all powers of the velocity.

    :param env: MuJoCo environment.
    :param strength: Factor, at least 0.
    """

    arrays = ("dof_damping", "dof_dampingpoly")  # older versions of MuJoCo have the first alone


class Gravity(Perturbation):
    """
    Scales gravity.

    :param env: MuJoCo environment.
    :param strength: Factor, at least 0.
    :raises ValueError: if the environment is not a MuJoCo environment, or the factor is negative.
    """

    unit = "factor"
    neutral = 1.0
    strengths = (0.5, 0.75, 1.25, 1.5, 2.0)

    def __init__(self, env: gym.Env, strength: float):
        super().__init__(env)
        self._nominal = model_of(env, "Gravity").opt.gravity.copy()
        self.strength = strength

    def _apply(self) -> None:
        self.env.unwrapped.model.opt.gravity[...] = self.strength * self._nominal  # type: ignore[attr-defined]
