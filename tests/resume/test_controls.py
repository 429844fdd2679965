"""The tests of exactness have teeth: a training that is resumed without one of its parts ends otherwise."""

import pytest
from stable_baselines3.common.vec_env import VecNormalize

from sb3_softac import SoftAC_v1
from sb3_softac.resume import callback, generators, snapshot, vec_envs
from tests.resume.harness import differences, interrupted, uninterrupted
from tests.resume.test_exact import maker

PARTS = ["attributes", "parameters", "exploration", "environment", "generators"]


def leave_out(part, monkeypatch):
    """Have one part not put back; "rows" and the names of generators are parts of parts."""
    if part == "rows":
        monkeypatch.setattr(callback, "restore_rows", lambda buffer, there, segments: None)
    elif part in ("python", "numpy", "torch"):
        real = snapshot.set_generator_states
        monkeypatch.setattr(
            snapshot, "set_generator_states", lambda saved: real({**saved, part: generators.generator_states()[part]})
        )
    elif part == "inner environments":
        monkeypatch.setattr(vec_envs, "_read_environments", lambda *args: lambda: None)
    elif part == "wrappers":
        monkeypatch.setattr(vec_envs, "read_attributes", lambda *args: None)
    elif part == "attributes":
        steps = lambda reader, written, model, _: reader.change(setattr, model, "num_timesteps", written["num_timesteps"])  # noqa: E731
        monkeypatch.setitem(snapshot.PARTS, part, (snapshot.PARTS[part][0], steps))
    else:
        monkeypatch.setitem(snapshot.PARTS, part, (snapshot.PARTS[part][0], lambda *args: None))


def make():
    settings = dict(wrap=VecNormalize, ent_coef="auto", use_sde=True, train_freq=5, gradient_steps=5)
    return maker(SoftAC_v1, **settings)()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return uninterrupted(make, 60, tmp_path_factory.mktemp("straight"))


@pytest.mark.parametrize("part", [*PARTS, "rows", "python", "numpy", "torch", "inner environments", "wrappers"])
def test_each_part_is_needed(part, expected, tmp_path, monkeypatch):
    leave_out(part, monkeypatch)
    assert differences(expected, interrupted(make, 60, tmp_path, cuts=(45,)))


def test_nothing_left_out(expected, tmp_path):
    assert differences(expected, interrupted(make, 60, tmp_path, cuts=(45,))) == []
