"""Trained models in the folders that RL Zoo writes, with the environments that they were trained in, perturbed or not."""

import contextlib
import copy
import importlib
import io
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_sb3 import EnvironmentName
from rl_zoo3 import import_envs, utils  # noqa: F401  RL Zoo's own environments
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_softac.files.plain_files import safe_load_is_on
from sb3_softac.zoo.safe import SafeZooLoader


class Trained(NamedTuple):
    """A trained model, and what its environments are made of."""

    model: BaseAlgorithm
    env: str
    env_kwargs: dict[str, Any]
    hyperparams: dict[str, Any]
    """Those of its training, of which wrappers, normalization and stacked frames count."""
    statistics: str
    """Folder of the statistics of VecNormalize."""

    def make_envs(self, n_envs: int, seed: int, perturbation: dict[Any, dict[str, Any]] | None = None) -> VecEnv:
        """
        Make environments, in this process, as in an evaluation during the training.

        A perturbation (class and arguments of a wrapper) is put inside of the wrappers of the training, which belong to the
        agent. Perturbations of the training do not, and are left out. Rewards are not normalized.
        """
        # RL Zoo takes None for the lack of a value in trainings, but not here
        hyperparams = {name: copy.deepcopy(value) for name, value in self.hyperparams.items() if value is not None}
        wrappers = hyperparams.get("env_wrapper") or []
        of_agent = [each for each in (wrappers if isinstance(wrappers, list) else [wrappers]) if not is_perturbation(each)]
        hyperparams["env_wrapper"] = [*([perturbation] if perturbation else []), *of_agent]
        with contextlib.redirect_stdout(io.StringIO()):  # says at each call that it loads statistics
            return utils.create_test_env(
                self.env,
                n_envs,
                stats_path=self.statistics,
                seed=seed,
                should_render=False,
                hyperparams=hyperparams,
                env_kwargs=self.env_kwargs,
                vec_env_cls=DummyVecEnv,
            )


def is_perturbation(wrapper: Any) -> bool:
    """:return: Whether a wrapper, as hyperparameters name it, is one of this package's perturbations."""
    named = next(iter(wrapper)) if isinstance(wrapper, dict) else wrapper  # a class or its name
    return (named if isinstance(named, str) else f"{named.__module__}.").startswith("sb3_softac.robustness.")


def name_of_files(env: str) -> str:
    """:return: What RL Zoo calls the files of an environment: ``ALE-Pong-v5``, or ``Mine-v0`` for ``module:Mine-v0``."""
    return str(EnvironmentName(env))


def model_of(folder: Path, env: str) -> Path:
    """:return: The last model in the folder of a run, which RL Zoo writes at the end of the training."""
    return folder / f"{name_of_files(env)}.zip"


def arguments_of(folder: Path, env: str) -> dict[str, Any]:
    """:return: The arguments of the training in the folder of a run, as far as they were kept."""
    path = folder / name_of_files(env) / "args.yml"
    loader = SafeZooLoader if safe_load_is_on() else yaml.UnsafeLoader  # the Zoo pickles into it
    with open(path) if path.exists() else io.StringIO("{}") as file:
        return yaml.load(file, loader)


def env_kwargs_of(folder: Path, env: str) -> dict[str, Any]:
    """:return: The keyword arguments of the environment in the training, from its command or its hyperparameters."""
    hyperparams, _ = utils.get_saved_hyperparams(str(folder / name_of_files(env)), test_mode=True)
    return arguments_of(folder, env).get("env_kwargs") or hyperparams.get("env_kwargs") or {}


def load_trained(folder: Path, algo: str, env: str) -> Trained:
    """
    Load the last model of a run. Reading it runs what is in it, unless ``SB3_SOFTAC_SAFE_LOAD`` is set.

    :raises FileNotFoundError: if there is no model.
    """
    path = model_of(folder, env)
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no model {path.name}: it is written at the end of a training by RL Zoo")
    settings = folder / name_of_files(env)
    hyperparams, statistics = utils.get_saved_hyperparams(str(settings), test_mode=True)
    if statistics is None:
        raise FileNotFoundError(f"{folder} has no folder {settings.name} with the hyperparameters of the training")
    env_kwargs = env_kwargs_of(folder, env)
    module, _, env = env.rpartition(":")  # RL Zoo looks for the id alone
    if module:
        importlib.import_module(module)
    cls = utils.ALGOS[algo]
    kwargs: dict[str, Any] = {}
    if issubclass(cls, OffPolicyAlgorithm):
        kwargs["buffer_size"] = 1
        if "optimize_memory_usage" in hyperparams:
            kwargs["optimize_memory_usage"] = False  # SB3 wants it off with the buffer of one
    trained = Trained(None, env, env_kwargs, hyperparams, statistics)  # type: ignore[arg-type]
    if "HerReplayBuffer" in str(hyperparams.get("replay_buffer_class", "")):
        kwargs["env"] = trained.make_envs(1, 0)  # SB3 makes that buffer from it
    # Schedules are of no use here, and may not load
    schedules = {"learning_rate": 0.0, "lr_schedule": lambda _: 0.0, "clip_range": lambda _: 0.0}
    return trained._replace(model=cls.load(path, custom_objects=schedules, device="cpu", **kwargs))
