"""Reasons why a model cannot use gradient steps in C."""


class Unsupported(Exception):
    """The C code does not support a property of the model, its networks or its batches; the message names it."""


def require(condition: object, otherwise: str) -> None:
    """Raise Unsupported with a message unless a condition holds."""
    if not condition:
        raise Unsupported(otherwise)
