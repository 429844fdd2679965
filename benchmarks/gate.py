"""
The regression gate: whether each algorithm still learns as well as in the runs that are stored.

    python benchmarks/gate.py check              # trains; the exit status is 1 if an algorithm learns worse
    python benchmarks/gate.py check --record     # the same, and adds the result to the history
    python benchmarks/gate.py store              # trains the stored runs that are missing
    python benchmarks/gate.py trials             # gates without a change and with planted regressions
    python benchmarks/gate.py simulate           # false alarms and power, computed from the stored runs
    python benchmarks/gate.py plot

Two numbers say how a run has learned: the area under the curve, which is the return of the training episodes averaged over the
environment steps, and the final return of the deterministic policy. Each is compared with that of the stored runs by the exact
Mann-Whitney test, after 3, 6 and 12 new runs. The results are in ``benchmarks/results/gate``.
"""

import argparse
import csv
import datetime
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.envs.classic_control import PendulumEnv
from gymnasium.wrappers import TransformReward
from matplotlib.figure import Figure
from scipy import stats
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import sb3_softac
from sb3_softac.study.statistics import share_of_wins
from sb3_softac.study.training import commit

RESULTS = Path(__file__).parent / "results" / "gate"
RUNS, TRIALS, RATES, HISTORY = (RESULTS / f"{name}.csv" for name in ("runs", "trials", "rates", "history"))
PACKAGES = ("stable_baselines3", "torch", "gymnasium", "numpy")

STORED = 30
LOOKS = (3, 6, 12)
"""Numbers of new runs after which an algorithm is compared."""
FALSE_ALARMS = 1 / 200
"""Bound for a whole gate, divided equally among algorithms and looks: the sum holds however they depend on one another."""
CLEAR = 0.1
"""With a larger p-value an algorithm passes without further runs."""
LOSS = 0.25
"""What the gate is to find: this share of what the stored runs return above random actions."""

ENVS, EPISODES = 8, 20
STRIDE = 100
"""Between the seeds of two runs, since each environment of a run has a seed of its own."""


class Entry(NamedTuple):
    """A task that an algorithm learns in seconds."""

    env: str
    env_kwargs: dict[str, Any]
    steps: int
    settings: dict[str, Any]


COMMON = dict(learning_starts=400, policy_kwargs=dict(net_arch=[64, 64]))
gym.register(
    "PendulumHundredth-v1", lambda: TransformReward(PendulumEnv(), lambda reward: reward / 100), max_episode_steps=200
)
"""Rewards are small, and so is the temperature: an error that leaves it out makes the policy random."""
CARTPOLE = dict(max_episode_steps=200)  # as in CartPole-v0: returns vary less from seed to seed
ENTRIES = {
    "SoftAC_v1": Entry(
        "PendulumHundredth-v1",
        {},
        4_800,
        dict(gradient_steps=8, learning_rate=2e-3, batch_size=64, gamma=0.95, tau=0.02, ent_coef=0.002),
    ),
    "DiscreteSAC": Entry(
        "CartPole-v1",
        CARTPOLE,
        5_000,
        dict(gradient_steps=8, learning_rate=2e-3, batch_size=64, gamma=0.98, tau=0.05)
        | dict(target_entropy="ratio_0.5", critic_ent_coef_scale=0.0),
    ),
    "DiscreteSQL": Entry(
        "CartPole-v1",
        CARTPOLE,
        6_000,
        dict(gradient_steps=1, learning_rate=3e-3, batch_size=128, gamma=0.98, tau=0.1, ent_coef=0.1),
    ),
    "SQL": Entry(
        "MultiGoal-v0",
        {},
        4_000,
        dict(gradient_steps=1, learning_rate=3e-3, batch_size=64, gamma=0.95, tau=0.05, ent_coef=10.0)
        | dict(kernel_particles=8, value_particles=16),
    ),
}
PLANTED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "learning rate times 10": lambda settings: {"learning_rate": 10 * settings["learning_rate"]},
    "no target network": lambda settings: {"tau": 1.0},
    "entropy without its temperature": lambda settings: {"ent_coef": 1.0},
}
NO_CHANGE = [f"no change {number}" for number in range(1, 11)]

Trained = tuple[str, int]
"""A run by its algorithm and seed."""
TrainAll = Callable[[list[Trained]], Iterable[tuple[float, float]]]


def train(name: str, seed: int, planted: str | None = None) -> tuple[float, float]:
    """:return: Area under the curve and final return of a run."""
    th.set_num_threads(1)
    entry = ENTRIES[name]
    settings = entry.settings | (PLANTED[planted](entry.settings) if planted else {})
    model = getattr(sb3_softac, name)(
        "MlpPolicy",
        make_vec_env(entry.env, ENVS, seed=seed, env_kwargs=entry.env_kwargs),
        seed=seed,
        device="cpu",
        stats_window_size=entry.steps,  # all training episodes
        **COMMON,
        **settings,
    ).learn(entry.steps)
    episodes = model.ep_info_buffer
    area = np.average([episode["r"] for episode in episodes], weights=[episode["l"] for episode in episodes])
    test_env = make_vec_env(entry.env, EPISODES, seed=seed + ENVS, env_kwargs=entry.env_kwargs)
    final, _ = evaluate_policy(model, test_env, EPISODES, warn=False)
    return float(area), float(final)


def p_value(new: np.ndarray, stored: np.ndarray) -> float:
    """
    :param new: Area and final return of each new run ``[n, 2]``.
    :param stored: Those of the stored runs ``[m, 2]``.
    :return: Probability of new runs at least this bad if nothing has changed: the smaller p-value of the exact Mann-Whitney
        tests of the two numbers, times two.
    """
    return min(1.0, 2 * float(stats.mannwhitneyu(new, stored, alternative="less", method="exact").pvalue.min()))


def verdict(p: float, n: int) -> str:
    """:return: "worse" or "kept"; "open" if the p-value after n new runs asks for more of them."""
    if p <= FALSE_ALARMS / len(ENTRIES) / len(LOOKS):
        return "worse"
    return "kept" if p > CLEAR or n == LOOKS[-1] else "open"


class Outcome(NamedTuple):
    """What a gate found for one algorithm."""

    algorithm: str
    runs: int
    wins: float
    """Probability that a new run is better than a stored one, mean of area and final return: 0.5 without a change."""
    p: float
    verdict: str

    def as_row(self) -> dict[str, str]:
        return {**self._asdict(), "runs": str(self.runs), "wins": f"{self.wins:.3f}", "p": f"{self.p:.6f}"}


def gate(stored: dict[str, np.ndarray], first_seed: int, train_all: TrainAll) -> list[Outcome]:
    """:return: An outcome for each algorithm, from as many new runs as it takes."""
    new: dict[str, list[tuple[float, float]]] = {name: [] for name in stored}
    outcomes: dict[str, Outcome] = {}
    for n in LOOKS:
        undecided = [name for name in stored if name not in outcomes]
        todo = [(name, first_seed + STRIDE * i) for i in range(n) for name in undecided if i >= len(new[name])]
        for (name, _), run in zip(todo, train_all(todo), strict=True):
            new[name].append(run)
        for name in undecided:
            runs = np.array(new[name])
            p = p_value(runs, stored[name])
            if (found := verdict(p, n)) != "open":
                wins = float(share_of_wins(runs.T, stored[name].T).mean())
                outcomes[name] = Outcome(name, n, wins, p, found)
    return [outcomes[name] for name in stored]


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row)
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def settings_of(name: str) -> str:
    """:return: A short number that changes with the task and the settings of an algorithm."""
    return f"{zlib.crc32(repr((ENTRIES[name], COMMON, ENVS)).encode()):08x}"


def kept_runs(purpose: str) -> dict[Trained, tuple[float, float]]:
    """:return: The runs of the file that have been made for this purpose with the present settings."""
    return {
        (row["algorithm"], int(row["seed"])): (float(row["area"]), float(row["final"]))
        for row in read(RUNS)
        if row["purpose"] == purpose and row["settings"] == settings_of(row["algorithm"])
    }


def stored_runs() -> dict[str, np.ndarray]:
    """:return: Area and final return of the stored runs ``[n, 2]`` of each algorithm."""
    kept = kept_runs("stored")
    stored = {name: np.array([run for (of, _), run in kept.items() if of == name]) for name in ENTRIES}
    if few := [name for name, runs in stored.items() if len(runs) < STORED]:
        sys.exit(f"{RUNS} has fewer than {STORED} runs with the present settings of {few}: python benchmarks/gate.py store")
    return stored


def clean_commit() -> str:
    """:return: The commit by which results are filed."""
    if commit().endswith("-dirty"):
        sys.exit("Results are filed by commit: commit the changes of the package first")
    return commit()[:10]


class Trainer:
    """Trains several runs at a time, and keeps those that have a purpose in a file."""

    def __init__(self, pool: ProcessPoolExecutor):
        self.pool = pool

    def train(self, runs: list[Trained], planted: str | None = None) -> Iterator[tuple[float, float]]:
        return self.pool.map(train, *zip(*runs, strict=True), [planted] * len(runs)) if runs else iter(())

    def keep(self, purpose: str, runs: list[Trained]) -> list[tuple[float, float]]:
        """:return: Those of the file, and the others after training them. A planted regression is its own purpose."""
        kept = kept_runs(purpose)
        missing = [run for run in runs if run not in kept]
        planted = purpose if purpose in PLANTED else None
        code = clean_commit()
        versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
        for run, (area, final) in zip(missing, self.train(missing, planted), strict=True):
            kept[run] = area, final
            (name, seed), task = run, ENTRIES[run[0]].env
            row = dict(purpose=purpose, algorithm=name, task=task, seed=str(seed), area=f"{area:.5g}", final=f"{final:.5g}")
            append(RUNS, row | dict(settings=settings_of(name), commit=code, versions=versions))
        return [kept[run] for run in runs]


def check(trainer: Trainer, planted: str | None, record: bool) -> list[Outcome]:
    """A gate with seeds that follow from the commit: another commit has others, the same one the same verdict."""
    stored, code = stored_runs(), clean_commit() if record else commit()
    first_seed = 10_000_000 + STRIDE**2 * (zlib.crc32(code.encode()) % STRIDE**2)
    outcomes = gate(stored, first_seed, lambda runs: trainer.train(runs, planted))
    for row in [outcome.as_row() for outcome in outcomes]:
        print("{algorithm:12} {verdict:6} after {runs:>2} runs, better than a stored run: {wins} (p = {p})".format(**row))
        if record:
            append(HISTORY, {"date": datetime.date.today().isoformat(), "commit": code} | row)
    return outcomes


def trials(trainer: Trainer) -> None:
    """Gates of fixed seeds, without a change and with each planted regression. Go on where they were interrupted."""
    stored = stored_runs()
    TRIALS.unlink(missing_ok=True)
    for number, trial in enumerate([*PLANTED, *NO_CHANGE], start=1):
        for outcome in gate(stored, STRIDE**2 * number, lambda runs, trial=trial: trainer.keep(trial, runs)):
            append(TRIALS, {"trial": trial} | outcome.as_row())


def drawn(rng: np.random.Generator, runs: np.ndarray, n: int) -> np.ndarray:
    """:return: Runs ``[n, 2]``, with replacement. One that is drawn twice is no tie, as two runs with other seeds are none."""
    return rng.choice(runs, n) + 1e-6 * rng.standard_normal((n, 2))


def random_returns(entry: Entry) -> np.ndarray:
    """:return: Area and final return ``[2]`` of random actions."""
    env = make_vec_env(entry.env, 1, seed=0, env_kwargs=entry.env_kwargs)
    env.action_space.seed(0)
    env.reset()
    for _ in range(20_000):
        env.step([env.action_space.sample()])
    (returns,), (lengths,) = (env.env_method(f"get_episode_{name}") for name in ("rewards", "lengths"))
    return np.array([np.average(returns, weights=lengths), np.mean(returns)])


def simulate(stored: dict[str, np.ndarray], gates: int = 5_000) -> Iterator[dict[str, str]]:
    """:return: How often simulated gates find an algorithm worse, and after how many runs they decide."""
    rng, alarms = np.random.default_rng(0), np.zeros(gates, bool)
    for name, runs in stored.items():
        random = random_returns(ENTRIES[name])
        loss = LOSS * (runs.mean(axis=0) - random)
        changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "none": lambda new: new,
            "every run loses a quarter": lambda new, loss=loss: new - loss,
            "a quarter of the runs learns nothing": lambda new, random=random: np.where(
                rng.random((len(new), 1)) < LOSS, drawn(rng, random[None], len(new)), new
            ),
        }
        for change, changed in changes.items():
            found = []
            for _ in range(gates):
                new, old = changed(drawn(rng, runs, LOOKS[-1])), drawn(rng, runs, STORED)
                looks = ((n, verdict(p_value(new[:n], old), n)) for n in LOOKS)
                found.append(next((n, result) for n, result in looks if result != "open"))
            worse = np.array([result == "worse" for _, result in found])
            alarms |= worse & (change == "none")
            number = f"{np.mean([n for n, _ in found]):.1f}"
            yield dict(algorithm=name, change=change, gates=str(gates), worse=f"{worse.mean():.4f}", runs=number)
    yield dict(algorithm="any", change="none", gates=str(gates), worse=f"{alarms.mean():.4f}", runs="")


def plot() -> None:
    """Draw the probabilities of the trials and of the history."""
    from sb3_softac.study.plots import MARKERS, line_style, style_numbers

    rows = [("no change" if row["trial"] in NO_CHANGE else row["trial"], row) for row in read(TRIALS)]
    rows += [(f"{row['date']}, {row['commit'][:7]}", row) for row in read(HISTORY)[-20 * len(ENTRIES) :]]
    labels = list(dict.fromkeys(label for label, _ in rows))
    figure = Figure(figsize=(7, 0.4 * len(labels) + 1.4), layout="constrained")
    axis = figure.subplots()
    for k, (name, number) in enumerate(style_numbers(ENTRIES).items()):
        colour = line_style(number)["color"]
        for label, row in rows:
            if row["algorithm"] == name:
                face, height = colour if row["verdict"] == "worse" else "none", labels.index(label) + 0.18 * (k - 1.5)
                axis.scatter(float(row["wins"]), height, marker=MARKERS[number], facecolor=face, edgecolor=colour)
        axis.scatter([], [], marker=MARKERS[number], facecolor="none", edgecolor=colour, label=name)
    axis.axvline(0.5, color="0.7", zorder=0)
    axis.set(yticks=range(len(labels)), yticklabels=labels, xlabel="probability that a new run is better than a stored one")
    axis.invert_yaxis()
    figure.legend(title="filled: worse", loc="outside right upper")
    figure.savefig(RESULTS / "gate.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check", "store", "trials", "simulate", "plot"])
    parser.add_argument("--jobs", type=int, default=2, help="number of runs that are trained at a time")
    parser.add_argument("--record", action="store_true", help="add the outcome of check to the history")
    parser.add_argument("--plant", choices=PLANTED, help="a regression that check is to find")
    args = parser.parse_args()
    with ProcessPoolExecutor(args.jobs) as pool:
        trainer = Trainer(pool)
        if args.command == "check":
            sys.exit(any(outcome.verdict == "worse" for outcome in check(trainer, args.plant, args.record)))
        elif args.command == "store":
            trainer.keep("stored", [(name, STRIDE * i) for i in range(STORED) for name in ENTRIES])
        elif args.command == "trials":
            trials(trainer)
        elif args.command == "simulate":
            RATES.unlink(missing_ok=True)
            for row in simulate(stored_runs()):
                append(RATES, row)
                print(*row.values())
        else:
            plot()


if __name__ == "__main__":
    main()
