"""The temperature and the target entropy of all algorithms."""
