import signal

import pytest


@pytest.fixture(autouse=True)
def interruptible():
    """Ctrl-C means what it means in a terminal, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
