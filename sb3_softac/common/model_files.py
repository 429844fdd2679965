"""Saved models: written atomically, and read without running code from the file."""

import io
import json
import os
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedIOBase
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO, ClassVar, TypeVar

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.save_util import open_path
from stable_baselines3.common.type_aliases import GymEnv

from sb3_softac import files
from sb3_softac.common.entropy_options import EntropyOptions
from sb3_softac.common.plain_json import LEFT_OUT, NotPlain, from_plain, to_plain

SelfModelFiles = TypeVar("SelfModelFiles", bound="ModelFiles")

SAFE_LOAD = "SB3_SOFTAC_SAFE_LOAD"
PLAIN = "plain.json"
OTHERS = {"data", PLAIN, "_stable_baselines3_version", "system_info.txt"}
# What SB3 would make an environment of, or take for one of its own objects.
NEVER = {"env", "policy", "replay_buffer", "_vec_normalize_env", "_logger"}


class ModelFiles(EntropyOptions):
    """SB3's ``save`` and ``load``, safe against crashes and, with ``safe=True``, against malicious files."""

    own_policies: ClassVar[dict[str, type[BasePolicy]]] = {}
    """Policies that users cannot select by name, but that are saved by name."""

    def save(
        self,
        path: str | Path | BufferedIOBase,
        exclude: Iterable[str] | None = None,
        include: Iterable[str] | None = None,
    ) -> None:
        """
        Save the model; SB3's ``save``. An existing file is replaced atomically when the new one is completely on disk.

        :param path: File, or a stream.
        :param exclude: Names of attributes to leave out.
        :param include: Names of attributes to save that would otherwise be left out.
        """
        if isinstance(path, str | Path):
            with replacing(path if Path(path).suffix else f"{path}.zip") as file:
                file.write(self._content(exclude, include))
        else:
            open_path(path, "w").write(self._content(exclude, include))

    @classmethod
    def _named_policies(cls) -> dict[str, type[BasePolicy]]:
        """:return: Policy classes by the names that files have for them."""
        return {**cls.policy_aliases, **cls.own_policies}

    def _content(self, exclude: Iterable[str] | None, include: Iterable[str] | None) -> bytes:
        """:return: What SB3 saves, and what of it is pickled once more as JSON."""
        content = io.BytesIO()
        super().save(content, exclude, include)
        with zipfile.ZipFile(content, "a") as archive:
            plain = {}
            for name in _pickled(json.loads(archive.read("data"))):
                with suppress(NotPlain):  # load(safe=True) says which
                    plain[name] = None if name in LEFT_OUT else to_plain(self.__dict__[name], self._named_policies())
            archive.writestr(PLAIN, json.dumps(plain))
        return content.getvalue()

    @classmethod
    def load(  # type: ignore[override]
        cls: type[SelfModelFiles],
        path: str | Path | BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        safe: bool | None = None,
        **kwargs: Any,
    ) -> SelfModelFiles:
        """
        Load a model; SB3's ``load``. If ``ent_coef`` is given, a learned temperature starts from the new value.

        SB3's files contain pickles, which can run any code when they are read. With ``safe=True`` no pickle is read, so files
        from untrusted sources can be loaded: their numbers, and classes of PyTorch, SB3 and this package by name. Episode
        statistics are not loaded then.

        :param path: File that :meth:`save` wrote.
        :param env: Environment for further training; None to predict only.
        :param device: Device of the networks.
        :param custom_objects: Objects to use instead of those in the file.
        :param print_system_info: Whether to print the versions with which the file was saved.
        :param force_reset: Whether to reset the environment before training continues.
        :param safe: Whether to raise an error instead of unpickling anything. None means False, unless the environment
            variable ``SB3_SOFTAC_SAFE_LOAD`` is 1, which is meant for programs that you do not change, such as RL Zoo's.
        :param kwargs: Arguments of the constructor to change.
        :return: The model.
        :raises ValueError: if another algorithm saved the file, or if ``safe`` is set and something would have to be
            unpickled.
        """
        if safe or (safe is None and os.environ.get(SAFE_LOAD) == "1"):
            path, custom_objects = cls._without_pickles(path, custom_objects or {})
        try:
            model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)
        except UnpicklingError as error:  # PyTorch reads nothing but tensors
            raise ValueError(f"Refused: the tensor file in {path} contains more than tensors") from error
        if "ent_coef" in model._said_anew:
            model.temperature = model._make_temperature()
        model._said_anew = set()
        return model

    @classmethod
    def _without_pickles(cls, path: str | Path | BufferedIOBase, given: dict[str, Any]) -> tuple[io.BytesIO, dict[str, Any]]:
        """
        :param path: File.
        :param given: Objects to use instead of those in the file.
        :return: Its content, and objects to use instead of all pickles in it.
        :raises ValueError: if something is not what :meth:`save` writes, or there is no replacement for a pickle.
        """
        with open_path(path, "r", suffix="zip") as file:  # read once: what is checked is what is loaded
            content = io.BytesIO(file.read())
        with zipfile.ZipFile(content) as archive:
            for member in archive.infolist():
                known = member.filename in OTHERS or (member.filename.endswith(".pth") and "/" not in member.filename)
                if not known or member.compress_type != zipfile.ZIP_STORED or member.filename.startswith("."):
                    raise ValueError(f"Refused: {member.filename!r} in {path} is not something that save() writes")
            if sum(member.file_size for member in archive.infolist()) > content.getbuffer().nbytes:
                raise ValueError(f"Refused: {path} claims to contain more data than it does")
            data = json.loads(archive.read("data"))
            plain = json.loads(archive.read(PLAIN)) if PLAIN in archive.namelist() else {}
        if NEVER & (data.keys() | plain.keys()):
            raise ValueError(
                f"Refused: {sorted(NEVER & (data.keys() | plain.keys()))} in {path} is not something that save() writes"
            )
        missing = sorted(set(_pickled(data)) - plain.keys() - given.keys())
        if missing:
            raise ValueError(
                f"Refused: {missing} in {path} would have to be unpickled, which can run any code. Pass them in "
                "custom_objects, or, if you trust the author of the file, convert it once with "
                f"{cls.__name__}.load(path).save(path)"
            )
        objects = {name: from_plain(part, cls._named_policies()) for name, part in plain.items()}
        content.seek(0)
        return content, {"tensorboard_log": None, **objects, **given}


def _pickled(data: dict[str, Any]) -> list[str]:
    """:return: Names of the attributes that SB3 pickled."""
    return [name for name, part in data.items() if isinstance(part, dict) and ":serialized:" in part]


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """
    :param path: Path of a file.
    :return: A file to write, which replaces the one at the path when it is complete and on disk.
    """
    path = Path(path)
    if path.is_dir():
        warnings.warn(f"Path '{path}' is a folder. Will save instead to {path}_2", stacklevel=4)
        path = Path(f"{path}_2")
    with files.replacing(path) as file:
        yield file
