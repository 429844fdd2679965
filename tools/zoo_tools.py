"""
Each tool of RL Zoo with each algorithm, as a user runs it: a table of what works.

Run it by the Python of an environment where the package, its extra ``plots`` and wandb are installed: ``make zoo-tools`` makes
one. ``python tools/zoo_tools.py sac dqn`` gives the same table for algorithms of Stable-Baselines3, which tells a failure of
ours from one of the Zoo. Nothing is sent anywhere: W&B is offline, and the hub is a server on this machine. MuJoCo's window
needs a display; where there is none, ``xvfb-run -a make zoo-tools`` makes one. All of it takes about ten minutes.
"""

import argparse
import importlib.metadata
import importlib.util
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from fake_hub import FakeHub

TASKS = {
    "softac_v1": "Walker2d-v4",
    "discretesac": "CartPole-v1",
    "discretesql": "CartPole-v1",
    "sql": "Pendulum-v1",
    "sac": "Walker2d-v4",
    "dqn": "CartPole-v1",
}
NAMED = "sb3_softac rl_zoo3 stable_baselines3 sb3_contrib gymnasium mujoco torch optuna huggingface_hub wandb".split()
TIMEOUT = 600
"""Seconds that a tool may take."""


class Tool(NamedTuple):
    """A command, in which {algo}, {env} and {small} stand for those of the run, and what tells that it did its work."""

    name: str
    command: str
    files: tuple[str, ...] = ()
    """Patterns of files that it must have written."""
    says: str = ""
    """What it must have printed."""


SMALL = '--hyperparams "policy_kwargs:dict(net_arch=[8])" batch_size:16 buffer_size:1000 learning_starts:50'
TRAIN = "python -m rl_zoo3.train --algo {algo} --env {env} -n 300 --eval-freq 100 --eval-episodes 2"
REPAIRED = TRAIN.replace("rl_zoo3.train", "sb3_softac.zoo train")
SEARCH = "--storage sqlite:///search.db --study-name search -f searched"
PLAY = "--algo {algo} --env {env} -f logs --exp-id 1"
ENJOY = f"python -m rl_zoo3.enjoy {PLAY} -n 1010"
RUN = "logs/{algo}/{env}_1"
TOOLS = (
    Tool(
        "train",
        TRAIN + " --n-eval-envs 2 --save-freq 100 --save-replay-buffer --progress --tensorboard-log tb {small}",
        (
            *(f"{RUN}/{name}" for name in ("{env}.zip", "best_model.zip", "evaluations.npz", "rl_model_200_steps.zip")),
            f"{RUN}/replay_buffer.pkl",
            "tb/{env}/*/events.out.tfevents*",
        ),
        "300/300",
    ),
    Tool(
        "train: environments in processes", TRAIN + " --vec-env subproc {small} n_envs:2", ("logs/{algo}/{env}_2/{env}.zip",)
    ),
    Tool("train: W&B", TRAIN + " --track {small}", ("logs/{algo}/{env}_3/{env}.zip", "wandb/offline-run-*/*.wandb")),
    Tool(
        "train: continue",
        TRAIN + f" -i {RUN}/{{env}}.zip {{small}}",
        ("logs/{algo}/{env}_4/{env}.zip",),
        "Loading replay buffer",
    ),
    Tool(
        "train: optimize",
        REPAIRED + f" -optimize --n-trials 2 --n-startup-trials 1 --n-evaluations 1 --no-optim-plots {SEARCH} {{small}}",
        ("searched/{algo}/report_*.csv", "search.db"),
        "Best trial",
    ),
    Tool(
        "train: a trial's hyperparameters",
        REPAIRED + f" --trial-id 0 {SEARCH}",
        ("searched/{algo}/{env}_2/{env}.zip",),
        "Loading from Optuna",
    ),
    Tool(
        "train: command rl_zoo3",
        "rl_zoo3 train --algo {algo} --env {env} -n 100 -f others {small}",
        ("others/{algo}/{env}_1/{env}.zip",),
    ),
    Tool("enjoy", ENJOY + " --no-render", says="Mean reward"),
    Tool("enjoy: in a window", ENJOY, says="Mean reward"),
    Tool("enjoy: best", ENJOY + " --no-render --load-best", says="Mean reward"),
    Tool(
        "enjoy: a checkpoint",
        ENJOY + " --no-render --load-checkpoint 200",
        says="rl_model_200_steps",
    ),
    Tool(
        "enjoy: last checkpoint",
        ENJOY + " --no-render --load-last-checkpoint",
        says="rl_model_300_steps",
    ),
    Tool("enjoy: stochastic", ENJOY + " --no-render --stochastic --n-envs 2 --progress", says="1,010/1,010"),
    Tool("record_video", f"python -m rl_zoo3.record_video {PLAY} -n 20 -o videos", ("videos/final-model*.mp4",)),
    Tool(
        "record_training",
        f"python -m sb3_softac.zoo record_training {PLAY} -n 20 -o progress --gif",
        ("progress/training.mp4", "progress/training.gif"),
    ),
    Tool("plot_train", "python -m rl_zoo3.plots.plot_train --algo {algo} --env {env} --exp-folder logs -w 1"),
    Tool(
        "all_plots", "python -m rl_zoo3.plots.all_plots --algos {algo} --env {env} --exp-folders logs -o table", ("table.pkl",)
    ),
    Tool("plot_from_file", "python -m rl_zoo3.plots.plot_from_file -i table.pkl -o curve.svg", ("curve.svg",)),
    Tool(
        "plot_from_file: rliable",
        "python -m rl_zoo3.plots.plot_from_file -i table.pkl --rliable --iqm --boxplot -o other.svg",
        ("other.svg",),
    ),
    Tool("benchmark", "python -m sb3_softac.zoo benchmark --log-dir logs --no-hub -n 1010", ("benchmark.md",), "Mean reward"),
    Tool(
        "push_to_hub",
        "python -m sb3_softac.zoo push_to_hub --algo {algo} --env {env} -f logs --exp-id 1 -orga me -n 20",
        ("hub/{algo}-{env}/replay.mp4", "hub/{algo}-{env}/README.md"),
        "Your model is pushed",
    ),
    Tool(
        "load_from_hub",
        "python -m sb3_softac.zoo load_from_hub --algo {algo} --env {env} -f fetched -orga me",
        ("fetched/{algo}/{env}_1/{env}.zip",),
    ),
    Tool(
        "enjoy: from the hub",
        "python -m rl_zoo3.enjoy --algo {algo} --env {env} -f fetched --no-render -n 1010",
        says="Mean reward",
    ),
)


def use(tool: Tool, algo: str, folder: Path, hub: str) -> str:
    """
    Run a tool.

    :param tool: Which.
    :param algo: Algorithm.
    :param folder: Working directory; the output is kept in it too.
    :param hub: Address of the hub.
    :return: The reason why it failed, in one line; nothing if it worked.
    """
    names = {"algo": algo, "env": TASKS[algo], "small": SMALL}
    program, *arguments = shlex.split(tool.command.format(**names))
    program = sys.executable if program == "python" else str(Path(sys.executable).with_name(program))
    environment = {
        **os.environ,
        **{"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "SDL_VIDEODRIVER": "dummy", "MUJOCO_GL": "egl"},
        **{"WANDB_MODE": "offline", "HF_ENDPOINT": hub, "HF_HOME": str(folder / "home"), "TRUST_REMOTE_CODE": "True"},
    }
    output = folder / f"{tool.name.replace(' ', '_').replace(':', '')}.txt"
    with output.open("w") as file:
        try:
            status = subprocess.run(
                [program, *arguments], cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT, timeout=TIMEOUT
            ).returncode
        except subprocess.TimeoutExpired:
            return f"not done after {TIMEOUT} seconds"
    text = output.read_text()
    if status:
        return next((line for line in reversed(text.splitlines()) if line.strip()), f"exit status {status}")
    missing = [pattern for pattern in (name.format(**names) for name in tool.files) if not list(folder.glob(pattern))]
    if missing:
        return f"did not write {missing[0]}"
    return "" if tool.says in text else f"did not print {tool.says!r}"


def main() -> None:
    """Print the table, and exit with 1 if a tool fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("algos", nargs="*", default=["softac_v1", "discretesac", "discretesql", "sql"], help="by default ours")
    parser.add_argument("--folder", type=Path, help="where to keep what the tools write and print; by default nowhere")
    args = parser.parse_args()
    hub = FakeHub()
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    failures: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for algo in args.algos:
            folder = (args.folder or Path(temporary)).resolve() / algo
            folder.mkdir(parents=True)
            failures[algo] = {}
            for tool in TOOLS:
                failures[algo][tool.name] = use(tool, algo, folder, hub.address)
                print(f"{algo}, {tool.name}: {failures[algo][tool.name] or 'works'}", file=sys.stderr, flush=True)
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in NAMED), end="\n\n")
    print("| tool |", *(f"{algo} on {TASKS[algo]} |" for algo in args.algos))
    print("|---|" + "---|" * len(args.algos))
    for tool in TOOLS:
        print(f"| {tool.name} |", *(f"{failures[algo][tool.name] or 'works'} |" for algo in args.algos))
    sys.exit(any(reason for reasons in failures.values() for reason in reasons.values()))


if __name__ == "__main__":
    main()
