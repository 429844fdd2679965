"""A training that was interrupted ends with the numbers of one that was not."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium.wrappers import RecordEpisodeStatistics
from sb3_contrib import QRDQN, TQC, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import SubprocVecEnv, VecFrameStack, VecNormalize
from stable_baselines3.her import HerReplayBuffer

from sb3_softac import SQL, DiscreteSAC, SoftAC_v1
from sb3_softac.algorithm.engine import StepResult
from sb3_softac.resume import ExactCheckpoint, Resumable
from sb3_softac.resume.snapshot import capture, read_snapshot
from tests.resume.harness import differences, interrupted, uninterrupted
from tests.toys import ALGORITHMS, SetAt
from tests.toys import ENVIRONMENTS as ENVIRONMENT_OF

SMALL = dict(learning_starts=20, batch_size=16, buffer_size=1_000, seed=3, device="cpu")
OFF_POLICY = [*ALGORITHMS, SAC, TD3, DDPG, DQN]


def maker(algorithm, env=None, n_envs=1, policy="MlpPolicy", wrap=None, callbacks=lambda: [], net=None, venv=None, **kwargs):
    def make():
        env_id = env or ENVIRONMENT_OF.get(algorithm, "CartPole-v1" if algorithm is DQN else "Pendulum-v1")
        venvs = make_vec_env(env_id, n_envs, **(venv or {}))
        venvs = wrap(venvs) if wrap else venvs
        policy_kwargs = dict(net_arch=[16], **(net or {}))  # SB3 writes into it
        return algorithm(policy, venvs, policy_kwargs=policy_kwargs, **{**SMALL, **kwargs}), callbacks()

    return make


def check(make, tmp_path, steps=60, cuts=(45,), **kwargs):
    expected = uninterrupted(make, steps, tmp_path / "straight", **kwargs)
    assert differences(expected, interrupted(make, steps, tmp_path / "cut", cuts, **kwargs)) == []


@pytest.mark.parametrize("algorithm", OFF_POLICY, ids=lambda a: a.__name__)
def test_algorithms(algorithm, tmp_path):
    check(maker(algorithm), tmp_path, steps=90, cuts=(40, 70))


@pytest.mark.parametrize(("algorithm", "n_envs"), [(PPO, 4), (A2C, 2)])
def test_algorithms_without_a_replay_buffer(algorithm, n_envs, tmp_path):
    """They are compared with those that have one."""

    def make():
        normalized = VecNormalize(make_vec_env("CartPole-v1", n_envs))
        arguments = dict(n_steps=16, seed=3, device="cpu", policy_kwargs=dict(net_arch=[8]))
        return algorithm("MlpPolicy", normalized, **arguments | ({"batch_size": 8} if algorithm is PPO else {})), []

    check(make, tmp_path, steps=128, cuts=(110,))


@pytest.mark.parametrize(("algorithm", "env"), [(TQC, "Pendulum-v1"), (QRDQN, "CartPole-v1")])
def test_algorithms_of_sb3_contrib(algorithm, env, tmp_path):
    check(maker(algorithm, env), tmp_path)


@pytest.mark.filterwarnings("ignore:These attributes cannot be saved.*algorithm.ent_coef ")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_learned_temperature_that_has_started_again(algorithm, tmp_path):
    check(maker(algorithm, ent_coef="auto", callbacks=lambda: [SetAt(30, ent_coef="auto_0.3")]), tmp_path)


def test_a_learned_temperature_that_is_fixed_while_training(tmp_path):
    fixed = {"ent_coef_bounds": (0.2, 0.2)}
    check(maker(SoftAC_v1, ent_coef="auto", callbacks=lambda: [SetAt(30, **fixed)]), tmp_path)
    model, callbacks = maker(SoftAC_v1, ent_coef="auto", callbacks=lambda: [SetAt(30, ent_coef=0.2)])()
    with (
        pytest.warns(UserWarning, match="attributes cannot be saved"),
        pytest.warns(UserWarning, match=r"cannot be resumed.*ent_coef_bounds=\(value, value\).*: ent_coef_optimizer"),
    ):
        model.learn(60, [*callbacks, ExactCheckpoint(tmp_path / "other", every=20)])


def test_recurrent_policies(tmp_path):
    def make():
        networks = dict(net_arch=[8], lstm_hidden_size=8)
        return RecurrentPPO("MlpLstmPolicy", "CartPole-v1", n_steps=16, batch_size=8, seed=3, policy_kwargs=networks), []

    check(make, tmp_path, steps=96, cuts=(60,))


def test_times_are_not_compared(tmp_path):
    check(maker(DiscreteSAC, lambda: RecordEpisodeStatistics(gym.make("CartPole-v1"))), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [SoftAC_v1, DQN], ids=lambda a: a.__name__)
def test_four_environments(algorithm, tmp_path):
    check(maker(algorithm, n_envs=4, gradient_steps=2), tmp_path, steps=200, cuts=(90, 170))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [SoftAC_v1, DQN], ids=lambda a: a.__name__)
def test_rounds_of_whole_episodes(algorithm, tmp_path):
    check(maker(algorithm, train_freq=(1, "episode"), gradient_steps=-1), tmp_path, steps=500, cuts=(230, 450))


ENVIRONMENTS = {
    "MountainCarContinuous-v0": SoftAC_v1,
    "Acrobot-v1": DiscreteSAC,
    "Taxi-v4": DQN,
    "Walker2d-v4": SQL,
    "Ant-v4": SAC,
    "Humanoid-v5": SoftAC_v1,
    "Reacher-v4": SoftAC_v1,
    "MultiGoal-v0": SQL,
}


@pytest.mark.slow
@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_environments(env, tmp_path):
    check(maker(ENVIRONMENTS[env], env), tmp_path, steps=120, cuts=(55, 100))


@pytest.mark.slow
@pytest.mark.parametrize(("env", "algorithm"), [("BipedalWalker-v3", SoftAC_v1)])
def test_box2d(env, algorithm, tmp_path):
    check(maker(algorithm, env, n_envs=2, venv=dict(wrapper_class=Resumable)), tmp_path, steps=200, cuts=(130,))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "algorithm"), [("Pendulum-v1", SAC), ("Hopper-v4", SoftAC_v1), ("LunarLander-v3", DiscreteSAC)]
)
def test_processes(env, algorithm, tmp_path):
    venv = dict(wrapper_class=Resumable, vec_env_cls=SubprocVecEnv)
    check(maker(algorithm, env, n_envs=4, venv=venv), tmp_path, steps=120, cuts=(60,))


def frame_stack(venv):
    return VecNormalize(VecFrameStack(venv, 3))  # SB3 wants it to be the outermost


@pytest.mark.parametrize("algorithm", [DiscreteSAC, TD3], ids=lambda a: a.__name__)
def test_wrappers(algorithm, tmp_path):
    check(maker(algorithm, n_envs=2, wrap=frame_stack), tmp_path, steps=120, cuts=(90,))


def noise(kind, sigma=0.3):
    return kind(np.zeros(1), np.full(1, sigma))


@pytest.mark.slow
@pytest.mark.parametrize("n_envs", [1, 2])
def test_action_noise(n_envs, tmp_path):
    check(maker(TD3, n_envs=n_envs, action_noise=noise(OrnsteinUhlenbeckActionNoise)), tmp_path, steps=120, cuts=(55, 100))


DETERMINISTIC = dict(
    net=dict(distribution="deterministic"),
    ent_coef=0.0,
    action_noise=noise(NormalActionNoise),
    tau=1.0,
    target_update_interval=7,
)


@pytest.mark.parametrize(
    "settings",
    [
        dict(net=dict(distribution="mixture", distribution_kwargs=dict(n_components=3))),
        dict(net=dict(distribution="mixture"), reparameterize=False),
        dict(net=dict(distribution="flow")),
        DETERMINISTIC,
    ],
    ids=["mixture", "likelihood ratio", "flow", "deterministic"],
)
def test_distributions(settings, tmp_path):
    check(maker(SoftAC_v1, **settings), tmp_path)


@pytest.mark.parametrize(("algorithm", "sde_sample_freq"), [(SoftAC_v1, 4), (SAC, -1)])
def test_gsde(algorithm, sde_sample_freq, tmp_path):
    settings = dict(use_sde=True, sde_sample_freq=sde_sample_freq, train_freq=7, gradient_steps=3)
    check(maker(algorithm, **settings), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        dict(optimize_memory_usage=True, buffer_size=90, replay_buffer_kwargs=dict(handle_timeout_termination=False)),
        dict(ent_coef="lin_0.5", learning_rate=lambda remaining: 1e-3 * remaining),
    ],
)
def test_settings(settings, tmp_path):
    check(maker(SoftAC_v1, **settings), tmp_path, steps=120, cuts=(55, 100))


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [SoftAC_v1, SAC], ids=lambda a: a.__name__)
def test_rows_of_a_training_before(algorithm, tmp_path):
    def make():
        model, callbacks = maker(algorithm, buffer_size=80)()
        return model.learn(80), callbacks

    check(make, tmp_path, steps=60, cuts=(40,))


@pytest.mark.slow
@pytest.mark.parametrize("target_entropy", [dict(schedule="drop", start=0.98), dict(schedule="linear", start=0.98, end=0.3)])
def test_target_entropy(target_entropy, tmp_path):
    settings = dict(target_entropy=target_entropy, stable_kwargs=dict(q_clip=0.5, entropy_penalty=0.5))
    check(maker(DiscreteSAC, **settings), tmp_path, steps=120, cuts=(55, 100))


@pytest.mark.parametrize(("algorithm", "copy_info_dict"), [(SoftAC_v1, True), (SAC, False), (DiscreteSAC, False)])
def test_hindsight(algorithm, copy_info_dict, tmp_path):
    def goals():
        return BitFlippingEnv(n_bits=4, continuous=algorithm is not DiscreteSAC)

    buffer = dict(n_sampled_goal=2, copy_info_dict=copy_info_dict)
    settings = dict(replay_buffer_class=HerReplayBuffer, replay_buffer_kwargs=buffer, buffer_size=40)
    check(maker(algorithm, goals, n_envs=2, policy="MultiInputPolicy", **settings), tmp_path)


def test_tensors_are_on_the_device_of_the_networks():
    """The device "meta" stands for a GPU: nothing of it can be on the CPU by mistake."""
    make = maker(SoftAC_v1, use_sde=True)
    saved, _ = make()
    saved.learn(30)
    saved.count_steps(StepResult(["loss"], [], th.zeros(2, 1)))
    snapshot = capture(saved, None)
    model, _ = make()
    model._setup_learn(30)
    model.device = th.device("meta")
    read_snapshot(model, None, snapshot.tree, snapshot.tensors)()
    (values,), noise = model._step_log._values, model.actor.action_dist
    assert {part.device.type for part in (values, noise.exploration_mat, noise.exploration_matrices)} == {"meta"}
