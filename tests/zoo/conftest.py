import functools

import pytest

from sb3_softac.zoo import patches


@pytest.fixture
def undo_patches(monkeypatch):
    """Whatever the test replaces in other libraries is put back."""
    monkeypatch.setattr(patches, "setattr", functools.partial(monkeypatch.setattr, raising=False), raising=False)
