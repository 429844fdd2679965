"""Schedules and settings of the optimizer that are not finite change no parameter; what is set on a model takes effect."""

import math

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.utils import LinearSchedule

from sb3_softac import DiscreteSAC
from sb3_softac.entropy.temperature import make_temperature
from sb3_softac.replay.batch import make_batch
from tests.engines.native.helpers import make_model, ways
from tests.toys import SetAt, algorithms, state_of, train


def model_of(algorithm, fast=False, **kwargs):
    return make_model(algorithm, fast, **kwargs)


def assert_refused(model, message):
    before, n_updates = state_of(model), model._n_updates
    with pytest.raises(ValueError, match=message):
        train(model, 2)
    after = state_of(model)
    assert model._n_updates == n_updates and before.keys() == after.keys()
    assert all(th.equal(before[name], after[name]) for name in before)


BAD = [math.nan, math.inf, -math.inf, -1e-3, None, "a", th.full((1,), math.nan), np.array([1.0, 2.0])]


@pytest.mark.parametrize("kind", ["learning_rate", "ent_coef"])
@ways
def test_a_schedule_that_turns_bad(algorithm, fast, kind):
    values = {"now": 0.01}
    model = model_of(algorithm, fast, **{kind: lambda progress: values["now"]})
    for bad in [*BAD, *([0.0] if kind == "ent_coef" else [])]:
        values["now"] = bad
        assert_refused(
            model, rf"{kind}.*: the schedule must return a finite number.*, got .* at the remaining progress 0 \(1 at"
        )
    values["now"] = 0.01
    train(model)


@pytest.mark.parametrize("kind", ["learning_rate", "ent_coef"])
@ways
def test_a_schedule_that_fails(algorithm, fast, kind):
    values = {"now": 1.0}
    model = model_of(algorithm, fast, **{kind: lambda progress: 0.01 / values["now"]})
    values["now"] = 0.0
    assert_refused(model, rf"{kind}.*: the schedule fails at the remaining progress 0 .*ZeroDivisionError: ")


@pytest.mark.parametrize(("name", "value"), [("weight_decay", math.nan), ("eps", math.inf), ("betas", (math.nan, 0.999))])
@ways
def test_settings_of_the_optimizer_that_are_not_finite(algorithm, fast, name, value):
    model = model_of(algorithm, fast)
    model.policy.optimizer.param_groups[0][name] = value
    assert_refused(model, f"The optimizer's {name} is .*: it must be finite")


@ways
def test_a_learning_rate_by_hand_follows_the_schedule(algorithm, fast):
    """As in SB3, whatever is written into the optimizer; NaN, too, is gone before the step."""
    model, twin = (model_of(algorithm, fast) for _ in range(2))
    for group in model.policy.optimizer.param_groups:
        group["lr"] = math.nan
    train(model, 2)
    train(twin, 2)
    assert all(th.equal(one, other) for one, other in zip(state_of(model).values(), state_of(twin).values(), strict=True))


@algorithms
def test_progress_ends_at_zero(algorithm):
    """With several environments more steps are taken than asked for; a linear schedule would go on below 0."""
    model = model_of(algorithm, n_envs=3, learning_rate=lambda progress: 1e-3 * progress)
    model.learning_starts = 0
    model.learn(4)
    assert model.num_timesteps == 6 and model._current_progress_remaining == 0.0
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.0


# --- What is set takes effect


def batch_of(model):
    np.random.seed(0)
    return make_batch(model.replay_buffer.sample(16), model.gamma)


@pytest.mark.parametrize(("name", "value"), [("gamma", 0.5), ("n_steps", 2)])
@ways
def test_targets_follow_gamma_and_n_steps(algorithm, fast, name, value):
    model, twin = model_of(algorithm, fast, n_steps=3), model_of(algorithm, fast, **{"n_steps": 3, name: value})
    setattr(model, name, value)
    train(model)
    mine, other = batch_of(model), batch_of(twin)
    assert th.equal(mine.rewards, other.rewards) and th.equal(mine.discounts, other.discounts)


@algorithms
def test_a_loaded_replay_buffer_follows_the_model(algorithm, tmp_path):
    model, other = model_of(algorithm, n_steps=3), model_of(algorithm)
    other.save_replay_buffer(tmp_path / "buffer")
    model.load_replay_buffer(tmp_path / "buffer")
    train(model)
    assert (model.replay_buffer.n_steps, model.replay_buffer.gamma) == (3, model.gamma)


@algorithms
def test_a_loaded_replay_buffer_without_n_steps(algorithm, tmp_path):
    other = model_of(algorithm, replay_buffer_class=ReplayBuffer)
    other.save_replay_buffer(tmp_path / "buffer")
    model = model_of(algorithm, n_steps=3)
    model.load_replay_buffer(tmp_path / "buffer")
    assert_refused(model, "n_steps is 3, but ReplayBuffer, which is now the replay buffer, has targets of one step")
    model.n_steps = 1
    train(model)


@algorithms
def test_a_replay_buffer_of_another_number_of_environments(algorithm, tmp_path):
    model, other = model_of(algorithm), model_of(algorithm)
    other.replay_buffer.n_envs = 2
    other.save_replay_buffer(tmp_path / "buffer")
    model.load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(ValueError, match="The replay buffer was made for n_envs=2, and this training has n_envs=1"):
        model.learn(1)


@algorithms
def test_targets_end_where_a_loaded_replay_buffer_ends(algorithm, tmp_path):
    """The next transition belongs to another episode."""
    model = model_of(algorithm, n_steps=3)
    for ends in (model.replay_buffer.dones, model.replay_buffer.timeouts):
        ends[model.replay_buffer.pos - 2 : model.replay_buffer.pos] = False
    model.save_replay_buffer(tmp_path / "buffer")
    model.learn(3)
    model.load_replay_buffer(tmp_path / "buffer")
    end = model.replay_buffer.pos
    model.learn(3, reset_num_timesteps=False)
    assert model.replay_buffer._draw(np.array([end - 2]), None).last.tolist() == [end - 1]


@algorithms
def test_memory_usage_of_a_loaded_model(algorithm, tmp_path):
    model_of(algorithm).save(tmp_path / "model")
    kwargs = dict(optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False))
    model = algorithm.load(tmp_path / "model", **kwargs)
    assert type(model.replay_buffer) is ReplayBuffer and model.replay_buffer.optimize_memory_usage


@algorithms
def test_n_steps_of_a_buffer_that_takes_them(algorithm):
    # Without SB3's warning, which would be wrong
    model = model_of(algorithm, n_steps=3, replay_buffer_class=NStepReplayBuffer)
    assert model.replay_buffer.n_steps == 3


@algorithms
def test_buffers_that_cannot_follow(algorithm):
    kwargs = dict(replay_buffer_class=NStepReplayBuffer, replay_buffer_kwargs=dict(n_steps=3, gamma=0.9))
    model = model_of(algorithm, **kwargs)
    model.gamma = 0.5
    assert_refused(
        model, r"gamma was changed to 0\.5, but NStepReplayBuffer computes the targets, and replay_buffer_kwargs fixes it"
    )
    model.gamma = 0.99
    train(model)
    model = model_of(algorithm, optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False))
    model.n_steps = 3
    assert_refused(model, "n_steps was changed to 3, but ReplayBuffer computes the targets, and it has no such attribute")


@ways
def test_a_learning_rate_that_is_set(algorithm, fast):
    """SB3 keeps to the schedule of the construction without a word."""
    model = model_of(algorithm, fast)
    model.learning_rate = 0.25
    train(model)
    assert model.policy.optimizer.param_groups[0]["lr"] == 0.25


EFFECTS = {
    "batch_size": (5, lambda model: model.batch_size),
    "tau": (0.5, lambda model: model.tau),
    "train_freq": (4, lambda model: model.train_freq.frequency),
    "gradient_steps": (np.int64(3), lambda model: model.gradient_steps),
    "target_update_interval": (3.0, lambda model: model.target_update_interval),
    "gamma": (0.5, lambda model: model.replay_buffer.gamma),
    "n_steps": (2, lambda model: model.replay_buffer.n_steps),
}


@algorithms
@pytest.mark.parametrize("name", EFFECTS)
def test_set_in_a_callback(algorithm, name):
    value, effect = EFFECTS[name]
    model = model_of(algorithm, n_steps=3)
    model.learning_starts = 0
    calls, train = [], model.train

    def noted(gradient_steps, batch_size):
        calls.append((gradient_steps, batch_size))
        train(gradient_steps, batch_size)

    model.train = noted
    model.learn(13, callback=SetAt(3, **{name: value}), reset_num_timesteps=False)
    assert effect(model) == value and type(effect(model)) in (int, float)
    assert set(calls[4:]) == {(3 if name == "gradient_steps" else 1, 5 if name == "batch_size" else 8)}
    assert len(calls) == (6 if name == "train_freq" else 13)


@ways
@pytest.mark.parametrize(("bounds", "expected"), [((None, 0.5), 0.5), ((2.0, None), 2.0), ((None, None), 1.0), (None, 1.0)])
def test_bounds_of_the_temperature_that_are_set(algorithm, fast, bounds, expected):
    model = model_of(algorithm, fast, ent_coef="auto", learning_rate=1e-6)
    model.ent_coef_bounds = bounds
    train(model)
    assert float(model.temperature.alpha) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("bounds", "low", "high"), [((None, 1.5), 0.0, 1.5), ((0.5, None), 0.5, math.inf), ([0.5, 1.5], 0.5, 1.5)]
)
def test_one_sided_bounds(bounds, low, high):
    temperature = make_temperature("auto", th.device("cpu"), 0.1, bounds)
    for log_alpha in (-20.0, 20.0):
        temperature.log_ent_coef.data.fill_(log_alpha)
        temperature.bound()
        assert float(temperature.alpha) == pytest.approx(min(max(math.exp(log_alpha), low), high))


@algorithms
def test_the_temperature_by_the_names_of_sb3s_sac(algorithm):
    fixed, learned = (model_of(algorithm, ent_coef=ent_coef) for ent_coef in (0.1, "auto"))
    assert float(fixed.ent_coef_tensor) == pytest.approx(0.1)
    fixed.ent_coef_tensor = th.tensor(0.5)
    train(fixed)
    assert float(fixed.ent_coef_tensor) == fixed.ent_coef == 0.5
    with pytest.raises(AttributeError, match="the temperature is not learned: set ent_coef"):
        fixed.log_ent_coef = th.zeros(1)
    parameter = learned.log_ent_coef
    learned.log_ent_coef = th.log(th.tensor([0.3]))
    assert learned.log_ent_coef is parameter and float(learned.ent_coef_tensor) == pytest.approx(0.3)


@algorithms
def test_an_argument_that_is_excluded_from_a_file(algorithm, tmp_path):
    model = model_of(algorithm, target_entropy=0.25)
    model.save(tmp_path / "model", exclude=["target_entropy"])
    assert algorithm.load(tmp_path / "model").target_entropy == model_of(algorithm).target_entropy != 0.25


@algorithms
def test_bounds_that_were_set_are_loaded(algorithm, tmp_path):
    model = model_of(algorithm, ent_coef="auto")
    model.save(tmp_path / "before")
    model.ent_coef_bounds = (None, 0.5)
    train(model)
    model.save(tmp_path / "model")
    assert th.equal(algorithm.load(tmp_path / "model").log_ent_coef, model.log_ent_coef)
    loaded = algorithm.load(tmp_path / "before", ent_coef_bounds=(None, 0.5))  # clamped in the next gradient step
    assert loaded.log_ent_coef.item() == pytest.approx(0.0, abs=0.1)
    with pytest.raises(ValueError, match=r"ent_coef starts at 2\.0, outside of ent_coef_bounds"):
        algorithm.load(tmp_path / "before", ent_coef_bounds=(None, 0.5), ent_coef="auto_2")


@algorithms
@pytest.mark.parametrize(
    "schedule", [LinearSchedule(2.0, 0.01, 1.0), lambda progress: 0.01 + progress, "lin_2"], ids=["object", "function", "text"]
)
def test_a_scheduled_temperature_is_loaded(algorithm, schedule, tmp_path):
    model = model_of(algorithm, ent_coef=schedule)
    model._current_progress_remaining = 0.25
    train(model)
    model.save(tmp_path / "model")
    given = {"ent_coef": schedule} if callable(schedule) else {}
    for loaded in (algorithm.load(tmp_path / "model"), algorithm.load(tmp_path / "model", safe=True, custom_objects=given)):
        assert loaded.temperature.alpha == model.temperature.alpha < 1.0
        assert getattr(loaded.policy, "alpha", 0.0) == getattr(model.policy, "alpha", 0.0)  # of DiscreteSQL
    for new, alpha in ((lambda progress: 3.0 * progress + 0.1, 3.1), ("auto_0.3", 0.3), (0.2, 0.2)):
        loaded = algorithm.load(tmp_path / "model", ent_coef=new)
        assert float(loaded.temperature.alpha) == pytest.approx(alpha)
        assert float(getattr(loaded.policy, "alpha", alpha)) == pytest.approx(alpha)


def test_a_scheduled_target_entropy_is_loaded(tmp_path):
    model = model_of(DiscreteSAC, ent_coef="auto", target_entropy=dict(schedule="linear", start=0.9, end=0.1))
    model._current_progress_remaining = 0.25
    train(model)
    model.save(tmp_path / "model")
    assert DiscreteSAC.load(tmp_path / "model").target_entropy == model.target_entropy
    assert DiscreteSAC.load(tmp_path / "model", target_entropy="ratio_0.5").entropy_target.ratio == 0.5


@ways
@pytest.mark.parametrize(("name", "good", "bad"), [("ent_coef", 0.5, -1.0), ("target_entropy", 0.25, "a")])
def test_a_refused_value_leaves_the_old_one(algorithm, fast, name, good, bad):
    model = model_of(algorithm, fast, **{"ent_coef": "auto", name: good})
    with pytest.raises(ValueError, match=name):
        setattr(model, name, bad)
        train(model)
    assert float(model.temperature.alpha if name == "ent_coef" else model.target_entropy) == pytest.approx(good)
    setattr(model, name, good)
    train(model)
