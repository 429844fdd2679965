"""
The state of environments, wrappers included.

An environment that keeps its state in plain attributes (numbers, arrays, containers, random generators, objects made of them)
needs nothing more. Any other environment needs the methods ``get_state()``, which returns plain data, and ``set_state(state)``,
which restores the environment from it. If a class has these methods, its attributes are not inspected.
"""

import json
import multiprocessing
import os
import signal
import stat
import zlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import torch as th
from gymnasium.envs.mujoco import MujocoEnv
from stable_baselines3.common.monitor import ResultsWriter
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecEnvWrapper

from sb3_softac.resume.box2d import is_box2d, record_episodes
from sb3_softac.resume.codecs import PLAIN_CODECS, composite, decode_parts, encode_parts
from sb3_softac.resume.generators import generator_states, set_generator_states
from sb3_softac.resume.traversal import (
    Codec,
    Decoder,
    Encoder,
    Fresh,
    ResumeError,
    StartObjects,
    check_needs,
    class_name,
    decode_attributes,
    encode_attributes,
    leaves_of,
    set_attribute,
)
from sb3_softac.resume.trial import differs_when_restored

WRAP = "Wrap each environment in sb3_softac.resume.Resumable (make_vec_env(..., wrapper_class=Resumable))"
CLOCKS = (".t_start", ".episode_start_time")


class CannotCapture(Exception):
    """Names the part of an environment that is neither plain data nor known to have no state."""


# Environments with methods of their own


def _has_protocol(value: Any) -> bool:
    cls = type(value)
    both = callable(getattr(cls, "get_state", None)) and callable(getattr(cls, "set_state", None))
    return isinstance(value, gym.Env) and both and not isinstance(value, Resumable)


def _generators(env: Any) -> dict[str, Any]:
    """The attributes that hold random generators in every environment; get_state() need not return them."""
    attributes = vars(env.unwrapped)
    return {name: attributes[name] for name in ("_np_random", "action_space", "observation_space") if name in attributes}


def _encode_protocol(encoder: Encoder, value: Any, path: str) -> Any:
    state = encoder.encode(Fresh(value.get_state()), f"{path}.get_state()")
    return {"class": class_name(value), "state": state, "parts": encode_parts(encoder, _generators(value), path)}


def _decode_protocol(decoder: Decoder, content: Any, live: Any, path: str, at_start: bool) -> Any:
    live.set_state(decoder.decode(content["state"], None, path))
    there = _generators(live)
    for name, value in decode_parts(decoder, content["parts"], there, path).items():
        if name in there:
            set_attribute(live.unwrapped, name, value)
    return live


# Monitor's file


def _decode_episodes(decoder: Decoder, content: str, live: Any, path: str, at_start: bool) -> Any:
    if stat.S_ISREG(os.fstat(live.file_handler.fileno()).st_mode):  # in a trial it is the null device
        live.file_handler.seek(0)
        live.file_handler.truncate()
        live.file_handler.write(content)
        live.file_handler.flush()
    return live


# Simulators whose state is not in Python objects

MUJOCO_STATE = mujoco.mjtState.mjSTATE_INTEGRATION


def _float_arrays(holder: Any) -> dict[str, np.ndarray]:
    """The floating-point arrays of a MuJoCo structure; writing to them changes the structure."""
    values = {name: getattr(holder, name) for name in dir(holder) if not name.startswith("_")}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"}


def _mujoco_parts(env: Any) -> dict[str, Any]:
    physics = np.empty(mujoco.mj_stateSize(env.model, MUJOCO_STATE))
    mujoco.mj_getState(env.model, env.data, physics, MUJOCO_STATE)
    # Environments read what was derived from the state before, such as positions of bodies, and randomise the model
    arrays = {"options": env.model.opt, "model": env.model, "data": env.data}
    return {"physics": Fresh(physics)} | {name: Fresh(_float_arrays(holder)) for name, holder in arrays.items()}


def _fill_mujoco(env: Any, parts: Any, live: Any) -> Any:
    def copy(arrays: dict[str, np.ndarray], holder: Any) -> None:
        for name, target in _float_arrays(holder).items():
            if name in arrays and target.shape == arrays[name].shape:
                target[...] = arrays[name]

    if len(parts["physics"]) != mujoco.mj_stateSize(env.model, MUJOCO_STATE):
        raise ResumeError("The MuJoCo model differs from the saved one")
    copy(parts["options"], env.model.opt)
    copy(parts["model"], env.model)
    mujoco.mj_setState(env.model, env.data, parts["physics"], MUJOCO_STATE)
    mujoco.mj_forward(env.model, env.data)  # contacts and what else has no fixed size
    copy(parts["data"], env.data)
    return env


def _fill_atari(env: Any, parts: Any, live: Any) -> Any:
    import ale_py

    env.restore_state(ale_py.ALEState(parts["state"]))
    return env


# Vectorized environments


def _layers(venv: VecEnv) -> list[VecEnv]:
    """The wrappers, the outermost first, and the wrapped environment."""
    return [venv, *_layers(venv.venv)] if isinstance(venv, VecEnvWrapper) else [venv]


def _wrapper_attributes(wrapper: VecEnv) -> dict[str, Any]:
    return {name: part for name, part in vars(wrapper).items() if name not in ("venv", "class_attributes")}


def _encode_vec_env(encoder: Encoder, venv: Any, path: str) -> Any:
    *wrappers, base = _layers(venv)
    try:
        environments = _encode_environments(encoder, base, path)
    except CannotCapture as error:
        encoder.restarted.append(f"{path}: {error}")
        environments = None
    contents = [encode_attributes(encoder, w, _wrapper_attributes(w), f"{path}.wrapper{i}") for i, w in enumerate(wrappers)]
    encoder.note_settings(leaves_of([part["attributes"] for part in contents], encoder.memory.tensors, f"{path}.wrappers"))
    return {
        "layers": [class_name(layer) for layer in (*wrappers, base)],
        "environments": environments,
        "reset": encoder.encode(Fresh([base._seeds, base._options]), f"{path}.reset"),  # what waits for the next reset()
        "wrappers": contents,
        "settings": {name: text for name, text in encoder.settings.items() if name.startswith(f"{path}.")},
        # Without a draw from the generators of the training, which is not to depend on being saved
        "seed": zlib.crc32(np.random.get_state(legacy=False)["state"]["key"].tobytes()),  # type: ignore[call-overload]
    }


def _encode_environments(encoder: Encoder, base: VecEnv, path: str) -> Any:
    if isinstance(base, DummyVecEnv):
        document, tensors = capture_environments(base.envs, path, encoder.start, encoder.recording)
        encoder.memory.tensors.update(tensors)
        encoder.settings |= document["settings"]
        return document
    if isinstance(base, SubprocVecEnv):
        if not all(base.env_is_wrapped(Resumable)):
            raise CannotCapture(f"the environments are in other processes. {WRAP}")
        states = [{"settings": part} for part in base.env_method("note_start")] if encoder.recording else []
        states = states or base.env_method("get_state")
        unknown = [state["unknown"] for state in states if "unknown" in state]
        if unknown:
            raise CannotCapture(unknown[0])
        for number, state in enumerate(states):
            texts = {f"{path}.{number}.{name.removeprefix('env.0.')}": text for name, text in state["settings"].items()}
            encoder.note_settings(texts)
        return encoder.encode(Fresh(states), f"{path}.environments")
    if hasattr(base, "get_state") and hasattr(base, "set_state"):
        return encoder.encode(Fresh(base.get_state()), f"{path}.environments")
    raise CannotCapture(f"{type(base).__name__} has no methods get_state() and set_state(state)")


def _decode_vec_env(decoder: Decoder, content: Any, venv: Any, path: str, at_start: bool) -> Any:
    layers = _layers(venv)
    *wrappers, base = layers
    if (now := [class_name(layer) for layer in layers]) != content["layers"]:
        raise ResumeError(
            f"{path} consisted of {', '.join(content['layers'])}, but consists of {', '.join(now)} now: create it as the "
            "interrupted program did"
        )
    restored = content["environments"] is not None
    if restored:
        try:
            _decode_environments(decoder, content["environments"], base, path)
        except Exception as error:
            restored = False
            decoder.restarted.append(f"{path}: {error}")
    base._seeds, base._options = decoder.decode(content["reset"], None, path)
    for number, (wrapper, part) in enumerate(zip(wrappers, content["wrappers"], strict=True)):
        decode_attributes(decoder, part, wrapper, f"{path}.wrapper{number}", _wrapper_attributes(wrapper))
    if not restored:
        venv.seed(content["seed"])  # new episodes, and not those of the beginning of the training
    decoder.start.replace_settings(path, content["settings"])
    return venv


def _decode_environments(decoder: Decoder, content: Any, base: Any, path: str) -> None:
    if isinstance(base, DummyVecEnv):
        restore_environments(base.envs, path, content, decoder.tensors, decoder.start)
        return
    states = decoder.decode(content, None, path)
    if not isinstance(base, SubprocVecEnv):
        base.set_state(states)
        return
    for number, state in enumerate(states):
        (problem,) = base.env_method("take_state", state, indices=number)
        if problem is not None:
            raise ResumeError(f"{path}.{number}: {problem}")


def starts_anew(node: dict[str, Any]) -> bool:
    """Whether the episodes of a vectorized environment could not be saved."""
    return node["vec_env"]["environments"] is None


ENVIRONMENT_CODECS = (
    Codec("vec_env", lambda v: isinstance(v, VecEnv), _encode_vec_env, _decode_vec_env, in_place=True),
    Codec("protocol", _has_protocol, _encode_protocol, _decode_protocol, in_place=True),
    Codec(
        "episodes",
        lambda v: isinstance(v, ResultsWriter),
        lambda encoder, v, path: Path(v.file_handler.name).read_text(),
        _decode_episodes,
        in_place=True,
    ),
    composite(
        "mujoco",
        lambda v: isinstance(v, MujocoEnv),
        _mujoco_parts,
        _fill_mujoco,
        in_place=True,
        attributes=lambda v: {name: part for name, part in vars(v).items() if name not in ("model", "data")},
    ),
    composite(
        "atari",
        lambda v: isinstance(v, gym.Env) and (type(v).__module__, type(v).__name__) == ("ale_py.env", "AtariEnv"),
        lambda v: {"state": Fresh(v.clone_state(include_rng=True).serialize())},
        _fill_atari,
        in_place=True,
        attributes=lambda v: {name: part for name, part in vars(v).items() if name != "ale"},
    ),
    *PLAIN_CODECS,
)


def capture_environments(
    envs: list[gym.Env], path: str, start: StartObjects, recording: bool = False
) -> tuple[dict[str, Any], dict[str, th.Tensor]]:
    """
    :param envs: Environments, with their wrappers.
    :param path: Their name.
    :param start: The objects at the start of the training.
    :param recording: Whether it starts now.
    :return: Their state as JSON and tensors.
    :raises CannotCapture: if a part of it cannot be saved, or it turns out not to be all that the environments depend on.
    """
    encoder = Encoder(ENVIRONMENT_CODECS, start, recording)
    nodes = {f"{path}.{number}": encoder.encode(env, f"{path}.{number}") for number, env in enumerate(envs)}
    texts = leaves_of(nodes, encoder.memory.tensors)
    encoder.note_settings({name: text for name, text in texts.items() if not name.endswith(CLOCKS)})
    document, tensors = encoder.document(nodes), encoder.memory.tensors
    if recording:
        return document, tensors
    if encoder.lost:
        others = f" and {len(encoder.lost) - 1} more" if len(encoder.lost) > 1 else ""
        remedy = "give it the methods get_state() and set_state(state)"
        if any(is_box2d(env) for env in envs):
            remedy = f"it belongs to Box2D. {WRAP}"
        raise CannotCapture(f"{encoder.lost[0]}{others} is not plain data: {remedy}")
    if path not in start.trials:  # only once
        start.trials[path] = differs_when_restored(envs, lambda: restore_environments(envs, path, document, tensors, start))
    if problem := start.trials[path]:
        raise CannotCapture(problem)
    return document, tensors


def restore_environments(
    envs: list[gym.Env], path: str, document: Any, tensors: dict[str, th.Tensor], start: StartObjects
) -> None:
    """
    :param envs: Environments, created as the saved ones were.
    :param path: Their name.
    :param document: Their state as JSON.
    :param tensors: The tensors of the state.
    :param start: The objects of this program when training started.
    :raises ResumeError: if they are different environments.
    """
    check_needs(document["needs"], start)
    decoder = Decoder(ENVIRONMENT_CODECS, start, tensors)
    for number, env in enumerate(envs):
        decoder.decode(document["nodes"][f"{path}.{number}"], env, f"{path}.{number}")
    decoder.decode_classes(document["classes"])


class Resumable(gym.Wrapper):
    """
    Makes the state of an environment accessible from other processes, and that of a Box2D environment accessible at all.

    It has to be the outermost wrapper: ``make_vec_env(..., vec_env_cls=SubprocVecEnv, wrapper_class=Resumable)``.

    :param env: Environment.
    """

    def __init__(self, env: gym.Env):
        super().__init__(record_episodes(env) if is_box2d(env) else env)
        self._start: StartObjects | None = None
        if multiprocessing.parent_process() is not None:
            # Ctrl-C is for the training, which still has to save this environment
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def note_start(self) -> dict[str, str]:
        """
        Note the objects of the environment, which is in the state in which training starts.

        :return: The values in it that are settings, as texts.
        """
        self._start = StartObjects()
        capture_environments([self.env], "env", self._start, recording=True)
        return self._start.settings

    def get_state(self) -> dict[str, Any]:
        """
        :return: The state of the environment and of the random generators of its process, as plain data; or, under
            ``"unknown"``, the part that cannot be saved.
        """
        if self._start is None:
            self.note_start()
        assert self._start is not None
        try:
            document, tensors = capture_environments([self.env], "env", self._start)
        except CannotCapture as error:
            return {"unknown": str(error)}
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        state = {"state": json.dumps(document), "arrays": arrays, "generators": generator_states()}
        return state | {"settings": document["settings"]}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        :param state: What :meth:`get_state` returned.
        :raises ResumeError: if it is the state of a different environment.
        """
        if self._start is None:
            self.note_start()
        assert self._start is not None
        document = json.loads(state["state"])
        tensors = {name: th.from_numpy(array) for name, array in state["arrays"].items()}
        restore_environments([self.env], "env", document, tensors, self._start)
        self._start.replace_settings("env", document["settings"])
        set_generator_states(state["generators"])

    def take_state(self, state: dict[str, Any]) -> str | None:
        """
        :meth:`set_state` for calls from another process, where an exception would only end this one.

        :param state: What :meth:`get_state` returned.
        :return: The reason why the state does not fit; None if it does.
        """
        try:
            self.set_state(state)
        except Exception as error:
            return str(error)
        return None
