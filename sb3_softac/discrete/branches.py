"""Discrete actions as one or several branches, each a choice among its own options."""

import math
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces

# As in sb3-contrib: small enough that exp gives 0, finite so that 0 times it is 0.
MASKED_LOGIT = -1e8


class Branches:
    """
    The branches of a Discrete (one), MultiDiscrete (one per entry) or MultiBinary (two options each) action space.

    A vector over all actions holds the options of the first branch, then those of the second, and so on: ``n`` entries in all,
    the sum of the branch sizes. Masks have the same layout, which is sb3-contrib's.

    :param action_space: Action space.
    :raises AssertionError: if it is none of the three (the type is SB3's for unsupported spaces).
    """

    def __init__(self, action_space: spaces.Space):
        if isinstance(action_space, spaces.Discrete):
            sizes, start = [int(action_space.n)], action_space.start
        elif isinstance(action_space, spaces.MultiDiscrete) and action_space.nvec.ndim == 1:
            sizes, start = [int(n) for n in action_space.nvec], action_space.start
        elif isinstance(action_space, spaces.MultiBinary) and len(action_space.shape) == 1:
            sizes, start = [2] * action_space.shape[0], 0
        else:
            raise AssertionError(
                "Expected Discrete, one-dimensional MultiDiscrete or one-dimensional MultiBinary actions, got "
                f"{action_space}: for a Box use SoftAC_v1 or SB3's SAC; flatten other spaces in a gymnasium.ActionWrapper"
            )
        self.sizes, self.shape = sizes, action_space.shape or ()
        self.start, self._has_start = np.asarray(start, np.int64), bool(np.any(start))
        self.n = sum(sizes)
        self.max_entropy = sum(math.log(size) for size in sizes)
        """Entropy of the uniform policy in nats; 0 where there is nothing to choose."""
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._offsets = th.from_numpy(self._starts)
        # Branches of one size are the rows of a matrix; others are taken one by one
        self._uniform_size = sizes[0] if len(set(sizes)) == 1 else None

    def log_softmax(self, logits: th.Tensor, masks: th.Tensor | None = None) -> th.Tensor:
        """Log-probabilities of the product policy ``[..., n]`` in nats; forbidden actions have probability 0."""
        if masks is not None:
            logits = logits.masked_fill(~masks, MASKED_LOGIT)
        if len(self.sizes) == 1:
            return logits.log_softmax(dim=-1)
        if self._uniform_size is not None:
            return logits.unflatten(-1, (-1, self._uniform_size)).log_softmax(dim=-1).flatten(-2)
        return th.cat([branch.log_softmax(dim=-1) for branch in logits.split(self.sizes, dim=-1)], dim=-1)

    def argmax(self, scores: th.Tensor) -> th.Tensor:
        """Index of the best option of each branch ``[..., n_branches]``, from one number per option ``[..., n]``."""
        if len(self.sizes) == 1:
            return scores.argmax(dim=-1, keepdim=True)
        if self._uniform_size is not None:
            return scores.unflatten(-1, (-1, self._uniform_size)).argmax(dim=-1)
        return th.stack([branch.argmax(dim=-1) for branch in scores.split(self.sizes, dim=-1)], dim=-1)

    def sample(self, log_pi: th.Tensor) -> th.Tensor:
        """Index of a drawn option of each branch ``[..., n_branches]``, by the Gumbel-max trick for all branches at once."""
        # The clamp keeps the logarithm finite, otherwise a forbidden action could occasionally win
        noise = th.empty_like(log_pi).exponential_().clamp_(min=th.finfo(log_pi.dtype).tiny)
        return self.argmax(log_pi - noise.log())

    def choose(self, log_pi: th.Tensor, deterministic: bool) -> th.Tensor:
        """Actions of the action space ``[batch, *action_space.shape]``, the most probable or drawn ones."""
        chosen = (self.argmax(log_pi) if deterministic else self.sample(log_pi)).reshape(-1, *self.shape)
        return chosen + th.as_tensor(self.start, device=chosen.device) if self._has_start else chosen

    def select(self, utilities: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """Sum over the branches ``[...]`` of the numbers ``[..., n]`` of the chosen options ``[..., n_branches]``."""
        if len(self.sizes) == 1:
            return utilities.gather(-1, actions).squeeze(-1)
        self._offsets = self._offsets.to(actions.device)  # moves once
        return utilities.gather(-1, actions + self._offsets).sum(dim=-1)

    def max_entropies(self, masks: th.Tensor) -> th.Tensor:
        """Entropy in nats of the policy that is uniform over the allowed actions ``[...]``."""
        counts = [branch.sum(dim=-1) for branch in masks.split(self.sizes, dim=-1)]
        return th.stack(counts, dim=-1).log().sum(dim=-1)

    def read_masks(self, masks: Any, batch: int) -> np.ndarray:
        """The masks as booleans ``[batch, n]``; ValueError if the shape is wrong or an entry is neither true nor false."""
        needed = (
            f"Action masks need shape ({batch}, {self.n}): one entry per option of each branch (sizes {self.sizes}) for each "
            "environment, got "
        )
        try:
            given = np.asarray(masks)
        except ValueError as error:  # NumPy's error for rows of different sizes
            raise ValueError(f"{needed}masks of the shapes {[np.shape(mask) for mask in masks]}") from error
        if given.size != batch * self.n or (given.ndim > 1 and batch > 1 and len(given) != batch):
            raise ValueError(f"{needed}{given.shape}")
        if given.dtype != bool:
            wrong = given[(given != 0) & (given != 1)]
            if wrong.size:
                raise ValueError(
                    "Action masks must contain True or 1 where an action is allowed and False or 0 elsewhere, got "
                    f"{wrong[0]!s}: convert values that are added to logits (0 and -inf) into a mask by `values == 0`"
                )
        return given.astype(bool).reshape(batch, self.n)

    def allow_an_action(self, masks: np.ndarray) -> np.ndarray:
        """Whether each branch has an allowed option ``[batch, n_branches]``."""
        return np.logical_or.reduceat(masks, self._starts, axis=1)

    def check_masks(self, masks: Any, batch: int) -> np.ndarray:
        """As :meth:`read_masks`; a branch without an allowed option is refused too."""
        checked = self.read_masks(masks, batch)
        allowed = self.allow_an_action(checked)
        if not allowed.all():
            row, branch = np.argwhere(~allowed)[0]
            raise ValueError(
                f"The action mask of environment {row} forbids every option of branch {branch} (of {len(self.sizes)}): "
                "action_masks() must leave at least one"
            )
        return checked
