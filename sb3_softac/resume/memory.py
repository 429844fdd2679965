"""Arrays and tensors: their values, how they lie in memory, and which of them share it."""

import ctypes
import mmap
from typing import Any

import numpy as np
import torch as th

NATIVE = {np.dtype(name) for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "float32", "float64")}
ALIGNMENT = 64

Layout = dict[str, Any]
"""An array as JSON: its dtype, shape and strides in bytes, and the name of its values or its place in a block of memory."""


class Memory:
    """Collects the arrays and tensors of a state."""

    def __init__(self, baseline: Any = None):
        self.baseline = baseline
        self.tensors: dict[str, th.Tensor] = {}
        self.is_shared = False
        """Whether some of the memory may be that of other processes, too."""
        self._entries: list[tuple[int, int, Any, Layout, str]] = []

    def add(self, value: Any, path: str) -> Layout:
        is_tensor = isinstance(value, th.Tensor)
        layout = self._add_tensor(value.detach(), path) if is_tensor else self._add_array(value, path)
        on_cpu = not is_tensor or value.device.type == "cpu"
        self.is_shared |= is_shared(value)
        if on_cpu and self.baseline is not None and 0 not in value.shape:
            low, high = bounds(value)
            self._entries.append((low, high, value, layout, path))
        return layout

    def _store(self, tensor: th.Tensor, path: str) -> str:
        name = path if path not in self.tensors else f"{path}#{len(self.tensors)}"
        self.tensors[name] = tensor
        return name

    def _add_tensor(self, value: th.Tensor, path: str) -> Layout:
        layout: Layout = {"data": self._store(value.cpu().clone(memory_format=th.contiguous_format), path)}
        if not value.is_contiguous():
            layout["strides"] = [stride * value.element_size() for stride in value.stride()]
        return layout

    def _add_array(self, value: np.ndarray, path: str) -> Layout:
        native = value.dtype in NATIVE
        dense = np.array(value, order="C", subok=False)
        values = dense if native else np.frombuffer(dense.tobytes(), np.uint8).copy()
        layout: Layout = {"data": self._store(th.from_numpy(values), path)}
        if not native:
            layout |= {"dtype": dtype_to_json(value.dtype), "shape": list(value.shape)}
        if not value.flags.c_contiguous:
            layout["strides"] = list(value.strides)
        if not value.flags.writeable:
            layout["locked"] = True
        return layout

    def connect(self) -> list[str]:
        """
        Have arrays that overlap in memory refer to one block of it. Where all of them have been there since the training
        started, they overlap in a program that is started again, too.
        """
        problems: list[str] = []
        block: list[tuple[int, int, Any, Layout, str]] = []
        end = 0
        for entry in [*sorted(self._entries, key=lambda entry: entry[:2]), None]:
            if block and (entry is None or entry[0] >= end):
                if len(block) > 1 and any(self.baseline.path_of(value) is None for _, _, value, _, _ in block):
                    problems += self._connect(block)
                block = []
            if entry is not None:
                end = max(end, entry[1]) if block else entry[1]
                block.append(entry)
        return problems

    def _connect(self, block: list[tuple[int, int, Any, Layout, str]]) -> list[str]:
        start, end = block[0][0], max(high for _, high, *_ in block)
        place: Layout = {"size": end - start, "align": start % ALIGNMENT}
        known = [(low, value) for low, _, value, _, _ in block if self.baseline.path_of(value) is not None]
        if known:
            # New views of an array that has been there from the start: they are made of it again
            low, value = known[0]
            around = surroundings(value)
            if around is None or around.ctypes.data > start or around.ctypes.data + around.nbytes < end:
                return [f"{path} (it shares memory with something that is not an array)" for *_, path in block[:1]]
            place["of"], place["before"] = self.baseline.path_of(value), low - start
        # The first name of the block stands for it
        number = block[0][3]["data"]
        for low, _, value, layout, _ in block:
            dtype = str(value.dtype) if isinstance(value, th.Tensor) else dtype_to_json(value.dtype)
            layout |= {"block": number, "place": place, "offset": low - start, "first": first_byte(value) - low}
            layout |= {"dtype": dtype, "shape": list(value.shape), "strides": strides(value)}
        return []


def strides(value: Any) -> list[int]:
    """The strides of an array or tensor in bytes."""
    if isinstance(value, th.Tensor):
        return [stride * value.element_size() for stride in value.stride()]
    return list(value.strides)


def first_byte(value: Any) -> int:
    """The address of the first element of an array or tensor."""
    return value.data_ptr() if isinstance(value, th.Tensor) else value.ctypes.data


def bounds(value: Any) -> tuple[int, int]:
    """The addresses of the first byte of an array or tensor and of the byte after its last."""
    low, high = _span(value.shape, strides(value), value.itemsize)
    return first_byte(value) + low, first_byte(value) + high


def is_shared(value: Any) -> bool:
    """Whether the memory of an array or tensor may be that of other processes, too."""
    while isinstance(value, np.ndarray | memoryview):
        value = value.base if isinstance(value, np.ndarray) else value.obj
    if isinstance(value, th.Tensor):
        return value.is_shared()
    return isinstance(value, mmap.mmap | ctypes.Array)  # multiprocessing's arrays, too


def surroundings(value: Any) -> np.ndarray | None:
    """The bytes of the memory that it is a part of; None if they are not accessible."""
    if isinstance(value, th.Tensor):
        storage = value.untyped_storage()
        return th.empty(0, dtype=th.uint8).set_(storage).numpy() if storage.device.type == "cpu" else None
    while isinstance(value.base, np.ndarray):
        value = value.base
    if not (value.flags.c_contiguous or value.flags.f_contiguous) or value.dtype.hasobject:
        return None
    return np.asarray(value).ravel(order="K").view(np.uint8)


def dense(layout: Layout, tensors: dict[str, th.Tensor]) -> np.ndarray:
    """The values of a saved array; not to be changed."""
    values = tensors[layout["data"]].numpy()
    dtype = dtype_from_json(layout["dtype"]) if "dtype" in layout else values.dtype
    return values if dtype in NATIVE else np.frombuffer(values.tobytes(), dtype).reshape(layout["shape"])


def laid_out(values: np.ndarray, layout: Layout) -> np.ndarray:
    """A new array of these values with the strides of the saved one."""
    if "strides" not in layout:
        return values.copy()
    low, high = _span(values.shape, layout["strides"], values.itemsize)
    memory = np.zeros(high - low, np.uint8)
    result = np.ndarray(values.shape, values.dtype, memory, -low, layout["strides"])
    result[...] = values
    return result


def _span(shape: tuple[int, ...], steps: list[int], width: int) -> tuple[int, int]:
    reach = [(size - 1) * stride for size, stride in zip(shape, steps, strict=True)]
    return sum(step for step in reach if step < 0), sum(step for step in reach if step > 0) + width


def aligned(size: int, offset: int) -> np.ndarray:
    memory = np.zeros(size + 2 * ALIGNMENT, np.uint8)
    start = (offset - memory.ctypes.data) % ALIGNMENT
    return memory[start : start + size]


def view(block: np.ndarray, layout: Layout) -> np.ndarray:
    offset = layout["offset"] + layout["first"]
    return np.ndarray(layout["shape"], dtype_from_json(layout["dtype"]), block, offset, layout["strides"])


def view_as_tensor(block: np.ndarray, layout: Layout) -> th.Tensor:
    dtype = getattr(th, layout["dtype"].removeprefix("torch."))
    width = th.empty(0, dtype=dtype).element_size()
    start = layout["offset"] + layout["first"]
    rest = th.from_numpy(block[start : start + (len(block) - start) // width * width]).view(dtype)
    return rest.as_strided(layout["shape"], [stride // width for stride in layout["strides"]])


def dtype_to_json(dtype: np.dtype) -> Any:
    return np.lib.format.dtype_to_descr(dtype)


def dtype_from_json(content: Any) -> np.dtype:
    """The dtype of :func:`dtype_to_json`."""
    return np.lib.format.descr_to_dtype(_tuples(content))


def _tuples(content: Any) -> Any:
    """JSON has no tuples, which a structured dtype consists of."""
    if not isinstance(content, list):
        return content
    return [(name, _tuples(dtype), *map(tuple, shape)) for name, dtype, *shape in content]
