"""Deterministic predictions: the same action for the same observation, without a random number, and in exported files too."""

import copy

import numpy as np
import onnxruntime
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_softac import SQL
from sb3_softac.nets.candidates import smallest_q
from sb3_softac.sql.sampler import ActionSampler
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


def test_the_noise_in_a_file_counts(models):
    state = models["plain"].policy.state_dict()
    assert (state["actor.candidate_noise"] == make_model(seed=3).actor.candidate_noise).all()  # whatever the seed
    state["actor.candidate_noise"] = state["actor.candidate_noise"] + 1.0
    other = copy.deepcopy(models["plain"].policy)
    other.load_state_dict(state)
    assert (other.predict(OBS, deterministic=True)[0] != act(models["plain"])).any()


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
            smallest_q(each.critic, obs, each._predict(obs, deterministic=True).unsqueeze(1))
            for each in (models[name].policy, policy)
        )
    assert better.mean() > best.mean()
    for wrong in (0, 2.5):
        with pytest.raises(ValueError, match="n_candidates must be an integer, at least 1"):
            policy.n_candidates = wrong
    assert policy.n_candidates == 200


class Exported(nn.Module):
    """SB3's recipe."""

    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, observation):
        return self.part(observation, deterministic=True)


PARTS = [("plain", "actor"), ("composed", "policy"), ("distilled", "policy")]


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter, not of the tracer's warnings
def test_onnx_by_the_exporter_of_sb3s_recipe(part, tmp_path):
    exported, expected = part
    th.onnx.register_custom_op_symbolic("aten::atanh", lambda graph, x: graph.op("Atanh", x), 18)  # it knows all but this
    file, axes = tmp_path / "policy.onnx", {"input": {0: "batch"}}
    th.onnx.export(exported, (th.as_tensor(OBS[:1]),), file, input_names=["input"], dynamic_axes=axes, dynamo=False)
    (actions,) = onnxruntime.InferenceSession(file).run(None, {"input": OBS})
    assert actions == pytest.approx(expected.numpy(), abs=1e-5)


class Widened(FlattenExtractor):
    """An extractor that learns."""

    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.layer = nn.Linear(3, 3)

    def forward(self, observations):
        return self.layer(super().forward(observations))


@pytest.mark.parametrize("share", [False, True])
def test_a_sampler_alone_acts_as_its_policy(share, tmp_path):
    extractor = dict(features_extractor_class=Widened, share_features_extractor=share)
    model = make_model(policy_kwargs=dict(net_arch=[16], n_candidates=40, **extractor)).learn(20)
    expected = act(model)
    assert (model.actor.predict(OBS, deterministic=True)[0] == expected).all()
    model.policy.set_training_mode(True)
    loaded = ActionSampler.load(_saved(model.actor, tmp_path / "actor"), device="cpu")
    model.train(5)
    assert (act(model) != expected).any()
    again = ActionSampler.load(_saved(loaded, tmp_path / "again"), device="cpu")
    for actor in (loaded, again, copy.deepcopy(loaded)):
        assert actor.state_dict().keys() == model.actor.state_dict().keys() and actor.n_candidates == 40
        assert (actor.predict(OBS, deterministic=True)[0] == expected).all()
        assert (actor.predict(OBS)[0] != actor.predict(OBS)[0]).all()
    assert not any(module.training for module in loaded.ranking.find_critic().modules())


def test_a_distilled_sampler_alone(models, tmp_path):
    loaded = ActionSampler.load(_saved(models["distilled"].actor, tmp_path / "actor"), device="cpu")
    assert (loaded.predict(OBS, deterministic=True)[0] == act(models["distilled"])).all()
    obs = th.as_tensor(OBS)
    best = loaded.ranking.best(obs, loaded.candidates(obs).double())  # the critics follow to another type or device
    th.testing.assert_close(best.float(), loaded(obs, deterministic=True))


def test_a_sampler_from_a_file_can_be_put_into_a_policy(models, tmp_path):
    policy = copy.deepcopy(models["plain"].policy)
    keys = policy.state_dict().keys()
    policy.actor = ActionSampler.load(_saved(policy.actor, tmp_path / "actor"), device="cpu")
    assert policy.state_dict().keys() == keys
    prefer_the_worst(policy.critic)  # the policy goes by its own critics
    assert (policy.predict(OBS, deterministic=True)[0] != act(models["plain"])).any()
    assert (policy.actor.predict(OBS, deterministic=True)[0] == act(models["plain"])).all()


def prefer_the_worst(critic):
    last = critic.q_networks.layers[-1]
    with th.no_grad():
        last.weight.neg_()
        last.bias.neg_()


def test_copies_have_critics_of_their_own(models):
    policy = copy.deepcopy(models["plain"].policy)
    before = policy.actor(th.as_tensor(OBS), deterministic=True)
    prefer_the_worst(policy.critic)
    assert (policy.actor(th.as_tensor(OBS), deterministic=True) != before).any()
    assert (models["plain"].actor(th.as_tensor(OBS), deterministic=True) == before).all()


@pytest.mark.parametrize("use", ["act", "save"])
def test_the_sampler_of_a_composed_model_must_be_distilled_first(use, models, tmp_path):
    actor = models["composed"].actor
    with pytest.raises(ValueError, match=r"call distil\(\) first, or use model\.policy"):
        actor(th.as_tensor(OBS), deterministic=True) if use == "act" else actor.save(tmp_path / "actor")
