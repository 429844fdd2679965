"""The pictures of arXiv:1702.08165, figure 3: what a model of MultiGoal has learned."""

from collections.abc import Sequence

import numpy as np
import torch as th
from matplotlib.figure import Figure

from sb3_softac.envs.multigoal import MultiGoal
from sb3_softac.sql import SQL

PROBES = ((-2.5, 0.0), (0.0, 0.0), (2.5, 2.5))


def draw_multigoal(
    model: SQL, n_trajectories: int = 50, n_actions: int = 100, probes: Sequence[tuple[float, float]] = PROBES, seed: int = 0
) -> Figure:
    """
    Draw stochastic trajectories over the map, and for probe states the soft Q-function with sampled actions.

    :param model: A model of ``MultiGoal-v0``, trained or composed.
    :param n_trajectories: Number of episodes.
    :param n_actions: Number of sampled actions per probe state.
    :param probes: Positions of the probe states.
    :param seed: Seed of the starts.
    :return: The figure: the map on the left, one panel per probe state beside it.
    """
    figure = Figure(figsize=(3.6 * (1 + len(probes)), 3.8))
    first, *others = figure.subplots(1, 1 + len(probes))
    line = np.linspace(-MultiGoal.size, MultiGoal.size, 101)
    grid = np.stack(np.meshgrid(line, line), axis=-1)
    cost = ((grid[:, :, None] - MultiGoal.goals) ** 2).sum(axis=-1).min(axis=-1)
    first.contour(line, line, cost, 20, linewidths=0.5)
    for path in trajectories(model, n_trajectories, seed):
        first.plot(*path.T, "b-", linewidth=0.7)
    first.plot(*MultiGoal.goals.T, "ro")
    first.set(title=f"{n_trajectories} episodes", xlabel="x", ylabel="y", aspect="equal")
    line = np.linspace(-1.0, 1.0, 50)
    actions = np.stack(np.meshgrid(line, line), axis=-1).reshape(1, -1, 2)
    for axes, probe in zip(others, probes, strict=True):
        obs, _ = model.policy.obs_to_tensor(np.array([probe], np.float32))
        with th.no_grad():
            tensor = th.as_tensor(actions, dtype=th.float32, device=model.device)
            q = model.critic.q_particles(model.critic.features(obs), tensor).amin(dim=0)
        axes.contour(line, line, q.cpu().numpy().reshape(50, 50), 20, linewidths=0.5)
        sampled, _ = model.predict(np.repeat(np.array([probe], np.float32), n_actions, axis=0))
        axes.plot(*sampled.T, "b*", markersize=3)
        axes.set(title=f"Q and actions at {probe}", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    figure.tight_layout()
    return figure


def trajectories(model: SQL, n_episodes: int, seed: int = 0, max_steps: int = 30) -> list[np.ndarray]:
    """:return: Positions in each of the episodes of the stochastic policy ``[n_steps + 1, 2]``."""
    envs = [MultiGoal() for _ in range(n_episodes)]
    obs = np.stack([env.reset(seed=seed + number)[0] for number, env in enumerate(envs)])
    running = list(range(n_episodes))
    for _ in range(max_steps):
        actions, _ = model.predict(obs[running])
        results = [(number, envs[number].step(action)) for number, action in zip(running, actions, strict=True)]
        for number, (position, *_) in results:
            obs[number] = position
        running = [number for number, (_, _, reached, _, _) in results if not reached]
        if not running:
            break
    return [np.array(env.path) for env in envs]
