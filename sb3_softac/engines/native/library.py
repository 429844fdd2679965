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


def _fields(kind: type, *names: str) -> list[tuple[str, Any]]:
    return [(name, kind) for name in names]


class Layer(Structure):
    """``Layer`` of step.h."""

    _fields_ = (
        *_fields(c_void_p, "weight", "bias"),
        *_fields(c_int64, "weight_gradient", "bias_gradient", "n_in", "n_out", "in_first"),
    )


class Network(Structure):
    """``Network`` of step.h."""

    _fields_ = (("layers", POINTER(Layer)), *_fields(c_int64, "n_hidden", "n_heads", "activation"))


class Slot(Structure):
    """``Slot`` of step.h."""

    _fields_ = (
        *_fields(c_void_p, "parameter", "exp_avg", "exp_avg_sq", "step", "max_exp_avg_sq", "target"),
        *_fields(c_int64, "size", "gradient"),
        *_fields(c_double, "lr", "beta1", "beta2", "eps", "weight_decay"),
        *_fields(c_int64, "decoupled"),
    )


class Optimizer(Structure):
    """``Optimizer`` of step.h."""

    _fields_ = (
        ("slots", POINTER(Slot)),
        *_fields(c_int64, "n_slots"),
        *_fields(c_void_p, "gradients"),
        *_fields(c_int64, "n_gradients"),
        *_fields(c_double, "tau"),
    )


class Step(Structure):
    """``Step`` of step.h."""

    _fields_ = (
        *_fields(c_int64, "batch", "n_threads", "n_logs", "n_losses"),
        ("logs", POINTER(c_double)),
        ("finite", POINTER(c_int64)),
        ("optimizer", Optimizer),
        *_fields(c_void_p, "workspace"),
        *_fields(c_int64, "workspace_size"),
    )


class SoftACStep(Structure):
    """``SoftACStep`` of softac_v1.h."""

    _fields_ = (
        ("step", Step),
        *_fields(c_int64, "n_obs", "n_actions", "n_critics"),
        *_fields(c_void_p, "obs", "next_obs", "actions", "rewards", "dones", "discounts", "noise"),
        *[(name, POINTER(Network)) for name in ("actor", "value", "value_target", "critics")],
        *_fields(c_int64, "min_q"),
        *_fields(c_double, "alpha", "target_entropy"),
        *_fields(c_int64, "temperature_gradient"),
    )


class DiscreteStep(Structure):
    """``DiscreteStep`` of discretesac.h."""

    _fields_ = (
        ("step", Step),
        *_fields(c_int64, "n_obs", "n_options", "n_branches", "n_critics"),
        ("sizes", POINTER(c_int64)),
        *_fields(c_void_p, "obs", "next_obs", "actions", "rewards", "dones", "discounts", "masks", "next_masks"),
        *[(name, POINTER(Network)) for name in ("actor", "critics", "critic_targets")],
        *_fields(c_int64, "mean_q"),
        *_fields(c_double, "alpha", "critic_alpha", "target_ratio"),
        *_fields(c_int64, "temperature_gradient"),
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
    reason = "the C library was not built: install a C compiler (GCC 12 or later, or Clang), then reinstall the package"
    for path in (FOLDER / f"_step_{name}.so" for name in names):
        if path.exists():
            try:
                return open_library(path), ""
            except (OSError, ValueError) as error:
                reason = f"the C library cannot be used: {error}"
    return None, reason


def open_library(path: Path) -> ctypes.CDLL:
    """The library with the types of its functions; ValueError if it was built from other sources."""
    library = ctypes.CDLL(str(path))
    for name, job in FUNCTIONS.items():
        if c_int64.in_dll(library, f"{name}_size").value != sizeof(job):
            raise ValueError(f"{path.name} was built from different sources: reinstall the package")
        workspace, step = getattr(library, f"{name}_workspace"), getattr(library, f"{name}_step")
        workspace.argtypes = step.argtypes = [POINTER(job)]
        workspace.restype, step.restype = c_int64, c_int
    return library
