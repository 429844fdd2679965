"""The gap to the exact solution, logged while a model is trained."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_softac import DiscreteSAC, SoftAC_v1
from sb3_softac.conformance import ExactGap
from sb3_softac.conformance.problems import Bandit, bandit, levels
from sb3_softac.tabular import TabularEnv, TabularMDP, soft_policy_evaluation, soft_value_iteration

SMALL = dict(policy_kwargs=dict(net_arch=[16]), learning_starts=20, batch_size=16, buffer_size=500, seed=0, device="cpu")
# Two states: action 0 stays, action 1 changes; state 1 pays 1
MDP = TabularMDP.from_arrays(
    np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]), np.array([[0.0, 0.0], [1.0, 1.0]]), 0.8
)


def trained(model, freq):
    callback = ExactGap(freq)
    model.learn(40, callback)
    return callback


def test_of_a_table():
    model = DiscreteSAC("MlpPolicy", TabularEnv(MDP), ent_coef=0.5, gamma=0.8, **SMALL)
    with th.no_grad():
        for parameter in [*model.actor.parameters(), *model.critic.parameters()]:
            parameter.zero_()
    first, second = trained(model, 20).history
    exact, uniform = soft_value_iteration(MDP, 0.5), np.full((2, 2), 0.5)
    assert first == pytest.approx(
        {
            "step": 20,
            "regret": (exact.v - soft_policy_evaluation(MDP, uniform, 0.5).v).mean(),
            "kl": (uniform * np.log(uniform / exact.pi)).sum(axis=1).mean(),
            "q_error": np.sqrt((exact.q**2).mean()),
        }
    )
    assert second["step"] == 40 and second["q_error"] < first["q_error"]
    assert model.logger.name_to_value["exact/kl"] == second["kl"]


def test_of_a_bandit():
    model = SoftAC_v1("MlpPolicy", bandit("one optimum"), ent_coef=0.5, **SMALL)
    (gap,) = trained(model, 40).history
    assert gap["regret"] == pytest.approx(0.5 * gap["kl"]) and 0.1 < gap["kl"] < 10.0 and gap["q_error"] > 0.1


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (gym.make("CartPole-v1"), "CartPoleEnv has no exact solution"),
        (TabularEnv(MDP), "gamma is 0.99 and the discount of the"),
        (levels(), "use TabularEnv"),
    ],
)
def test_questions_without_an_answer_are_refused(env, message):
    with pytest.raises(ValueError, match=message):
        trained(DiscreteSAC("MlpPolicy", env, **SMALL), 10)


def test_a_bandit_that_goes_on_is_refused():
    env = Bandit(lambda a: 0.0, gym.spaces.Box(-1.0, 1.0, (1,), np.float32), ends=False)
    with pytest.raises(ValueError, match="use TabularEnv"):
        trained(SoftAC_v1("MlpPolicy", env, **SMALL), 10)


def test_a_wrong_interval_is_refused():
    with pytest.raises(ValueError, match="freq must be an integer, at least 1, got 0"):
        ExactGap(0)


def test_probabilities_that_are_too_small_for_a_number():
    model = DiscreteSAC("MlpPolicy", TabularEnv(MDP), ent_coef=1e-4, gamma=0.8, **SMALL)
    (gap,) = trained(model, 40).history
    assert 1e3 < gap["kl"] < 1e6
