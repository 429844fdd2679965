"""What the algorithms share: the train loop, the temperatures and the optimizer of the policies."""
