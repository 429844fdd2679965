"""Gradient steps as CUDA graphs, opt-in (``cuda_graphs=True``): one removable room."""
