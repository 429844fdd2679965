"""Trainings that are cut, and what is compared afterwards."""

import random
from contextlib import closing

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from sb3_softac.resume import ExactCheckpoint
from sb3_softac.resume.replay import read_rows


class Cut(BaseCallback):
    """Ends a training as a crash does, at a step in the middle of whatever is going on."""

    not_resumed = ("step",)

    def __init__(self, step: int):
        super().__init__()
        self.step = step

    def _on_step(self) -> bool:
        if self.num_timesteps >= self.step:
            raise KeyboardInterrupt
        return True


def scramble() -> None:
    """Whatever has happened to the random generators of a new process."""
    random.seed(), np.random.seed(None), th.seed()


def fingerprint(model: BaseAlgorithm) -> dict:
    """All numbers that a training ends with."""
    buffer = getattr(model, "replay_buffer", None)  # PPO has none
    numbers = {f"parameters {name}": part for name, part in flatten(model.get_parameters())}
    if buffer is not None:
        numbers |= {f"rows {name}": part for name, part in read_rows(buffer, rows_by_age(buffer)).items()}
        numbers |= {"pos": (buffer.pos, buffer.full)}
    numbers |= {
        "counters": [
            model.num_timesteps,
            model._n_updates,
            model._current_progress_remaining,
            getattr(model, "_episode_num", 0),
        ],
        "episodes": [(info["r"], info["l"]) for info in model.ep_info_buffer],
        "python": random.getstate(),
        "numpy": np.random.get_state()[1],
        "torch": th.get_rng_state(),
        "action space": str(model.action_space.np_random.bit_generator.state),
        "environment": list(flatten(model._last_obs)),
    }
    return numbers


def rows_by_age(buffer) -> np.ndarray:
    return (buffer.pos - buffer.size() + np.arange(buffer.size())) % buffer.buffer_size


def flatten(value, path=""):
    if isinstance(value, dict):
        for key, part in value.items():
            yield from flatten(part, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for key, part in enumerate(value):
            yield from flatten(part, f"{path}.{key}")
    else:
        yield path, value.detach().cpu().numpy().copy() if isinstance(value, th.Tensor) else value


def differences(first: dict, second: dict) -> list[str]:
    """Names of the numbers that are not the same, bit by bit."""
    assert first.keys() == second.keys()
    return [name for name in first if not same(first[name], second[name])]


def same(a, b) -> bool:
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray | th.Tensor):
        a, b = np.asarray(a), np.asarray(b)
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return a == b


def uninterrupted(make, steps, path, every=25, **kwargs):
    """:return: What a training ends with."""
    model, callbacks = make()
    with closing(model.env):
        model.learn(steps, callback=[*callbacks, ExactCheckpoint(path, every)], **kwargs)
        return fingerprint(model)


def interrupted(make, steps, path, cuts, every=25, **kwargs):
    """:return: What the same training ends with when it is cut at some steps and its program is started again."""
    for cut in cuts:
        model, callbacks = make()
        with closing(model.env), pytest.raises(KeyboardInterrupt):
            model.learn(steps, callback=[*callbacks, ExactCheckpoint(path, every), Cut(cut)], **kwargs)
        scramble()
    model, callbacks = make()
    scramble()
    with closing(model.env):
        model.learn(steps, callback=[*callbacks, ExactCheckpoint(path, every), Cut(10**9)], **kwargs)
        return fingerprint(model)
