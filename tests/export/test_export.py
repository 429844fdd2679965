"""A policy in a file of its own gives the actions of the model, in the environment's own scale, at every batch size."""

import copy
import functools
import hashlib
import json
import pickle
import resource
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors
import torch as th
from gymnasium import spaces
from safetensors.torch import save, save_file
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize
from torch.nn.utils.parametrizations import spectral_norm

from sb3_softac import SQL, DiscreteSAC, DiscreteSQL, SoftAC_v1
from sb3_softac.export import export_onnx, export_program, export_safetensors, exported_policy, load_policy
from sb3_softac.export.policy import Normalization
from sb3_softac.export.programs import _input_names
from tests.toys import RandomEnv

N = 1_000
VECTOR = spaces.Box(-np.inf, np.inf, (5,), np.float64)
DICT = spaces.Dict({"place": spaces.Box(-1, 1, (3,), np.float32), "room": spaces.Discrete(4)})
PLACE = spaces.Dict({"place": spaces.Box(-1, 1, (3,), np.float32)})
PICTURE = spaces.Box(0, 255, (3, 36, 36), np.uint8)
LIMITS = spaces.Box(np.array([-2.0, 0.5], np.float32), np.array([1.0, 5.0], np.float32))
MATRIX = spaces.Box(-3, 1, (2, 2), np.float32)
COUNTED = spaces.Discrete(3, start=-1)
SEVERAL = spaces.MultiDiscrete([2, 4, 3])


class Masked(RandomEnv):
    def action_masks(self):
        return np.ones(9, dtype=bool)  # SEVERAL


def make(algorithm, observations, actions, policy="MlpPolicy", wrap=None, env=RandomEnv, **kwargs):
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
    "discretesql": functools.partial(make, DiscreteSQL, VECTOR, SEVERAL, env=Masked),
    "masked": functools.partial(make, DiscreteSAC, VECTOR, SEVERAL, env=Masked),
    "normalized": functools.partial(make, SoftAC_v1, VECTOR, MATRIX, wrap=VecNormalize),
    "normalized dictionary": functools.partial(make, SQL, DICT, LIMITS, "MultiInputPolicy", wrap=normalize_place),
    "dictionary": functools.partial(make, DiscreteSAC, DICT, spaces.MultiBinary(3), "MultiInputPolicy"),
    "pictures": functools.partial(make, SoftAC_v1, PICTURE, LIMITS, "CnnPolicy"),
    "mixture": functools.partial(make, SoftAC_v1, VECTOR, LIMITS, policy_kwargs=dict(distribution="mixture")),
    "mixture by Q": functools.partial(
        make,
        SoftAC_v1,
        VECTOR,
        LIMITS,
        policy_kwargs=dict(distribution="mixture", distribution_kwargs=dict(deterministic_by="q")),
    ),
    "flow": functools.partial(make, SoftAC_v1, VECTOR, LIMITS, policy_kwargs=dict(distribution="flow")),
    "gSDE": functools.partial(make, SoftAC_v1, VECTOR, LIMITS, use_sde=True),
    "one-hot": functools.partial(make, DiscreteSAC, spaces.Discrete(7), COUNTED),
    "composed": composed,
}
make_model = functools.cache(lambda name: MAKERS[name]())
QUICK = ("softac_v1", "sql", "masked", "normalized dictionary")
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
    if getattr(model, "masked", False):
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
    assert_onnx(model, name, path)


def assert_onnx(model, name, path):
    session = onnxruntime.InferenceSession(path)

    def ask(observations, masks):
        inputs = dict(observations) if isinstance(observations, dict) else {"observations": observations}
        (actions,) = session.run(["actions"], inputs if masks is None else inputs | {"action_masks": masks})
        return actions

    assert_answers(model, name, ask)


CLASHING = (
    "actions",
    "action_masks",
    "observations",
    "input_0",
    "cat",
    "linear",
    "val_0",
    "a b",
    "x/y",
    "\u043a\u043b\u044e\u0447",
)
"""Keys of dictionaries; among them the names that the exporter gives to values of its own."""


@pytest.fixture(scope="module")
def clashing(tmp_path_factory):
    """A model with such keys, normalized and masked, and its file."""
    observations = spaces.Dict({name: spaces.Box(-1, 1, (2,), np.float32) for name in CLASHING})
    model = make(DiscreteSAC, observations, SEVERAL, "MultiInputPolicy", wrap=VecNormalize, env=Masked)
    path = tmp_path_factory.mktemp("onnx") / "policy.onnx"
    export_onnx(model, path)
    return model, path


def test_keys_of_any_name(clashing, tmp_path):
    model, path = clashing
    session = onnxruntime.InferenceSession(path)
    names = {key: f"observations.{key}" if key in ("actions", "action_masks") else key for key in CLASHING}
    assert {each.name for each in session.get_inputs()} == {*names.values(), "action_masks"}
    observations = draw(model.observation_space, 100, np.random.default_rng(0))
    masks = np.ones((100, 9), bool)
    (actions,) = session.run(["actions"], {names[key]: part for key, part in observations.items()} | {"action_masks": masks})
    normalized = model.get_vec_normalize_env().normalize_obs(observations)
    expected, _ = model.predict(normalized, deterministic=True, action_masks=masks)
    assert (actions == expected).mean() > 0.99
    export_program(model, tmp_path / "policy.pt2")
    program = th.export.load(tmp_path / "policy.pt2").module()
    assert (program(as_tensors(observations), th.as_tensor(masks)).numpy() == expected).mean() > 0.99


def test_keys_that_would_be_one_input():
    with pytest.raises(ValueError, match=r"\['observations.actions'\]: rename one"):
        _input_names(["actions", "observations.actions"], masked=False)
    assert _input_names(["", "action_masks"], masked=True) == ["observations.", "observations.action_masks", "action_masks"]


def test_normalization_needs_no_double_precision(clashing):
    written = onnx.load(clashing[1])
    kinds = {value.type.tensor_type.elem_type for value in (*written.graph.value_info, *written.graph.input)}
    assert onnx.TensorProto.DOUBLE not in kinds | {each.data_type for each in written.graph.initializer}


def test_where_predict_raises_a_program_gives_no_action(clashing):
    """All options forbidden, or an observation that is not finite."""
    model, path = clashing
    exported = exported_policy(model)
    observations = {key: np.zeros((4, 2), np.float32) for key in CLASHING}
    observations["cat"][2, 1], observations["x/y"][3, 0] = np.nan, np.inf  # VecNormalize clips the latter
    masks = np.ones((4, 9), bool)
    masks[1, 2:6] = False
    inputs = {f"observations.{key}" if key in ("actions", "action_masks") else key: part for key, part in observations.items()}
    (actions,) = onnxruntime.InferenceSession(path).run(["actions"], inputs | {"action_masks": masks})
    expected = exported(as_tensors(observations), th.as_tensor(masks)).numpy()
    assert (actions == expected).all()
    assert (actions[2] == -1).all() and actions[1, 1] == -1
    assert (actions[[0, 3]] >= 0).all() and (actions[1, [0, 2]] >= 0).all()
    for row in (1, 2):
        with pytest.raises(ValueError, match=r"forbids every option|not finite"):
            exported.predict(rows(observations, row), action_masks=masks[row])


@pytest.mark.parametrize("name", ["sql", "masked", "normalized", "pictures"])
def test_no_action_for_observations_that_are_not_finite(name):
    model = make_model(name)
    exported = exported_policy(model)
    observations = draw(model.observation_space, 4, np.random.default_rng(0))
    if name != "pictures":
        observations[1, 0], observations[2, 0] = np.nan, np.inf
    masks = th.ones(4, 9, dtype=th.bool) if getattr(model, "masked", False) else None
    actions = exported(as_tensors(observations), masks).numpy()
    refused = np.array([False] * 4 if name == "pictures" else [False, True, name != "normalized", False])
    for row in range(4):
        if refused[row]:
            with pytest.raises(ValueError, match="not finite"):
                exported.predict(observations[row], deterministic=True)
        else:
            exported.predict(observations[row], deterministic=True)
    if isinstance(model.action_space, spaces.Box):
        assert (np.isnan(actions).reshape(4, -1).all(axis=1) == refused).all()
    else:
        assert ((actions < model.action_space.start).reshape(4, -1).all(axis=1) == refused).all()


class Repairing(FlattenExtractor):
    def forward(self, observations):
        return super().forward(observations.nan_to_num(0.0, 0.0, 0.0))


def test_an_extractor_that_repairs_observations():
    model = make(SoftAC_v1, VECTOR, LIMITS, policy_kwargs=dict(features_extractor_class=Repairing))
    observations = np.array([[0.0] * 5, [np.nan] + [0.0] * 4])
    actions = exported_policy(model)(th.as_tensor(observations)).numpy()
    np.testing.assert_allclose(actions, model.predict(observations, deterministic=True)[0], rtol=1e-6)


ENDS = np.random.default_rng(0).normal(size=(2, 200)) * 10 ** np.random.default_rng(1).uniform(-3, 3, (2, 200))
ROUNDED = spaces.Box(*np.sort(ENDS, axis=0).astype(np.float32))
"""Bounds of which scaling rounds one in five to a number outside."""
SCALARS = [spaces.Box(-2.0, 5.0, (), np.float32), spaces.Box(-0.1, 0.3, (), np.float64)]


@pytest.mark.parametrize(
    ("algorithm", "space"),
    [
        *((SoftAC_v1, space) for space in (*SCALARS, ROUNDED, spaces.Box(-3, 1, (2,), np.float16))),
        (SQL, spaces.Box(-0.1, 0.3, (2, 2), np.float64)),
    ],
)
def test_boxes_of_any_shape_and_type(algorithm, space, tmp_path):
    model = make(algorithm, VECTOR, space)
    exported = exported_policy(model)
    observations = draw(VECTOR, 50, np.random.default_rng(0))
    actions = exported(th.as_tensor(observations)).numpy()
    expected, _ = model.predict(observations, deterministic=True)
    assert actions.shape == expected.shape and actions.dtype == np.float32
    assert (np.abs(actions - expected) <= 1e-5 * (space.high - space.low)).all()
    export_safetensors(model, tmp_path / "policy")
    np.testing.assert_array_equal(load_policy(tmp_path / "policy").predict(observations, deterministic=True)[0], expected)
    output = exported.policy.actor.mu.bias if algorithm is SoftAC_v1 else exported.policy.actor.network.layers[-1].bias
    for end in (50.0, -50.0):
        output.data.fill_(end)
        for action in exported(th.as_tensor(observations)).numpy():
            assert np.asarray(action, space.dtype) in space and (action >= space.low).all() and (action <= space.high).all()


def test_a_scalar_action_and_an_older_runtime(tmp_path):
    model, path = make(SoftAC_v1, VECTOR, SCALARS[0]), tmp_path / "policy.onnx"
    export_onnx(model, path, opset=17)
    assert [each.version for each in onnx.load(path).opset_import if each.domain == ""] == [17]
    observations = draw(VECTOR, 50, np.random.default_rng(0))
    (actions,) = onnxruntime.InferenceSession(path).run(["actions"], {"observations": observations})
    assert actions.shape == (50,)
    np.testing.assert_allclose(actions, model.predict(observations, deterministic=True)[0], atol=1e-6)
    for wrong in ("18", 17.5, True):
        with pytest.raises(ValueError, match=f"opset must be .* got {wrong!r}"):
            export_onnx(model, tmp_path / "wrong.onnx", opset=wrong)
    with pytest.raises(ValueError, match=r"version 9 of ONNX's operators.*18 to 23"):
        export_onnx(model, tmp_path / "wrong.onnx", opset=9)
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 23])  # 20 is the default
@pytest.mark.parametrize("name", ["sql", "masked", "normalized dictionary", "pictures", "mixture", "flow", "composed"])
def test_operators_of_every_version(name, opset, tmp_path):
    model, path = make_model(name), tmp_path / "policy.onnx"
    export_onnx(model, path, opset=opset)
    assert_onnx(model, name, path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalization_of_large_means(dtype):
    """Time stamps, constants, and what is neither."""
    rng = np.random.default_rng(0)
    mean, std = np.array([0.3, 1.7e9, -20.0, 8.9]), np.array([2.0, 3_000.0, 0.1, 0.0])
    observations = (mean + std * rng.normal(size=(1_000, 4))).astype(dtype)
    moments = observations.mean(axis=0, dtype=np.float64), observations.var(axis=0, dtype=np.float64)
    normalization = Normalization({"": moments}, 1e-8, 10.0)
    expected = normalization.exactly(observations)
    np.testing.assert_allclose(normalization(th.as_tensor(observations)).numpy(), expected, atol=2e-6)
    near = Normalization({"": (moments[0][[0, 2]], moments[1][[0, 2]])}, 1e-8, 10.0)
    assert near.far == [False]  # no double precision for these
    np.testing.assert_allclose(near(th.as_tensor(observations[:, [0, 2]])).numpy(), expected[:, [0, 2]], atol=5e-5)


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
    rewards_only = VecNormalize(model.get_env().venv, norm_obs=False)
    assert not exported_policy(alone).normalization.keys and not exported_policy(alone, rewards_only).normalization.keys
    export_safetensors(alone, tmp_path / "policy.safetensors", vec_normalize=model.get_vec_normalize_env())
    observations, _, expected = cases(model, "normalized")
    assert load_policy(tmp_path / "policy.safetensors").predict(observations, deterministic=True)[0] == pytest.approx(expected)


def environments_with(moments, observations=VECTOR):
    venv = VecNormalize(DummyVecEnv([lambda: RandomEnv(observations, LIMITS)]))
    venv.obs_rms = moments
    return venv


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("vecnormalize.pkl", r"got str: read its file with VecNormalize\.load"),
        (DummyVecEnv([lambda: RandomEnv(VECTOR, LIMITS)]), "environments that contain one, got DummyVecEnv"),
        (environments_with(RunningMeanStd(shape=(1,))), r"shape \(1,\) for observations, and the policy observes \(5,\)"),
        (
            environments_with({"place": RunningMeanStd(shape=(3,))}, PLACE),
            "for key 'place', and the policy observes no such key",
        ),
    ],
)
def test_a_normalization_that_cannot_be_that_of_the_model(given, message, tmp_path):
    for export in (export_program, export_safetensors):
        with pytest.raises(ValueError, match=message):
            export(make_model("softac_v1"), tmp_path / "policy", vec_normalize=given)


def test_normalization_inside_other_wrappers():
    model = make_model("normalized")
    exported = exported_policy(model, VecMonitor(model.get_vec_normalize_env()))
    assert exported.normalization.keys == exported_policy(model).normalization.keys == [""]


@pytest.mark.parametrize("name", ["softac_v1", "masked", "pictures", "one-hot"])
def test_a_batch_without_rows(name):
    model = make_model(name)
    masks = [th.ones(0, 9, dtype=th.bool)] if model.__dict__.get("masked") else []
    observations = th.as_tensor(draw(model.observation_space, 0, np.random.default_rng(0)))
    assert exported_policy(model)(observations, *masks).shape == (0, *model.action_space.shape)


def test_common_mistakes_of_those_who_read_a_file(tmp_path):
    model = make_model("normalized")
    model.save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match="it is a saved model"):
        load_policy(tmp_path / "model.zip")
    with pytest.raises(ValueError, match="tuple"):
        exported_policy(model).predict((np.zeros(5), {}))


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


def write(path, header, tensors):
    """A file with a digest that agrees with it, whatever the header says."""
    header = header if isinstance(header, str) else json.dumps(header)
    content = save(tensors, {"policy": header, "sha256": "0" * 64})
    path.write_bytes(content.replace(b"0" * 64, hashlib.sha256(content).hexdigest().encode(), 1))


WRONG = {
    "another format": lambda header: header | {"format": 2},
    "an unknown class": lambda header: header | {"policy": {"class": "os.system"}},
    "no policy": lambda header: header | {"policy": {"class": "Adam"}},
    "another algorithm": lambda header: header | {"algorithm": "SQL"},
    "a missing part": lambda header: {key: part for key, part in header.items() if key != "arguments"},
    "no statistics": lambda header: header | {"normalization": {"keys": ["place"], "epsilon": 0.1, "clip": 1}},
    "no header": lambda header: None,
    "deeply nested": lambda header: "[" * 100_000 + "]" * 100_000,
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_headers_are_refused(parts, what):
    header, tensors, path = parts
    write(path, header, tensors)
    load_policy(path)
    write(path, WRONG[what](header), tensors)
    with pytest.raises(ValueError, match="does not contain a policy written by export_safetensors"):
        load_policy(path)


def test_files_without_a_digest_are_refused(parts):
    header, tensors, path = parts
    save_file(tensors, path, {"policy": json.dumps(header)})
    with pytest.raises(ValueError, match="it has no digest"):
        load_policy(path)


@pytest.mark.parametrize("name, action_dim", [("halfcheetah", 6), ("walker2d", 6)])
def test_the_policies_of_the_clips_can_be_read(name, action_dim):
    policy = load_policy(Path(__file__).parents[2] / "benchmarks" / "results" / f"{name}.safetensors")
    assert policy.predict(np.zeros(17), deterministic=True)[0].shape == (action_dim,)


def test_missing_tensors_are_refused(parts):
    header, tensors, path = parts
    tensors.pop("policy.actor.mu.weight")
    write(path, header, tensors)
    with pytest.raises(ValueError, match=r"policy\.actor\.mu\.weight"):
        load_policy(path)


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("safetensors") / "policy"
    export_safetensors(make_model("normalized dictionary"), path)
    return path.read_bytes()


def flipped(content, place, bit):
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def test_damage_is_detected(content, tmp_path):
    """100 of 100 flipped bits anywhere, as many in the header, some in each of the first bytes, lost pages and lost ends."""
    path, rng = tmp_path / "policy", np.random.default_rng(0)
    header = 8 + int.from_bytes(content[:8], "little")
    places = [*rng.integers(len(content), size=100), *rng.integers(header, size=100), *range(8)]
    damaged = {f"bit {place}": flipped(content, place, rng.integers(8)) for place in places}
    for place in rng.integers(len(content), size=20):
        page = slice(place, place + 512)
        damaged[f"page {place}"] = content[:place] + bytes(len(content[page])) + content[page.stop :]
        damaged[f"cut {place}"] = content[:place]
    damaged |= {
        "longer": content + b"\0",
        "twice": content + content,
        "spaces": content.replace(b'"format": 1', b'"format" :1'),
    }
    for what, bytes_ in damaged.items():
        if bytes_ == content:  # a page of zeros
            continue
        path.write_bytes(bytes_)
        with pytest.raises(ValueError, match="does not contain a policy written by export_safetensors"):
            load_policy(path)
            pytest.fail(what)
    path.write_bytes(content)
    load_policy(path)


def argument(**changed):
    return lambda header: header["arguments"]["dict"].update(changed)


def kwargs(**changed):
    return argument(distribution_kwargs={"dict": changed})


def skill(header):
    return header["arguments"]["dict"]["members"]["list"][0]["dict"]


HUGE_BOX = {"space": ["Box", -1.0, 1.0, [500_000_000], "float32"]}
HUGE = {
    "layers": ("softac_v1", argument(net_arch={"list": [2000] * 400})),
    "observations": ("softac_v1", argument(observation_space=HUGE_BOX)),
    "actions": ("softac_v1", argument(action_space=HUGE_BOX)),
    "options": ("discretesac", argument(action_space={"space": ["Discrete", 10**9, 0]})),
    "words": ("softac_v1", argument(observation_space={"space": ["Box", "a", "a", [1], "U900000000"]})),
    "hidden": ("softac_v1", argument(features_extractor_kwargs={"dict": {"a": {"list": [HUGE_BOX]}}})),
    "policy": ("softac_v1", lambda header: header.update(policy=HUGE_BOX)),
    "critics": ("softac_v1", argument(n_critics=10**7)),
    "width": ("flow", kwargs(coupling_width=10**8)),
    "candidates": ("sql", argument(n_candidates=10**9)),
    "candidates of a skill": ("composed", lambda header: skill(header).update(n_candidates=10**9)),
    "features": ("pictures", argument(features_extractor_kwargs={"dict": {"features_dim": 10**7}})),
    "other extractor": ("softac_v1", argument(features_extractor_class={"class": "ReplayBuffer"})),
}


@pytest.mark.parametrize("what", HUGE)
def test_a_small_file_builds_nothing_large(what, tmp_path):
    name, change = HUGE[what]
    path = tmp_path / "policy"
    export_safetensors(make_model(name), path)
    with safetensors.safe_open(path, "pt") as file:
        tensors, header = {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["policy"])
    change(header)
    write(path, header, tensors)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(ValueError, match="does not contain a policy written by export_safetensors"):
        load_policy(path)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert kilobytes < 10_000 + path.stat().st_size / 100 and time.perf_counter() - started < 5.0


def test_keys_that_mean_something_in_json(tmp_path):
    observations = spaces.Dict({name: spaces.Box(-1, 1, (2,), np.float32) for name in ("space", "dict", "list", "class")})
    model = make(SoftAC_v1, observations, LIMITS, "MultiInputPolicy", wrap=VecNormalize)
    export_safetensors(model, tmp_path / "policy")
    assert_answers(model, "", lambda obs, _: load_policy(tmp_path / "policy").predict(obs, deterministic=True)[0])


def test_only_files_are_opened():
    with pytest.raises(OSError, match="is not a regular file"):
        load_policy("/dev/zero")


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
