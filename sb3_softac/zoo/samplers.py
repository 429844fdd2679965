"""Search spaces for ``python -m rl_zoo3.train -optimize``: a sampler and a converter per algorithm, found by its Zoo id."""

from typing import Any

import optuna
from rl_zoo3.hyperparams_opt import convert_offpolicy_params, sample_her_params


def sample_softac_v1_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Search space of SoftAC_v1: that of the Zoo's SAC, and the temperature, which matters most for this algorithm.

    :param trial: Optuna's trial.
    :param n_actions: Number of action dimensions (not used; part of the Zoo's interface).
    :param n_envs: Number of environments (not used; part of the Zoo's interface).
    :param additional_args: Further arguments of the Zoo; they say whether HER is used.
    :return: Keyword arguments of SoftAC_v1.
    """
    sampled = {
        **_sample_common(trial, learning_rate=2e-3, batch_size_pow=10, train_freq=10),
        # The temperature itself, or where a learned one starts
        "ent_coef": trial.suggest_float("ent_coef", 1e-3, 1.0, log=True),
        "learn_ent_coef": trial.suggest_categorical("learn_ent_coef", [False, True]),
        "actor_q": trial.suggest_categorical("actor_q", ["min", "first"]),
    }
    return _finish(trial, convert_softac_v1_params(sampled), additional_args)


def convert_softac_v1_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Turn sampled values (also those of a stored trial) into keyword arguments of SoftAC_v1.

    :param sampled_params: Values by the names they were sampled under.
    :return: Keyword arguments of SoftAC_v1; one gradient step per environment step, as the Zoo's converter sets it.
    """
    params = dict(sampled_params)
    if params.pop("learn_ent_coef"):
        params["ent_coef"] = f"auto_{params['ent_coef']}"
    return _convert(params)


def sample_discretesac_params(
    trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Search space of DiscreteSAC: that of the Zoo's DQN for shared parameters, and the entropy, which matters most.

    :param trial: Optuna's trial.
    :param n_actions: Number of actions (not used; part of the Zoo's interface).
    :param n_envs: Number of environments (not used; part of the Zoo's interface).
    :param additional_args: Further arguments of the Zoo; they say whether HER is used.
    :return: Keyword arguments of DiscreteSAC.
    """
    sampled = {
        **_sample_common(trial, learning_rate=4e-3, batch_size_pow=9, train_freq=16),
        "entropy_ratio": trial.suggest_float("entropy_ratio", 0.05, 0.98),
        "critic_ent_coef_scale": trial.suggest_categorical("critic_ent_coef_scale", [0.0, 0.5, 1.0]),
        "q_aggregation": trial.suggest_categorical("q_aggregation", ["min", "mean"]),
    }
    return _finish(trial, convert_discretesac_params(sampled), additional_args)


def convert_discretesac_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Turn sampled values (also those of a stored trial) into keyword arguments of DiscreteSAC.

    :param sampled_params: Values by the names they were sampled under.
    :return: Keyword arguments of DiscreteSAC; one gradient step per environment step, as the Zoo's converter sets it.
    """
    params = dict(sampled_params)
    params["target_entropy"] = f"ratio_{params.pop('entropy_ratio')}"
    return _convert(params)


def sample_sql_params(trial: optuna.Trial, n_actions: int, n_envs: int, additional_args: dict[str, Any]) -> dict[str, Any]:
    """
    Search space of SQL: that of the Zoo's SAC, the temperature and the particles.

    :param trial: Optuna's trial.
    :param n_actions: Number of action dimensions (not used; part of the Zoo's interface).
    :param n_envs: Number of environments (not used; part of the Zoo's interface).
    :param additional_args: Further arguments of the Zoo; they say whether HER is used.
    :return: Keyword arguments of SQL.
    """
    sampled = {
        **_sample_common(trial, learning_rate=2e-3, batch_size_pow=8, train_freq=10),
        "ent_coef": trial.suggest_float("ent_coef", 1e-3, 10.0, log=True),
        "learn_ent_coef": trial.suggest_categorical("learn_ent_coef", [False, True]),
        "kernel_particles": trial.suggest_categorical("kernel_particles", [16, 32, 64]),
        "value_particles": trial.suggest_categorical("value_particles", [16, 32, 64]),
    }
    return _finish(trial, convert_sql_params(sampled), additional_args)


def convert_sql_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    Turn sampled values (also those of a stored trial) into keyword arguments of SQL.

    :param sampled_params: Values by the names they were sampled under.
    :return: Keyword arguments of SQL; one gradient step per environment step, as the Zoo's converter sets it.
    """
    params = dict(sampled_params)
    if params.pop("learn_ent_coef"):
        params["ent_coef"] = f"auto_{params['ent_coef']}"
    return _convert(params)


def _sample_common(trial: optuna.Trial, learning_rate: float, batch_size_pow: int, train_freq: int) -> dict[str, Any]:
    """
    :return: The parameters that all off-policy algorithms share, within the Zoo's ranges; the arguments are the upper bounds
        that differ.
    """
    return {
        "one_minus_gamma": trial.suggest_float("one_minus_gamma", 1e-4, 0.03, log=True),
        "learning_rate": trial.suggest_float("learning_rate", 1e-5, learning_rate, log=True),
        "batch_size_pow": trial.suggest_int("batch_size_pow", 5, batch_size_pow),
        "train_freq": trial.suggest_int("train_freq", 1, train_freq),
        "learning_starts": trial.suggest_int("learning_starts", 100, 10_000, log=True),
        "tau": trial.suggest_float("tau", 1e-3, 0.08, log=True),
        "net_arch": trial.suggest_categorical("net_arch", ["small", "medium", "big"]),
    }


def _finish(trial: optuna.Trial, hyperparams: dict[str, Any], additional_args: dict[str, Any]) -> dict[str, Any]:
    """:return: The hyperparameters, with those of HER if it is used; the Zoo prints two of them next to the sampled values."""
    trial.set_user_attr("gamma", hyperparams["gamma"])
    trial.set_user_attr("batch_size", hyperparams["batch_size"])
    if additional_args["using_her_replay_buffer"]:
        hyperparams = sample_her_params(trial, hyperparams, additional_args["her_kwargs"])
    return hyperparams


def _convert(params: dict[str, Any]) -> dict[str, Any]:
    # The Zoo's converter would pass these on to the algorithm
    her = {name: params.pop(name) for name in ("n_sampled_goal", "goal_selection_strategy") if name in params}
    if her:
        params["replay_buffer_kwargs"] = her
    return convert_offpolicy_params(params)
