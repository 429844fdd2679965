"""The results of the committed studies: for the page that lists all runs, and for the claims of the other pages."""

import collections
import csv
import functools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sb3_softac.envs import MultiGoal
from sb3_softac.study import read_study
from sb3_softac.study.declaration import Study
from sb3_softac.study.results import Missing, Result, at_equal_steps, by_name, read_results
from sb3_softac.study.statistics import Interval, interquartile_mean, probability_of_improvement, tolerance_interval

ROOT = Path(__file__).parent.parent
STUDIES = ROOT / "benchmarks" / "studies"
RESULTS = ROOT / "benchmarks" / "results"
NAMES = sorted(path.stem for path in STUDIES.glob("*.yml"))


@functools.cache
def results_of(name: str) -> tuple[Study, list[Result], list[Result], list[Missing]]:
    """:return: The study; its finished, partial and missing runs. Partial ones are among the missing ones, too."""
    study = read_study(STUDIES / f"{name}.yml")
    return study, *read_results(study)


class Returns:
    """
    Returns of the finished runs of a study in one environment.

    :param study: Name of the study.
    :param env: Environment; its first one by default.
    """

    def __init__(self, study: str, env: str | None = None):
        self.study, self.results, _, _ = results_of(study)
        self.name, self.env = study, env or self.study.runs[0].env
        self.groups = by_name(self.results, self.env)

    def on(self, env: str) -> "Returns":
        """:return: Those in another environment."""
        return Returns(self.name, env)

    def n(self, name: str) -> int:
        """:return: Finished seeds of an algorithm."""
        return len(self.groups[name])

    def declared(self) -> int:
        """:return: Runs in this environment, finished or not."""
        return sum(run.env == self.env for run in self.study.runs)

    def steps(self, name: str) -> np.ndarray:
        """:return: Steps of the evaluations that all seeds have."""
        return min((run.timesteps for run in self.groups[name]), key=len)

    def seeds(self, name: str, mode: str = "deterministic") -> np.ndarray:
        """:return: Curves of the seeds ``[seeds, evaluations]``."""
        return np.array([run.returns[mode][: len(self.steps(name))] for run in self.groups[name]])

    def iqm(self, name: str) -> np.ndarray:
        """:return: Curve of the interquartile mean."""
        return interquartile_mean(self.seeds(name))

    def last(self, name: str) -> np.ndarray:
        """:return: Returns ``[seeds]`` at the step at which the report compares algorithms, in order."""
        return np.sort([run.final("deterministic") for run in at_equal_steps(self.groups)[name]])

    def last_step(self) -> int:
        """:return: The steps that all algorithms have trained for."""
        return min(result.run.n_timesteps for result in self.results if result.run.env == self.env)

    def final(self, name: str) -> float:
        """:return: Interquartile mean of :meth:`last`."""
        return float(interquartile_mean(self.last(name)))

    def whole(self, name: str) -> float:
        """:return: Interquartile mean of the means of whole runs."""
        return float(interquartile_mean(self.seeds(name).mean(axis=1)))

    def training(self, name: str) -> float:
        """:return: Interquartile mean of the last training episodes."""
        return float(interquartile_mean(np.array([run.training for run in self.groups[name]])))

    def reaches(self, name: str, threshold: float) -> float:
        """:return: The first step at which the interquartile mean is at least this."""
        return float(self.steps(name)[np.argmax(self.iqm(name) >= threshold)])

    def stays_above(self, name: str, threshold: float) -> float:
        """:return: The first step from which on the interquartile mean is above this."""
        return float(self.steps(name)[np.flatnonzero(self.iqm(name) <= threshold)[-1] + 1])

    def first(self, name: str, threshold: float) -> np.ndarray:
        """:return: For each seed that ever returns more than this the first step at which it does, in order."""
        return np.sort(
            [self.steps(name)[np.argmax(curve > threshold)] for curve in self.seeds(name) if (curve > threshold).any()]
        )

    def perturbed(self, name: str, perturbation: str, strength: float, option: str = "") -> float:
        """:return: Interquartile mean under a perturbation, one whose options contain this text."""
        found = []
        for run in self.groups[name]:
            with open(self.study.robustness_of(run.run), newline="", encoding="utf-8") as text:
                rows = [
                    row for row in csv.DictReader(text) if row["perturbation"] == perturbation and option in row["options"]
                ]
            found.append([float(row["return"]) for row in rows if float(row["strength"]) == strength])
        return float(interquartile_mean(np.array(found))[0])

    def better(self, first: str, second: str) -> Interval:
        """:return: Probability that a run of one algorithm is better than one of another."""
        final = {name: [run.final("deterministic") for run in runs] for name, runs in at_equal_steps(self.groups).items()}
        return probability_of_improvement(final[first], final[second])


@functools.cache
def table(file: str) -> list[dict[str, str]]:
    """:return: Rows of a CSV file in ``benchmarks/results``."""
    with open(RESULTS / file, newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def column(file: str, name: str, *values: str) -> list[float]:
    """:return: All numbers of a column, in the rows that have all these values."""
    return [number for row in table(file) if {*values} <= {*row.values()} for number in numbers(row[name])]


def published(task: str) -> list[float]:
    """:return: The returns that others have published, without their deviations."""
    return [numbers(row[task])[0] for row in table("published.csv")]


def multigoal(name: str, kind: str) -> list[float]:
    """:return: A column of the results on MultiGoal, for all seeds of an algorithm."""
    return [
        number for row in table("multigoal.csv") if row["policy"].startswith(f"{name} seed") for number in numbers(row[kind])
    ]


def learned(name: str) -> list[int]:
    """:return: How many of the recorded episodes of a policy end nearest to each goal of MultiGoal."""
    ends = np.load(RESULTS / "multigoal_paths.npz")[name][:, -1].astype(float)
    return np.bincount(((ends[:, None] - MultiGoal.goals) ** 2).sum(axis=-1).argmin(axis=-1), minlength=4).tolist()


def numbers(text: str) -> list[float]:
    """:return: The numbers in a text such as ``234 to 357``."""
    return [float(number) for number in re.findall(r"(?:(?<![\w.])-)?\d+(?:\.\d+)?", text)]


def vocabulary() -> dict[str, object]:
    """:return: What expressions of claims may name: each study that has results, and functions."""
    functions = {
        "column": column,
        "table": table,
        "published": published,
        "multigoal": multigoal,
        "learned": learned,
        "np": np,
        "tolerance_interval": tolerance_interval,
    }
    names = {
        "TARGET": "DiscreteSAC, the paper's target entropy",
        "ESTIMATOR": "SQL, the paper's estimator",
        "BOOTSTRAP": "IQM, percentile bootstrap",
        "T": "IQM, t interval of the trimmed mean",
        "BETTER": "probability of improvement, percentile bootstrap",
        "GRAPHS": "SoftAC_v1, CUDA graphs",
        "SBX": "SBX SAC (JAX)",
        "COST": "times a step of SAC, median (range)",
        "GOALS": ["east", "west", "north", "south"],
        "BANDITS": [f"{dimensions}-D, {modes} modes" for dimensions in (1, 2) for modes in (2, 3, 4)],
        "gpu": lambda name, kind: column("gpu.csv", kind, "Walker2d-v4, batch 256", name)[0],
        "modes": lambda task, policy, kind: column("modes.csv", kind, task, policy),
        "coverage": lambda seeds, kind: column("interval_coverage.csv", kind, str(seeds)),
    }
    return functions | names | {name: Returns(name) for name in NAMES if results_of(name)[1]}


def at_a_glance() -> str:
    """:return: A table of the final returns in all studies."""
    lines = ["| task | algorithm | return | steps | seeds | study |", "|---|---|--:|--:|--:|---|"]
    for name in NAMES:
        _, done, *_ = results_of(name)
        for env in dict.fromkeys(result.run.env for result in done):
            returns = Returns(name, env)
            for algorithm in sorted(returns.groups, key=returns.final, reverse=True):
                numbers = f"{algorithm} | {returns.final(algorithm):.0f} | {returns.last_step()} | {returns.n(algorithm)}"
                lines.append(f'| {env} | {numbers} | <a href="studies/{name}/index.html">{name}</a> |')
    return "\n".join([*lines, ""])


def seeds_by_group(runs: list) -> str:
    """:return: Algorithms and environments with their seeds, such as ``SAC on Hopper-v4 (0 to 4)``."""
    groups: dict[str, list[int]] = {}
    for run in runs:
        groups.setdefault(f"{run.name} on {run.env}", []).append(run.seed)
    return "; ".join(f"{name} ({in_short(seeds)})" for name, seeds in groups.items()) or "none"


def in_short(seeds: list[int]) -> str:
    return (
        f"{seeds[0]} to {seeds[-1]}"
        if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1
        else ", ".join(map(str, seeds))
    )


def distinct(results: list[Result], describe: Callable[[dict[str, str]], str]) -> str:
    """:return: What the results say about themselves, each description once, with the number of its runs."""
    counted = collections.Counter(describe(result.versions) for result in results)
    return "; ".join(f"{text} ({n} runs)" if len(counted) > 1 else text for text, n in counted.items()) or "none"


def commit_of(versions: dict[str, str]) -> str:
    earlier = re.search(r"commit (\w+)", versions.get("sb3_softac", ""))  # of the file, by a script of an earlier version
    return versions.get("commit", f"results of {earlier[1]}" if earlier else "not recorded")[:20]


def packages_of(versions: dict[str, str]) -> str:
    names = ("sb3_softac", "stable_baselines3", "sb3_contrib", "rl_zoo3", "torch", "gymnasium", "mujoco", "numpy", "python")
    return ", ".join(f"{name} {versions[name]}" for name in names if name in versions and " " not in versions[name])


def machine_of(versions: dict[str, str]) -> str:
    return versions.get("processor", "not recorded")


def core_hours(results: list[Result]) -> str:
    """:return: Hours of training times threads; not those of the evaluations."""
    hours = [result.seconds[-1] * result.run.threads / 3600 for result in results]
    known = [each for each in hours if each == each]
    unknown = f"not recorded for {len(hours) - len(known)} runs" if len(known) < len(hours) else ""
    return ", ".join(filter(None, [f"{sum(known):.1f}" if known else "", unknown])) or "none"


def as_markdown() -> str:
    """:return: A table of all studies, and below it a section for each with its runs."""
    table_of_all = ["| study | declared | finished | partial | missing | core-hours |", "|---|---|---|---|---|---|"]
    sections = []
    for name in NAMES:
        study, done, partial, missing = results_of(name)
        rest = [one for one in missing if one.run not in [result.run for result in partial]]
        report = f'<a href="studies/{name}/index.html">report</a>' if done or partial else "no report"
        counts = f"{len(study.runs)} | {len(done)} | {len(partial)} | {len(rest)}"
        table_of_all.append(f"| [{name}](#{name.replace('_', '-')}) | {counts} | {core_hours([*done, *partial])} |")
        lines = {
            "finished": seeds_by_group([result.run for result in done]),
            "partial": seeds_by_group([result.run for result in partial]),
            "missing": seeds_by_group([one.run for one in rest]),
            "commit": distinct([*done, *partial], commit_of),
            "versions": distinct([*done, *partial], packages_of),
            "machine": distinct([*done, *partial], machine_of),
            "core-hours": core_hours([*done, *partial]),
            "steps of partial runs": ", ".join(str(result.timesteps[-1]) for result in partial),
        }
        items = [f"- {key}: {text}" for key, text in lines.items() if text]
        title = name.replace("_", " ").capitalize()
        command = f"```bash\npython -m sb3_softac.study run benchmarks/studies/{name}.yml\n```"
        sections.append("\n".join([f"## {title}", "", *items, f"- {report}", "", command, ""]))
    return "\n".join([*table_of_all, "", *sections])
