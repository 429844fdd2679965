"""``python -m sb3_softac.study --help`` lists the commands: ``run``, ``robustness`` and ``report``."""

import argparse
import os
import pickle
import sys
import tempfile
from pathlib import Path

from sb3_softac.study import processes
from sb3_softac.study.declaration import Run, Study, StudyError
from sb3_softac.study.perturbed_evaluation import evaluate_runs
from sb3_softac.study.report import write_report
from sb3_softac.study.results import is_finished
from sb3_softac.study.study_file import read_study
from sb3_softac.study.user_code import freeze
from sb3_softac.study.validation import check_names, check_unchanged


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sb3_softac.study", description="Train and report many seeds.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train the declared runs that are not finished")
    run.add_argument("--engine", choices=["local", "ray"], default="local", help="where to train")
    own = os.environ.get("RAY_ADDRESS") or "local"
    run.add_argument("--address", default=own, help="address of the Ray cluster, `auto` for one that runs on this machine")
    run.add_argument("--cpus", type=float, default=1, help="cores per run, with Ray")
    run.add_argument("--gpus", type=float, default=0, help="GPUs per run, with Ray; 0.25 for four runs on one GPU")
    robustness = commands.add_parser("robustness", help="evaluate the trained models under the declared perturbations")
    report = commands.add_parser("report", help="write a page, plots and tables")
    for command in (run, robustness, report):
        command.add_argument("file", type=Path, help="YAML file that declares the study")
    for command in (run, robustness):
        command.add_argument("--jobs", type=int, default=n_cores(), help="parallel processes (default: one per core)")
        command.add_argument(
            "--shard", type=shard, default=(1, 1), metavar="I/N", help="only the I-th of N parts, for job arrays"
        )
    report.add_argument("--to", type=Path, help="folder of the report (default: `report` in the output folder of the study)")
    commands.add_parser("work", help="train one run in this process (called by `run`)")
    return parser.parse_args(arguments)


def n_cores() -> int:
    """:return: Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shard(text: str) -> tuple[int, int]:
    try:
        part, parts = map(int, text.split("/"))
    except ValueError:
        part, parts = 0, 0
    if not 1 <= part <= parts:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with 1 <= I <= N, such as 1/8 for the first of eight parts")
    return part, parts


def run_study(study: Study, args: argparse.Namespace) -> dict[str, str]:
    study, declared = checked_shard(study, args)
    # Seed by seed, so that an interrupted study has something to show of every algorithm and environment
    runs = sorted((run for run in declared if not is_finished(study, run)), key=lambda run: run.seed)
    print(f"{study.name}: {len(declared)} runs, {len(declared) - len(runs)} of them finished", file=sys.stderr)
    if not runs:
        return {}
    if args.engine == "ray":
        return processes.run_on_ray(study, runs, args.address, args.cpus, args.gpus)
    return processes.run_locally(study, runs, args.jobs)


def evaluate_robustness(study: Study, args: argparse.Namespace) -> dict[str, str]:
    if not study.robustness:
        raise StudyError(f"{args.file} has no key `robustness`: add `robustness: {{}}` for all perturbations that apply")
    study, declared = checked_shard(study, args)
    declared = [run for run in declared if run.env in study.robustness]
    runs = [run for run in declared if is_finished(study, run)]
    print(f"{study.name}: {len(runs)} of {len(declared)} runs are finished", file=sys.stderr)
    return evaluate_runs(study, runs, args.jobs)


def checked_shard(study: Study, args: argparse.Namespace) -> tuple[Study, list[Run]]:
    """:return: The study as it is declared now, unaffected by later edits of its files, and the runs of this shard."""
    check_names(study)
    study = freeze(study)
    check_unchanged(study)
    if args.jobs < 1:
        raise StudyError(f"--jobs must be at least 1, got {args.jobs}")
    for what, folder in (("output", study.output), ("results", study.results)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise StudyError(f"{what}: nothing can be written to {folder}: {error.strerror}") from error
    part, parts = args.shard
    return study, [*study.runs[part - 1 :: parts]]


def main(arguments: list[str]) -> int:
    """:return: Exit code: 1 if a run failed, 2 if nothing was started."""
    args = parse(arguments)
    try:
        if args.command == "work":
            from sb3_softac.study.training import work

            work(*pickle.load(sys.stdin.buffer))  # from the process that started this one
            return 0
        study = read_study(args.file)
        if args.command == "report":
            print(write_report(study, args.to or study.output / "report"))
            return 0
        failures = run_study(study, args) if args.command == "run" else evaluate_robustness(study, args)
        for name, reason in failures.items():
            print(f"failed: {name}: {reason}", file=sys.stderr)
        return 1 if failures else 0
    except KeyboardInterrupt:
        return 130
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
