"""
The statistics of VecNormalize as JSON, beside the pickle that SB3 writes: ``vecnormalize.json`` beside ``vecnormalize.pkl``.

Nothing has to be executed to read this twin: its numbers are put into a VecNormalize of the present environments.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_softac.files import replacing
from sb3_softac.files.plain_files import memory, read_plain

SETTINGS = ("training", "norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys")
NUMBERS = ("mean", "var", "count")


class TwinnedVecNormalize(VecNormalize):
    """Saves the twin beside the pickle."""

    def save(self, save_path: str) -> None:
        self.__class__ = VecNormalize  # type: ignore[assignment]  # read without this package
        try:
            self.save(save_path)
        finally:
            self.__class__ = TwinnedVecNormalize
        save_plain(self, save_path)


def save_twins(env: VecEnv) -> VecEnv:
    """:return: The environments; if they are normalized, saving the statistics saves the twin, too."""
    if type(normalized := unwrap_vec_normalize(env)) is VecNormalize:
        normalized.__class__ = TwinnedVecNormalize
    return env


def twin_of(path: str | Path) -> Path:
    """:return: Path of the twin of a pickle: .json in place of .pkl, and after any other name."""
    path = Path(path)
    return path.with_suffix(".json") if path.suffix == ".pkl" else path.with_name(f"{path.name}.json")


def _statistics(normalized: VecNormalize) -> dict[str, RunningMeanStd]:
    """:return: Running statistics by name: those of the return, and of each part of the observation that has some."""
    observations = normalized.obs_rms if normalized.norm_obs else {}
    if not isinstance(observations, dict):
        observations = {"": observations}
    return {"return": normalized.ret_rms, **{f"observation:{key}": rms for key, rms in observations.items()}}


def save_plain(normalized: VecNormalize, path: str | Path) -> None:
    """Save the twin beside the pickle at ``path``."""
    content = {
        "settings": {name: getattr(normalized, name) for name in SETTINGS},
        "statistics": {name: {key: vars(rms)[key] for key in NUMBERS} for name, rms in _statistics(normalized).items()},
    }
    with replacing(twin_of(path)) as file:
        file.write(json.dumps(content, default=lambda numbers: numbers.tolist()).encode())


def load_plain(path: str | Path, venv: VecEnv) -> VecNormalize | None:
    """
    Normalize environments with the twin of a pickle, or with the file itself if it is a twin; None if there is none.

    :raises ValueError: if the twin is damaged, or belongs to other observations.
    """
    for file in (twin_of(path), Path(path)):
        if file.exists() and (content := read_plain(file, memory() // 16, follow_links=True))[:1] == b"{":
            try:
                return _read(json.loads(content), venv)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, AssertionError) as error:
                raise ValueError(f"{file} is not the normalization of these environments: {error}") from error
    return None


def _read(content: dict[str, Any], venv: VecEnv) -> VecNormalize:
    settings, found = content["settings"], content["statistics"]
    if settings.keys() != set(SETTINGS) or not all(isinstance(s, bool | int | float | list | None) for s in settings.values()):
        raise ValueError(f"its settings are not those of VecNormalize: {settings!r:.500}")
    normalized = VecNormalize(venv, **settings)
    expected = _statistics(normalized)
    if expected.keys() != found.keys():
        raise ValueError(f"it has statistics of {sorted(found)}, not of {sorted(expected)}")
    for name, rms in expected.items():
        for key in NUMBERS:
            numbers = np.array(found[name][key], np.float64)
            if numbers.shape != np.shape(vars(rms)[key]):
                raise ValueError(f"{name} has the shape {numbers.shape} instead of {np.shape(vars(rms)[key])}")
            setattr(rms, key, float(numbers) if key == "count" else numbers)
    return normalized
