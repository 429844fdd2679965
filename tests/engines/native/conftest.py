"""The fast way is on in this folder."""

import pytest

from sb3_softac.engines.native import native_engine
from sb3_softac.engines.native.library import load
from sb3_softac.engines.native.native_engine import SWITCH

WITHOUT_LIBRARY = {"test_build.py", "test_sanitizers.py"}


@pytest.fixture(autouse=True)
def fast_way(request, monkeypatch):
    library, reason = load()
    if library is None and request.path.name not in WITHOUT_LIBRARY:
        pytest.skip(f"{reason} (python setup.py build_ext --inplace)")
    monkeypatch.setenv(SWITCH, "1")
    monkeypatch.setattr(native_engine, "WORK_PER_THREAD", 1)  # the models of the tests are small, and threads are to be tested
