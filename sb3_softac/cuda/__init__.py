"""
Gradient steps as CUDA graphs, opt-in (``cuda_graphs=True``): one removable room.

Without it the algorithms train as before, the plain way.
"""

from sb3_softac.cuda.graph_steps import GraphSteps

__all__ = ["GraphSteps"]
