import pytest
import torch as th


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """The networks of the tests are small: a second thread would only wait for the first."""
    th.set_num_threads(1)
