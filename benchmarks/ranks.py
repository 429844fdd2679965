"""
When two processes that share one agent pay: a gradient step on a batch, by one process of two threads and by two of one.

    python benchmarks/ranks.py

Both take the plain way (PyTorch). The two processes have half of the batch each and average their gradients by gloo. Blocks of
steps take turns. Writes ``benchmarks/results/ranks.csv``: milliseconds per step (median over the blocks), and their ratio.
"""

import csv
import os
import time
from pathlib import Path

import numpy as np
import torch as th
from torch import distributed, multiprocessing

RESULT = Path(__file__).parent / "results" / "ranks.csv"
BATCHES, WIDTHS, BLOCKS, SECONDS = (256, 1024, 4096), (256, 1024), 5, 0.5


def make(width: int, batch: int):
    import gymnasium as gym

    from sb3_softac import SoftAC_v1

    os.environ["SB3_SOFTAC_FAST"] = "0"
    policy_kwargs = dict(net_arch=[width, width])
    env = gym.make("Walker2d-v4")
    model = SoftAC_v1(
        "MlpPolicy", env, policy_kwargs=policy_kwargs, learning_starts=2_000, batch_size=batch, seed=0, device="cpu"
    )
    return model.learn(1_000)


def steps(model, batch: int, number: int) -> float:
    """:return: Milliseconds per gradient step."""
    start = time.perf_counter()
    model.train(number, batch)
    return 1e3 * (time.perf_counter() - start) / number


def rank(number: int, orders, answers) -> None:
    """A process of two: does blocks of steps as it is told."""
    th.set_num_threads(1)
    distributed.init_process_group("gloo", init_method="tcp://127.0.0.1:29517", rank=number, world_size=2)
    models: dict[tuple[int, int], object] = {}
    while (order := orders.get()) is not None:
        width, batch, n_steps = order
        if (width, batch) not in models:
            models.clear()
            models[width, batch] = make(width, batch // 2)
            steps(models[width, batch], batch // 2, 2)
        answers.put(steps(models[width, batch], batch // 2, n_steps))


def main() -> None:
    context = multiprocessing.get_context("spawn")
    orders, answers = [context.Queue() for _ in range(2)], context.Queue()
    processes = [context.Process(target=rank, args=(number, orders[number], answers)) for number in range(2)]
    for process in processes:
        process.start()
    th.set_num_threads(2)
    rows = []
    for width in WIDTHS:
        for batch in BATCHES:
            model = make(width, batch)
            n_steps = max(2, int(1e3 * SECONDS / steps(model, batch, 3)))
            one, two = [], []
            for _ in range(BLOCKS):
                one.append(steps(model, batch, n_steps))
                for queue in orders:
                    queue.put((width, batch, n_steps))
                two.append(max(answers.get(), answers.get()))
            ratio = np.array(one) / np.array(two)
            times = [f"{np.median(one):.1f}", f"{np.median(two):.1f}"]
            rows.append([width, batch, *times, f"{np.median(ratio):.2f}", f"{ratio.min():.2f} to {ratio.max():.2f}"])
            print(*rows[-1], flush=True)
    for queue in orders:
        queue.put(None)
    with open(RESULT, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["width", "joined batch", "ms, one process", "ms, two processes", "times as fast", "range"])
        writer.writerows(rows)


if __name__ == "__main__":
    main()
