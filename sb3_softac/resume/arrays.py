"""Arrays and tensors: their values, their layout in memory, and which of them share it."""

from typing import Any

import numpy as np
import torch as th

NATIVE = {np.dtype(name) for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "float32", "float64")}
ALIGNMENT = 64

Layout = dict[str, Any]
"""An array as JSON: the name of its values, its dtype, shape and strides in bytes, and the block of memory that it shares."""


class Memory:
    """The arrays and tensors of a state."""

    def __init__(self, copying: bool = True):
        self.copying = copying
        self.tensors: dict[str, th.Tensor] = {}
        self._entries: list[tuple[int, int, Any, Layout, str]] = []

    def add(self, value: Any, path: str, shared: bool = True) -> Layout:
        """An array or tensor as JSON; it may share memory with others."""
        if isinstance(value, th.Tensor):
            value, on_cpu = value.detach(), value.device.type == "cpu"
            layout = self._store(value.cpu().clone(memory_format=th.contiguous_format) if self.copying else value, path)
            dense = value.is_contiguous()
        else:
            layout, on_cpu, dense = self._store_array(value, path), True, value.flags.c_contiguous
        if not dense:
            layout["strides"] = strides(value)
        if shared and on_cpu and 0 not in value.shape:
            self._entries.append((*bounds(value), value, layout, path))
        return layout

    def _store(self, tensor: th.Tensor, path: str) -> Layout:
        name = path if path not in self.tensors else f"{path}#{len(self.tensors)}"
        self.tensors[name] = tensor
        return {"data": name}

    def _store_array(self, value: np.ndarray, path: str) -> Layout:
        if value.dtype in NATIVE:
            as_it_is = not self.copying and value.flags.writeable and min(value.strides, default=0) >= 0
            layout = self._store(
                th.from_numpy(np.asarray(value) if as_it_is else np.array(value, order="C", subok=False)), path
            )
        else:
            layout = self._store(th.from_numpy(np.frombuffer(value.tobytes(), np.uint8).copy()), path)
            layout |= {"dtype": dtype_to_json(value.dtype), "shape": list(value.shape)}
        return layout if value.flags.writeable else layout | {"locked": True}

    def connect(self, paths: dict[int, str]) -> list[str]:
        """
        Have arrays that overlap in memory refer to one block of it. Where all of them have been there since training started,
        they overlap in a program that is started again, too. Returned are those that cannot be restored, with the reason.
        """
        problems: list[str] = []
        group: list[tuple[int, int, Any, Layout, str]] = []
        end = 0
        for entry in [*sorted(self._entries, key=lambda entry: entry[:2]), None]:
            if group and (entry is None or entry[0] >= end):
                if len(group) > 1 and any(id(value) not in paths for _, _, value, _, _ in group):
                    problems += _connect(group, end, paths)
                group = []
            if entry is not None:
                end = max(end, entry[1]) if group else entry[1]
                group.append(entry)
        return problems


def _connect(group: list[tuple[int, int, Any, Layout, str]], end: int, paths: dict[int, str]) -> list[str]:
    start = group[0][0]
    block: dict[str, Any] = {"name": group[0][3]["data"], "size": end - start, "align": start % ALIGNMENT}
    known = next(((low, value) for low, _, value, _, _ in group if id(value) in paths), None)
    if known is not None:  # new views of an array that has been there from the start are made of it again
        low, value = known
        around = _surroundings(value)
        if around is None or around.ctypes.data > start or around.ctypes.data + around.nbytes < end:
            return [f"{group[0][4]} (it shares memory with something that is not an array)"]
        block |= {"of": paths[id(value)], "before": low - start}
    for _, _, value, layout, path in group:
        if isinstance(value, th.Tensor) and value.dtype == th.bfloat16:
            return [f"{path} (it shares memory, of a type that NumPy does not have)"]
        dtype = th.empty(0, dtype=value.dtype).numpy().dtype if isinstance(value, th.Tensor) else value.dtype
        layout |= {"block": block, "offset": _first_byte(value) - start, "dtype": dtype_to_json(dtype)}
        layout |= {"shape": list(value.shape), "strides": strides(value)}
    return []


def strides(value: Any) -> list[int]:
    """In bytes, of an array or tensor."""
    if isinstance(value, th.Tensor):
        return [stride * value.element_size() for stride in value.stride()]
    return list(value.strides)


def _first_byte(value: Any) -> int:
    return value.data_ptr() if isinstance(value, th.Tensor) else value.ctypes.data


def _span(shape: Any, steps: list[int], width: int) -> tuple[int, int]:
    """Where an array begins and ends, relative to its first element."""
    reach = [(size - 1) * stride for size, stride in zip(shape, steps, strict=True)]
    return sum(step for step in reach if step < 0), sum(step for step in reach if step > 0) + width


def bounds(value: Any) -> tuple[int, int]:
    """The addresses of the first byte of an array or tensor and of the byte after its last."""
    low, high = _span(value.shape, strides(value), value.element_size() if isinstance(value, th.Tensor) else value.itemsize)
    return _first_byte(value) + low, _first_byte(value) + high


def _surroundings(value: Any) -> np.ndarray | None:
    """The bytes of the memory that an array or tensor is a part of; None if they are not accessible."""
    if isinstance(value, th.Tensor):
        storage = value.untyped_storage()
        return th.empty(0, dtype=th.uint8).set_(storage).numpy() if storage.device.type == "cpu" else None
    while isinstance(value.base, np.ndarray):
        value = value.base
    if not (value.flags.c_contiguous or value.flags.f_contiguous) or value.dtype.hasobject:
        return None
    return np.asarray(value).ravel(order="K").view(np.uint8)


def make_block(block: dict[str, Any], live: Any) -> np.ndarray | None:
    """Memory that several arrays share: new, or that of a live array; None if the latter lies elsewhere than the saved one."""
    if "of" not in block:
        memory = np.zeros(block["size"] + 2 * ALIGNMENT, np.uint8)
        start = (block["align"] - memory.ctypes.data) % ALIGNMENT
        return memory[start : start + block["size"]]
    around = _surroundings(live) if isinstance(live, np.ndarray | th.Tensor) else None
    start = -1 if around is None else bounds(live)[0] - block["before"] - around.ctypes.data
    return None if around is None or not 0 <= start <= len(around) - block["size"] else around[start : start + block["size"]]


def view(block: np.ndarray, layout: Layout) -> np.ndarray:
    """An array in a block of memory."""
    return np.ndarray(layout["shape"], dtype_from_json(layout["dtype"]), block, layout["offset"], layout["strides"])


def values_of(layout: Layout, tensors: dict[str, th.Tensor]) -> np.ndarray:
    """The values of an array; not to be changed."""
    values = tensors[layout["data"]].numpy()
    dtype = dtype_from_json(layout["dtype"]) if "dtype" in layout else values.dtype
    return values if dtype in NATIVE else np.frombuffer(values.tobytes(), dtype).reshape(layout["shape"])


def laid_out(values: np.ndarray, layout: Layout) -> np.ndarray:
    """A new array with the strides of the saved one."""
    if "strides" not in layout:
        return values.copy()
    low, high = _span(values.shape, layout["strides"], values.itemsize)
    result = np.ndarray(values.shape, values.dtype, np.zeros(high - low, np.uint8), -low, layout["strides"])
    result[...] = values
    return result


def dtype_to_json(dtype: np.dtype) -> Any:
    return np.lib.format.dtype_to_descr(dtype)


def dtype_from_json(content: Any) -> np.dtype:
    return np.lib.format.descr_to_dtype(_tuples(content))


def _tuples(content: Any) -> Any:
    """JSON has no tuples, which a structured dtype consists of."""
    if not isinstance(content, list):
        return content
    return [(name, _tuples(dtype), *map(tuple, shape)) for name, dtype, *shape in content]
