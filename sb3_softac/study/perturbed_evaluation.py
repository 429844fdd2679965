"""Trained models under perturbations: which ones apply, the returns (kept in small files), and their part of the report."""

import contextlib
import hashlib
import itertools
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import pandas as pd
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed

from sb3_softac.files import replacing
from sb3_softac.robustness import PERTURBATIONS, Perturbation
from sb3_softac.robustness.parameters import parameters_of
from sb3_softac.study import plots
from sb3_softac.study.declaration import PerturbationSweep, Run, Study, StudyError
from sb3_softac.study.results import Result, by_name
from sb3_softac.study.statistics import SEEDS_FOR_INTERVAL, iqm_interval
from sb3_softac.study.user_code import import_user_code, reason_of, with_defaults
from sb3_softac.zoo.trained import Trained, load_trained, model_of

SEED = 1_000_000  # of the first episode's environment: far from the seeds of trainings, the same for all models and strengths
MAX_ENVS = 10
UNPERTURBED = "none"
INTERVAL = "95 % interval"  # a column of the summary


class Condition(NamedTuple):
    """What the return of a model depends on."""

    perturbation: str
    options: str
    """As JSON."""
    strength: float
    episodes: int


Returns = Mapping[Condition, float]
"""The mean returns of one model."""


def conditions_of(sweep: PerturbationSweep, episodes: int) -> Iterator[tuple[float, Condition]]:
    """:return: The strengths with their conditions; without a perturbation there is one condition for all sweeps."""
    for strength in sweep.axis:
        if strength == sweep.wrapper.neutral:
            yield strength, Condition(UNPERTURBED, "{}", 0.0, episodes)
        else:
            yield strength, Condition(sweep.perturbation, json.dumps(sweep.options, sort_keys=True), strength, episodes)


@contextlib.contextmanager
def made_with(env: str, all_kwargs: list[dict[str, Any]]) -> Iterator[list[gym.Env]]:
    """An environment for each of these keyword arguments."""
    with contextlib.ExitStack() as stack:
        try:
            made = [stack.enter_context(gym.make(env, **kwargs)) for kwargs in all_kwargs]
        except Exception as error:  # in the code of the environment
            raise StudyError(f"{env} cannot be created: {reason_of(error)}") from error
        yield made


def default_sweeps(env: str, all_kwargs: list[dict[str, Any]]) -> tuple[PerturbationSweep, ...]:
    """
    All perturbations that apply to an environment, whichever of these keyword arguments it has, with their own strengths;
    StudyError if none does.
    """
    with made_with(env, all_kwargs) as made:
        options: dict[str, tuple[dict[str, Any], ...]] = {name: ({},) for name in PERTURBATIONS} | {
            "parameter": tuple({"name": parameter} for parameter in parameters_of(made[0].unwrapped))
        }
        chosen = (
            PerturbationSweep(default_name(name, each), name, each, wrapper.strengths)
            for name, wrapper in PERTURBATIONS.items()
            for each in options[name]
        )
        sweeps = tuple(sweep for sweep in chosen if not any(_unsupported_reason(one, sweep) for one in made))
    if not sweeps:
        raise StudyError(
            f"robustness: none of the default perturbations applies to {env}. Name one: `parameter` multiplies an attribute "
            "of the environment, given by its `name`"
        )
    return sweeps


def _unsupported_reason(env: gym.Env, sweep: PerturbationSweep) -> Exception | None:
    """:return: The error of wrapping the environment at one of the strengths; None if all of them apply."""
    wrapper: Callable[..., Perturbation] = sweep.wrapper
    try:
        for strength in sweep.strengths:
            wrapper(env, strength, **sweep.options).strength = sweep.wrapper.neutral  # and undo it
    except (ValueError, TypeError) as error:
        return error
    return None


def check_sweeps(sweeps: tuple[PerturbationSweep, ...], env: str, all_kwargs: list[dict[str, Any]]) -> None:
    """:raises StudyError: if a perturbation does not apply to the environment, or not with that strength."""
    with made_with(env, all_kwargs) as made:
        for one, sweep in itertools.product(made, sweeps):
            if error := _unsupported_reason(one, sweep):
                raise StudyError(f"robustness: {sweep.name} for {env}: {error}") from error


def sweeps_of(study: Study, env: str) -> tuple[PerturbationSweep, ...]:
    """:return: The perturbations of an environment whose robustness the study declares."""
    return study.robustness[env].sweeps or default_sweeps(env, kwargs_in(study, env))


def kwargs_in(study: Study, env: str) -> list[dict[str, Any]]:
    """:return: The keyword arguments with which the runs create an environment, each of them once."""
    found: list[dict[str, Any]] = []
    for run in study.runs:
        if run.env == env:
            with contextlib.suppress(StudyError):  # the results may have outlived the hyperparameter file
                run = with_defaults(study, run)
            if run.kwargs_of_env not in found:
                found.append(run.kwargs_of_env)
    return found


def returns_of(trained: Trained, sweep: PerturbationSweep, strength: float, episodes: int) -> list[float]:
    """
    :return: Return of each episode of a trained model with deterministic actions. The seeds of the episodes are the same for
        all models and strengths.
    """
    set_random_seed(SEED)
    perturbation = {sweep.wrapper: {"strength": strength, **sweep.options}} if strength != sweep.wrapper.neutral else None
    found: list[float] = []
    # New environments for every few episodes: what an environment draws later depends on how long its episodes are
    for first in range(0, episodes, MAX_ENVS):
        n = min(episodes - first, MAX_ENVS)
        envs = trained.make_envs(n, SEED + first, perturbation)
        try:
            returns, _ = evaluate_policy(trained.model, envs, n, deterministic=True, return_episode_rewards=True)
        finally:
            envs.close()
        assert isinstance(returns, list)
        found += returns
    return found


def evaluate(folder: Path, algo: str, env: str, sweeps: tuple[PerturbationSweep, ...], episodes: int, file: Path) -> Returns:
    """
    Evaluate the model in a folder of RL Zoo under perturbations, and add the returns to a CSV file.

    :return: All returns of this model in the file; those that it had before are not evaluated again.
    """
    trained = load_trained(folder, algo, env)
    model = digest_of(folder, env)
    rows = {condition: row for condition, row in read_rows(file).items() if row["model"] == model}
    for sweep in sweeps:
        for strength, condition in conditions_of(sweep, episodes):
            if condition not in rows:
                returns = returns_of(trained, sweep, strength, episodes)
                statistics = {"return": f"{np.mean(returns):.6g}", "deviation": f"{np.std(returns):.4g}"}
                rows[condition] = {**condition._asdict(), **statistics, "model": model}
                write_table([*rows.values()], file)
    return {condition: float(row["return"]) for condition, row in rows.items()}


def digest_of(folder: Path, env: str) -> str:
    """:return: What tells the model in a folder from others."""
    return hashlib.sha256(model_of(folder, env).read_bytes()).hexdigest()[:12]


def read_rows(file: Path) -> dict[Condition, dict[str, Any]]:
    """The rows that :func:`evaluate` has written to a file; StudyError if it is a file of another kind."""
    if not file.exists():
        return {}
    try:
        rows = pd.read_csv(file, dtype=str, keep_default_na=False).to_dict("records")
        for row in rows:
            float(row["return"]), row["model"]
        return {Condition(r["perturbation"], r["options"], float(r["strength"]), int(r["episodes"])): r for r in rows}
    except (KeyError, ValueError) as error:
        raise StudyError(f"{file} has no returns under perturbations: remove it, or choose another output folder") from error


def write_table(rows: list[dict[str, Any]], file: Path) -> None:
    """Replace a CSV file."""
    with replacing(file) as content:
        content.write(pd.DataFrame(rows).to_csv(index=False).encode())


def common_sweeps(groups: dict[str, list[Returns]]) -> list[tuple[PerturbationSweep, int]]:
    """:return: The perturbations under which all models have been evaluated, with the number of episodes per strength."""
    first, *others = [returns for group in groups.values() for returns in group]
    strengths: dict[tuple[str, str, int], list[float]] = {}
    for condition in first:
        if all(condition in returns for returns in others) and condition.perturbation in PERTURBATIONS:
            perturbation, options, strength, episodes = condition
            strengths.setdefault((perturbation, options, episodes), []).append(strength)
    return [
        (PerturbationSweep(default_name(name, options := json.loads(text)), name, options, tuple(sorted(values))), episodes)
        for (name, text, episodes), values in strengths.items()
    ]


def default_name(perturbation: str, options: dict[str, Any]) -> str:
    """:return: The name of a perturbation that is not named by the user."""
    return " ".join([perturbation, *(str(value) if key == "name" else f"{key}={value}" for key, value in options.items())])


def curves(sweep: PerturbationSweep, episodes: int, group: list[Returns]) -> np.ndarray:
    """:return: Returns over the strengths ``[runs, strengths]``."""
    return np.array([[returns[condition] for _, condition in conditions_of(sweep, episodes)] for returns in group])


def summary(groups: dict[str, list[Returns]], sweep: PerturbationSweep, episodes: int) -> list[dict[str, str]]:
    """:return: One row for each strength and algorithm."""
    rows = []
    for strength, condition in conditions_of(sweep, episodes):
        for name, group in groups.items():
            returns = [one[condition] for one in group]
            iqm = iqm_interval(returns)
            rows.append(
                {
                    "algorithm": name,
                    "perturbation": sweep.name,
                    "strength": f"{strength:g}",
                    "unit": sweep.wrapper.unit,
                    "episodes": str(episodes),
                    "n": str(len(group)),
                    "IQM": f"{iqm.value:.5g}",
                    INTERVAL: "-" if len(group) < SEEDS_FOR_INTERVAL else f"{iqm.low:.5g} to {iqm.high:.5g}",
                    "all seeds": ", ".join(f"{value:.5g}" for value in sorted(returns)),
                }
            )
    return rows


def write_sweeps(
    groups: dict[str, list[Returns]], sweeps: list[tuple[PerturbationSweep, int]], path: Path
) -> tuple[str, list[dict[str, str]]]:
    """Write plot and table of an environment to a path without extension; returns the plot as SVG and the rows."""
    several = len({episodes for _, episodes in sweeps}) > 1
    panels = {
        f"{sweep.name}, {episodes} episodes" if several else sweep.name: (
            *(sweep.wrapper.unit, sweep.axis),
            {name: curves(sweep, episodes, group) for name, group in groups.items()},
        )
        for sweep, episodes in sweeps
    }
    rows = [row for sweep, episodes in sweeps for row in summary(groups, sweep, episodes)]
    write_table(rows, path.with_name(f"{path.name}.csv"))
    return plots.save(plots.return_against_strength(panels), path), rows


def evaluate_run(study: Study, run: Run) -> None:
    """Evaluate the last model of a finished run under the perturbations that the study declares for its environment."""
    import_user_code(study)
    th.set_num_threads(run.threads)
    episodes, file = study.robustness[run.env].episodes, study.robustness_of(run)
    evaluate(study.zoo_folder_of(run), run.algo, run.env, sweeps_of(study, run.env), episodes, file)


def evaluate_runs(study: Study, runs: list[Run], jobs: int) -> dict[str, str]:
    """:return: Why evaluations failed, by the ids of the runs."""
    failures = {}
    # Not forked: PyTorch's threads do not survive that
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        try:
            futures = {pool.submit(evaluate_run, study, run): run.id for run in runs}
            for number, future in enumerate(as_completed(futures), 1):
                name, error = futures[future], future.exception()
                if isinstance(error, BrokenProcessPool):
                    failures[name] = "a process was killed, perhaps for lack of memory: try again with fewer --jobs"
                elif error is not None:
                    failures[name] = f"{type(error).__name__}: {error}"
                print(f"[{number}/{len(runs)}] {name}: {'done' if error is None else 'failed'}", file=sys.stderr)
        except BaseException:  # Ctrl-C
            pool.shutdown(cancel_futures=True)
            raise
    return failures


def declared_returns(study: Study, results: list[Result], env: str) -> tuple[dict[str, list[Returns]], list[str]]:
    """
    :return: The returns of the runs that were evaluated under all declared perturbations, by name; ids of the others. Returns
        of another model than the one in the run's folder do not count.
    """
    episodes = study.robustness[env].episodes
    needed = [condition for sweep in sweeps_of(study, env) for _, condition in conditions_of(sweep, episodes)]
    groups: dict[str, list[Returns]] = {}
    missing = []
    for name, group in by_name(results, env).items():
        for result in group:
            rows, folder = read_rows(study.robustness_of(result.run)), study.zoo_folder_of(result.run)
            if model_of(folder, env).is_file():  # else only the results have been kept
                model = digest_of(folder, env)
                rows = {condition: row for condition, row in rows.items() if row["model"] == model}
            if all(condition in rows for condition in needed):
                groups.setdefault(name, []).append({condition: float(rows[condition]["return"]) for condition in needed})
            else:
                missing.append(result.run.id)
    return groups, missing
