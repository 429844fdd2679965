"""Each argument of each algorithm, given everything that it cannot be: refused by name before anything is built."""

import inspect
import math
from functools import partial

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.utils import ConstantSchedule
from stable_baselines3.her import HerReplayBuffer
from torch import nn

from sb3_softac import SQL, DiscreteSAC, DiscreteSQL, SoftAC_v1
from sb3_softac.algorithm.arguments import BUFFER_ARGUMENTS, LEARN_ARGUMENTS
from sb3_softac.algorithm.policies import acting_network
from tests.toys import ALGORITHMS, RandomEnv, SetAt, algorithms, is_discrete

OBSERVATIONS = spaces.Box(-1.0, 1.0, (2,))

ANYTHING = {
    "text": "a",
    "number in text": "1",
    "bytes": b"1",
    "none": None,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "numpy nan": np.float32("nan"),
    "-1": -1,
    "-0.5": np.float64(-0.5),
    "0": 0,
    "1.5": 1.5,
    "true": True,
    "numpy true": np.bool_(True),
    "complex": 1j,
    "too large": 10**400,
    "list": [1],
    "list of text": ["a", "step"],
    "pair": (1, 2, 3),
    "dict": {"a": 1},
    "dict of numbers": {1: 1},
    "set": {1},
    "object": object(),
    "class": int,
    "function": lambda: 0,
    "array": np.array([0.5, 0.5]),
    "array of one": np.array([1]),
    "scalar array": np.array(0.5),
    "tensor": th.tensor(1.0),
    "module": nn.ReLU(),
    "space": spaces.Discrete(2),
}

NUMBERS, FLAG = {"0"}, {"true", "numpy true", "0"}
# Of the above, what each argument may be
RIGHT = {
    "learning_rate": {"0", "1.5"},
    "buffer_size": set(),
    "learning_starts": {"0"},
    "batch_size": set(),
    "tau": {"0"},
    "gamma": {"0"},
    "train_freq": set(),
    "gradient_steps": {"0", "-1"},
    "action_noise": {"none"},
    "replay_buffer_class": {"none"},
    "replay_buffer_kwargs": {"none"},
    "optimize_memory_usage": FLAG,
    "n_steps": set(),
    "ent_coef": {"1.5", "number in text"},
    "ent_coef_bounds": {"none"},
    "target_update_interval": set(),
    "target_entropy": {"0"},
    "random_steps": {"none", "0"},
    "policy_kwargs": {"none"},
    "stats_window_size": set(),
    "tensorboard_log": {"none", "text", "number in text"},
    "verbose": FLAG,
    "seed": {"none", "0"},
    "device": set(),
    "use_sde": FLAG,
    "sde_sample_freq": {"-1"},
    "use_sde_at_warmup": FLAG,
    "cuda_graphs": FLAG,
    "_init_setup_model": FLAG,
    "n_critics": set(),
    "actor_q": set(),
    "reparameterize": FLAG,
    "kernel_particles": set(),
    "value_particles": set(),
    "proposal": set(),
    "critic_ent_coef_scale": {"0"},
    "q_aggregation": set(),
    "stable_kwargs": {"none"},
    "policy": set(),
    "env": {"text", "number in text"},
}
OF_CONTINUOUS = {"target_entropy": {"0", "-1", "-0.5", "1.5", "number in text"}}
OF_DISCRETE = {"target_entropy": {"0", "number in text"}}
OF_POLICIES = {
    "net_arch": {"none", "list", "pair"},
    "activation_fn": set(),
    "features_extractor_class": {"none"},
    "features_extractor_kwargs": {"none"},
    "normalize_images": FLAG,
    "optimizer_class": set(),
    "optimizer_kwargs": {"none"},
    "n_critics": set(),
    "share_features_extractor": FLAG,
    "use_expln": FLAG,
    "log_std_init": {"0", "-1", "1.5", "-0.5"},
    "clip_mean": {"0", "1.5"},
    "distribution": set(),
    "distribution_kwargs": {"none"},
    "n_candidates": set(),
}
OF_BUFFERS = {
    "handle_timeout_termination": FLAG,
    "n_steps": set(),
    "gamma": {"0"},
    "single_precision": FLAG,
    "n_sampled_goal": {"0"},
    "goal_selection_strategy": set(),
    "copy_info_dict": FLAG,
}
OF_LEARN = {
    "total_timesteps": {"0"},
    "callback": {"none", "function", "module"},
    "log_interval": {"none"},
    "tb_log_name": {"none", "text", "number in text"},
    "reset_num_timesteps": FLAG,
    "progress_bar": FLAG,
}


class Built(Exception):
    """Everything was accepted."""


@pytest.fixture
def nothing_is_built(monkeypatch):
    def setup(self):
        raise Built

    monkeypatch.setattr(OffPolicyAlgorithm, "_setup_model", setup)


def make(algorithm, **kwargs):
    env = RandomEnv(OBSERVATIONS, spaces.Discrete(3) if is_discrete(algorithm) else spaces.Box(-1.0, 1.0, (2,)))
    return algorithm(**{"policy": "MlpPolicy", "env": env, "device": "cpu", **kwargs})


def assert_refused(name, what, action):
    try:
        action()
    except (ValueError, AssertionError) as error:
        assert name in str(error), f"{what} as {name}: the message does not name it: {error}"
    except Built:
        pytest.fail(f"{what} was accepted as {name}")
    else:
        pytest.fail(f"{what} was accepted as {name}")


def parameters(cls):
    return [name for name in inspect.signature(cls.__init__).parameters if name not in ("self", "kwargs")]


@pytest.mark.parametrize(("algorithm", "name"), [(a, name) for a in ALGORITHMS for name in parameters(a)])
def test_arguments_of_the_constructors(algorithm, name, nothing_is_built):
    right = {**RIGHT, **(OF_DISCRETE if is_discrete(algorithm) else OF_CONTINUOUS)}[name]
    for what, value in ANYTHING.items():
        if what not in right:
            assert_refused(
                "ent_coef" if name == "ent_coef_bounds" else name, what, lambda value=value: make(algorithm, **{name: value})
            )
        elif name == "_init_setup_model" and not value:
            make(algorithm, _init_setup_model=value)
        elif name == "env":
            with pytest.raises(gym.error.Error, match=f"`{value}` doesn't exist"):
                make(algorithm, env=value)
        else:
            with pytest.raises(Built):
                make(algorithm, **{name: value})


OF_EACH_POLICY = [
    (algorithm, name)
    for algorithm in ALGORITHMS
    for name in parameters(algorithm.policy_base)
    if name not in ("observation_space", "action_space", "lr_schedule", "use_sde")
]


@pytest.mark.parametrize(("algorithm", "name"), OF_EACH_POLICY)
def test_arguments_of_the_policies(algorithm, name, nothing_is_built):
    for what, value in ANYTHING.items():
        if what not in OF_POLICIES[name]:
            assert_refused(name, what, lambda value=value: make(algorithm, policy_kwargs={name: value}))
        else:
            with pytest.raises(Built):
                make(algorithm, policy_kwargs={name: value})


@algorithms
@pytest.mark.parametrize("name", BUFFER_ARGUMENTS)
def test_arguments_of_replay_buffers(algorithm, name, nothing_is_built):
    of_her = dict(replay_buffer_class=HerReplayBuffer) if name in parameters(HerReplayBuffer) else {}
    for what, value in ANYTHING.items():
        if what not in OF_BUFFERS[name]:
            assert_refused(name, what, lambda value=value: make(algorithm, replay_buffer_kwargs={name: value}, **of_her))
        else:
            with pytest.raises(Built):
                make(algorithm, replay_buffer_kwargs={name: value}, **of_her)


@pytest.mark.parametrize("name", LEARN_ARGUMENTS)
def test_arguments_of_learn(name, monkeypatch):
    def setup_learn(self, *args, **kwargs):
        raise Built

    model = make(SoftAC_v1, policy_kwargs=dict(net_arch=[]), buffer_size=10)
    monkeypatch.setattr(OffPolicyAlgorithm, "_setup_learn", setup_learn)
    for what, value in ANYTHING.items():
        arguments = {"total_timesteps": 10, name: value}
        if what not in OF_LEARN[name]:
            assert_refused(name, what, lambda arguments=arguments: model.learn(**arguments))
        else:
            with pytest.raises(Built):
                model.learn(**arguments)


def test_every_argument_is_in_a_table():
    for algorithm in ALGORITHMS:
        outside = set(parameters(algorithm)) - algorithm.arguments.keys()
        assert outside <= {"policy", "env", "n_critics", "target_entropy"}, outside
        own = set(parameters(algorithm.policy_base)) - algorithm.policy_base.arguments.keys()
        assert own == {"observation_space", "action_space", "lr_schedule"}


WRONG = [
    (dict(train_freq=(1, "epoch")), "train_freq must be an integer, at least 1, or a pair such as"),
    (dict(train_freq=(1.5, "step")), "train_freq must be"),
    (dict(train_freq=(0, "episode")), "train_freq must be"),
    (dict(train_freq=(1,)), "train_freq must be"),
    (dict(learning_rate="lin_1e-3"), "learning_rate must be a finite number, at least 0, or a schedule .*got 'lin_1e-3'"),
    (dict(learning_rate=lambda p: math.nan), "learning_rate: the schedule must return a finite number, at least 0, got nan"),
    (dict(learning_rate=lambda p: p - 0.5), r"learning_rate: .* got -0\.5 at the remaining progress 0"),
    (
        dict(learning_rate=lambda p: 1e-3 / p),
        "learning_rate: the schedule fails at the remaining progress 0 .*ZeroDivisionError",
    ),
    (dict(learning_rate=lambda p: None), "learning_rate: the schedule must return .* got None"),
    (dict(ent_coef=lambda p: math.inf), "ent_coef .*the schedule must return a finite number greater than 0"),
    (dict(ent_coef=lambda p: "a"), "ent_coef .*the schedule must return"),
    (dict(ent_coef=1e-50), "ent_coef .*must be a finite number greater than 0"),
    (dict(ent_coef="auto_nan"), "ent_coef .*must be a finite number greater than 0"),
    (dict(ent_coef="auto", ent_coef_bounds=(0, 1.0)), r"ent_coef_bounds must be .*None for no bound, got \(0, 1\.0\)"),
    (dict(ent_coef="auto", ent_coef_bounds=(2.0, 1.0)), "ent_coef_bounds must not have a lower bound above the upper one"),
    (dict(ent_coef="auto", ent_coef_bounds=(1.0, math.nan)), "ent_coef_bounds must be"),
    (dict(ent_coef="auto", ent_coef_bounds=(1.0,)), "ent_coef_bounds must be"),
    (dict(ent_coef="auto", ent_coef_bounds=(None, 0.5)), r"starts at 1\.0, outside of ent_coef_bounds=\(None, 0\.5\)"),
    (dict(ent_coef="auto", ent_coef_bounds=(2, None)), r"starts at 1\.0, outside of ent_coef_bounds=\(2, None\)"),
    (dict(policy_kwargs=dict(net_arc=[8])), "policy_kwargs: .*Policy has no argument 'net_arc', did you mean 'net_arch'"),
    (dict(policy_kwargs=dict(ortho_init=False)), "policy_kwargs: .*no argument 'ortho_init': it has .*'net_arch'"),
    (dict(policy_kwargs=dict(observation_space=OBSERVATIONS)), "'observation_space' is given by the algorithm itself"),
    (dict(policy_kwargs=dict(net_arch=dict(pi=[8], vf=[8]))), "policy_kwargs: net_arch must be"),
    (dict(policy_kwargs=dict(net_arch=dict(pi=[8], qf=[8], critic=[8]))), "policy_kwargs: net_arch must be"),
    (dict(policy_kwargs=dict(net_arch=[8, 0])), "policy_kwargs: net_arch must be"),
    (dict(policy_kwargs=dict(net_arch=[dict(pi=[8], qf=[8])])), "policy_kwargs: net_arch must be"),
    (dict(policy_kwargs=dict(activation_fn=nn.ReLU())), "policy_kwargs: activation_fn must be a class of torch.nn"),
    (dict(policy_kwargs=dict(activation_fn=th.relu)), "policy_kwargs: activation_fn must be a class of torch.nn"),
    (dict(policy_kwargs=dict(optimizer_kwargs=dict(lr=1.0))), "optimizer_kwargs: 'lr' is given by the algorithm"),
    (dict(policy_kwargs=dict(optimizer_kwargs=dict(weight_decy=1.0))), "optimizer_kwargs: .*did you mean 'weight_decay'"),
    (
        dict(policy_kwargs=dict(optimizer_kwargs=dict(betas=(2.0, 0.9)))),
        "optimizer_kwargs=.*cannot train a parameter: Invalid beta",
    ),
    (dict(policy_kwargs=dict(optimizer_kwargs=dict(eps=math.nan))), "optimizer_kwargs=.*Invalid epsilon"),
    (
        dict(policy_kwargs=dict(optimizer_class=lambda params, lr: None)),
        "optimizer_class=<lambda> .*: it returns None, not an",
    ),
    (dict(policy_kwargs=dict(optimizer_class=th.optim.LBFGS)), "optimizer_class=LBFGS .*cannot train a parameter: .*closure"),
    (dict(policy_kwargs=dict(optimizer_class=th.optim.SparseAdam)), "optimizer_class=SparseAdam .*dense gradients"),
    (
        dict(policy_kwargs=dict(features_extractor_class=FlattenExtractor, features_extractor_kwargs=dict(dim=3))),
        "features_extractor_kwargs: FlattenExtractor has no argument 'dim'",
    ),
    (dict(replay_buffer_kwargs=dict(n_stepz=3)), "replay_buffer_kwargs: .*no argument 'n_stepz', did you mean 'n_steps'"),
    (dict(replay_buffer_kwargs=dict(buffer_size=3)), "replay_buffer_kwargs: 'buffer_size' is given by the algorithm"),
    (dict(replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=dict(env=None)), "'env' is given by the algorithm"),
    (
        dict(replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=dict(goal_selection_strategy="futur")),
        "replay_buffer_kwargs: goal_selection_strategy must be one of .*'future'",
    ),
    (dict(device="gpu"), "device must be 'auto', 'cpu', 'cuda'"),
    (dict(env=RandomEnv), "env must be an environment, .*this is a class, create an environment with it: Random"),
    (dict(env=lambda: None), "env must be an environment, .*this is a function: call it"),
    (dict(env=[RandomEnv(OBSERVATIONS, OBSERVATIONS)]), "env must be an environment, .*DummyVecEnv"),
    (dict(env=gym.make_vec("CartPole-v1")), "env must be an environment, .*vector environment of Gymnasium; SB3 has its own"),
    (dict(env=None), "env must be an environment"),
    (dict(buffer_size="1e6"), r"buffer_size must be .*, got '1e6' \(text, not a number: in YAML write 1\.0e\+6 for 1e6\)"),
    (
        dict(policy="MultiInputPolicy"),
        "'MultiInputPolicy' and CombinedExtractor are for Dict observations, got Box.*'MlpPolicy'",
    ),
    (dict(policy="MlPolicy"), r"Unknown policy 'MlPolicy': use one of \['CnnPolicy', 'MlpPolicy', 'MultiInputPolicy'\]"),
]


@algorithms
@pytest.mark.parametrize(("kwargs", "message"), WRONG)
def test_what_is_wrong_is_said(algorithm, kwargs, message, nothing_is_built):
    with pytest.raises(ValueError, match=message):
        make(algorithm, **kwargs)


ONLY_CONTINUOUS = [
    (dict(policy_kwargs=dict(distribution="mixtur")), "distribution must be one of .*'mixture'"),
    (
        dict(policy_kwargs=dict(distribution="mixture", distribution_kwargs=dict(n_component=2))),
        "did you mean 'n_components'",
    ),
    (
        dict(policy_kwargs=dict(distribution="mixture", distribution_kwargs=dict(n_components=1.5))),
        "distribution_kwargs: n_components must be an integer, at least 1 Gaussian, got 1.5",
    ),
    (dict(policy_kwargs=dict(use_sde=True)), "policy_kwargs: 'use_sde' is an argument of the algorithm"),
]


@pytest.mark.parametrize(("kwargs", "message"), ONLY_CONTINUOUS)
def test_what_is_wrong_with_a_distribution(kwargs, message, nothing_is_built):
    with pytest.raises(ValueError, match=message):
        make(SoftAC_v1, **kwargs)


ODD = [
    (dict(buffer_size=np.int64(50)), dict(buffer_size=50)),
    (
        dict(buffer_size=1e2, learning_starts=1e4, batch_size=np.float32(4)),
        dict(buffer_size=100, learning_starts=10_000, batch_size=4),
    ),
    (dict(train_freq=np.int64(2)), dict(train_freq=TrainFreq(2, TrainFrequencyUnit.STEP))),
    (dict(train_freq=[np.int32(2), "episode"]), dict(train_freq=TrainFreq(2, TrainFrequencyUnit.EPISODE))),
    (dict(train_freq=TrainFreq(3, TrainFrequencyUnit.STEP)), dict(train_freq=TrainFreq(3, TrainFrequencyUnit.STEP))),
    (dict(tau=np.float32(0.5), gamma=1), dict(tau=0.5, gamma=1)),
    (dict(learning_rate=np.float32(0.5)), dict(learning_rate=0.5)),
    (dict(n_steps=np.uint8(2), gradient_steps=np.int8(-1), seed=np.int64(3)), dict(n_steps=2, gradient_steps=-1, seed=3)),
    (dict(ent_coef="auto", ent_coef_bounds=[None, 2]), dict(ent_coef_bounds=(None, 2))),
    (dict(ent_coef=np.float32(0.5)), dict(ent_coef=0.5)),
    (dict(policy_kwargs=dict(net_arch=(np.int64(8), 4.0))), dict(policy_kwargs=dict(net_arch=[8, 4]))),
    (dict(policy_kwargs=dict(optimizer_class=th.optim.AdamW, optimizer_kwargs=dict(weight_decay=1e-3))), {}),
    (dict(policy_kwargs=dict(activation_fn=lambda: nn.LeakyReLU(0.2))), {}),
    (dict(replay_buffer_class=ReplayBuffer, replay_buffer_kwargs=dict(handle_timeout_termination=np.bool_(False))), {}),
    (dict(verbose=False, device=th.device("cpu")), dict(verbose=0)),
]


@algorithms
@pytest.mark.parametrize(("given", "kept"), ODD)
def test_odd_types_of_right_values(algorithm, given, kept, nothing_is_built):
    model = make(algorithm, _init_setup_model=False, **given)
    with pytest.raises(Built):
        model._setup_model()
    for name, value in kept.items():
        actual = getattr(model, name)
        if name == "policy_kwargs":
            actual = {part: actual[part] for part in value}
        assert actual == value and type(actual) is type(value), name


@algorithms
def test_a_policy_class_that_cannot_read_dictionaries(algorithm, nothing_is_built):
    actions = spaces.Discrete(3) if is_discrete(algorithm) else spaces.Box(-1.0, 1.0, (2,))
    env = RandomEnv(spaces.Dict({"a": OBSERVATIONS}), actions)
    with pytest.raises(ValueError, match=r"FlattenExtractor cannot read Dict observations, .*: use 'MultiInputPolicy'"):
        make(algorithm, policy=algorithm.policy_aliases["MlpPolicy"], env=env)
    with pytest.raises(Built):
        make(algorithm, policy="MultiInputPolicy", env=env)


def test_two_numbers_of_critics(nothing_is_built):
    with pytest.raises(ValueError, match=r"n_critics=5 and policy_kwargs=\{'n_critics': 3\} differ: give only one"):
        make(SoftAC_v1, n_critics=5, policy_kwargs=dict(n_critics=3))
    with pytest.raises(Built):
        make(SoftAC_v1, n_critics=5, policy_kwargs=dict(n_critics=5))


def test_subclasses_with_further_arguments(nothing_is_built):
    class Own(SoftAC_v1):
        def __init__(self, *args, width=3, **kwargs):
            self.width = width
            super().__init__(*args, **kwargs)

    class OwnPolicy(SoftAC_v1.policy_base):
        def __init__(self, *args, depth=1, net_arch="small", **kwargs):
            super().__init__(*args, net_arch=[8] * depth, **kwargs)

    for kwargs in (dict(depth=2), dict(net_arch="large"), dict(n_critics=3)):
        with pytest.raises(Built):
            make(Own, policy=OwnPolicy, width=4, policy_kwargs=kwargs)
    with pytest.raises(ValueError, match="activation_fn must be"):
        make(Own, policy=OwnPolicy, policy_kwargs=dict(activation_fn="relu"))


class ReadsTheRest(FlattenExtractor):
    def __init__(self, observation_space, **rest):
        super().__init__(observation_space)
        self.width = rest.get("width")


@algorithms
def test_a_user_s_constructor_may_read_further_arguments_itself(algorithm):
    class OwnPolicy(algorithm.policy_base):
        def __init__(self, *args, **kwargs):
            self.label = kwargs.pop("label", None)
            super().__init__(*args, **kwargs)

    own = dict(features_extractor_class=ReadsTheRest, features_extractor_kwargs=dict(width=3))
    model = make(algorithm, policy=OwnPolicy, policy_kwargs=dict(net_arch=[4], label="a", **own), buffer_size=10)
    assert model.policy.label == "a" and acting_network(model.policy).features_extractor.width == 3
    with pytest.raises(TypeError, match="unexpected keyword argument 'labl'"):
        make(algorithm, policy=OwnPolicy, policy_kwargs=dict(labl="a"), buffer_size=10)


@algorithms
@pytest.mark.parametrize("make_optimizer", [partial(th.optim.SGD, momentum=0.5), lambda params, lr: th.optim.Adam(params, lr)])
def test_a_function_that_creates_the_optimizer(algorithm, make_optimizer):
    model = trained(algorithm, policy_kwargs=dict(net_arch=[4], optimizer_class=make_optimizer))
    assert type(model.policy.optimizer) is type(make_optimizer([th.zeros(1)], lr=1.0))


@algorithms
def test_the_policy_kwargs_of_another_model(algorithm, tmp_path):
    model = trained(algorithm)
    model.save(tmp_path / "model.zip")
    for other in (model, algorithm.load(tmp_path / "model.zip")):
        assert trained(algorithm, policy_kwargs=other.policy_kwargs).policy_kwargs == model.policy_kwargs
    trained(algorithm, policy_kwargs=dict(net_arch=[4], use_sde=False))  # SB3's SAC


# --- Values that are set on a model


def trained(algorithm, **kwargs):
    own = dict(kernel_particles=4, value_particles=4) if algorithm is SQL else {}
    settings = dict(policy_kwargs=dict(net_arch=[4]), learning_starts=4, batch_size=4, buffer_size=50, seed=0)
    return make(algorithm, **{**settings, **own, **kwargs}).learn(6)


SET = {
    **dict(batch_size=1.5, tau=math.nan, gamma="a", target_update_interval=1.5, n_steps=0, gradient_steps=1.5),
    **dict(train_freq=0, learning_starts=math.inf, random_steps=-1, learning_rate=math.nan, ent_coef_bounds=(0, 1)),
    **dict(ent_coef=-1.0, target_entropy="a", action_noise="a"),
}
OF_ONE = [(SoftAC_v1, "actor_q", "max"), (SQL, "value_particles", 1), (DiscreteSAC, "critic_ent_coef_scale", 2.0)]


@pytest.mark.parametrize(("algorithm", "name", "value"), [*((a, *each) for a in ALGORITHMS for each in SET.items()), *OF_ONE])
def test_wrong_values_that_are_set_later(algorithm, name, value):
    model = trained(algorithm)
    before = {key: tensor.clone() for key, tensor in model.policy.state_dict().items()}
    with pytest.raises(ValueError, match=name):
        model.learn(6, callback=SetAt(1, **{name: value}), reset_num_timesteps=False)
    model._last_obs = None
    with pytest.raises(ValueError, match=name):
        setattr(model, name, value)
        model.learn(6)
    assert all(th.equal(tensor, before[key]) for key, tensor in model.policy.state_dict().items())


@algorithms
@pytest.mark.parametrize("name", ["buffer_size", "policy_kwargs", "use_sde", "optimize_memory_usage", "seed"])
def test_what_can_no_longer_be_changed(algorithm, name):
    model = trained(algorithm)
    setattr(model, name, dict(net_arch=[5]) if name == "policy_kwargs" else 1)
    with pytest.raises(ValueError, match=f"{name} was changed from .* to .*, which has no effect now: pass it to"):
        model.learn(6)


# --- Arguments of load()


@algorithms
def test_arguments_of_load(algorithm, tmp_path):
    model = trained(algorithm)
    model.save(tmp_path / "model")
    for name, value in (("batch_size", 1.5), ("tau", "a"), ("learning_starts", math.inf), ("train_freq", (1, "epoch"))):
        with pytest.raises(ValueError, match=f"{name} must be"):
            algorithm.load(tmp_path / "model", **{name: value})
    with pytest.raises(ValueError, match=r"load\(\) got an unknown argument 'learning_rat', did you mean 'learning_rate'"):
        algorithm.load(tmp_path / "model", learning_rat=1e-3)
    saved = "n_critics=3 cannot be loaded: the saved networks have n_critics=2"
    with pytest.raises(ValueError, match="use_sde=True cannot" if algorithm is SoftAC_v1 else "unknown argument 'use_sde'"):
        algorithm.load(tmp_path / "model", use_sde=True)
    with pytest.raises(ValueError, match=saved if algorithm is SoftAC_v1 else "unknown argument 'n_critics'"):
        algorithm.load(tmp_path / "model", n_critics=3)
    with pytest.raises(ValueError, match="stats_window_size must be"):
        algorithm.load(tmp_path / "model", stats_window_size="ten")
    loaded = algorithm.load(
        tmp_path / "model", env=model.get_env(), batch_size=np.int64(5), stats_window_size=7, train_freq=[2, "step"]
    )
    assert (loaded.batch_size, loaded._stats_window_size, loaded.ep_info_buffer.maxlen) == (5, 7, 7)
    assert loaded.train_freq == TrainFreq(2, TrainFrequencyUnit.STEP)
    assert loaded.learn(6)._n_updates > model._n_updates


def test_the_zoos_arguments_of_load(tmp_path):
    """Its ``enjoy`` and ``train -i`` hand over these."""
    model = trained(SoftAC_v1)
    model.save(tmp_path / "model")
    hyperparameters = dict(gradient_steps=2, learning_rate=ConstantSchedule(1e-3), n_critics=2, ent_coef="auto")
    SoftAC_v1.load(
        tmp_path / "model", env=model.get_env(), seed=1, verbose=0, tensorboard_log="", device="cpu", **hyperparameters
    )
    SoftAC_v1.load(tmp_path / "model", custom_objects={}, buffer_size=1, seed=0, optimize_memory_usage=False)


@algorithms
def test_environments_of_load_and_set_env(algorithm, tmp_path):
    model = trained(algorithm)
    model.save(tmp_path / "model")
    for env, message in ((RandomEnv, "this is a class, create"), ("Pendulum-v1", "create it with gymnasium.make")):
        with pytest.raises(ValueError, match=f"env must be an environment, got .*{message}"):
            model.set_env(env)
        with pytest.raises(ValueError, match=f"env must be an environment, got .*{message}"):
            algorithm.load(tmp_path / "model", env=env)


def test_an_entropy_penalty_that_is_set_later():
    model = trained(DiscreteSAC)
    model.stable_kwargs = dict(entropy_penalty=0.5)
    with pytest.raises(ValueError, match="The entropy penalty needs the entropies of the policy that collected the data"):
        model.train(1, 4)


@pytest.mark.parametrize("options", [{}, None])
def test_an_entropy_penalty_that_is_left_out_later(options, tmp_path):
    model = trained(DiscreteSAC, stable_kwargs=dict(entropy_penalty=0.5))
    model.stable_kwargs = options
    model.learn(20, reset_num_timesteps=False)
    assert model.stable_kwargs == {} and model.replay_buffer.extras["old_entropy"][: model.replay_buffer.pos].all()
    model.save_replay_buffer(tmp_path / "buffer")
    for algorithm in (DiscreteSAC, DiscreteSQL):
        other = trained(algorithm)
        other.load_replay_buffer(tmp_path / "buffer")
        other.learn(5)
