"""
Hyperparameter searches that survive killed workers.

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
from optuna.storages import GrpcStorageProxy, RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials

from sb3_softac.zoo.wrapping import wrap_once

HEARTBEAT_SECONDS, RETRIES = 60, 3


class NotALogFile:
    """The Zoo expects the storage to be a string, and checks whether it ends in ``.log``, which would be a file."""

    def endswith(self, suffix: str) -> bool:
        """
        :param suffix: A suffix.
        :return: False.
        """
        return False


class SurvivingStorage(NotALogFile, RDBStorage):
    """
    A database storage that detects workers that have died.

    :param url: Address of the database.
    """

    def __init__(self, url: str):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # of heartbeat and retry, in Optuna since 2.x
            retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
            super().__init__(url, heartbeat_interval=HEARTBEAT_SECONDS, heartbeat_stale_trial_callback=retry)


class ProxyStorage(NotALogFile, GrpcStorageProxy):
    """
    A database behind Optuna's gRPC proxy.

    :param url: ``grpc://host:port``.
    :raises ValueError: if the address has no host or no port.
    """

    def __init__(self, url: str):
        address = urlsplit(url)
        if not address.hostname or not address.port:
            raise ValueError(f"--storage {url}: the address of a gRPC proxy has the form grpc://host:port")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            super().__init__(host=address.hostname, port=address.port)


class TrialZero(int):
    """The number of a search's first trial. The Zoo takes a number that counts as false for none."""

    def __bool__(self) -> bool:
        return True


def make_storage(storage: Any) -> Any:
    """
    :param storage: The value of ``--storage``.
    :return: A storage for an address; anything else unchanged.
    """
    if not isinstance(storage, str) or "://" not in storage:
        return storage
    return ProxyStorage(storage) if storage.startswith("grpc://") else SurvivingStorage(storage)


def make_sweeps_survive(manager: Any) -> None:
    """
    :param manager: The Zoo's ``ExperimentManager``.
    """
    wrap_once(manager, "__init__", _open_storage)
    wrap_once(manager, "hyperparameters_optimization", _free_stale_trials)


def _open_storage(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    original(self, *args, **kwargs)
    self.storage = make_storage(self.storage)
    if self.trial_id == 0:
        self.trial_id = TrialZero()


def _free_stale_trials(original: Any, self: Any) -> None:
    if isinstance(self.storage, SurvivingStorage) and self.study_name is not None:
        # The Zoo counts running trials against --max-total-trials: dead ones must not be among them
        name = self.study_name
        study = optuna.create_study(storage=self.storage, study_name=name, load_if_exists=True, direction="maximize")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(study)
    original(self)
