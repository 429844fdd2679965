"""
Whether environments that are restored take the same steps again.

It is tried in a forked copy of the process, so the training itself does not notice. The copy can neither write files nor reach
other processes; where processes cannot be forked, nothing is tried.
"""

import contextlib
import copy
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th

from sb3_softac.resume.generators import generator_states, set_generator_states

STEPS, STEPS_AFTER_RESET = 16, 4
SECONDS = 1.0
"""Time limit for the steps of all environments together; each takes at least one step."""
PATIENCE = 20.0
"""Seconds until the copy is abandoned: it may be waiting for a thread that was not copied."""


def differs_when_restored(envs: list[gym.Env], restore: Callable[[], None]) -> str | None:
    """What differs when it has been restored; None if nothing does, or if it cannot be tried."""
    if sys.platform != "linux" or "jax" in sys.modules:
        return None
    reading, writing = os.pipe()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, that other threads are not copied
            child = os.fork()
    except OSError:  # no memory for it
        os.close(reading)
        os.close(writing)
        return None
    if child == 0:
        try:
            _isolate(writing)
            os.write(writing, _try(envs, restore).encode()[:4000])
        finally:
            os._exit(0)
    os.close(writing)
    try:
        poll = select.poll()  # select() accepts only the first 1024 files
        poll.register(reading, select.POLLIN)
        answer = os.read(reading, 4096) if poll.poll(PATIENCE * 1000) else b""
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # the program has waited for it, or ignores SIGCHLD
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return answer.decode(errors="replace") or None


def _isolate(writing: int) -> None:
    """Keep this process from changing anything but itself."""
    import resource

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGXFSZ else signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in (writing, nowhere):
            os.dup2(nowhere, int(name))
    th.set_num_threads(1)  # the others have not been copied


def _try(envs: list[gym.Env], restore: Callable[[], None]) -> str:
    generators = generator_states()
    spaces = [copy.deepcopy(env.action_space) for env in envs]
    first = _play(envs, spaces, None)
    try:
        restore()
        set_generator_states(generators)
    except Exception as error:
        return f"restoring it raises {type(error).__name__}: {error}"
    second = _play(envs, spaces, [len(steps) for steps in first])
    for number, (before, after) in enumerate(zip(first, second, strict=True)):
        for step, (one, other) in enumerate(zip(before, after, strict=False)):
            for name in one:
                if one[name] != other.get(name):
                    return (
                        f"environment {number} ({envs[number].unwrapped.__class__.__name__}) does not repeat its steps when "
                        f"its attributes are restored: the {name} of step {step + 1} differs. It keeps some of its state "
                        "elsewhere, for example in a native library or a module; give it the methods get_state() and "
                        "set_state(state)"
                    )
    return ""


def _play(envs: list[gym.Env], spaces: list[Any], lengths: list[int] | None) -> list[list[dict[str, Any]]]:
    """What each environment returned, in as many steps as given, or as there is time for."""
    played = []
    for number, (env, space) in enumerate(zip(envs, spaces, strict=True)):
        space.seed(0)
        until = time.monotonic() + SECONDS / len(envs)
        steps: list[dict[str, Any]] = []
        while len(steps) < (STEPS + STEPS_AFTER_RESET if lengths is None else lengths[number]):
            if lengths is None and steps and time.monotonic() > until:
                break
            try:
                steps.append(_step(env, space, again=len(steps) == STEPS))
            except Exception as error:
                steps.append({"error": f"{type(error).__name__}"})
                break
        played.append(steps)
    return played


def _step(env: gym.Env, space: Any, again: bool) -> dict[str, Any]:
    first = {"first observation": _bytes(env.reset()[0])} if again else {}
    observation, reward, terminated, truncated, _ = env.step(_action(env, space))
    returned = {"observation": _bytes(observation), "reward": _bytes(reward), "end": (bool(terminated), bool(truncated))}
    if terminated or truncated:
        returned["first observation"] = _bytes(env.reset()[0])
    return first | returned


def _action(env: gym.Env, space: Any) -> Any:
    action = space.sample()
    if env.has_wrapper_attr("action_masks") and isinstance(space, gym.spaces.Discrete):
        allowed = np.flatnonzero(env.get_wrapper_attr("action_masks")())
        return allowed[int(action - space.start) % len(allowed)] + space.start
    return action


def _bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bytes(part) for name, part in value.items()}
    if isinstance(value, tuple | list):
        return [_bytes(part) for part in value]
    if isinstance(value, str):
        return value
    return np.asarray(value).tobytes()
