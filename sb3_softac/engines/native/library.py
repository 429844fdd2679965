"""The C library: its structures, functions and location."""

import ctypes
import platform
from ctypes import POINTER, Structure, c_double, c_int, c_int64, c_void_p, sizeof
from functools import cache
from pathlib import Path
from typing import Any

import torch as th

FOLDER = Path(__file__).parent
# Names of the builds that a processor can run, the best first, by what PyTorch says of it
BUILDS = {"AVX512": ("avx512", "avx2"), "AVX2": ("avx2",)}

FieldList = list[tuple[str, Any]]


def _numbers(*names: str) -> list[tuple[str, Any]]:
    return [(name, c_int64) for name in names]


def _reals(*names: str) -> list[tuple[str, Any]]:
    return [(name, c_double) for name in names]


def _pointers(*names: str) -> list[tuple[str, Any]]:
    return [(name, c_void_p) for name in names]


class Layer(Structure):
    """``Layer`` of step.h."""

    _fields_ = (
        *_pointers("weight", "bias"),
        *_numbers("weight_gradient", "bias_gradient", "n_in", "n_out", "in_first"),
    )


class Network(Structure):
    """``Network`` of step.h."""

    _fields_ = (("layers", POINTER(Layer)), *_numbers("n_hidden", "n_heads", "activation"))


class Slot(Structure):
    """``Slot`` of step.h."""

    _fields_ = (
        *_pointers("parameter", "exp_avg", "exp_avg_sq", "step", "max_exp_avg_sq", "target"),
        *_numbers("size", "gradient"),
        *_reals("lr", "beta1", "beta2", "eps", "weight_decay"),
        *_numbers("decoupled"),
    )


class Optimizer(Structure):
    """``Optimizer`` of step.h."""

    _fields_ = (
        ("slots", POINTER(Slot)),
        *_numbers("n_slots"),
        *_pointers("gradients"),
        *_numbers("n_gradients"),
        *_reals("tau"),
    )


class Step(Structure):
    """``Step`` of step.h."""

    _fields_ = (
        *_numbers("batch", "n_threads", "n_logs", "n_losses"),
        ("logs", POINTER(c_double)),
        ("finite", POINTER(c_int64)),
        ("optimizer", Optimizer),
        *_pointers("workspace"),
        *_numbers("workspace_size"),
    )


class SoftACStep(Structure):
    """``SoftACStep`` of softac_v1.h."""

    _fields_ = (
        ("step", Step),
        *_numbers("n_obs", "n_actions", "n_critics"),
        *_pointers("obs", "next_obs", "actions", "rewards", "dones", "discounts", "noise"),
        *[(name, POINTER(Network)) for name in ("actor", "value", "value_target", "critics")],
        *_numbers("min_q"),
        *_reals("alpha", "target_entropy"),
        *_numbers("temperature_gradient"),
    )


class DiscreteStep(Structure):
    """``DiscreteStep`` of discretesac.h."""

    _fields_ = (
        ("step", Step),
        *_numbers("n_obs", "n_options", "n_branches", "n_critics"),
        ("sizes", POINTER(c_int64)),
        *_pointers("obs", "next_obs", "actions", "rewards", "dones", "discounts", "masks", "next_masks"),
        *[(name, POINTER(Network)) for name in ("actor", "critics", "critic_targets")],
        *_numbers("mean_q"),
        *_reals("alpha", "critic_alpha", "target_ratio"),
        *_numbers("temperature_gradient"),
    )


FUNCTIONS = {"softac_v1": SoftACStep, "discretesac": DiscreteStep}


def builds() -> tuple[str, ...]:
    """:return: Names of the builds that this processor can run, the best first."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return ("neon",)
    return BUILDS.get(th.backends.cpu.get_cpu_capability(), ())


@cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """:return: The library and an empty string; None and the reason if there is none for this machine."""
    names = builds()
    if not names:
        return None, "the processor has neither AVX2 nor NEON"
    for path in (FOLDER / f"_step_{name}.so" for name in names):
        if path.exists():
            try:
                return open_library(path), ""
            except (OSError, ValueError) as error:
                return None, f"the C library cannot be used: {error}"
    return None, "the C library was not built: install a C compiler, then reinstall the package"


def open_library(path: Path) -> ctypes.CDLL:
    """
    :param path: File of the library.
    :return: The library with the types of its functions.
    :raises OSError: if it cannot be loaded.
    :raises ValueError: if it was built from different sources.
    """
    library = ctypes.CDLL(str(path))
    for name, job in FUNCTIONS.items():
        if c_int64.in_dll(library, f"{name}_size").value != sizeof(job):
            raise ValueError(f"{path.name} was built from different sources: reinstall the package")
        workspace, step = getattr(library, f"{name}_workspace"), getattr(library, f"{name}_step")
        workspace.argtypes = step.argtypes = [POINTER(job)]
        workspace.restype, step.restype = c_int64, c_int
    return library
