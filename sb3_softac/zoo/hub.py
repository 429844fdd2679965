"""Repairs for RL Zoo 2.9's scripts that upload and download models: the libraries that they use have changed."""

import functools
import importlib
from types import ModuleType
from typing import Any

from sb3_softac.files.plain_files import SAFE_LOAD, safe_load_is_on
from sb3_softac.zoo.statistics import twin_of
from sb3_softac.zoo.wrapping import wrap_once

STATISTICS = "vec_normalize.pkl"


@functools.cache
def repair_hub() -> None:
    """Repair what is broken, once, and before the Zoo's scripts import it. The libraries come with the Zoo."""
    _restore_generate_metadata(importlib.import_module("huggingface_sb3.push_to_hub"))
    _report_missing_files_as_before(importlib.import_module("huggingface_sb3"))
    if safe_load_is_on():
        wrap_once(importlib.import_module("huggingface_sb3"), "load_from_hub", _plain_statistics)


def _plain_statistics(original: Any, repo_id: Any, filename: str, *args: Any, **kwargs: Any) -> str:
    """Download the plain twin of the statistics of VecNormalize in their place, and nothing if there is no twin."""
    if filename != STATISTICS:
        return original(repo_id, filename, *args, **kwargs)
    from requests.exceptions import HTTPError

    try:
        return original(repo_id, str(twin_of(filename)), *args, **kwargs)
    except HTTPError:
        original(repo_id, filename, *args, **kwargs)  # raises if the model has no statistics
        raise ValueError(
            f"Refused: {filename} of {repo_id} is a pickle, which can run any code, and has no plain twin. "
            f"If you trust whoever made it, unset {SAFE_LOAD}"
        ) from None


def _restore_generate_metadata(module: ModuleType) -> None:
    """
    The Zoo imports ``generate_metadata``, which sb3-team-hf-integration 3.2 has renamed to ``_generate_metadata``.

    The renamed function returns an object; the Zoo expects a dictionary, as before.
    """
    if not hasattr(module, "generate_metadata") and hasattr(module, "_generate_metadata"):
        module.__dict__["generate_metadata"] = lambda *args, **kwargs: module._generate_metadata(*args, **kwargs).to_dict()


def _report_missing_files_as_before(module: ModuleType) -> None:
    """
    A model without VecNormalize has no ``vec_normalize.pkl``; the Zoo learns that from the ``HTTPError`` of requests.

    Since release 1.0 huggingface_hub raises its own error for a file that the server does not have. Other failures, such as a
    missing connection, are not converted: they must not make a model lose its normalization.
    """
    from huggingface_hub import errors
    from requests.exceptions import HTTPError

    remote_error = getattr(errors, "RemoteEntryNotFoundError", HTTPError)
    if issubclass(remote_error, HTTPError):
        return

    class MissingFileError(errors.EntryNotFoundError, HTTPError):
        """An error that code for either of the two exceptions catches."""

    original = module.load_from_hub

    @functools.wraps(original)
    def load_from_hub(*args: Any, **kwargs: Any) -> str:
        try:
            return original(*args, **kwargs)
        except remote_error as error:
            raise MissingFileError(str(error)) from error

    module.__dict__["load_from_hub"] = load_from_hub
