"""
One agent trained by several processes: ``torchrun --nproc-per-node=N -m sb3_softac.zoo train ...``.

Each process has its own environments, seed and replay buffer; gradients are averaged before each step
(:mod:`sb3_softac.algorithm.distributed`). The first process evaluates, logs and saves as a single one would; the others write
only checkpoints, if these are enabled.
"""

import atexit
import os
import shutil
import tempfile
from typing import Any

import torch as th
from torch import distributed

from sb3_softac.algorithm.distributed import broadcast_object, is_distributed, rank
from sb3_softac.zoo.patches import wrap


def join() -> None:
    """Join the other processes if torchrun has started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        on_gpus = th.cuda.is_available()
        if on_gpus:
            th.cuda.set_device(int(os.environ["LOCAL_RANK"]) % th.cuda.device_count())
        distributed.init_process_group("nccl" if on_gpus else "gloo")
    if is_distributed():
        wrap("rl_zoo3.exp_manager:ExperimentManager.__init__", _first_writes_and_logs)


def _first_writes_and_logs(original: Any, self: Any, *args: Any, **kwargs: Any) -> None:
    original(self, *args, **kwargs)
    if self.optimize_hyperparameters:
        raise ValueError(
            "-optimize does not work with several processes that train one agent: start a separate program for each worker, "
            "with the same --storage"
        )
    self.seed = broadcast_object(self.seed) + rank()
    if rank() > 0:
        self.log_folder = self.save_path = tempfile.mkdtemp()
        atexit.register(shutil.rmtree, self.log_folder, ignore_errors=True)
        self.params_path = f"{self.save_path}/{self.env_name}"
        self.eval_freq = self.save_freq = -1
        self.tensorboard_log, self.verbose, self.show_progress = None, 0, False
