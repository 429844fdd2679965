"""
Hyperparameter searches that survive killed workers: ``python -m sb3_softac.zoo train -optimize --storage URL``.

RL Zoo passes the address of a database to Optuna, which then records no heartbeat: the trial of a killed worker counts as
running for ever. Here, an address (anything with ``://``) becomes a storage with a heartbeat. A trial without a heartbeat for
two minutes is marked as failed and repeated, at most three times. ``grpc://host:port`` is Optuna's gRPC proxy, which does not
forward heartbeats.
"""

import warnings
from typing import Any
from urllib.parse import urlsplit

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import GrpcStorageProxy, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.storages.journal import JournalFileBackend

from sb3_softac.zoo.patches import wrap

HEARTBEAT_SECONDS, RETRIES = 60, 3


def never(suffix: str) -> bool:
    """Stands in for ``endswith``: the Zoo expects a string, and asks whether it ends in ``.log``, as files do."""
    return False


class TrialZero(int):
    """The number 0, of a search's first trial. The Zoo takes a false number for none at all."""

    def __bool__(self) -> bool:
        return True


def make_storage(storage: Any) -> Any:
    """:return: A storage for an address; anything else, such as the name of a file, unchanged."""
    if not isinstance(storage, str) or "://" not in storage:
        return storage
    address = urlsplit(storage)
    made: RDBStorage | GrpcStorageProxy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna still calls these parts experimental
        if address.scheme != "grpc":
            retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
            made = RDBStorage(storage, heartbeat_interval=HEARTBEAT_SECONDS, heartbeat_stale_trial_callback=retry)
        elif address.hostname and address.port:
            made = GrpcStorageProxy(host=address.hostname, port=address.port)
        else:
            raise ValueError(f"--storage {storage}: the address of a gRPC proxy has the form grpc://host:port")
    made.endswith = never  # type: ignore[union-attr]
    return made


def check_trial(storage: Any, study_name: str, number: int) -> None:
    """:raises ValueError: if the storage has no such study, or the study no such trial."""
    if isinstance(storage, str) and storage.endswith(".log"):  # as the Zoo opens it
        storage = JournalStorage(JournalFileBackend(storage))
    names = optuna.get_all_study_names(storage)
    if study_name not in names:
        raise ValueError(f"--study-name {study_name}: the storage has no such study, it has {', '.join(names) or 'none'}")
    count = len(optuna.load_study(study_name=study_name, storage=storage).trials)
    if number >= count:
        raise ValueError(f"--trial-id {number}: the study {study_name} has no such trial (it has {count}, numbered from 0)")


def make_sweeps_survive() -> None:
    """Make the searches of this process survive killed workers, and find the trial number 0."""
    wrap("rl_zoo3.exp_manager:ExperimentManager.__init__", _open_storage)
    wrap("rl_zoo3.exp_manager:ExperimentManager.hyperparameters_optimization", _free_stale_trials)


def _open_storage(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    original(self, *args, **kwargs)
    self.storage = make_storage(self.storage)
    if self.storage and self.study_name and self.trial_id is not None:
        check_trial(self.storage, self.study_name, self.trial_id)
    if self.trial_id == 0:
        self.trial_id = TrialZero()


def _free_stale_trials(original: Any, self: Any) -> None:
    if isinstance(self.storage, RDBStorage) and self.study_name is not None:
        # The Zoo counts running trials against --max-total-trials: dead ones must not be among them
        found = optuna.create_study(
            storage=self.storage, study_name=self.study_name, load_if_exists=True, direction="maximize"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(found)
    original(self)
