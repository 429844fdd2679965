import tempfile

import pytest

from sb3_softac.study.training import work
from tests.study.small import ENVIRONMENT, declared


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A study of one small run, trained. Tests leave it as it is, except for returns under perturbations."""
    perturbations = {
        "observation_noise": [0.3],
        "half gravity": {"perturbation": "parameter", "name": "g", "strengths": [0.5, 2.0]},
    }
    study = declared(tmp_path_factory.mktemp("trained"), robustness={"episodes": 3, "perturbations": perturbations})
    work(study, study.runs[0])
    return study


@pytest.fixture
def ray_environment():
    """Environment variables of a process whose Ray neither finds nor is found by another one."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'sb3_softac[cluster]'")
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:  # sockets: short paths
        yield {**ENVIRONMENT, "RAY_TMPDIR": folder, "RAY_ADDRESS": "local"}
