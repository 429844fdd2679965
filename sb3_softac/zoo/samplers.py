"""Search spaces for ``python -m rl_zoo3.train -optimize``, by Zoo id."""

from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import convert_offpolicy_params, sample_her_params

COMMON: dict[str, Any] = {  # lists of choices, or ranges; those of the Zoo
    "one_minus_gamma": (1e-4, 0.03, "log"),
    "learning_rate": (1e-5, 2e-3, "log"),
    "batch_size_pow": (5, 10),
    "train_freq": (1, 10),
    "learning_starts": (100, 10_000, "log"),
    "tau": (1e-3, 0.08, "log"),
    "net_arch": ["small", "medium", "big"],
}
# The temperature matters most. It is `ent_coef` itself, or where a learned one starts
SPACES: dict[str, dict[str, Any]] = {
    "softac_v1": COMMON | {"ent_coef": (1e-3, 1.0, "log"), "learn_ent_coef": [False, True], "actor_q": ["min", "first"]},
    "sql": {
        **COMMON,
        "batch_size_pow": (5, 8),
        "ent_coef": (1e-3, 10.0, "log"),
        "learn_ent_coef": [False, True],
        "kernel_particles": [16, 32, 64],
        "value_particles": [16, 32, 64],
    },
    "discretesac": {
        **COMMON,
        "learning_rate": (1e-5, 4e-3, "log"),
        "batch_size_pow": (5, 9),
        "train_freq": (1, 16),
        "entropy_ratio": (0.05, 0.98),
        "critic_ent_coef_scale": [0.0, 0.5, 1.0],
        "q_aggregation": ["min", "mean"],
    },
    "discretesql": {
        **COMMON,
        "learning_rate": (1e-5, 4e-3, "log"),
        "batch_size_pow": (5, 9),
        "train_freq": (1, 16),
        "ent_coef": (1e-3, 1.0, "log"),
        "learn_ent_coef": [False, True],
        "entropy_ratio": (0.05, 0.98),
    },
}


def sample(algo: str, trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """Sample arguments of an algorithm; the other arguments are the Zoo's."""
    params = convert({name: _suggest(trial, name, space) for name, space in SPACES[algo].items()})
    for name in ("gamma", "batch_size"):  # the Zoo prints them next to the sampled values
        trial.set_user_attr(name, params[name])
    if additional_args["using_her_replay_buffer"]:
        params = sample_her_params(trial, params, additional_args["her_kwargs"])
    return params


def _suggest(trial: optuna.Trial, name: str, space: Any) -> Any:
    if isinstance(space, list):
        return trial.suggest_categorical(name, space)
    low, high, *log = space
    return (trial.suggest_int if isinstance(low, int) else trial.suggest_float)(name, low, high, log=bool(log))


def convert(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """Turn sampled values, also those of a stored trial, into arguments of the algorithm."""
    params = dict(sampled_params)
    if params.pop("learn_ent_coef", False):
        params["ent_coef"] = f"auto_{params['ent_coef']}"
    if "entropy_ratio" in params:
        params["target_entropy"] = f"ratio_{params.pop('entropy_ratio')}"
    # The Zoo's converter would pass these on to the algorithm
    her = {name: params.pop(name) for name in ("n_sampled_goal", "goal_selection_strategy") if name in params}
    if her:
        params["replay_buffer_kwargs"] = her
    return convert_offpolicy_params(params)  # one gradient step per environment step, with one environment
