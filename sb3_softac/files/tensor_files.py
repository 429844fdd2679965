"""PyTorch's files of tensors, looked into without PyTorch: what they contain, before anything is made of them."""

import io
import pickle
import zipfile
from collections import OrderedDict
from typing import Any

ITEM_SIZES = {
    **{"DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4},
    **{"ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1},
}


class NotTensors(ValueError):
    """A file contains something other than tensors, or claims to contain more than it does."""


def stored_members(content: bytes) -> zipfile.ZipFile:
    """The file; its members are not compressed, and no larger together than the file."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise NotTensors(f"it is not a zip file ({error})") from error
    members = archive.infolist()
    compressed = [member.filename for member in members if member.compress_type != zipfile.ZIP_STORED]
    if compressed:
        raise NotTensors(f"{compressed[0]!r} is compressed")
    if sum(member.file_size for member in members) > len(content):
        raise NotTensors("it claims to contain more data than it does")
    if len({member.filename for member in members}) < len(members):
        raise NotTensors("two of its members have the same name")
    return archive


def tensor_sizes(content: bytes) -> list[int]:
    """Number of elements of each tensor storage in it."""
    archive = stored_members(content)
    pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise NotTensors("it was not written by torch.save()")
    reader = _Sizes(archive, pickles[0].removesuffix("data.pkl"))
    try:
        reader.load()
    except NotTensors:
        raise
    except Exception as error:  # a made-up pickle fails in any way
        raise NotTensors(f"its structure is damaged ({type(error).__name__}: {error})") from error
    return list(reader.sizes.values())


class _Sizes(pickle._Unpickler):  # type: ignore[name-defined,misc]
    """Reads the structure of a file of tensors with stand-ins for all objects, so that nothing is called."""

    def __init__(self, archive: zipfile.ZipFile, folder: str):
        super().__init__(io.BytesIO(archive.read(f"{folder}data.pkl")))
        self.archive, self.folder = archive, folder
        self.sizes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        """A stand-in for what a file of tensors may name."""
        if module == "torch" and name in ITEM_SIZES:
            return name
        known = {
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch", "Size"): tuple,
        }
        if (module, name) not in known:
            raise NotTensors(f"it contains {module}.{name}")
        return known[module, name]

    def persistent_load(self, pid: Any) -> int:
        """Number of elements of a storage, which are in the file."""
        _, storage, key, _, count = pid
        size = self.archive.getinfo(f"{self.folder}data/{key}").file_size
        if type(count) is not int or size != count * ITEM_SIZES[storage]:
            raise NotTensors("a tensor has another size than its data")
        self.sizes[str(key)] = count
        return count


def _tensor(count: int, offset: int, shape: Any, strides: Any, *others: Any) -> None:
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if not all(type(number) is int and number >= 0 for number in (offset, *shape, *strides)) or (
        0 not in shape and last >= count
    ):
        raise NotTensors("a tensor is larger than its data")
    if any(stride == 0 < size - 1 for size, stride in zip(shape, strides, strict=True)):
        raise NotTensors("a tensor repeats its data")


def _parameter(data: Any, *others: Any) -> Any:
    return data
