"""Learning curves, with the hyperparameters that the Zoo uses."""

import argparse

import pytest
from rl_zoo3.exp_manager import ExperimentManager
from stable_baselines3.common.callbacks import EvalCallback


@pytest.mark.slow
def test_cartpole_is_balanced_within_25000_steps(tmp_path, monkeypatch):
    """The deterministic policy reaches the largest possible return at one of the evaluations."""
    monkeypatch.setenv("SB3_SOFTAC_FAST", "1")  # as users train, where there is a compiler
    manager = ExperimentManager(
        argparse.Namespace(), "discretesac", "CartPole-v1", str(tmp_path), n_timesteps=50_000, eval_freq=-1, verbose=0
    )
    model, _ = manager.setup_experiment()
    evaluation_env = manager.create_envs(5, eval_env=True)
    evaluation = EvalCallback(evaluation_env, n_eval_episodes=5, eval_freq=2_500, verbose=0)
    model.learn(25_000, callback=evaluation)
    model.get_env().close()  # their monitors hold files open
    evaluation_env.close()
    assert evaluation.best_mean_reward == 500
