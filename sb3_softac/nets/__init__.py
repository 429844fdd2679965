"""Network modules. No losses, no optimizers."""
