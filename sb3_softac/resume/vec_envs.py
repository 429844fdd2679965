"""The state of vectorized environments: that of each environment, and of the wrappers around all of them."""

import zlib
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

from sb3_softac.resume.environments import WRAP, CannotCapture, Resumable, read_environment, write_environment
from sb3_softac.resume.kinds import read_attributes, write_attributes
from sb3_softac.resume.plain import Kind, Reader, ResumeError, Writer


def _layers(venv: VecEnv) -> list[VecEnv]:
    """:return: The wrappers, the outermost first, and the wrapped environment."""
    return [venv, *_layers(venv.venv)] if isinstance(venv, VecEnvWrapper) else [venv]


def _write_vec_env(writer: Writer, venv: Any, path: str) -> Any:
    *wrappers, base = _layers(venv)
    try:
        environments = _write_environments(writer, base, path)
    except CannotCapture as error:
        writer.anew.append(f"{path}: {error}")
        environments = None
    attributes = [
        {name: part for name, part in vars(wrapper).items() if name not in ("venv", "class_attributes")}
        for wrapper in wrappers
    ]
    return {
        "environments": environments,
        "reset": writer.write([base._seeds, base._options], f"{path}.reset"),  # what waits for the next reset()
        "wrappers": [write_attributes(writer, part, f"{path}.{i}") for i, part in enumerate(attributes)],
        # Without a draw from the generators of the training, which is not to depend on being saved
        "seed": zlib.crc32(np.random.get_state(legacy=False)["state"]["key"].tobytes()),  # type: ignore[call-overload]
    }


def _write_environments(writer: Writer, base: VecEnv, path: str) -> Any:
    """:return: The states of all environments as JSON."""
    if isinstance(base, DummyVecEnv):
        written = []
        for number, env in enumerate(base.envs):
            state, tensors = write_environment(env, f"{path}.environment{number}")
            writer.tensors.update(tensors)
            written.append(state)
        return written
    if isinstance(base, SubprocVecEnv):
        if not all(base.env_is_wrapped(Resumable)):
            raise CannotCapture(f"the environments are in other processes. {WRAP}")
        states = base.env_method("get_state")
        unknown = [state["unknown"] for state in states if "unknown" in state]
        if unknown:
            raise CannotCapture(unknown[0])
        return writer.write(states, f"{path}.environments")
    if hasattr(base, "get_state") and hasattr(base, "set_state"):
        return writer.write(base.get_state(), f"{path}.environments")
    raise CannotCapture(f"{type(base).__name__} has no methods get_state() and set_state(state)")


def _read_vec_env(reader: Reader, content: Any, venv: Any, path: str) -> Any:
    *wrappers, base = _layers(venv)
    if len(wrappers) != len(content["wrappers"]):
        raise ResumeError(
            f"{path} had {len(content['wrappers'])} wrappers around its environments, but has {len(wrappers)} now"
        )
    if content["environments"] is not None:
        _read_environments(reader, content["environments"], base, path)
    base._seeds, base._options = reader.read(content["reset"], None, path)
    for number, (wrapper, attributes) in enumerate(zip(wrappers, content["wrappers"], strict=True)):
        read_attributes(reader, attributes, wrapper, f"{path}.{number}")
    if content["environments"] is None:
        venv.seed(content["seed"])  # new episodes, and not those of the beginning of the training
    return venv


def _read_environments(reader: Reader, written: Any, base: Any, path: str) -> None:
    if isinstance(base, DummyVecEnv):
        for number, (env, state) in enumerate(zip(base.envs, written, strict=True)):
            read_environment(env, f"{path}.environment{number}", state, reader.tensors)
        return
    states = reader.read(written, None, path)
    if not isinstance(base, SubprocVecEnv):
        base.set_state(states)
        return
    for number, state in enumerate(states):
        (problem,) = base.env_method("take_state", state, indices=number)
        if problem is not None:
            raise ResumeError(f"{path}.environment{number}: {problem}")


def starts_anew(written: dict[str, Any]) -> bool:
    """
    :param written: A vectorized environment as JSON.
    :return: Whether its episodes could not be saved.
    """
    return written["vec_env"]["environments"] is None


VEC_ENV = Kind("vec_env", lambda v: isinstance(v, VecEnv), _write_vec_env, _read_vec_env)
