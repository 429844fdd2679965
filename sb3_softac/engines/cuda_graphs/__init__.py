"""
Gradient steps as CUDA graphs, opt-in (``cuda_graphs=True``): a subpackage that can be removed.

Without it, gradient steps run one by one with ``_update`` (the plain path).
"""

from sb3_softac.engines.cuda_graphs.graph_steps import GraphSteps

__all__ = ["GraphSteps"]
