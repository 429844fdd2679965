"""
Matrix products of a linear layer by MKL, which PyTorch calls, and by oneDNN, which comes with it::

    python benchmarks/products.py

Writes ``benchmarks/results/products.csv``: medians in microseconds over blocks in which the two take turns. Forward is
``x W + b``, the others are the gradients of inputs and weights. Both allocate their results.
"""

import csv
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch as th

RESULT = Path(__file__).parent / "results" / "products.csv"
SHAPES = [(64, 64, 64), (64, 256, 256), (256, 17, 256), (256, 256, 12), (256, 256, 256), (2048, 256, 256)]
BLOCKS, CALLS = 15, 50


def onednn_linear(x: th.Tensor, weight: th.Tensor, bias: th.Tensor | None = None) -> th.Tensor:
    """:return: ``x @ weight.T + bias`` by oneDNN; the operator that PyTorch's own compiler uses."""
    return th.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def microseconds(functions: dict[str, Callable[[], th.Tensor]]) -> dict[str, float]:
    """:return: Median time of one call, by name."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(BLOCKS):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                function()
            times[name].append(1e6 * (time.perf_counter() - start) / CALLS)
    return {name: float(np.median(values)) for name, values in times.items()}


def main() -> None:
    rows = []
    for threads in (1, 2):
        th.set_num_threads(threads)
        for batch, n_in, n_out in SHAPES:
            x, grad = th.randn(batch, n_in), th.randn(batch, n_out)
            weight, bias = th.randn(n_out, n_in), th.randn(n_out)
            t = microseconds(
                {
                    "forward": lambda x=x, w=weight, b=bias: th.addmm(b, x, w.t()),
                    "forward dnn": lambda x=x, w=weight, b=bias: onednn_linear(x, w, b),
                    "inputs": lambda g=grad, w=weight: g @ w,
                    "inputs dnn": lambda g=grad, w=weight: onednn_linear(g, w.t()),
                    "weights": lambda g=grad, x=x: g.t() @ x,
                    "weights dnn": lambda g=grad, x=x: onednn_linear(g.t(), x.t()),
                }
            )
            kinds = ("forward", "inputs", "weights")
            ratio = sum(t[kind] for kind in kinds) / sum(t[f"{kind} dnn"] for kind in kinds)
            times = [f"{t[kind]:.0f}, {t[f'{kind} dnn']:.0f}" for kind in kinds]
            rows.append([threads, batch, f"{n_in} x {n_out}", *times, f"{ratio:.2f}"])
            print(rows[-1], flush=True)
    with open(RESULT, "w", newline="") as file:
        header = [
            "threads",
            "batch",
            "weights",
            "forward: MKL, oneDNN",
            "gradient of inputs",
            "gradient of weights",
            "all: MKL / oneDNN",
        ]
        csv.writer(file).writerows([header, *rows])


if __name__ == "__main__":
    main()
