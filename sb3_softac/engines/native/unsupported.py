"""Reasons why a model cannot use gradient steps in C."""


class Unsupported(Exception):
    """The C code does not support a property of the model, its networks or its batches; the message names it."""


def require(condition: object, otherwise: str) -> None:
    """
    :param condition: Condition that has to hold.
    :param otherwise: Message if it does not.
    :raises Unsupported: if it does not.
    """
    if not condition:
        raise Unsupported(otherwise)
