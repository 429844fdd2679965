"""Simulators whose state is not in Python objects: MuJoCo, and Atari if it is installed."""

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.envs.mujoco import MujocoEnv

from sb3_softac.resume.codecs import note_texts, read_attributes, write_attributes
from sb3_softac.resume.serialization import REMEDY, Codec, Reader, ResumeError, Writer

SPEC = mujoco.mjtState.mjSTATE_INTEGRATION


def _arrays(holder: Any) -> dict[str, np.ndarray]:
    """The floating-point arrays of a MuJoCo structure; writing to them changes the structure."""
    values = {name: getattr(holder, name) for name in dir(holder) if not name.startswith("_")}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"}


def _write_mujoco(writer: Writer, value: Any, path: str) -> Any:
    physics = np.empty(mujoco.mj_stateSize(value.model, SPEC))
    mujoco.mj_getState(value.model, value.data, physics, SPEC)
    attributes = {name: part for name, part in vars(value).items() if name not in ("model", "data")}
    # Environments read what was derived from the state before, such as positions of bodies, and randomise the model
    arrays = {name: _arrays(getattr(value, name)) for name in ("data", "model")}
    options = _arrays(value.model.opt)
    writer.note_classes(value)
    note_texts(writer, value, attributes, path)
    for name, part in {**options, **arrays["model"]}.items():
        writer.note_setting(part, f"{path}.model.{name}")
    return {
        "physics": writer.write_data(physics, f"{path}.physics"),
        "options": writer.write_data(options, f"{path}.options"),
        "arrays": writer.write_data(arrays, f"{path}.arrays"),
        "attributes": write_attributes(writer, attributes, path),
    }


def _read_mujoco(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    physics, options = (reader.read_data(content[name], path) for name in ("physics", "options"))
    if len(physics) != mujoco.mj_stateSize(live.model, SPEC):
        raise ResumeError(f"{path}: the MuJoCo model differs from the saved one. {REMEDY}")
    arrays = reader.read_data(content["arrays"], path)
    reader.change(_set_physics, live, physics, options, arrays)
    read_attributes(reader, content["attributes"], live, path)
    return live


def _set_physics(env: Any, physics: np.ndarray, options: dict[str, np.ndarray], arrays: Any) -> None:
    _copy(options, env.model.opt)
    _copy(arrays["model"], env.model)
    mujoco.mj_setState(env.model, env.data, physics, SPEC)
    mujoco.mj_forward(env.model, env.data)  # contacts and what else has no fixed size
    _copy(arrays["data"], env.data)


def _copy(arrays: dict[str, np.ndarray], holder: Any) -> None:
    for name, target in _arrays(holder).items():
        if name in arrays and target.shape == arrays[name].shape:
            target[...] = arrays[name]


def _is_atari(value: Any) -> bool:
    return isinstance(value, gym.Env) and (type(value).__module__, type(value).__name__) == ("ale_py.env", "AtariEnv")


def _write_atari(writer: Writer, value: Any, path: str) -> Any:
    attributes = {name: part for name, part in vars(value).items() if name != "ale"}
    note_texts(writer, value, attributes, path)
    state = writer.write_data(value.clone_state(include_rng=True).serialize(), f"{path}.state")
    return {"state": state, "attributes": write_attributes(writer, attributes, path)}


def _read_atari(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    import ale_py

    reader.change(live.restore_state, ale_py.ALEState(reader.read_data(content["state"], path)))
    read_attributes(reader, content["attributes"], live, path)
    return live


SIMULATORS = (
    Codec("mujoco", lambda v: isinstance(v, MujocoEnv), _write_mujoco, _read_mujoco, shared=True),
    Codec("atari", _is_atari, _write_atari, _read_atari, shared=True),
)
