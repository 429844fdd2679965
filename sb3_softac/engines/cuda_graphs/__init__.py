"""
Gradient steps as CUDA graphs, on a GPU, if the model was created with ``cuda_graphs=True``.

They give the same numbers as ``_update``; without them, gradient steps run one by one.
"""

from sb3_softac.algorithm.engine import ENGINES
from sb3_softac.engines.cuda_graphs.graph_engine import GraphEngine

ENGINES["cuda_graphs"] = GraphEngine

__all__ = ["GraphEngine"]
