"""Perturbations of MuJoCo: pushes, and changed masses, friction, gravity and damping."""

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np

from sb3_softac.checks import integer, read
from sb3_softac.robustness.perturbation import Perturbation
from sb3_softac.robustness.scaled import Scaled


def _model_of(perturbation: Perturbation) -> mujoco.MjModel:
    model = getattr(perturbation.unwrapped, "model", None)
    if not isinstance(model, mujoco.MjModel):
        raise ValueError(f"{type(perturbation).__name__} needs a MuJoCo environment, got {perturbation.unwrapped}")
    return model


def _paths(model: mujoco.MjModel, *arrays: str) -> list[str]:
    """:return: Paths from the environment to arrays of its model; older versions of MuJoCo do not have all of them."""
    return [f"model.{array}" for array in arrays if hasattr(model, array)]


def _number_of(model: mujoco.MjModel, body: str) -> int:
    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, body) if isinstance(body, str) else -1
    if number < 1:  # 0 is the world, which nothing moves
        names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, k) for k in range(1, model.nbody)]
        raise ValueError(f"The MuJoCo model has no movable body {body!r}; it has {', '.join(filter(None, names))}")
    return number


def _moves_along_x(model: mujoco.MjModel, body: int) -> bool:
    """:return: Whether the joints let the centre of mass move along the x axis of the world, in one of several positions."""
    data, jacobian, generator = mujoco.MjData(model), np.zeros((3, model.nv)), np.random.default_rng(0)
    for _ in range(5):
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_jacBodyCom(model, data, jacobian, None, body)
        if np.abs(jacobian[0]).max(initial=0.0) > 1e-9:
            return True
        mujoco.mj_integratePos(model, data.qpos, generator.standard_normal(model.nv), 1.0)
    return False


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
        model = _model_of(self)
        self._body = _number_of(model, body)
        if not _moves_along_x(model, self._body):
            raise ValueError(
                f"Push: no joint of {env.unwrapped} lets the body {body!r} move along the x axis: choose another body"
            )
        at_least_one = integer(1, " environment step")
        self.steps, self.every = read("Push: steps", steps, at_least_one), read("Push: every", every, at_least_one)
        self._left, self._direction = 0, 1.0
        self.strength = strength

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._left = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._left == 0 and self.generator.random() < 1 / self.every:
            self._left, self._direction = self.steps, self.generator.choice((-1.0, 1.0))
        force = self.strength * self._direction if self._left > 0 else 0.0
        self._left = max(self._left - 1, 0)
        if force == 0:
            return self.env.step(action)
        before = self._force_on_body()[0]
        self._force_on_body()[0] = pushed = before + force  # of other pushes, and of the environment itself
        result = self.env.step(action)
        if self._force_on_body()[0] == pushed:
            self._force_on_body()[0] = before
        return result

    def _force_on_body(self) -> np.ndarray:
        return self.unwrapped.data.xfrc_applied[self._body]  # type: ignore[attr-defined]


class BodyMass(Scaled):
    """
    Scales the masses and moments of inertia of the bodies; what MuJoCo derives from them is recomputed.

    :param env: MuJoCo environment.
    :param strength: Factor, above 0.
    :param body: Name of the body; None for all.
    :raises ValueError: if the environment is not a MuJoCo environment or has no such body, the factor is not positive, or the
        body has no mass or cannot move.
    """

    lowest = 1e-3  # MuJoCo cannot simulate bodies without a mass

    def __init__(self, env: gym.Env, strength: float, body: str | None = None):
        super().__init__(env)
        model = _model_of(self)
        self._chosen = np.ones(model.nbody, bool) if body is None else np.arange(model.nbody) == _number_of(model, body)
        self._scale(strength, "model.body_mass", "model.body_inertia")

    def _factor(self, name: str, strength: float) -> np.ndarray:
        factor = np.where(self._chosen, strength, 1.0)
        return factor[:, None] if name.endswith("inertia") else factor

    def _derive(self, env: gym.Env) -> None:
        model = env.model  # type: ignore[attr-defined]
        mujoco.mj_setConst(model, mujoco.MjData(model))

    def _acts_elsewhere(self) -> bool:
        """A body that lies still now may be pushed later."""
        model = _model_of(self)
        return bool((self._chosen & (model.body_weldid > 0) & (model.body_mass > 0)).any())


class Friction(Scaled):
    """
    Scales the friction of all contacts: sliding, torsional and rolling. Friction within joints does not change.

    :param env: MuJoCo environment.
    :param strength: Factor, at least 0.
    :raises ValueError: if the environment is not a MuJoCo environment, the factor is negative, or there is no contact with
        friction.
    """

    def __init__(self, env: gym.Env, strength: float):
        super().__init__(env)
        self._scale(strength, *_paths(_model_of(self), "geom_friction", "pair_friction"))

    def _acts_elsewhere(self) -> bool:
        """Two bodies that have not touched so far may do so later."""
        model = _model_of(self)
        if model.opt.disableflags & (mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT):
            return False
        touching = (model.geom_contype[:, None] & model.geom_conaffinity) > 0
        condim = np.maximum(model.geom_condim[:, None], model.geom_condim)
        body = model.body_weldid[model.geom_bodyid]
        parent = np.where(body > 0, model.body_weldid[model.body_parentid[body]], 0)
        # MuJoCo lets no body touch itself or its parent, unless the parent is the world
        apart = (body[:, None] != body) & ~((parent[:, None] == body) & (body > 0))
        return bool((touching & apart & apart.T & (condim > 1)).any() or (model.pair_dim > 1).any())


class JointDamping(Scaled):
    """
    Scales the damping of the joints: the coefficients of all powers of the velocity.

    :param env: MuJoCo environment.
    :param strength: Factor, at least 0.
    :raises ValueError: if the environment is not a MuJoCo environment, the factor is negative, or no joint is damped.
    """

    def __init__(self, env: gym.Env, strength: float):
        super().__init__(env)
        self._scale(strength, *_paths(_model_of(self), "dof_damping", "dof_dampingpoly"))


class Gravity(Scaled):
    """
    Scales gravity.

    :param env: MuJoCo environment.
    :param strength: Factor, at least 0.
    :raises ValueError: if the environment is not a MuJoCo environment, the factor is negative, or gravity moves nothing.
    """

    def __init__(self, env: gym.Env, strength: float):
        super().__init__(env)
        _model_of(self)
        self._scale(strength, "model.opt.gravity")
