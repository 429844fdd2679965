"""What a study consists of."""

import dataclasses
import hashlib
import json
import pickle
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rl_zoo3 import ALGOS
from stable_baselines3.common.vec_env.base_vec_env import CloudpickleWrapper

from sb3_softac.checks import did_you_mean
from sb3_softac.robustness import PERTURBATIONS, Perturbation

MAX_NAME_BYTES = 150  # of a folder: file systems allow 255, and suffixes are added


class StudyError(ValueError):
    """A study is declared incorrectly, or does not match existing runs."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run: everything that its results depend on."""

    algorithm: str
    """Its name in the report."""
    algo: str
    """Zoo id."""
    env: str
    seed: int
    n_timesteps: int
    hyperparams: dict[str, Any]
    """Hyperparameters that differ from the Zoo's file."""
    varied: dict[str, Any]
    """The hyperparameters that come from the grid."""
    env_kwargs: dict[str, Any]
    config: str | None
    """Hyperparameter file to use instead of the Zoo's."""
    evaluate_every: int
    evaluation_episodes: int
    evaluation_modes: tuple[str, ...]
    threads: int
    """Threads of PyTorch."""
    defaults: dict[str, Any] | None = None
    """The entry of the hyperparameter file that ``hyperparams`` override; None until it has been read."""
    sent: bytes | None = dataclasses.field(default=None, compare=False)
    """``defaults`` in a process that has received the run, and may not yet find the modules that they name."""

    def __getstate__(self) -> dict[str, Any]:
        sent = self.sent if self.defaults is None else pickle.dumps(CloudpickleWrapper(self.defaults))
        return {**vars(self), "defaults": None, "sent": sent}

    @property
    def env_module(self) -> str:
        """The module of ``module:id``, or an empty string."""
        return self.env.rpartition(":")[0]

    @property
    def env_id(self) -> str:
        """The id under which the environment is registered: without the module of ``module:id``."""
        return self.env.rpartition(":")[2]

    @property
    def id(self) -> str:
        """Its path in the folders of the study."""
        varied = [",".join(f"{key}={value}" for key, value in self.varied.items())] if self.varied else []
        return "/".join(slug(part) for part in (self.algorithm, self.env, *varied, str(self.seed)))

    @property
    def name(self) -> str:
        """Algorithm and varied hyperparameters: runs with the same name differ only in their seeds."""
        return group_name(self.algorithm, self.varied)

    @property
    def kwargs_of_env(self) -> dict[str, Any]:
        """Keyword arguments of the environment: those declared, or else those in the hyperparameter file."""
        return self.env_kwargs or (self.defaults or {}).get("env_kwargs") or {}

    def as_json(self) -> str:
        """:return: The run as JSON, for comparison and storage."""
        content = dataclasses.asdict(self)
        del content["sent"]
        if self.defaults is None:
            del content["defaults"]
        return json.dumps(dict(sorted(_with_texts_as_keys(content).items())), default=str)


def _with_texts_as_keys(value: Any) -> Any:
    """:return: A value for JSON: RL Zoo takes classes of wrappers as keys."""
    if isinstance(value, dict):
        texts = [key if isinstance(key, str | int | float | None) else str(key) for key in value]
        return dict(zip(texts, map(_with_texts_as_keys, value.values()), strict=True))
    return [*map(_with_texts_as_keys, value)] if isinstance(value, list | tuple) else value


@dataclasses.dataclass(frozen=True)
class PerturbationSweep:
    """One perturbation at several strengths."""

    name: str
    """Its name in plots and tables."""
    perturbation: str
    """Key of ``PERTURBATIONS``."""
    options: dict[str, Any]
    strengths: tuple[float, ...]

    @property
    def wrapper(self) -> type[Perturbation]:
        """The class of the wrapper."""
        return PERTURBATIONS[self.perturbation]

    @property
    def axis(self) -> tuple[float, ...]:
        """The strengths in ascending order, including the neutral one."""
        return tuple(sorted({*self.strengths, self.wrapper.neutral}))


@dataclasses.dataclass(frozen=True)
class Robustness:
    """How trained models are evaluated under perturbations."""

    sweeps: tuple[PerturbationSweep, ...] | None
    """None for all that apply to the environment."""
    episodes: int
    """Per strength."""


@dataclasses.dataclass(frozen=True)
class Study:
    """A study, with the paths of its files."""

    name: str
    text: str
    """The file."""
    runs: tuple[Run, ...]
    folder: Path
    """Folder of the file; other paths are relative to it."""
    output: Path
    """Folder of the runs: models, logs, checkpoints."""
    results: Path
    """Folder of the results, one small file per run."""
    checkpoint_every: int
    robustness: dict[str, Robustness] = dataclasses.field(default_factory=dict)
    """By environment, where it is declared."""
    gym_packages: tuple[str, ...] = ()
    """Modules that register environments."""
    import_folders: tuple[str, ...] = ()
    """Where modules of the user are looked for, in addition to Python's own path."""

    def folder_of(self, run: Run) -> Path:
        """:return: Folder of a run."""
        return self.output / "runs" / run.id

    def zoo_folder_of(self, run: Run) -> Path:
        """:return: Folder of a run's model, as RL Zoo writes it."""
        return self.folder_of(run) / "zoo"

    def declaration_of(self, run: Run) -> Path:
        """:return: The declaration with which a run was started."""
        return self.folder_of(run) / "run.json"

    def checkpoints_of(self, run: Run) -> Path:
        """:return: Folder of the checkpoints of a run that is not finished."""
        return self.folder_of(run) / "checkpoints"

    def failure_of(self, run: Run) -> Path:
        """:return: Why a run failed: one line, and below it the traceback if there is one."""
        return self.folder_of(run) / "failed.txt"

    def progress_of(self, run: Run) -> Path:
        """:return: The number of steps so far, while a run is training."""
        return self.folder_of(run) / "progress"

    def result_of(self, run: Run) -> Path:
        """:return: The result of a run, which exists if and only if the run is finished."""
        return self.results / f"{run.id}.npz"

    def partial_result_of(self, run: Run) -> Path:
        """:return: The partial result of an unfinished run."""
        return self.results / f"{run.id}.partial.npz"

    def robustness_of(self, run: Run) -> Path:
        """:return: The returns of a run under perturbations."""
        return self.results / f"{run.id}.robustness.csv"


def group_name(algorithm: str, varied: dict[str, Any]) -> str:
    """:return: The name of all runs of an algorithm with these values of the grid; an id of RL Zoo becomes a class's name."""
    algo, *rest = algorithm.split(",", 1)
    shown = ALGOS[algo].__name__ if algo in ALGOS else algo
    return ", ".join([",".join([shown, *rest]), *(f"{key} {value}" for key, value in varied.items())])


def slug(text: str) -> str:
    """:return: The text as a folder name: letters, digits and ``._=+-`` only; a long one is shortened and stays unique."""
    name = re.sub(r"^\.+|[^\w.=+-]+", "_", text)
    encoded = name.encode()
    if len(encoded) <= MAX_NAME_BYTES:
        return name
    return f"{encoded[: MAX_NAME_BYTES - 9].decode(errors='ignore')}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def suggest(name: Any, known: Collection[str]) -> str:
    """:return: The known name that was probably meant, or all of them."""
    return did_you_mean(name, known).removeprefix(", ") or f"known are {', '.join(sorted(known))}"
