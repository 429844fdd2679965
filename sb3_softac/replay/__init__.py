"""The replay buffer and its batches: of the package, it imports only the checks of values."""
