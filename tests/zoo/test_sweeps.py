"""Searches of hyperparameters on a database: a killed worker's trial is tried again."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import optuna
import pytest
from optuna.storages import GrpcStorageProxy, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from sb3_softac.zoo import sweeps
from sb3_softac.zoo.sweeps import make_storage
from tests.zoo.commands import ENVIRONMENT, PENDULUM, SMALL, run

SEARCH = ("-optimize", "-n", 200, "--n-startup-trials", 1, "--n-evaluations", 1, "--pruner", "none", "--no-optim-plots")


def trials_of(url):
    storage = RDBStorage(url, engine_kwargs={"poolclass": NullPool})
    try:
        return optuna.load_study(study_name="search", storage=storage).trials
    finally:
        storage.remove_session()


def ask(url, statement, **parameters):
    """:return: The first number of the answer, or the number of changed rows; 0 as long as there is no such table."""
    with create_engine(url, poolclass=NullPool).begin() as connection, contextlib.suppress(OperationalError, ProgrammingError):
        result = connection.execute(text(statement), parameters)
        return result.scalar() if result.returns_rows else result.rowcount
    return 0


def start_worker(folder, url, *arguments):
    """A worker whose trial takes for ever, in a process of its own."""
    command = [sys.executable, "-m", "sb3_softac.zoo", "train", *PENDULUM, *SMALL, *SEARCH, "-n", "1000000", "--storage", url]
    command += ["--study-name", "search", *arguments]
    with open(folder / "worker.txt", "w") as output:
        return subprocess.Popen(list(map(str, command)), cwd=folder, env=ENVIRONMENT, stdout=output, stderr=output)


def age_heartbeats(url, seconds):
    """As if the last heartbeats were longer ago."""
    old = "datetime(heartbeat, :ago)" if url.startswith("sqlite") else "heartbeat + CAST(:ago AS interval)"
    assert ask(url, f"UPDATE trial_heartbeats SET heartbeat = {old}", ago=f"-{seconds} seconds") == 1


def kill_a_worker_and_go_on(folder, url):
    """:return: The trials in the end."""
    worker = start_worker(folder, url)
    deadline = time.monotonic() + 120
    while not (ask(url, "SELECT COUNT(*) FROM trial_params") and ask(url, "SELECT COUNT(*) FROM trial_heartbeats")):
        assert worker.poll() is None and time.monotonic() < deadline, (folder / "worker.txt").read_text()[-3000:]
        time.sleep(0.5)
    time.sleep(3)  # it has drawn all its hyperparameters, and trains
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    age_heartbeats(url, 10 * sweeps.HEARTBEAT_SECONDS)
    run(
        *(folder, "sb3_softac.zoo", "train", *PENDULUM, *SMALL, *SEARCH),
        *("--storage", url, "--study-name", "search", "--max-total-trials", 1),
    )
    return trials_of(url)


def assert_tried_again(trials):
    lost, again = trials
    assert lost.state == TrialState.FAIL and again.state == TrialState.COMPLETE
    assert again.params == lost.params and again.system_attrs["failed_trial"] == lost.number


@pytest.mark.slow
def test_a_killed_worker_on_sqlite(tmp_path):
    assert_tried_again(kill_a_worker_and_go_on(tmp_path, f"sqlite:///{tmp_path}/search.db"))


POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture
def postgres(tmp_path_factory):
    """A server of its own on a free port of this machine."""
    pytest.importorskip("psycopg")
    if not POSTGRES:
        pytest.skip("PostgreSQL's server is not installed (Debian: postgresql)")
    folder = tmp_path_factory.mktemp("postgres")
    data, port = folder / "data", 20_000 + os.getpid() % 10_000
    as_user = []
    if os.getuid() == 0:  # the server refuses to run as root
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        for parent in [folder, *folder.parents[:3]]:
            if parent != Path("/tmp"):
                os.chmod(parent, 0o755)
        shutil.chown(folder, "postgres", "postgres")
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}

    def call(program, *arguments):
        command = [*as_user, str(POSTGRES[-1] / program), *map(str, arguments)]
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)

    call("initdb", "-D", data, "-U", "sweeper", "-A", "trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    call("pg_ctl", "-D", data, "-l", folder / "log", "-w", "-o", options, "start")
    try:
        yield f"postgresql+psycopg://sweeper@127.0.0.1:{port}/postgres"
    finally:
        call("pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.mark.slow
def test_a_killed_worker_on_postgres(tmp_path, postgres):
    assert_tried_again(kill_a_worker_and_go_on(tmp_path, postgres))


@pytest.fixture
def proxy(tmp_path):
    """Optuna's proxy before a database, in a process of its own."""
    port = 30_000 + os.getpid() % 10_000
    code = (
        "import optuna; from optuna.storages import RDBStorage, run_grpc_proxy_server; "
        f"run_grpc_proxy_server(RDBStorage('sqlite:///{tmp_path}/proxy.db'), host='localhost', port={port})"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    storage = make_storage(f"grpc://localhost:{port}")
    storage.wait_server_ready(timeout=60)
    yield f"grpc://localhost:{port}"
    storage.close()
    server.terminate()
    server.wait()


@pytest.mark.slow
def test_the_proxy(tmp_path, proxy):
    search = (*SEARCH, "--storage", proxy, "--study-name", "search", "--max-total-trials", 2)
    run(tmp_path, "sb3_softac.zoo", "train", *PENDULUM, *SMALL, *search)
    trials = trials_of(f"sqlite:///{tmp_path}/proxy.db")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    used = (*PENDULUM, "-n", 100, "--storage", proxy, "--study-name", "search", "--trial-id", 1)
    assert "Loading from Optuna study..." in run(tmp_path, "sb3_softac.zoo", "train", *used)


@pytest.mark.parametrize("storage", ["sqlite:///search.db", "search.log"])
@pytest.mark.parametrize(
    ("name", "number", "message"),
    [
        ("other", 0, "--study-name other: the storage has no such study, it has search"),
        ("search", 7, r"--trial-id 7: the study search has no such trial \(it has 1, numbered from 0\)"),
    ],
)
def test_a_trial_that_does_not_exist(tmp_path, monkeypatch, storage, name, number, message):
    monkeypatch.chdir(tmp_path)
    opened = JournalStorage(JournalFileBackend(storage)) if storage.endswith(".log") else storage
    optuna.create_study(study_name="search", storage=opened).ask()
    sweeps.check_trial(storage, "search", 0)
    with pytest.raises(ValueError, match=f"^{message}$"):
        sweeps.check_trial(storage, name, number)


def test_what_becomes_a_storage(tmp_path):
    assert make_storage(None) is None
    for name in ("logs/demo.log", "study.db"):
        assert make_storage(name) == name
    storage = make_storage(f"sqlite:///{tmp_path}/a.db")
    assert isinstance(storage, RDBStorage) and not storage.endswith(".log") and not storage.endswith(".db")
    assert storage.get_heartbeat_interval() == 60
    assert make_storage(storage) is storage
    storage.engine.dispose()


@pytest.mark.parametrize("url", ["grpc://host", "grpc://:80", "grpc://"])
def test_addresses_of_no_proxy(url):
    with pytest.raises(ValueError, match=r"grpc://host:port"):
        make_storage(url)


def test_the_proxy_is_asked_where_it_is():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        storage = make_storage("grpc://127.0.0.1:12345")
    assert isinstance(storage, GrpcStorageProxy) and (storage._host, storage._port) == ("127.0.0.1", 12345)
    storage.close()
