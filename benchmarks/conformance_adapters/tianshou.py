"""Tianshou: its networks, collector, replay buffer and update."""

import pickle
from functools import cached_property
from io import BytesIO
from math import log
from typing import Any

import numpy as np
import torch as th
from tianshou.algorithm.modelfree import discrete_sac, sac
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic
from tianshou.utils.torch_utils import policy_within_training_step, torch_train_mode

from .loop import Loop


class Tianshou(Loop):
    takes = Loop.takes | {"n_steps"}

    def build(self) -> None:
        self.buffer = VectorReplayBuffer(self.options["buffer_size"], len(self.envs))
        alpha, learned = self.alpha()
        target = -1.0 if (given := self.options["target_entropy"]) is None else given  # it has no default of its own
        self.algorithm = self.make(
            tau=self.options["tau"],
            gamma=self.options["gamma"],
            policy_optim=AdamOptimizerFactory(),
            critic_optim=AdamOptimizerFactory(),
            alpha=sac.AutoAlpha(target, log(alpha), AdamOptimizerFactory()) if learned else alpha,
            n_step_return_horizon=self.options["n_steps"],
        )
        self.policy = self.algorithm.policy

    @cached_property
    def collector(self) -> Collector:
        envs = DummyVectorEnv([lambda env=env: env for env in self.envs])
        envs.seed(self.seed)
        collector = Collector(self.policy, envs, self.buffer)
        collector.reset(reset_buffer=False)
        return collector

    def make(self, **kwargs: Any) -> Any:
        raise NotImplementedError

    def net(self, **kwargs: Any) -> Net:
        hidden = self.options["policy_kwargs"]["net_arch"]
        return Net(state_shape=self.envs[0].observation_space.shape, hidden_sizes=hidden, **kwargs)

    def collect(self, steps: int, random: bool) -> None:
        with policy_within_training_step(self.policy), torch_train_mode(self.policy, False):
            self.collector.collect(n_step=steps, random=random)

    def update(self, learning_rate: float) -> None:
        for optimizer in self.optimizers():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
        with policy_within_training_step(self.policy):
            self.algorithm.update(buffer=self.buffer, sample_size=self.options["batch_size"])

    def optimizers(self) -> list[th.optim.Optimizer]:
        wrapped = [self.algorithm.policy_optim, self.algorithm.critic_optim, self.algorithm.critic2_optim]
        own = [self.algorithm.alpha._optim] if self.alpha()[1] else []
        return [each._optim for each in wrapped] + own

    @th.no_grad()
    def _forward(self, states: Any, deterministic: bool = False) -> Batch:
        with policy_within_training_step(self.policy, not deterministic):
            return self.policy(Batch(obs=self._obs(states), info={}))

    def act(self, states: Any, deterministic: bool = False, masks: np.ndarray | None = None) -> np.ndarray:
        return self._forward(states, deterministic).act.numpy()

    @th.no_grad()
    def q(self, states: Any, actions: np.ndarray | None = None, network: str = "critic") -> np.ndarray:
        names = ("critic", "critic2") if network == "critic" else ("critic_old", "critic2_old")
        given = [] if actions is None else [actions]
        values = th.stack([getattr(self.algorithm, name)(self._obs(states), *given) for name in names])
        return (values if actions is None else values[..., 0]).double().numpy()

    def temperature(self) -> float:
        return self.algorithm.alpha.value

    def target_parameters(self) -> list[th.Tensor]:
        return [*self.algorithm.critic_old.parameters(), *self.algorithm.critic2_old.parameters()]

    def reloaded(self, env: Any) -> "Tianshou":
        file = BytesIO()
        th.save(self.algorithm.state_dict(), file)
        other = type(self)(env, self.seed, **self.given)
        other.algorithm.load_state_dict(th.load(BytesIO(file.getvalue())))
        other.buffer = pickle.loads(pickle.dumps(self.buffer))
        other.steps = self.steps
        return other


class SAC(Tianshou):
    def make(self, **kwargs: Any) -> sac.SAC:
        space = self.model.action_space
        actor = ContinuousActorProbabilistic(
            preprocess_net=self.net(), action_shape=space.shape, unbounded=True, conditioned_sigma=True
        )
        critics = [ContinuousCritic(preprocess_net=self.net(action_shape=space.shape, concat=True)) for _ in range(2)]
        policy = sac.SACPolicy(actor=actor, action_space=space)
        return sac.SAC(policy=policy, critic=critics[0], critic2=critics[1], **kwargs)

    def density(self, states: Any) -> tuple[np.ndarray, np.ndarray]:
        found = self._forward(states)
        return found.act.numpy(), found.log_prob[:, 0].double().numpy()

    @th.no_grad()
    def saturate(self, mean: float) -> None:
        last = self.policy.actor.mu.model[-1]
        last.weight.zero_()
        last.bias.fill_(mean)

    def squashed_gaussian(self, state: int) -> tuple[np.ndarray, np.ndarray]:
        mean, std = self._forward([state]).logits
        return mean[0].double().numpy(), std[0].double().numpy()


class DiscreteSAC(Tianshou):
    def make(self, **kwargs: Any) -> discrete_sac.DiscreteSAC:
        space = self.model.action_space
        actor = DiscreteActor(preprocess_net=self.net(), action_shape=space.n, softmax_output=False)
        critics = [DiscreteCritic(preprocess_net=self.net(), last_size=space.n) for _ in range(2)]
        policy = discrete_sac.DiscreteSACPolicy(actor=actor, action_space=space)
        return discrete_sac.DiscreteSAC(policy=policy, critic=critics[0], critic2=critics[1], **kwargs)
