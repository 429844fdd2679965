"""A policy in a file of its own gives the actions of the model, in the environment's own scale, at every batch size."""

import copy
import functools
import json
import pickle

import numpy as np
import onnxruntime
import pytest
import safetensors
import torch as th
from gymnasium import spaces
from safetensors.torch import save_file
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch.nn.utils.parametrizations import spectral_norm

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.export import export_onnx, export_program, export_safetensors, exported_policy, load_policy
from tests.random_observations import RandomObservations

N = 1_000
VECTOR = spaces.Box(-np.inf, np.inf, (5,), np.float64)
DICT = spaces.Dict({"place": spaces.Box(-1, 1, (3,), np.float32), "room": spaces.Discrete(4)})
PICTURE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
LIMITS = spaces.Box(np.array([-2.0, 0.5], np.float32), np.array([1.0, 5.0], np.float32))
MATRIX = spaces.Box(-3, 1, (2, 2), np.float32)
COUNTED = spaces.Discrete(3, start=-1)
SEVERAL = spaces.MultiDiscrete([2, 4, 3])


class Masked(RandomObservations):
    def action_masks(self):
        return np.ones(9, dtype=bool)


def make(algorithm, observations, actions, policy="MlpPolicy", wrap=None, env=RandomObservations, **kwargs):
    venv = DummyVecEnv([lambda: env(observations, actions)])
    policy_kwargs = dict(net_arch=[16], **kwargs.pop("policy_kwargs", {}))
    own = dict(kernel_particles=4, value_particles=4) if algorithm is SQL else {}
    settings = dict(learning_starts=4, batch_size=4, buffer_size=50, seed=0, device="cpu")
    model = algorithm(policy, wrap(venv) if wrap else venv, policy_kwargs=policy_kwargs, **settings, **own, **kwargs)
    return model.learn(12)


def composed():
    return SQL.compose([make(SQL, VECTOR, LIMITS), make(SQL, VECTOR, LIMITS, policy_kwargs=dict(n_critics=3))], "sum")


def normalize_place(venv):
    return VecNormalize(venv, norm_obs_keys=["place"], clip_obs=0.5)


MAKERS = {
    "softac_v1": functools.partial(make, SoftAC_v1, VECTOR, LIMITS),
    "sql": functools.partial(make, SQL, VECTOR, LIMITS),
    "discretesac": functools.partial(make, DiscreteSAC, VECTOR, COUNTED),
    "masked": functools.partial(make, DiscreteSAC, VECTOR, SEVERAL, env=Masked),
    "normalized": functools.partial(make, SoftAC_v1, VECTOR, MATRIX, wrap=VecNormalize),
    "normalized dictionary": functools.partial(make, SQL, DICT, LIMITS, "MultiInputPolicy", wrap=normalize_place),
    "dictionary": functools.partial(make, DiscreteSAC, DICT, spaces.MultiBinary(3), "MultiInputPolicy"),
    "pictures": functools.partial(make, SoftAC_v1, PICTURE, LIMITS, "CnnPolicy"),
    "mixture": functools.partial(make, SoftAC_v1, VECTOR, LIMITS, policy_kwargs=dict(distribution="mixture")),
    "flow": functools.partial(make, SoftAC_v1, VECTOR, LIMITS, policy_kwargs=dict(distribution="flow")),
    "gSDE": functools.partial(make, SoftAC_v1, VECTOR, LIMITS, use_sde=True),
    "one-hot": functools.partial(make, DiscreteSAC, spaces.Discrete(7), COUNTED),
    "composed": composed,
}
make_model = functools.cache(lambda name: MAKERS[name]())
QUICK = ("softac_v1", "sql", "discretesac", "masked", "normalized dictionary")
every_model = pytest.mark.parametrize("name", MAKERS)
every_program = pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MAKERS]
)


def draw(space, n, rng):
    """Observations, also far from those that the model has seen."""
    if isinstance(space, spaces.Dict):
        return {key: draw(part, n, rng) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.n, size=n)
    if space.dtype == np.uint8:
        return rng.integers(256, size=(n, *space.shape), dtype=np.uint8)
    return rng.normal(scale=3, size=(n, *space.shape)).astype(space.dtype)


def rows(observations, some):
    return {key: part[some] for key, part in observations.items()} if isinstance(observations, dict) else observations[some]


def cases(model, name):
    """1000 observations, masks where there are any, and the actions of the model."""
    rng = np.random.default_rng(0)
    n = 100 if name == "pictures" else N
    observations, masks = draw(model.observation_space, n, rng), None
    arguments = {}
    if name == "masked":
        masks = rng.random((n, 9)) < 0.5
        masks[:, [0, 2, 6]] |= ~np.stack([part.any(axis=1) for part in np.split(masks, [2, 6], axis=1)], axis=1)
        arguments["action_masks"] = masks
    normalizer = model.get_vec_normalize_env()
    seen = normalizer.normalize_obs(observations) if normalizer else observations
    expected, _ = model.predict(seen, deterministic=True, **arguments)
    if masks is not None:
        unmasked, _ = model.predict(seen, deterministic=True, action_masks=np.ones_like(masks))
        assert (unmasked != expected).any()
    return observations, masks, expected


def assert_same(model, actions, expected):
    assert actions.shape == expected.shape and np.isfinite(actions).all()
    if not isinstance(model.action_space, spaces.Box):
        assert (actions == expected).mean() >= 0.999  # of two that are as good to seven digits, either may come
        return
    # The best of many candidates may be another one where two are as good to seven digits
    close = np.isclose(actions, expected, atol=2e-5, rtol=0).all(axis=tuple(range(1, actions.ndim)))
    assert close.mean() >= (0.995 if isinstance(model, SQL) else 1.0)


def assert_answers(model, name, ask):
    """:param ask: Maps observations and masks (or None) to actions."""
    observations, masks, expected = cases(model, name)
    for some in (slice(None), slice(0, 1), slice(3, 10)):
        assert_same(model, ask(rows(observations, some), None if masks is None else masks[some]), expected[some])


def as_tensors(observations):
    if isinstance(observations, dict):
        return {key: th.as_tensor(part) for key, part in observations.items()}
    return th.as_tensor(observations)


@every_model
def test_safetensors(name, tmp_path):
    model, path = make_model(name), tmp_path / "policy.safetensors"
    export_safetensors(model, path)
    loaded = load_policy(path)

    def ask(observations, masks):
        return loaded(as_tensors(observations), None if masks is None else th.as_tensor(masks)).numpy()

    def predict(observations, masks):
        given = {} if masks is None else {"action_masks": masks}
        return loaded.predict(observations, deterministic=True, **given)[0]

    assert_answers(model, name, ask)
    assert_answers(model, name, predict)
    with safetensors.safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["policy"])
    assert header["algorithm"] == type(model).__name__ and header["versions"]["torch"] == str(th.__version__)
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.safetensors"]


@every_program
def test_torch_export(name, tmp_path):
    model, path = make_model(name), tmp_path / "policy.pt2"
    export_program(model, path)
    program = th.export.load(path).module()

    def ask(observations, masks):
        return program(as_tensors(observations), *([] if masks is None else [th.as_tensor(masks)])).numpy()

    assert_answers(model, name, ask)


@every_program
def test_onnx(name, tmp_path):
    model, path = make_model(name), tmp_path / "policy.onnx"
    export_onnx(model, path)
    session = onnxruntime.InferenceSession(path)

    def ask(observations, masks):
        inputs = dict(observations) if isinstance(observations, dict) else {"observations": observations}
        (actions,) = session.run(["actions"], inputs if masks is None else inputs | {"action_masks": masks})
        return actions

    assert_answers(model, name, ask)


def test_the_model_is_left_alone(tmp_path):
    model = make_model("softac_v1")
    before, state = copy.deepcopy(model.policy.state_dict()), th.get_rng_state()
    model.policy.set_training_mode(True)
    export_safetensors(model, tmp_path / "policy.safetensors")
    export_program(model, tmp_path / "policy.pt2")
    assert model.policy.training and model.actor.training and all(p.requires_grad for p in model.actor.parameters())
    for name, tensor in model.policy.state_dict().items():
        assert th.equal(tensor, before[name])
    assert th.equal(th.get_rng_state(), state)


def test_statistics_of_an_environment_given_later(tmp_path):
    model = make_model("normalized")
    model.save(tmp_path / "model")
    alone = SoftAC_v1.load(tmp_path / "model", device="cpu")
    assert not exported_policy(alone).normalization.keys
    export_safetensors(alone, tmp_path / "policy.safetensors", vec_normalize=model.get_vec_normalize_env())
    observations, _, expected = cases(model, "normalized")
    assert load_policy(tmp_path / "policy.safetensors").predict(observations, deterministic=True)[0] == pytest.approx(expected)


def test_no_statistics_where_observations_are_not_normalized():
    model = make(SoftAC_v1, VECTOR, LIMITS, wrap=functools.partial(VecNormalize, norm_obs=False))
    assert not exported_policy(model).normalization.keys


class Own(FlattenExtractor):
    """An extractor that no file could name."""


def test_a_policy_that_has_no_name_is_refused(tmp_path):
    model, path = make(SoftAC_v1, VECTOR, LIMITS, policy_kwargs=dict(features_extractor_class=Own)), tmp_path / "a.safetensors"
    path.write_text("before")
    with pytest.raises(ValueError, match=r"Own.*export_onnx\(\) or export_program\(\)"):
        export_safetensors(model, path)
    assert path.read_text() == "before"


def test_replaced_layers_are_refused(tmp_path):
    model = make(SoftAC_v1, VECTOR, LIMITS)
    spectral_norm(model.actor.mu)
    with pytest.raises(ValueError, match=r"mu.*export_program\(\)"):
        export_safetensors(model, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_failing_disk_leaves_the_old_file(tmp_path, monkeypatch):
    model = make_model("softac_v1")
    for export in (export_safetensors, export_program):
        path = tmp_path / export.__name__
        path.write_text("before")
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("No space left on device")))
            with pytest.raises(OSError, match="No space left"):
                export(model, path)
        assert path.read_text() == "before" and len(list(tmp_path.iterdir())) == 1
        path.unlink()


@pytest.fixture
def parts(tmp_path):
    """Header and tensors of a file, and what writes them again."""
    path = tmp_path / "policy.safetensors"
    export_safetensors(make_model("softac_v1"), path)
    with safetensors.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        return json.loads(file.metadata()["policy"]), tensors, path


WRONG = {
    "another format": lambda header: header | {"format": 2},
    "an unknown class": lambda header: header | {"policy": {"class": "os.system"}},
    "no policy": lambda header: header | {"policy": {"class": "Adam"}},
    "another algorithm": lambda header: header | {"algorithm": "SQL"},
    "a missing part": lambda header: {key: part for key, part in header.items() if key != "arguments"},
    "no header": lambda header: None,
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_headers_are_refused(parts, what):
    header, tensors, path = parts
    changed = WRONG[what](header)
    save_file(tensors, path, None if changed is None else {"policy": json.dumps(changed)})
    with pytest.raises(ValueError, match="does not contain a policy written by export_safetensors"):
        load_policy(path)


def test_missing_tensors_are_refused(parts):
    header, tensors, path = parts
    tensors.pop("policy.actor.mu.weight")
    save_file(tensors, path, {"policy": json.dumps(header)})
    with pytest.raises(ValueError, match=r"policy\.actor\.mu\.weight"):
        load_policy(path)


def test_nothing_else_is_read(tmp_path):
    (tmp_path / "pickle").write_bytes(pickle.dumps({"a": 1}))
    (tmp_path / "empty").write_bytes(b"")
    for name in ("pickle", "empty"):
        with pytest.raises(ValueError, match="does not contain a policy"):
            load_policy(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        load_policy(tmp_path / "nothing")


def test_missing_exporter(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ImportError, match=r"pip install 'sb3_softac\[export\]'"):
        export_onnx(make_model("softac_v1"), tmp_path / "a.onnx")
