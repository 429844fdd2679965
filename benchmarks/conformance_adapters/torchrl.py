"""TorchRL: its losses, target updates, collector and replay buffer, in the loop of its documentation."""

from io import BytesIO
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import ExplorationType, GymWrapper, MultiStepTransform, SerialEnv, set_exploration_type
from torchrl.modules import MLP, NormalParamExtractor, OneHotCategorical, ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import DiscreteSACLoss, HardUpdate, SACLoss, SoftUpdate, ValueEstimators

from .loop import Loop


class TorchRL(Loop):
    takes = Loop.takes | {"n_steps", "target_update_interval"}
    loss_class: type

    def build(self) -> None:
        envs = [lambda env=env: GymWrapper(env) for env in self.envs]
        self.torchrl_env = envs[0]() if len(envs) == 1 else SerialEnv(len(envs), envs)
        self.actor, critic = self.networks()
        alpha, learned = self.alpha()
        self.loss = self.loss_class(
            self.actor,
            critic,
            loss_function="l2",
            alpha_init=alpha,
            fixed_alpha=not learned,
            target_entropy="auto" if (target := self.options["target_entropy"]) is None else self.in_its_units(target),
            **self.loss_kwargs(),
        )
        self.loss.make_value_estimator(ValueEstimators.TD0, gamma=self.options["gamma"])
        interval = self.options.get("target_update_interval")
        self.updater = (
            HardUpdate(self.loss, value_network_update_interval=interval)
            if interval
            else SoftUpdate(self.loss, tau=self.options["tau"])
        )
        self.optimizer = th.optim.Adam(self.loss.parameters())
        n_steps = self.options["n_steps"]
        self.buffer = TensorDictReplayBuffer(
            storage=LazyTensorStorage(self.options["buffer_size"]),
            batch_size=self.options["batch_size"],
            transform=MultiStepTransform(n_steps, self.options["gamma"]) if n_steps > 1 else None,
        )
        self.collected: Any = None

    def networks(self) -> tuple[ProbabilisticActor, TensorDictModule]:
        """:return: An actor and a critic, of which the loss makes two."""
        raise NotImplementedError

    def loss_kwargs(self) -> dict[str, Any]:
        return {}

    def in_its_units(self, entropy: float) -> float:
        return entropy

    def mlp(self, outputs: int, inputs: int = 0) -> MLP:
        hidden = self.options["policy_kwargs"]["net_arch"]
        inputs += self.envs[0].observation_space.shape[0]
        return MLP(in_features=inputs, out_features=outputs, num_cells=hidden, activation_class=nn.ReLU)

    def collect(self, steps: int, random: bool) -> None:
        if self.collected is None:
            self.torchrl_env.set_seed(self.seed)
            left = max(self.options["learning_starts"] - self.steps, 0)
            collector = Collector(self.torchrl_env, self.actor, frames_per_batch=len(self.envs), init_random_frames=left)
            self.collected = iter(collector)
        for _ in range(steps // len(self.envs)):
            self.buffer.extend(next(self.collected).reshape(-1))

    def update(self, learning_rate: float) -> None:
        self.optimizer.param_groups[0]["lr"] = learning_rate
        losses = self.loss(self.buffer.sample())
        self.optimizer.zero_grad()
        (losses["loss_actor"] + losses["loss_qvalue"] + losses["loss_alpha"]).backward()
        self.optimizer.step()
        self.updater.step()

    def _data(self, states: Any, **more: Any) -> TensorDict:
        return TensorDict({"observation": th.as_tensor(self._obs(states)), **more}, [len(states)])

    @th.no_grad()
    def _actions(self, states: Any, deterministic: bool) -> np.ndarray:
        with set_exploration_type(ExplorationType.DETERMINISTIC if deterministic else ExplorationType.RANDOM):
            return self.actor(self._data(states))["action"].numpy()

    @th.no_grad()
    def _q(self, data: TensorDict, key: str, network: str) -> np.ndarray:
        parameters = self.loss.qvalue_network_params if network == "critic" else self.loss.target_qvalue_network_params
        values = []
        for each in parameters.data.unbind(0):
            with each.to_module(self.loss.qvalue_network):
                values.append(self.loss.qvalue_network(data.clone())[key])
        return th.stack(values).double().numpy()

    def temperature(self) -> float:
        return float(self.loss.log_alpha.detach().exp())

    def target_parameters(self) -> list[th.Tensor]:
        return list(self.loss.target_qvalue_network_params.data.values(True, True))

    def reloaded(self, env: Any) -> "TorchRL":
        file = BytesIO()
        parts = ("loss", "updater", "optimizer", "buffer")
        th.save([getattr(self, part).state_dict() for part in parts], file)
        other = type(self)(env, self.seed, **self.given)
        for part, state in zip(parts, th.load(BytesIO(file.getvalue()), weights_only=False), strict=True):
            getattr(other, part).load_state_dict(state)
        other.steps = self.steps
        return other


class SAC(TorchRL):
    """Actions and their densities are in the units of the environment."""

    loss_class = SACLoss

    def networks(self) -> tuple[ProbabilisticActor, TensorDictModule]:
        space = self.model.action_space
        assert isinstance(space, spaces.Box)
        self.middle, self.half = (space.high + space.low) / 2.0, (space.high - space.low) / 2.0
        net = nn.Sequential(self.mlp(2 * len(self.half)), NormalParamExtractor())
        actor = ProbabilisticActor(
            TensorDictModule(net, ["observation"], ["loc", "scale"]),
            in_keys=["loc", "scale"],
            spec=self.torchrl_env.action_spec_unbatched,
            distribution_class=TanhNormal,
            distribution_kwargs=dict(low=th.as_tensor(space.low), high=th.as_tensor(space.high)),
        )
        return actor, ValueOperator(self.mlp(1, len(self.half)), in_keys=["observation", "action"])

    def in_its_units(self, entropy: float) -> float:
        return entropy + float(np.log(self.half).sum())

    def act(self, states: Any, deterministic: bool = False, masks: np.ndarray | None = None) -> np.ndarray:
        return (self._actions(states, deterministic) - self.middle) / self.half

    @th.no_grad()
    def density(self, states: Any) -> tuple[np.ndarray, np.ndarray]:
        actions, log_prob = self.actor.get_dist(self._data(states)).rsample_and_log_prob()
        return (actions.numpy() - self.middle) / self.half, log_prob.double().numpy() + np.log(self.half).sum()

    def q(self, states: Any, actions: np.ndarray | None = None, network: str = "critic") -> np.ndarray:
        own = th.as_tensor(self.middle + self.half * actions, dtype=th.float32)
        return self._q(self._data(states, action=own), "state_action_value", network)[..., 0]

    @th.no_grad()
    def saturate(self, mean: float) -> None:
        last = self.actor.module[0].module[0][-1]
        last.weight[: len(self.half)] = 0.0
        last.bias[: len(self.half)] = mean

    @th.no_grad()
    def squashed_gaussian(self, state: int) -> tuple[np.ndarray, np.ndarray]:
        distribution = self.actor.get_dist(self._data([state]))
        return distribution.loc[0].double().numpy(), distribution.scale[0].double().numpy()


class DiscreteSAC(TorchRL):
    loss_class = DiscreteSACLoss

    def networks(self) -> tuple[ProbabilisticActor, TensorDictModule]:
        actions = self.model.action_space.n
        actor = ProbabilisticActor(
            TensorDictModule(self.mlp(actions), ["observation"], ["logits"]),
            in_keys=["logits"],
            spec=self.torchrl_env.action_spec_unbatched,
            distribution_class=OneHotCategorical,
        )
        return actor, TensorDictModule(self.mlp(actions), ["observation"], ["action_value"])

    def loss_kwargs(self) -> dict[str, Any]:
        return dict(action_space=self.torchrl_env.action_spec_unbatched, num_actions=self.model.action_space.n)

    def act(self, states: Any, deterministic: bool = False, masks: np.ndarray | None = None) -> np.ndarray:
        return self._actions(states, deterministic).argmax(axis=-1)

    def q(self, states: Any, actions: np.ndarray | None = None, network: str = "critic") -> np.ndarray:
        return self._q(self._data(states), "action_value", network)
