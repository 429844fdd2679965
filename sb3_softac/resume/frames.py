"""Calls of ``learn`` that are running, found by their frames."""

from collections.abc import Iterator
from types import FrameType


def frames_of_learn(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of ``learn`` from a frame on, the innermost first."""
    while frame is not None:
        if frame.f_code.co_name == "learn":
            yield frame
        frame = frame.f_back
