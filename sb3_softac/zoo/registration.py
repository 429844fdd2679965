"""Additions to the modules of RL Zoo, made when each module has been imported."""

import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any, NamedTuple

import sb3_softac
from _sb3_softac_autoload import PATCHES
from sb3_softac.zoo.environments import mask_play, mask_training
from sb3_softac.zoo.hub import repair_hub
from sb3_softac.zoo.resume import make_resumable
from sb3_softac.zoo.safe import make_experiments_safe, make_safe
from sb3_softac.zoo.statistics import keep_plain_twins
from sb3_softac.zoo.sweeps import make_sweeps_survive
from sb3_softac.zoo.torchrun import share_training
from sb3_softac.zoo.wrapping import wrap_once


class Entry(NamedTuple):
    """The locations of an algorithm's class and of the sampler and converter of its hyperparameter search."""

    algorithm: str
    sampler: str
    converter: str


# By Zoo id. The Zoo looks for a model's algorithm under the lower-cased class name, so id and class name must agree.
ALGORITHMS = {
    "softac_v1": Entry(
        "sb3_softac:SoftAC_v1",
        "sb3_softac.zoo.samplers:sample_softac_v1_params",
        "sb3_softac.zoo.samplers:convert_softac_v1_params",
    ),
    "sql": Entry(
        "sb3_softac:SQL",
        "sb3_softac.zoo.samplers:sample_sql_params",
        "sb3_softac.zoo.samplers:convert_sql_params",
    ),
    "discretesac": Entry(
        "sb3_softac:DiscreteSAC",
        "sb3_softac.zoo.samplers:sample_discretesac_params",
        "sb3_softac.zoo.samplers:convert_discretesac_params",
    ),
}


def patch(module: ModuleType) -> None:
    """
    Add the algorithms to a module of RL Zoo. Existing entries are kept.

    :param module: One of the modules named in ``_sb3_softac_autoload.PATCHES``.
    """
    globals()[PATCHES[module.__name__]](module)


def patch_utils(module: ModuleType) -> None:
    """
    :param module: ``rl_zoo3.utils``.
    """
    make_safe(module)
    _add(module.ALGOS, {algo: entry.algorithm for algo, entry in ALGORITHMS.items()})
    with _failure_reported("repair RL Zoo's scripts for the hub"):
        repair_hub()
    with _failure_reported("make RL Zoo's scripts use action masks"):
        mask_play(module)


def patch_hyperparams_opt(module: ModuleType) -> None:
    """
    :param module: ``rl_zoo3.hyperparams_opt``.
    """
    _add(module.HYPERPARAMS_SAMPLER, {algo: entry.sampler for algo, entry in ALGORITHMS.items()})
    _add(module.HYPERPARAMS_CONVERTER, {algo: entry.converter for algo, entry in ALGORITHMS.items()})


def patch_exp_manager(module: ModuleType) -> None:
    """
    :param module: ``rl_zoo3.exp_manager``.
    """
    make_experiments_safe(module)
    wrap_once(module.ExperimentManager, "__init__", _use_own_hyperparameters)
    with _failure_reported("save the statistics of VecNormalize without a pickle"):
        keep_plain_twins(module)
    with _failure_reported("make RL Zoo's environments report action masks"):
        mask_training(module.ExperimentManager)
    with _failure_reported("make RL Zoo's training runs resumable"):
        make_resumable(module.ExperimentManager)
    with _failure_reported("make several processes train one agent"):
        share_training(module.ExperimentManager)
    with _failure_reported("make RL Zoo's searches survive killed workers"):
        make_sweeps_survive(module.ExperimentManager)


def _add(table: dict[str, Any], names: dict[str, str]) -> None:
    """Fill in one of the Zoo's tables; an algorithm that cannot be imported does not affect the others."""
    for algo, name in names.items():
        with _failure_reported(f"register {algo} with RL Zoo"):
            table.setdefault(algo, resolve_name(name))


@contextmanager
def _failure_reported(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        warnings.warn(f"sb3_softac could not {what}: {error!r}", stacklevel=2)


def hyperparameter_file(algo: str) -> Path:
    """
    :param algo: Zoo id of one of our algorithms.
    :return: Its YAML file: inside the built package, or (editable install) at the top of the repository.
    """
    # A strict editable install imports links; the repository is where they lead.
    package = Path(sb3_softac.__file__).resolve().parent
    folder = package / "hyperparams"
    return (folder if folder.is_dir() else package.parent / "hyperparams") / f"{algo}.yml"


def configuration(algo: str, config: str | None) -> str:
    """
    :param algo: Zoo id of one of our algorithms.
    :param config: What was given as ``--conf-file``; None for nothing.
    :return: What to read: our own file if nothing was given, and a preset of this package if its name was given and there is
        no such file in the working directory.
    """
    own = hyperparameter_file(algo)
    if not config:
        return str(own)
    preset = own.parent / "presets" / config
    return str(preset) if preset.is_file() and not Path(config).exists() else config


def _use_own_hyperparameters(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    """
    Make our YAML files the default of ``ExperimentManager(config=...)``, which otherwise searches the Zoo's own folder, and
    find our presets by name.
    """
    bound = inspect.signature(original).bind(self, *args, **kwargs)
    if bound.arguments["algo"] in ALGORITHMS:
        bound.arguments["config"] = configuration(bound.arguments["algo"], bound.arguments.get("config"))
    original(*bound.args, **bound.kwargs)
