"""The replay buffer and its batches: imports nothing else of the package."""
