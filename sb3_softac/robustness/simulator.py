"""Perturbations of MuJoCo: pushes, and changed masses, friction, gravity and damping."""

from operator import attrgetter
from typing import Any, ClassVar

import gymnasium as gym
import mujoco
import numpy as np

from sb3_softac.robustness.base import Perturbation
from sb3_softac.robustness.parameters import is_number
from sb3_softac.robustness.scaled import Scaled


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
    number = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) if isinstance(name, str) else -1
    if number < 1:  # 0 is the world, which nothing moves
        names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, k) for k in range(1, model.nbody)]
        raise ValueError(f"The MuJoCo model has no movable body {name!r}; it has {', '.join(filter(None, names))}")
    return number


def moves_along_x(model: mujoco.MjModel, body: int) -> bool:
    """
    :param model: MuJoCo model.
    :param body: Number of a body.
    :return: Whether the joints let its centre of mass move along the x axis of the world, in some position of several.
    """
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
        model = model_of(env, "Push")
        self._body = body_of(model, body)
        if not moves_along_x(model, self._body):
            raise ValueError(f"Push: no joint of {env.unwrapped} lets the body {body!r} move along the x axis")
        for name, number in (("steps", steps), ("every", every)):
            if not is_number(number) or number < 1 or number % 1:
                raise ValueError(f"Push: {name} must be a whole number of environment steps, at least 1, got {number!r}")
        self.steps, self.every = int(steps), int(every)
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


class ScaledModel(Scaled):
    """
    Multiplies arrays of the MuJoCo model by the strength.

    :param env: MuJoCo environment.
    :param strength: Factor.
    :raises ValueError: if the environment is not a MuJoCo environment, the factor is negative, or it changes nothing.
    """

    arrays: ClassVar[tuple[str, ...]]
    """Names of the arrays in the model."""

    def __init__(self, env: gym.Env, strength: float):
        model = model_of(env, type(self).__name__)
        super().__init__(env, tuple(name for name in self.arrays if hasattr(model, name.split(".")[0])))
        self.strength = strength

    def _read(self, env: gym.Env, name: str) -> np.ndarray:
        return attrgetter(name)(env.model)  # type: ignore[attr-defined]

    def _write(self, env: gym.Env, name: str, value: np.ndarray) -> None:
        self._read(env, name)[...] = value


class BodyMass(ScaledModel):
    """
    Scales the masses and moments of inertia of the bodies; what MuJoCo derives from them is recomputed.

    :param env: MuJoCo environment.
    :param strength: Factor, above 0.
    :param body: Name of the body; None for all.
    :raises ValueError: if the environment is not a MuJoCo environment or has no such body, the factor is not positive, or the
        body has no mass or cannot move.
    """

    lowest = 1e-3  # MuJoCo cannot simulate bodies without a mass
    arrays = ("body_mass", "body_inertia")

    def __init__(self, env: gym.Env, strength: float, body: str | None = None):
        model = model_of(env, "BodyMass")
        self._chosen = np.ones(model.nbody, bool) if body is None else np.arange(model.nbody) == body_of(model, body)
        super().__init__(env, strength)

    def _factor(self, name: str, strength: float) -> np.ndarray:
        factor = np.where(self._chosen, strength, 1.0)
        return factor[:, None] if name == "body_inertia" else factor

    def _derive(self, env: gym.Env) -> None:
        model = env.model  # type: ignore[attr-defined]
        mujoco.mj_setConst(model, mujoco.MjData(model))

    def _acts_elsewhere(self, env: gym.Env) -> bool:
        """A body that lies still may be pushed."""
        model = env.model  # type: ignore[attr-defined]
        return bool((self._chosen & (model.body_weldid > 0) & (model.body_mass > 0)).any())


class Friction(ScaledModel):
    """
    Scales the friction of all contacts: sliding, torsional and rolling. Friction within joints does not change.

    :param env: MuJoCo environment.
    :param strength: Factor, at least 0.
    :raises ValueError: if the environment is not a MuJoCo environment, the factor is negative, or there is no contact with
        friction.
    """

    arrays = ("geom_friction", "pair_friction")

    def _acts_elsewhere(self, env: gym.Env) -> bool:
        """Two bodies may touch that have not done so yet."""
        model = env.model  # type: ignore[attr-defined]
        if model.opt.disableflags & (mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT):
            return False
        touching = (model.geom_contype[:, None] & model.geom_conaffinity) > 0
        condim = np.maximum(model.geom_condim[:, None], model.geom_condim)
        body = model.body_weldid[model.geom_bodyid]
        parent = np.where(body > 0, model.body_weldid[model.body_parentid[body]], 0)
        # MuJoCo lets no body touch itself or its parent, unless the parent is the world
        apart = (body[:, None] != body) & ~((parent[:, None] == body) & (body > 0))
        return bool((touching & apart & apart.T & (condim > 1)).any() or (model.pair_dim > 1).any())


class JointDamping(ScaledModel):
    """
    Scales the damping of the joints: the coefficients of all powers of the velocity.

    :param env: MuJoCo environment.
    :param strength: Factor, at least 0.
    :raises ValueError: if the environment is not a MuJoCo environment, the factor is negative, or no joint is damped.
    """

    arrays = ("dof_damping", "dof_dampingpoly")  # older versions of MuJoCo have the first alone


class Gravity(ScaledModel):
    """
    Scales gravity.

    :param env: MuJoCo environment.
    :param strength: Factor, at least 0.
    :raises ValueError: if the environment is not a MuJoCo environment, the factor is negative, or gravity moves nothing.
    """

    arrays = ("opt.gravity",)
