"""Networks, and what an actor returns for a gradient step, with its part of the policy loss. No optimizers."""
