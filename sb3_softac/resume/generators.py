"""The random number generators that a whole process shares."""

import random
from typing import Any

import numpy as np
import torch as th


def generator_states() -> dict[str, Any]:
    """States of the generators of Python, NumPy and PyTorch, on the CPU and on all GPUs in use."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state_all() if th.cuda.is_initialized() else [],
    }


def set_generator_states(states: dict[str, Any]) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    th.set_rng_state(states["torch"])
    for device, state in zip(range(th.cuda.device_count()), states["cuda"], strict=False):  # there may be fewer GPUs now
        th.cuda.set_rng_state(state, device)
