"""A program that is not the one that was interrupted: what is refused, what is said, and which settings hold."""

import functools
import shutil
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import EvalCallback, EveryNTimesteps, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.resume import ExactCheckpoint, ResumeError
from tests.resume.harness import Cut, differences, fingerprint
from tests.resume.test_callbacks import Count
from tests.toys import ALGORITHMS, is_discrete

SMALL = dict(learning_starts=20, batch_size=4, buffer_size=200, seed=3, device="cpu")


def pendulum(g=10.0, mass=1.0, n_envs=1, **kwargs):
    venv = make_vec_env("Pendulum-v1", n_envs, env_kwargs=dict(g=g), **kwargs)
    if "vec_env_cls" not in kwargs:
        venv.envs[0].unwrapped.m = mass
    return venv


def cart_pole(**kwargs):
    return make_vec_env("CartPole-v1", **kwargs)


def noise(sigma):
    return NormalActionNoise(np.zeros(1), np.full(1, sigma))


def evaluation(freq=1000, on_best=None):
    return [
        EvalCallback(pendulum(), on_best, eval_freq=freq, verbose=0),
        StopTrainingOnMaxEpisodes(freq),
        EveryNTimesteps(freq, Count()),
    ]


BASES = {
    **{algorithm: dict(env=cart_pole if is_discrete(algorithm) else pendulum) for algorithm in ALGORITHMS},
    SoftAC_v1: dict(env=pendulum, action_noise=functools.partial(noise, 0.1), callbacks=evaluation),
    SAC: dict(env=pendulum),
    TD3: dict(env=pendulum),
    DQN: dict(env=cart_pole),
}


def program(algorithm, path, steps=30, **changes):
    """A whole program; values that are functions are called."""
    settings = {**SMALL, "policy_kwargs": lambda: dict(net_arch=[4]), **BASES[algorithm], **changes}
    settings = {name: part() if callable(part) and name != "learning_rate" else part for name, part in settings.items()}
    callbacks, every = settings.pop("callbacks", []), settings.pop("every", 20)
    model = algorithm("MlpPolicy", **settings)
    model.learn(steps, callback=[*callbacks, ExactCheckpoint(path, every)])
    model.env.close()
    return model


@functools.cache
def finished(algorithm, folder):
    program(algorithm, folder)


@pytest.fixture
def checkpoint(tmp_path, tmp_path_factory):
    """A function that returns a folder with the checkpoint of a finished training."""

    def of(algorithm):
        shared = tmp_path_factory.getbasetemp() / f"finished-{algorithm.__name__}"
        finished(algorithm, shared)
        shutil.copytree(shared, tmp_path / "checkpoints")
        return tmp_path / "checkpoints"

    return of


REFUSED = [
    (SoftAC_v1, dict(buffer_size=300), "buffer_size: 300 now, but 200 in the checkpoint"),
    (SoftAC_v1, dict(env=functools.partial(pendulum, n_envs=2)), "number of environments: 2 now, but 1 in the"),
    (SoftAC_v1, dict(env=functools.partial(make_vec_env, "MountainCarContinuous-v0")), "MountainCarEnv now, but"),
    (SAC, dict(env=lambda: VecNormalize(pendulum())), "environment: VecNormalize of DummyVecEnv"),
    (
        SoftAC_v1,
        dict(env=lambda: pendulum(wrapper_class=gym.wrappers.TimeAwareObservation)),
        "environment: DummyVecEnv of TimeAwareObservation of Monitor of",
    ),
    (SoftAC_v1, dict(policy_kwargs=lambda: dict(net_arch=[5])), r"policy_kwargs.net_arch: \[5\] now, but \[4\] in"),
    *(
        (
            algorithm,
            dict(policy_kwargs=lambda: dict(net_arch=[4], activation_fn=th.nn.Tanh)),
            "activation_fn: .*Tanh now, but not",
        )
        for algorithm in (SoftAC_v1, SAC)
    ),
    (
        SoftAC_v1,
        dict(policy_kwargs=lambda: dict(net_arch=[4], optimizer_class=th.optim.SGD)),
        "optimizer_class: torch.optim.sgd.SGD now",
    ),
    (SoftAC_v1, dict(use_sde=True), "use_sde: True now"),
    (SoftAC_v1, dict(callbacks=list), "callbacks: CallbackList"),
    (SoftAC_v1, dict(callbacks=lambda: evaluation()[::-1]), "callbacks: CallbackList"),
    (SoftAC_v1, dict(callbacks=lambda: evaluation(on_best=Count())), r"EvalCallback\(Count\).* now, but"),
    (SoftAC_v1, dict(ent_coef="auto"), "ent_coef_optimizer: Adam now, but not given in the checkpoint"),
    (SAC, dict(ent_coef=0.2), "ent_coef_optimizer: not given now, but Adam in the checkpoint"),
    (SAC, dict(buffer_size=300), "buffer_size: 300 now, but 200 in the checkpoint"),
    (DiscreteSAC, dict(env=functools.partial(make_vec_env, "Acrobot-v1")), "environment: "),
    (DQN, dict(buffer_size=100), "buffer_size: 100 now"),
    (SoftAC_v1, dict(ent_coef="lin_0.5"), "ent_coef is 'lin_0.5', but 0.2 in the checkpoint: algorithm.temperature is a"),
    (SoftAC_v1, dict(action_noise=None), "action_noise is None.*: algorithm.action_noise is nothing now, but"),
]


@pytest.mark.parametrize(("algorithm", "changes", "message"), REFUSED, ids=range(len(REFUSED)))
def test_another_program_is_refused_before_anything_changes(algorithm, changes, message, checkpoint):
    folder = checkpoint(algorithm)
    files = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(ValueError, match=message) as error:
        program(algorithm, folder, **changes)
    assert isinstance(error.value, ResumeError) and "new folder" in str(error.value)
    assert sorted(path.name for path in folder.rglob("*")) == files
    program(algorithm, folder)  # the one that was interrupted still goes on


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
def test_other_processes_are_refused(checkpoint):
    with pytest.raises(ValueError, match="environment: SubprocVecEnv now, but DummyVecEnv of"):
        program(SoftAC_v1, checkpoint(SoftAC_v1), env=functools.partial(pendulum, vec_env_cls=SubprocVecEnv))


SAID = [
    (SoftAC_v1, dict(gamma=0.9), "gamma is 0.9, but 0.99 in the checkpoint"),
    (SoftAC_v1, dict(train_freq=4), "train_freq.frequency is 4, but 1 in the checkpoint"),
    (SoftAC_v1, dict(train_freq=(1, "episode")), "train_freq.unit is .*EPISODE"),
    (SoftAC_v1, dict(gradient_steps=2), "gradient_steps is 2, but 1"),
    (SoftAC_v1, dict(learning_rate=1e-4), "learning_rate is 0.0001, but 0.0003"),
    (SoftAC_v1, dict(random_steps=5), "random_steps is 5, but None"),
    (SoftAC_v1, dict(learning_starts=10), "learning_starts is 10, but 20"),
    (SoftAC_v1, dict(ent_coef=0.7), "ent_coef is 0.7, but "),
    (SoftAC_v1, dict(action_noise=functools.partial(noise, 0.5)), r"action_noise._sigma is \[0.5\], but \[0.1\]"),
    (SoftAC_v1, dict(seed=4), r": seed is 4, but 3 in the \w+. Numbers"),
    (SoftAC_v1, dict(tau=0.1, batch_size=8), "batch_size is 8, but 4.*tau is 0.1, but "),
    (
        SoftAC_v1,
        dict(policy_kwargs=lambda: dict(net_arch=[4], optimizer_kwargs=dict(eps=0.1))),
        "optimizer_kwargs.eps is 0.1, but not given",
    ),
    (SoftAC_v1, dict(env=functools.partial(pendulum, g=5.0)), "environment: g is 5.0, but 10.0 in the checkpoint"),
    (SoftAC_v1, dict(env=functools.partial(pendulum, mass=2.0)), "environment: m is 2.0, but 1.0 in the checkpoint"),
    (SoftAC_v1, dict(callbacks=functools.partial(evaluation, 500)), "EvalCallback: eval_freq is 500, but 1000.*max_episodes"),
    (SoftAC_v1, dict(every=10), "ExactCheckpoint: every is 10, but 20 in the checkpoint"),
    (SAC, dict(target_entropy=-3.0), "target_entropy is -3.0, but 'auto'|target_entropy is -3.0, but -1.0"),
    (TD3, dict(policy_delay=3), "policy_delay is 3, but 2"),
    (DiscreteSAC, dict(target_entropy=0.3), "target_entropy is 0.3, but "),
    (DQN, dict(exploration_fraction=0.5), "exploration_fraction is 0.5, but 0.1"),
]


def test_a_program_without_a_seed_is_the_same_each_time(tmp_path):
    for steps in (20, 40):
        DiscreteSAC("MlpPolicy", gym.make("CartPole-v1"), policy_kwargs=dict(net_arch=[4])).learn(
            steps, callback=ExactCheckpoint(tmp_path, 20)
        )


@pytest.mark.parametrize(("algorithm", "changes", "message"), SAID, ids=range(len(SAID)))
def test_each_difference_is_named_in_one_warning(algorithm, changes, message, checkpoint):
    folder = checkpoint(algorithm)
    with pytest.warns(UserWarning, match=message) as said:
        program(algorithm, folder, **changes)
    assert len(said) == 1 and "To train with other settings, use a new folder" in str(said[0].message)


def with_text(road):
    venv = pendulum()
    venv.envs[0].unwrapped.road = road
    return venv


def with_mass(mass):
    venv = make_vec_env("InvertedPendulum-v4")
    venv.envs[0].unwrapped.model.body_mass[1] = mass
    return venv


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [(with_text, ("dry", "wet"), "road is 'wet', but 'dry' in"), (with_mass, (1.0, 2.0), "model.body_mass is .*, but .* in")],
    ids=["text", "MuJoCo"],
)
def test_another_environment_is_named(make, values, message, tmp_path):
    program(SoftAC_v1, tmp_path, env=lambda: make(values[0]), callbacks=list)
    with pytest.warns(UserWarning, match=f"environment: {message} the checkpoint"):
        program(SoftAC_v1, tmp_path, env=lambda: make(values[1]), callbacks=list)


def test_numbers_of_the_checkpoint_and_settings_of_callbacks_hold(tmp_path):
    """Other numbers of the algorithm and the environment do not change the training."""
    callbacks = lambda: [*evaluation(), Cut(10**9)]  # noqa: E731
    expected = fingerprint(program(SoftAC_v1, tmp_path / "straight", 60, callbacks=callbacks))
    with pytest.raises(KeyboardInterrupt):
        program(SoftAC_v1, tmp_path / "cut", 60, callbacks=lambda: [*evaluation(), Cut(45)])
    numbers = dict(gamma=0.5, tau=0.5, train_freq=4, gradient_steps=3, batch_size=9, learning_rate=1.0, ent_coef=3.0)
    changes = dict(
        **numbers,
        env=functools.partial(pendulum, g=1.0, mass=3.0),
        action_noise=functools.partial(noise, 0.9),
        callbacks=callbacks,
        seed=8,
        learning_starts=1,
        every=5,
    )
    with pytest.warns(UserWarning, match="This program differs") as said:
        assert differences(expected, fingerprint(program(SoftAC_v1, tmp_path / "cut", 60, **changes))) == []
    assert len(said) == 1


def test_settings_of_callbacks_are_in_force(tmp_path):
    program(SAC, tmp_path / "new", 40, callbacks=lambda: [EvalCallback(pendulum(), eval_freq=1000, verbose=0)])
    new = EvalCallback(pendulum(), eval_freq=10, n_eval_episodes=1, verbose=0)
    with pytest.warns(UserWarning, match="eval_freq is 10"):
        program(SAC, tmp_path / "new", 60, callbacks=lambda: [new], every=7)
    assert new.eval_freq == 10 and new.n_calls == 60 and np.isfinite(new.last_mean_reward)
    names = sorted(path.name for path in (tmp_path / "new").glob("checkpoint-*"))
    assert names[-1] == "checkpoint-000000000060" and "checkpoint-000000000054" in names


def test_functions_are_those_of_the_program(checkpoint, tmp_path):
    def half(progress):
        return 0.5 * progress

    program(SAC, tmp_path / "x", learning_rate=half)
    with pytest.warns(UserWarning, match="learning_rate is function .*, but function .* in the checkpoint"):

        def half(progress):
            return 0.25 * progress

        program(SAC, tmp_path / "x", learning_rate=half)
    with pytest.raises(ResumeError, match=r"learning_rate is a? ?.* now, but a function was saved"):
        program(SAC, tmp_path / "x", learning_rate=0.1)


def test_ppo(tmp_path):
    def ppo(**changes):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning) if "n_steps" in changes else None
            settings = {**dict(n_steps=8, batch_size=8, seed=1, device="cpu", policy_kwargs=dict(net_arch=[4])), **changes}
            model = PPO("MlpPolicy", cart_pole(), **settings)
        model.learn(16, callback=ExactCheckpoint(tmp_path, 8))

    ppo()
    with pytest.raises(ResumeError, match="n_steps: 16 now, but 8 in the checkpoint"):
        ppo(n_steps=16)
    with pytest.warns(UserWarning, match="clip_range.*is 0.5, but 0.2 in the checkpoint"):
        ppo(clip_range=0.5)
    with pytest.warns(UserWarning, match="n_epochs is 3, but 10 in the checkpoint"):
        ppo(n_epochs=3)
