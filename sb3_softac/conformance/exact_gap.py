"""How far a policy is from the exact solution, while it is trained."""

from typing import Any

import numpy as np
from gymnasium import spaces
from scipy.special import log_softmax, xlogy
from stable_baselines3.common.callbacks import BaseCallback

from sb3_softac.checks import integer, read
from sb3_softac.conformance.problems import Bandit
from sb3_softac.conformance.references import divergence_from_samples
from sb3_softac.conformance.subject import NotApplicable, Subject
from sb3_softac.tabular import BoltzmannOracle, TabularEnv, soft_policy_evaluation, soft_value_iteration

SAMPLES = 4_000


class ExactGap(BaseCallback):
    """
    Logs the distance to the soft optimum in an environment whose solution is known: a
    :class:`~sb3_softac.tabular.TabularEnv`, or a :class:`~sb3_softac.conformance.problems.Bandit` with continuous actions in
    which each step ends the episode.

    The optimum is that of the present temperature. Logged are ``exact/regret``, the soft value that the start has lost to it
    (in units of reward), ``exact/kl``, the divergence of the policy from the optimal one (in nats, the mean over all states
    that are not terminal), and ``exact/q_error``, the root of the mean squared error of the Q-values over them and all
    actions, where the model has critics. ``history`` keeps them.

    :param freq: Calls between two measurements, at least 1; one call is a step of all environments.
    :raises ValueError: at the start of the training, if the environment has no exact solution, or another discount than the
        model.
    """

    def __init__(self, freq: int = 500):
        super().__init__()
        self.freq = read("freq", freq, integer(1))
        self.history: list[dict[str, float]] = []
        """``step`` and what was logged, by name, of each measurement."""

    def _on_training_start(self) -> None:
        env = self.training_env.get_attr("unwrapped")[0]
        gamma = getattr(self.model, "gamma", None)
        if isinstance(env, TabularEnv) and gamma != env.mdp.discount:
            raise ValueError(
                f"the model's gamma is {gamma} and the discount of the MDP {env.mdp.discount}: make them equal, or the model "
                "would be compared with the solution of another problem"
            )
        if not isinstance(env, TabularEnv | Bandit):
            raise ValueError(f"{type(env).__name__} has no exact solution: use a TabularEnv or a Bandit")
        if isinstance(env, Bandit) and not (env.ends and isinstance(env.action_space, spaces.Box)):
            raise ValueError(
                "this Bandit has no exact solution here: its actions are discrete, or its steps do not end the episode. "
                "Describe it by a TabularMDP, and use TabularEnv"
            )
        self.env, self.subject = env, Subject.of(self.model)

    def _on_step(self) -> bool:
        if self.n_calls % self.freq == 0:
            gap = self._of_table(self.env) if isinstance(self.env, TabularEnv) else self._of_bandit(self.env)
            for name, value in gap.items():
                self.logger.record(f"exact/{name}", value)
            self.history.append({"step": float(self.num_timesteps), **gap})
        return True

    def _of_table(self, env: TabularEnv) -> dict[str, float]:
        mdp, alpha = env.mdp, self.subject.temperature()
        best, alive = soft_value_iteration(mdp, alpha), ~mdp.terminal
        pi = self.subject.probabilities(range(mdp.n_states))
        regret = mdp.initial @ (best.v - soft_policy_evaluation(mdp, pi, alpha).v)
        # Not from best.pi, whose probabilities may be too small for a number
        kl = (xlogy(pi, pi) - pi * log_softmax(best.q / alpha, axis=1))[alive].sum(axis=1).mean()
        gap = {"regret": float(regret), "kl": float(kl)}
        return gap | self._q_error(lambda: self.subject.q(range(mdp.n_states)).mean(axis=0)[alive] - best.q[alive])

    def _of_bandit(self, env: Bandit) -> dict[str, float]:
        alpha, dim = self.subject.temperature(), env.action_space.shape[0]  # type: ignore[index]
        oracle = BoltzmannOracle(env.reward, alpha, dim)
        zeros = np.zeros(SAMPLES, dtype=np.int64)
        kl, _ = divergence_from_samples(oracle, self.subject.act(zeros))
        actions = np.random.default_rng(0).uniform(-1.0, 1.0, (SAMPLES, dim))
        # of one step: alpha KL is what the objective loses
        return {"regret": alpha * kl, "kl": kl} | self._q_error(
            lambda: self.subject.q(zeros, actions).mean(axis=0) - env.reward(actions)
        )

    @staticmethod
    def _q_error(errors: Any) -> dict[str, float]:
        try:
            return {"q_error": float(np.sqrt(np.square(errors()).mean()))}
        except NotApplicable:
            return {}
