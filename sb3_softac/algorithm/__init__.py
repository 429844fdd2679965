"""Code that the algorithms share: the training loop, the temperatures and the optimizer of the policies."""
