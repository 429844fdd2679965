"""
Curves of a healthy training and of four sick ones: DiscreteSAC on CartPole-v1, one seed each.

    python benchmarks/healthy.py         # about four minutes on one core; writes healthy.csv and draws it
    python benchmarks/healthy.py draw    # draws what has been written
"""

import sys
import tempfile
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from stable_baselines3.common.logger import configure

from sb3_softac import DiscreteSAC

RESULTS = Path(__file__).parent / "results"
STEPS, EVERY = 15_000, 500
HEALTHY = dict(learning_rate=1e-3, batch_size=64, tau=0.02, target_entropy="ratio_0.5", policy_kwargs=dict(net_arch=[64, 64]))
RUNS = {
    "healthy": {},
    "temperature explodes": dict(target_entropy="auto"),
    "temperature too low": dict(ent_coef=0.0001),
    "temperature too high": dict(ent_coef=50.0),
    "Q diverges": dict(tau=1.0, learning_rate=0.02),
}
COLUMNS = {
    "rollout/ep_rew_mean": "return of training episodes",
    "train/entropy_ratio": "entropy, share of the largest",
    "train/ent_coef": "temperature",
    "train/q_mean": "mean of the Q targets",
}


def train(**changes: object) -> pd.DataFrame:
    """:return: What was logged, at the first log after every 500 steps."""
    with tempfile.TemporaryDirectory() as folder:
        model = DiscreteSAC("MlpPolicy", "CartPole-v1", seed=0, **{**HEALTHY, **changes})
        model.set_logger(configure(folder, ["csv"]))
        model.learn(STEPS, log_interval=1)
        logged = pd.read_csv(Path(folder, "progress.csv"))
    logged = logged.dropna(subset=["train/q_mean"])
    first = logged.groupby(logged["time/total_timesteps"] // EVERY).first()
    return first[["time/total_timesteps", *COLUMNS]].rename(columns={"time/total_timesteps": "steps"})


def draw(curves: pd.DataFrame) -> None:
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    for plot, (column, title) in zip(figure.subplots(2, 2).flat, COLUMNS.items(), strict=True):
        for number, (name, curve) in enumerate(curves.groupby("run", sort=False)):
            plot.plot(curve["steps"], curve[column], f"C{number}", linewidth=2.4 if number == 0 else 1.2, label=name)
        plot.set(title=title, xlabel="environment steps")
        if column == "train/ent_coef":
            plot.set_yscale("log")
        if column == "train/q_mean":
            plot.set_yscale("symlog", linthresh=10)
    figure.legend(*plot.get_legend_handles_labels(), loc="outside upper center", ncols=len(RUNS), fontsize="small")
    figure.savefig(RESULTS / "healthy.png", dpi=80)
    figure.savefig(RESULTS / "healthy.svg", metadata={"Date": None})


def main() -> None:
    file = RESULTS / "healthy.csv"
    if sys.argv[1:] != ["draw"]:
        curves = pd.concat([train(**changes).assign(run=name) for name, changes in RUNS.items()])
        file.write_text(curves.map(lambda value: f"{value:.4g}" if isinstance(value, float) else value).to_csv(index=False))
    draw(pd.read_csv(file))


if __name__ == "__main__":
    main()
