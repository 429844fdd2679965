"""The state of vectorized environments: that of each environment, and of the wrappers around all of them."""

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

from sb3_softac.resume.codecs import note_texts, read_attributes, write_separately
from sb3_softac.resume.environments import WRAP, CannotCapture, Resumable, read_environments, try_once, write_environments
from sb3_softac.resume.serialization import Codec, Reader, ResumeError, Writer, class_name


def layers(venv: VecEnv) -> list[VecEnv]:
    """The wrappers, the outermost first, and the wrapped environment."""
    return [venv, *layers(venv.venv)] if isinstance(venv, VecEnvWrapper) else [venv]


def _write_vec_env(writer: Writer, venv: Any, path: str) -> Any:
    *wrappers, base = layers(venv)
    try:
        environments = _write_environments(writer, base, path)
    except CannotCapture as error:
        writer.restarted.append(f"{path}: {error}")
        environments = None
    return {
        "layers": [class_name(layer) for layer in (*wrappers, base)],
        "environments": environments,
        "reset": writer.write_data([base._seeds, base._options], f"{path}.reset"),  # what waits for the next reset()
        "wrappers": [_write_wrapper(writer, wrapper, f"{path}.wrapper{i}") for i, wrapper in enumerate(wrappers)],
        # Not drawn from the training's generators: saving must not change the training
        "seed": zlib.crc32(np.random.get_state(legacy=False)["state"]["key"].tobytes()),  # type: ignore[call-overload]
    }


def _write_wrapper(writer: Writer, wrapper: VecEnv, path: str) -> Any:
    attributes = {name: part for name, part in vars(wrapper).items() if name not in ("venv", "class_attributes")}
    writer.note_classes(wrapper)
    note_texts(writer, wrapper, attributes, path)
    return write_separately(writer, attributes, path)


def _write_environments(writer: Writer, base: VecEnv, path: str) -> Any:
    """The states of all environments as JSON."""
    if isinstance(base, DummyVecEnv):
        written, tensors = write_environments(base.envs, f"{path}.environment", writer.baseline, writer.recording)
        if writer.baseline is not None and not writer.recording:
            try_once(base.envs, f"{path}.environment", written, tensors, writer.baseline)
        writer.tensors.update(tensors)
        writer.settings |= written.pop("settings")
        return written
    if isinstance(base, SubprocVecEnv):
        return _write_processes(writer, base, path)
    if hasattr(base, "get_state") and hasattr(base, "set_state"):
        return writer.write_data(base.get_state(), f"{path}.environments")
    raise CannotCapture(f"{type(base).__name__} has no methods get_state() and set_state(state)")


def _write_processes(writer: Writer, base: SubprocVecEnv, path: str) -> Any:
    if not all(base.env_is_wrapped(Resumable)):
        raise CannotCapture(f"the environments are in other processes. {WRAP}")
    for name in base.env_method("class_name"):
        if name != Resumable.__name__:
            raise CannotCapture(f"Resumable has to be the outermost wrapper, not {name}")
    if writer.recording:
        base.env_method("note_start")
    states = base.env_method("get_state")
    unknown = [state["unknown"] for state in states if "unknown" in state]
    if unknown:
        raise CannotCapture(unknown[0])
    for number, state in enumerate(states):
        texts = state.pop("settings")
        writer.settings |= {f"{path}.environment{number}{name.removeprefix('env0')}": texts[name] for name in texts}
    return writer.write_data(states, f"{path}.environments")


def _read_vec_env(reader: Reader, content: Any, venv: Any, path: str, in_place: bool) -> Any:
    *wrappers, base = layers(venv)
    if (now := [class_name(layer) for layer in layers(venv)]) != content["layers"]:
        raise ResumeError(
            f"{path} consisted of {', '.join(content['layers'])}, but consists of {', '.join(now)} now: create it as the "
            "interrupted program did"
        )
    seed, (seeds, options) = int(content["seed"]), reader.read_data(content["reset"], path)
    set_environments: Callable[[], Any] | None = None
    if content["environments"] is not None:
        try:
            set_environments = _read_environments(reader, content["environments"], base, path)
        except Exception as error:
            reader.restarted.append(f"{path}: {error}")

    def restore() -> None:
        restored = set_environments is not None
        try:
            if set_environments is not None:
                set_environments()
        except Exception as error:
            restored = False
            reader.restarted.append(f"{path}: {error}")
        base._seeds, base._options = seeds, options
        if not restored:
            venv.seed(seed)  # new episodes, not those from the start of the training again

    reader.change(restore)
    for number, (wrapper, attributes) in enumerate(zip(wrappers, content["wrappers"], strict=True)):
        read_attributes(reader, attributes, wrapper, f"{path}.wrapper{number}")
    return venv


def _read_environments(reader: Reader, written: Any, base: Any, path: str) -> Callable[[], Any]:
    """Read the states of the environments; the function that is returned restores them."""
    if isinstance(base, DummyVecEnv):
        return read_environments(base.envs, f"{path}.environment", written, reader.tensors, reader.baseline)
    states = reader.read_data(written, path)
    if not isinstance(base, SubprocVecEnv):
        return partial(base.set_state, states)
    return partial(_set_states, base, states, path)


def _set_states(base: SubprocVecEnv, states: list[Any], path: str) -> None:
    for number, state in enumerate(states):
        (problem,) = base.env_method("take_state", state, indices=number)
        if problem is not None:
            raise ResumeError(f"{path}.environment{number}: {problem}")


VEC_ENV = Codec("vec_env", lambda v: isinstance(v, VecEnv), _write_vec_env, _read_vec_env, shared=True)
