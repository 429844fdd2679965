"""
The statistics of VecNormalize as JSON, beside the pickle that SB3 writes: ``vecnormalize.json`` beside ``vecnormalize.pkl``.

Nothing has to be executed to read them: they are put into a VecNormalize of the present environment.
"""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_softac.files import replacing
from sb3_softac.files.plain_files import memory, read_plain
from sb3_softac.zoo.wrapping import wrap_once

SETTINGS = ("training", "norm_obs", "norm_reward", "clip_obs", "clip_reward", "gamma", "epsilon", "norm_obs_keys")


def twin_of(path: str | Path) -> Path:
    """
    :param path: Path of the pickle.
    :return: Path of its plain twin.
    """
    return Path(path).with_suffix(".json")


def save_plain(statistics: VecNormalize, path: str | Path) -> None:
    """
    :param statistics: Statistics.
    :param path: Path of the pickle, beside which they are saved.
    """
    obs_rms = getattr(statistics, "obs_rms", None) if statistics.norm_obs else None
    content = {
        "settings": {name: getattr(statistics, name) for name in SETTINGS},
        "observations": {key: _write(rms) for key, rms in obs_rms.items()} if isinstance(obs_rms, dict) else _write(obs_rms),
        "returns": _write(statistics.ret_rms),
    }
    with replacing(twin_of(path)) as file:
        file.write(json.dumps(content, default=_number).encode())


def load_plain(path: str | Path, venv: VecEnv) -> VecNormalize | None:
    """
    :param path: Path of the pickle, which is not read; or the twin itself.
    :param venv: Environments to normalise.
    :return: Their normalisation; None if there is no plain twin.
    :raises ValueError: if the twin is damaged, or belongs to other observations.
    """
    for file in (twin_of(path), Path(path)):
        if not file.exists():
            continue
        content = read_plain(file, memory() // 16, follow_links=True)
        if content[:1] == b"{":
            try:
                return _read(json.loads(content), venv)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, AssertionError) as error:
                raise ValueError(f"{file} is not the normalisation of these environments: {error}") from error
    return None


def _read(content: dict[str, Any], venv: VecEnv) -> VecNormalize:
    settings = content["settings"]
    wrong = [name for name in SETTINGS if not isinstance(settings[name], bool | int | float | list | None)]
    if wrong or settings.keys() != set(SETTINGS):
        raise ValueError(f"its settings are {sorted(settings)}")
    statistics = VecNormalize(venv, **settings)
    obs_rms = getattr(statistics, "obs_rms", None) if statistics.norm_obs else None
    if isinstance(obs_rms, dict):
        if obs_rms.keys() != content["observations"].keys():
            raise ValueError(f"it has {sorted(content['observations'])}, but {sorted(obs_rms)} are normalised")
        for key, rms in obs_rms.items():
            _fill(rms, content["observations"][key])
    elif obs_rms is not None:
        _fill(obs_rms, content["observations"])
    _fill(statistics.ret_rms, content["returns"])
    return statistics


def _write(rms: RunningMeanStd | None) -> dict[str, Any] | None:
    return None if rms is None else {"mean": rms.mean.tolist(), "var": rms.var.tolist(), "count": float(rms.count)}


def _fill(rms: RunningMeanStd, content: dict[str, Any]) -> None:
    mean, var = (np.array(content[name], np.float64) for name in ("mean", "var"))
    if mean.shape != rms.mean.shape or var.shape != rms.var.shape:
        raise ValueError(f"it has the shape {mean.shape}, the observations have {rms.mean.shape}")
    rms.mean, rms.var, rms.count = mean, var, float(content["count"])


def _number(value: Any) -> Any:
    return value.item()  # NumPy's numbers


def keep_plain_twins(exp_manager: ModuleType) -> None:
    """
    Let the Zoo's trainings save the plain twin whenever they save the pickle.

    :param exp_manager: ``rl_zoo3.exp_manager``.
    """
    wrap_once(exp_manager.ExperimentManager, "save_trained_model", _after_the_training)
    wrap_once(exp_manager.SaveVecNormalizeCallback, "_on_step", _with_the_best_model)


def keep_twins_of_all() -> None:
    """Let this process save the plain twin wherever it saves a VecNormalize, for scripts that upload one."""
    wrap_once(VecNormalize, "save", _save_both)


def _save_both(original: Any, self: VecNormalize, save_path: str) -> None:
    original(self, save_path)
    save_plain(self, save_path)


def _after_the_training(original: Any, self: Any, model: Any) -> None:
    original(self, model)
    if self.normalize:
        save_plain(model.get_vec_normalize_env(), Path(self.params_path) / "vecnormalize.pkl")


def _with_the_best_model(original: Any, self: Any) -> bool:
    go_on = original(self)
    statistics = self.model.get_vec_normalize_env()
    if statistics is not None and self.n_calls % self.save_freq == 0:
        name = "vecnormalize.pkl" if self.name_prefix is None else f"{self.name_prefix}_{self.num_timesteps}_steps.pkl"
        save_plain(statistics, Path(self.save_path) / name)
    return go_on
