"""Other ways to the numbers of ``_update``; each of its rooms can be removed."""
