"""What discrete action spaces need in general: branches, action masks, networks, and the base of the algorithms."""
