"""What single arguments must be. The errors name the argument, what is expected and what was given."""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

# numpy and torch count in 64 bits
LARGEST = 2**63 - 1


class Argument(NamedTuple):
    """What an argument must be."""

    expected: str
    """In words, to follow "must be"."""
    read: Callable[[Any], Any]
    """Returns the value in the type that the program uses. Raises TypeError or ValueError if it is not what is expected."""


class Refused(ValueError):
    """A refusal whose message is complete."""


def shown(value: Any) -> str:
    """:return: A value as error messages show it."""
    try:
        text = " ".join(repr(value).split())
    except Exception:
        text = f"an object of type {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}..."


def differs(one: Any, other: Any) -> bool:
    """:return: Whether two values differ; yes if they cannot be compared."""
    try:
        return bool(one != other)
    except Exception:
        return True


def read(name: str, value: Any, argument: Argument) -> Any:
    """The value in the type that the program uses; Refused if it is not what is expected."""
    try:
        return argument.read(value)
    except Refused:
        raise
    except Exception:
        raise Refused(f"{name} must be {argument.expected}, got {shown(value)}{_hint(value)}") from None


def _hint(value: Any) -> str:
    """:return: What YAML makes of 1e6, if this may be the cause."""
    try:
        float(value if isinstance(value, str) else "")
    except ValueError:
        return ""
    return " (text, not a number: in YAML write 1.0e+6 for 1e6)"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """:return: ``, did you mean 'x'?`` if a known name is similar, else nothing."""
    similar = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.75)
    return f", did you mean {similar[0]!r}?" if similar else ""


def is_number(value: Any) -> bool:
    """:return: Whether a value is a plain number."""
    # bool is a number to Python, but tau=True is a mistake; so are arrays and tensors, which change later
    return isinstance(value, Real) and not isinstance(value, bool | np.bool_)


def as_integer(value: Any) -> int:
    """:return: A whole number as an int."""
    if not is_number(value) or not (isinstance(value, Integral) or float(value).is_integer()):
        raise TypeError
    return int(value)


def integer(low: int, unit: str = "", high: int = LARGEST) -> Argument:
    """:return: A whole number in a range, also as a number of NumPy or a float without a fraction such as 1e6."""

    def read_integer(value: Any) -> int:
        number = as_integer(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return Argument(f"an integer, at least {low}{unit}", read_integer)


def number(expected: str, holds: Callable[[float], bool] = lambda value: True) -> Argument:
    """:return: A finite number for which a condition holds, also as a number of NumPy."""

    def read_number(value: Any) -> float:
        if not is_number(value):
            raise TypeError
        try:
            result = float(value)
        except OverflowError:
            raise ValueError from None
        if not (math.isfinite(result) and holds(result)):
            raise ValueError
        return value if isinstance(value, int | float) else result

    return Argument(expected, read_number)


def optional(argument: Argument, meaning: str = "") -> Argument:
    """:return: An argument that may also be None."""
    return Argument(f"{argument.expected}, or None{meaning}", lambda value: None if value is None else argument.read(value))


def checked(expected: str, holds: Callable[[Any], bool], convert: Callable[[Any], Any] = lambda value: value) -> Argument:
    """:return: Any value for which a condition holds."""

    def read_checked(value: Any) -> Any:
        if not holds(value):
            raise ValueError
        return convert(value)

    return Argument(expected, read_checked)


def one_of(*options: str, expected: str = "") -> Argument:
    """:return: One of several words."""
    return checked(expected or f"one of {list(options)}", lambda value: isinstance(value, str) and value in options)


def instance(expected: str, *types: type) -> Argument:
    """:return: An object of one of some types."""
    return checked(expected, lambda value: isinstance(value, types))


def subclass(expected: str, base: type) -> Argument:
    """:return: A class."""
    return checked(expected, lambda value: isinstance(value, type) and issubclass(value, base))


BOOLEAN = checked(
    "True or False",
    lambda value: isinstance(value, bool | np.bool_) or (isinstance(value, Integral) and value in (0, 1)),
    bool,
)
KEYWORD_ARGUMENTS = checked(
    "a dictionary of keyword arguments",
    lambda value: isinstance(value, Mapping) and all(isinstance(name, str) for name in value),
    dict,
)


def keyword_table(name: str, table: dict[str, Argument]) -> Argument:
    """:return: A dictionary of options from a table, None for none of them; ``name`` is that of the argument."""

    def read_options(value: Any) -> dict[str, Any]:
        given = {} if value is None else KEYWORD_ARGUMENTS.read(value)
        for option in given.keys() - table.keys():
            raise Refused(f"{name} has an unknown option {option!r}{did_you_mean(option, table)}: use {sorted(table)}")
        return {option: read(f"{name}: {option}", each, table[option]) for option, each in given.items()}

    return Argument(f"a dictionary of the options {sorted(table)}", read_options)


def evaluate(name: str, schedule: Callable[[float], Any], progress_remaining: float, argument: Argument) -> float:
    """The value of a schedule, for a progress from 1 to 0; Refused if it fails, or if the value is not what is expected."""
    where = f"at the remaining progress {progress_remaining:g} (1 at the start of the training, 0 at its end)"
    try:
        value = schedule(progress_remaining)
    except Exception as error:
        raise Refused(f"{name}: the schedule fails {where}: {type(error).__name__}: {error}") from error
    try:
        return float(argument.read(value.item() if hasattr(value, "item") else value))  # arrays and tensors of one element
    except Exception:
        raise Refused(f"{name}: the schedule must return {argument.expected}, got {shown(value)} {where}") from None
