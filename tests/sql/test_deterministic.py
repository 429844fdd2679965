"""Deterministic predictions: the same action for the same observation, without a random number, and in exported files too."""

import copy
import io

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from torch import nn

from sb3_softac import SQL
from sb3_softac.sql.sampler import ActionSampler, fixed_noise
from tests.sql.helpers import make_model

OBS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def models():
    model = make_model()
    model.learn(30)
    composed, distilled = (
        SQL.compose([model, make_model(seed=1)], "sum", policy_kwargs=dict(net_arch=[16])) for _ in range(2)
    )
    distilled.distil([model.replay_buffer], gradient_steps=2, batch_size=8)
    return {"plain": model, "composed": composed, "distilled": distilled}


@pytest.fixture(params=["plain", "composed", "distilled"])
def model(models, request):
    return models[request.param]


def act(model, obs=OBS):
    return model.predict(obs, deterministic=True)[0]


def test_the_same_action_without_random_numbers(model):
    before = th.get_rng_state(), np.random.get_state()[1].copy()
    first = act(model)
    th.manual_seed(1)
    assert (act(model) == first).all()
    th.set_rng_state(before[0])
    act(model)
    assert (th.get_rng_state() == before[0]).all() and (np.random.get_state()[1] == before[1]).all()
    assert len(np.unique(first)) == len(first)
    assert (model.predict(OBS)[0] != model.predict(OBS)[0]).all()  # samples do differ


def test_an_action_does_not_depend_on_the_rest_of_the_batch(model):
    together = act(model)
    for i, obs in enumerate(OBS):
        assert act(model, obs) == pytest.approx(together[i], abs=1e-5)
    assert act(model, OBS[[3, 1]]) == pytest.approx(together[[3, 1]], abs=1e-5)


def test_saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model")
    th.manual_seed(7)
    loaded = SQL.load(tmp_path / "model", device="cpu")
    assert (act(loaded) == act(model)).all()
    policy = type(model.policy).load(_saved(model.policy, tmp_path / "policy"), device="cpu")
    assert (policy.predict(OBS, deterministic=True)[0] == act(model)).all()


def _saved(part, path):
    part.save(path)
    return path


def test_files_of_before_have_no_fixed_noise(model):
    state = {key: value for key, value in model.policy.state_dict().items() if not key.endswith("_noise")}
    assert len(state) < len(model.policy.state_dict())
    other = copy.deepcopy(model.policy)
    for parameter in other.parameters():
        nn.init.zeros_(parameter)
    other.load_state_dict(state)  # strict
    assert (other.predict(OBS, deterministic=True)[0] == act(model)).all()


def test_the_noise_in_a_file_counts(models):
    state = models["plain"].policy.state_dict()
    state["actor.candidate_noise"] = state["actor.candidate_noise"] + 1.0
    other = copy.deepcopy(models["plain"].policy)
    other.load_state_dict(state)
    assert (other.predict(OBS, deterministic=True)[0] != act(models["plain"])).any()


def test_the_noise_is_that_of_no_generator(models):
    before = th.get_rng_state()
    first = fixed_noise(32, 1)
    assert (th.get_rng_state() == before).all() and first.std().item() == pytest.approx(1.0, abs=0.3)
    th.manual_seed(5)
    assert (fixed_noise(32, 1) == first).all() and (make_model(seed=3).actor.candidate_noise == first).all()


def test_evaluation_does_not_change_the_training():
    class Evaluate(BaseCallback):
        def _on_step(self):
            self.model.predict(OBS, deterministic=True)
            return True

    plain, evaluated = make_model().learn(30), make_model().learn(30, callback=Evaluate())
    for x, y in zip(plain.policy.parameters(), evaluated.policy.parameters(), strict=True):
        assert (x == y).all()


def test_the_best_of_the_candidates(models):
    model = models["plain"]
    obs = th.as_tensor(OBS)
    with th.no_grad():
        candidates = model.actor.transform(model.actor.features(obs), model.actor.candidate_noise).tanh()
        q = model.critic.q_particles(model.critic.features(obs), candidates).amin(dim=0)
        actions = model.policy._predict(obs, deterministic=True)
        assert candidates.shape == (5, 32, 1) and (q.std(dim=1) > 0).all()
        assert (actions == candidates[th.arange(5), q.argmax(dim=1)]).all()
        assert (model.actor(obs, deterministic=True) == actions).all()


@pytest.mark.parametrize("name", ["plain", "composed"])
def test_number_of_candidates_may_be_set(models, name):
    policy = copy.deepcopy(models[name].policy)
    policy.n_candidates = 200
    assert policy.actor.candidate_noise.shape == (200, 1) and policy._get_constructor_parameters()["n_candidates"] == 200
    obs = th.as_tensor(OBS)
    with th.no_grad():
        best, better = (
            each.smallest_q(obs, each._predict(obs, deterministic=True).unsqueeze(1)) for each in (models[name].policy, policy)
        )
    assert better.mean() > best.mean()
    with pytest.raises(ValueError, match="n_candidates must be at least 1"):
        policy.n_candidates = 0


class Exported(nn.Module):
    """SB3's recipe."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, observation):
        return self.part(observation, deterministic=True)


PARTS = [("plain", "actor"), ("plain", "policy"), ("composed", "policy"), ("distilled", "actor"), ("distilled", "policy")]


@pytest.fixture(params=PARTS, ids=["-".join(part) for part in PARTS])
def part(models, request):
    """What is exported, and the actions that its file must give."""
    name, which = request.param
    with th.no_grad():
        expected = models[name].policy._predict(th.as_tensor(OBS), deterministic=True)
    return Exported(getattr(models[name], which)).eval(), expected


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of the function, not of the tracer's warnings
def test_traced_at_one_observation(part):
    exported, expected = part
    traced = th.jit.trace(exported, th.as_tensor(OBS[:1]))
    assert traced(th.as_tensor(OBS)).detach().numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    frozen = th.jit.optimize_for_inference(th.jit.freeze(traced))
    assert frozen(th.as_tensor(OBS)).detach().numpy() == pytest.approx(expected.numpy(), abs=1e-5)


def test_torch_export_with_any_batch(part):
    exported, expected = part
    batch = ({0: th.export.Dim("batch")},)
    program = th.export.export(exported, (th.as_tensor(OBS[:2]),), dynamic_shapes=batch)  # PyTorch takes a 1 for a constant
    file = io.BytesIO()
    th.export.save(program, file)
    file.seek(0)
    module = th.export.load(file).module()
    assert module(th.as_tensor(OBS)).detach().numpy() == pytest.approx(expected.numpy(), abs=1e-5)
    assert module(th.as_tensor(OBS[:1])).detach().numpy() == pytest.approx(expected[:1].numpy(), abs=1e-5)


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.filterwarnings("ignore")
def test_onnx(models, part, dynamo):
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module)
    runtime = pytest.importorskip("onnxruntime")
    exported, expected = part
    if exported.part is models["composed"].policy and not dynamo:
        pytest.skip("the old exporter has no atanh")
    file = io.BytesIO()
    if dynamo:
        shapes = ({0: th.export.Dim("batch")},)
        th.onnx.export(exported, (th.as_tensor(OBS[:2]),), file, input_names=["input"], dynamic_shapes=shapes, dynamo=True)
    else:
        axes = {"input": {0: "batch"}}
        th.onnx.export(exported, (th.as_tensor(OBS[:1]),), file, input_names=["input"], dynamic_axes=axes, dynamo=False)
    (actions,) = runtime.InferenceSession(file.getvalue()).run(None, {"input": OBS})
    assert actions == pytest.approx(expected.numpy(), abs=1e-5)


def test_a_sampler_alone_acts_by_noise_zero(models, tmp_path):
    actor = copy.deepcopy(models["plain"].actor)
    actor.n_candidates = 40
    loaded = ActionSampler.load(_saved(actor, tmp_path / "actor"), device="cpu")
    obs = th.as_tensor(OBS)
    with th.no_grad():
        middle = th.tanh(actor.transform(actor.features(obs), th.zeros(1, 1))).squeeze(1)
        assert loaded.judge is None and loaded.n_candidates == 40
        assert (loaded(obs, deterministic=True) == middle).all() and (loaded(obs) != loaded(obs)).all()


def test_the_sampler_holds_no_critic(models):
    actor = models["plain"].actor
    assert {key.split(".")[0] for key in actor.state_dict()} == {"network", "candidate_noise"}
    assert len(list(actor.modules())) == len(list(ActionSampler(**actor._get_constructor_parameters()).modules()))
    assert all("candidate_noise" not in name for name, _ in actor.named_parameters())


def test_copies_have_a_judge_of_their_own(models):
    policy = copy.deepcopy(models["plain"].policy)
    before = policy.actor(th.as_tensor(OBS), deterministic=True)
    last = policy.critic.q_networks.layers[-1]
    with th.no_grad():
        last.weight.neg_()
        last.bias.neg_()
    assert (policy.actor(th.as_tensor(OBS), deterministic=True) != before).any()
    assert (models["plain"].actor(th.as_tensor(OBS), deterministic=True) == before).all()


def test_the_sampler_of_a_composed_model_must_be_distilled_first(models):
    with pytest.raises(ValueError, match=r"call distil\(\) first, or take model\.policy"):
        models["composed"].actor(th.as_tensor(OBS), deterministic=True)
