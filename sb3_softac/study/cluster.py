"""Runs of a study on a Ray cluster: one task per run, which resumes from its last checkpoint if a worker or node is lost."""

from typing import Any

from sb3_softac.study.declaration import Run, Study, StudyError
from sb3_softac.study.local import thread_limits
from sb3_softac.study.progress import watch
from sb3_softac.study.results import failure_reason, write_failure

RETRIES = 5


def run_on_ray(study: Study, runs: list[Run], address: str | None, cpus: float, gpus: float) -> dict[str, str]:
    """
    :param study: Study; all nodes must see its folders under the same path.
    :param runs: The runs to complete.
    :param address: Address of the cluster; None for a cluster that Ray finds, or else this machine.
    :param cpus: Cores per run.
    :param gpus: GPUs per run, a fraction for several runs on one.
    :return: The reasons of failed runs, by run id.
    :raises StudyError: if Ray is missing.
    """
    try:
        import ray
    except ImportError as error:
        raise StudyError("--engine ray needs Ray: pip install 'sb3_softac[cluster]'") from error
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False)

    # A process of its own for each run, as its threads and random generators are set for the whole process
    @ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=RETRIES, max_calls=1)
    def task(run: Run) -> None:
        from sb3_softac.study.worker import work

        work(study, run)

    for run in runs:
        study.failure_of(run).unlink(missing_ok=True)
    tasks: dict[str, Any] = {
        run.id: task.options(runtime_env={"env_vars": thread_limits(run.threads)}).remote(run) for run in runs
    }
    by_id = {run.id: run for run in runs}
    over: dict[str, str | None] = {}

    def outcome() -> dict[str, str | None]:
        waiting = {reference: name for name, reference in tasks.items() if name not in over}
        if waiting:
            done, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
            for reference in done:
                try:
                    ray.get(reference)
                    over[waiting[reference]] = None
                except ray.exceptions.RayError as error:
                    over[waiting[reference]] = _failure(study, by_id[waiting[reference]], str(error).strip())
        return over

    watch(study, runs, outcome)
    return {name: failure for name, failure in over.items() if failure is not None}


def _failure(study: Study, run: Run, said: str) -> str:
    """:return: Why a run failed: what it wrote itself, or what Ray says of a process that died."""
    path = study.failure_of(run)
    if not path.exists():
        write_failure(study, run, f"{' '.join(said.split())}\n\n{said}\n")
    return f"{failure_reason(study, run)} (see {path})"
