"""
The state of environments, wrappers included.

An environment that keeps its state in plain attributes (numbers, arrays, containers, random generators, objects made of them)
needs nothing more. Any other environment needs the two methods of :class:`Resumable`: ``get_state()`` returns plain data, and
``set_state(state)`` restores the environment from it. If a class has these methods, its attributes are not inspected.
"""

import contextlib
import inspect
import json
import multiprocessing
import os
import signal
import stat
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3.common.monitor import ResultsWriter

from sb3_softac.resume.box2d import is_box2d, record_episodes
from sb3_softac.resume.codecs import (
    CODECS,
    attributes_of,
    read_attributes,
    read_classes,
    set_attribute,
    write_attributes,
    write_classes,
)
from sb3_softac.resume.generators import generator_states, set_generator_states
from sb3_softac.resume.serialization import Baseline, Codec, Reader, Writer, check_needs
from sb3_softac.resume.simulators import SIMULATORS
from sb3_softac.resume.trial import differs_when_restored


def _has_protocol(value: Any) -> bool:
    """Whether it has our two methods; MujocoEnv's set_state(qpos, qvel) is another one."""
    is_env = isinstance(value, gym.Env) and not isinstance(value, Resumable)
    if not is_env or not all(callable(getattr(type(value), name, None)) for name in ("get_state", "set_state")):
        return False
    try:
        inspect.signature(value.get_state).bind()
        inspect.signature(value.set_state).bind(None)
    except TypeError:
        return False
    except ValueError:  # written in C
        pass
    return True


def _write_protocol(writer: Writer, value: Any, path: str) -> Any:
    state, attributes = writer.write_data(value.get_state(), f"{path}.get_state()"), vars(value.unwrapped)
    # They hold the random generators of every environment; get_state() need not return them
    names = [name for name in ("_np_random", "action_space", "observation_space") if name in attributes]
    return {"state": state, "generators": write_attributes(writer, {name: attributes[name] for name in names}, path)}


def _read_protocol(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    reader.change(live.set_state, reader.read_data(content["state"], path))
    read_attributes(reader, content["generators"], live.unwrapped, path)
    return live


def _read_episodes(reader: Reader, content: str, live: Any, path: str, in_place: bool) -> Any:
    """Restore the content of Monitor's CSV file, which is new or has become longer."""
    # In a trial it is not a file but the null device
    if content is not None and stat.S_ISREG(os.fstat(live.file_handler.fileno()).st_mode):
        reader.change(_write_episodes, live.file_handler, content)
    return live


def _write_episodes(file: Any, content: str) -> None:
    file.seek(0)
    file.truncate()
    file.write(content)
    file.flush()


def _episodes(writer: ResultsWriter) -> str | None:
    """:return: The content of the file, ends of lines included; None if it was removed, which must not end the training."""
    try:
        with open(writer.file_handler.name, newline="") as file:
            return file.read()
    except OSError:
        return None


ENVIRONMENT_CODECS = (
    Codec("protocol", _has_protocol, _write_protocol, _read_protocol, shared=True),
    Codec("episodes", lambda v: isinstance(v, ResultsWriter), lambda w, v, p: _episodes(v), _read_episodes, shared=True),
    *SIMULATORS,
    *CODECS,
)


WRAP = "Wrap each environment in sb3_softac.resume.Resumable (make_vec_env(..., wrapper_class=Resumable))"


class CannotCapture(Exception):
    """Names the part of an environment that is neither plain data nor known to have no state."""


def write_environments(
    envs: list[gym.Env], path: str, baseline: Baseline | None = None, recording: bool = False
) -> tuple[Any, dict[str, th.Tensor]]:
    writer = Writer(ENVIRONMENT_CODECS, baseline, recording)
    try:
        written = [writer.write(env, f"{path}{number}") for number, env in enumerate(envs)]
    except RecursionError:
        raise CannotCapture(
            f"{path}: too many of its objects refer to one another in a row. Give it the methods get_state() and "
            "set_state(state)"
        ) from None
    classes = write_classes(writer)
    writer.unknown.extend(writer.memory.connect())
    if baseline is not None and writer.memory.is_shared:  # with other processes: a trial would change it
        baseline.trials.setdefault(path, None)
    if writer.unknown and not recording:
        others = f" and {len(writer.unknown) - 1} more" if len(writer.unknown) > 1 else ""
        box2d = any(is_box2d(env) for env in envs)
        remedy = f"it belongs to Box2D. {WRAP}" if box2d else "give it the methods get_state() and set_state(state)"
        raise CannotCapture(f"{writer.unknown[0]}{others} is not plain data: {remedy}")
    return {"environments": written, "classes": classes, "needs": writer.needs, "settings": writer.settings}, writer.tensors


def read_environments(
    envs: list[gym.Env], path: str, written: Any, tensors: dict[str, th.Tensor], baseline: Baseline | None = None
) -> Callable[[], None]:
    """Read the state of environments, without changing them."""
    if baseline is not None:
        check_needs(written["needs"], baseline)
    reader = Reader(tensors, ENVIRONMENT_CODECS, baseline=baseline)
    for number, (env, state) in enumerate(zip(envs, written["environments"], strict=True)):
        reader.read(state, env, f"{path}{number}")
    read_classes(reader, written["classes"])
    return reader.apply


def try_once(envs: list[gym.Env], path: str, written: Any, tensors: dict[str, th.Tensor], baseline: Baseline) -> None:
    """When environments are saved for the first time, check that they can be restored."""
    if path not in baseline.trials:
        texts = [
            (value, name, part)
            for value in baseline.objects.values()
            if not isinstance(value, type)
            for name, part in attributes_of(value).items()
            if isinstance(part, str)
        ]

        def restore() -> None:
            read_environments(envs, path, written, tensors, baseline)()
            for value, name, part in texts:  # a new program has those that have not changed since the start
                set_attribute(value, name, part)

        baseline.trials[path] = differs_when_restored(envs, restore)
    if problem := baseline.trials[path]:
        raise CannotCapture(problem)


class Resumable(gym.Wrapper):
    """
    Makes the state of an environment accessible from other processes, and that of a Box2D environment accessible at all.

    It has to be the outermost wrapper: ``make_vec_env(..., vec_env_cls=SubprocVecEnv, wrapper_class=Resumable)``.

    :param env: Environment.
    """

    def __init__(self, env: gym.Env):
        super().__init__(record_episodes(env) if is_box2d(env) else env)
        self._baseline: Baseline | None = None
        if multiprocessing.parent_process() is not None:
            # Ctrl-C is for the training, which still has to save this environment
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def ignore_sigterm(self, ignored: bool) -> None:
        """In a process of its own: leave SIGTERM to the training, too, or end on it as usual."""
        if multiprocessing.parent_process() is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN if ignored else signal.SIG_DFL)

    def note_start(self) -> None:
        """Note the objects of the environment, which is in the state in which training starts."""
        self._baseline = Baseline()
        with contextlib.suppress(CannotCapture):  # which get_state() will say
            write_environments([self.env], "env", self._baseline, recording=True)

    def get_state(self) -> dict[str, Any]:
        """
        :return: The state of the environment and of the random generators of its process, as plain data; or, under
            ``"unknown"``, the part that cannot be saved.
        """
        try:
            written, tensors = write_environments([self.env], "env", self._baseline)
            if self._baseline is not None:
                try_once([self.env], "env", written, tensors, self._baseline)
        except CannotCapture as error:
            return {"unknown": str(error)}
        arrays, settings = {name: tensor.numpy() for name, tensor in tensors.items()}, written.pop("settings")
        return {"state": json.dumps(written), "arrays": arrays, "generators": generator_states(), "settings": settings}

    def set_state(self, state: dict[str, Any]) -> None:
        """
        :param state: What :meth:`get_state` returned.
        :raises ResumeError: if it is the state of a different environment.
        """
        tensors = {name: th.from_numpy(array) for name, array in state["arrays"].items()}
        read_environments([self.env], "env", json.loads(state["state"]), tensors, self._baseline)()
        set_generator_states(state["generators"])

    def take_state(self, state: dict[str, Any]) -> str | None:
        """The reason why the state does not fit; None if it does."""
        try:
            self.set_state(state)
        except Exception as error:
            return str(error)
        return None
