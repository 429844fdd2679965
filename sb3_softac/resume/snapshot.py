"""
The complete state of training except the rows of the replay buffer: algorithm, environments, callbacks, random generators.
"""

import inspect
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.distributions import StateDependentNoiseDistribution

from sb3_softac.resume.environments import ENVIRONMENT_KINDS
from sb3_softac.resume.generators import generator_states, set_generator_states
from sb3_softac.resume.kinds import read_attributes, write_attributes
from sb3_softac.resume.plain import Kind, Reader, ResumeError, Writer
from sb3_softac.resume.replay import end_all_episodes, other_attributes
from sb3_softac.resume.vec_envs import VEC_ENV, starts_anew

# Attributes of an algorithm that are saved otherwise, or belong to the call of learn() and not to what is trained.
ELSEWHERE = {
    *("policy", "env", "_vec_normalize_env", "replay_buffer", "_logger", "_custom_logger"),
    *("start_time", "_total_timesteps", "_num_timesteps_at_start"),
    *("device", "policy_kwargs", "replay_buffer_kwargs", "_step_runner"),
}

# Attributes of a callback that belong to the call of learn().
CALL = {"model", "locals", "globals", "parent"}


class Snapshot(NamedTuple):
    """The state of training at one moment."""

    tree: dict[str, Any]
    """Everything except tensors, as JSON."""
    tensors: dict[str, th.Tensor]
    anew: list[str]
    """Vectorized environments whose state could not be captured, each with the reason."""


def _own(holder: Any, left_out: set[str]) -> dict[str, Any]:
    """:return: Attributes by name. Strings are settings and are not restored: paths may differ where training is resumed."""
    return {name: part for name, part in vars(holder).items() if name not in left_out and not isinstance(part, str)}


def _read_own(reader: Reader, written: dict[str, Any], live: Any, left_out: set[str], path: str) -> None:
    """Restore what :func:`_own` would save of the object as it is now, and nothing else."""
    foreign = [name for name, part in written.items() if name in left_out or isinstance(part, str)]
    if foreign:
        raise ResumeError(f"{path}.{foreign[0]} is not something that a checkpoint contains: the checkpoint was changed")
    read_attributes(reader, written, live, path, texts=False)


def _left_out(callback: BaseCallback) -> set[str]:
    return CALL | set(getattr(callback, "not_resumed", ()))


def _write_callback(writer: Writer, value: Any, path: str) -> Any:
    return {
        "class": type(value).__name__,
        "attributes": write_attributes(writer, _own(value, _left_out(value)), path),
    }


def _read_callback(reader: Reader, content: Any, live: Any, path: str) -> Any:
    written = content["attributes"]
    same = type(live).__name__ == content["class"]
    if not same or (isinstance(live, CallbackList) and len(live.callbacks) != len(written["callbacks"]["list"])):
        raise ResumeError(f"{path} differs from the {content['class']} in the checkpoint: use the same callbacks as before")
    _read_own(reader, written, live, _left_out(live), path)
    return live


KINDS = (
    Kind("algorithm", lambda v: isinstance(v, BaseAlgorithm), lambda w, v, p: None, lambda r, c, live, p: live),
    Kind("callback", lambda v: isinstance(v, BaseCallback), _write_callback, _read_callback),
    VEC_ENV,
    *ENVIRONMENT_KINDS,
)


def _exploration(model: BaseAlgorithm) -> dict[str, StateDependentNoiseDistribution]:
    """:return: The noise of gSDE by the name of the network that has it."""
    parts = {name: getattr(module, "action_dist", None) for name, module in model.policy.named_modules()}
    return {name: part for name, part in parts.items() if isinstance(part, StateDependentNoiseDistribution)}


def _log(model: BaseAlgorithm) -> dict[str, dict[str, Any]]:
    """:return: The values recorded since the log was last written."""
    return {name: getattr(model.logger, name) for name in ("name_to_value", "name_to_count", "name_to_excluded")}


def _write_exploration(writer: Writer, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    noise = {name: (part.exploration_mat, part.exploration_matrices) for name, part in _exploration(model).items()}
    return writer.write(noise, "exploration")


def _read_exploration(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    exploration = _exploration(model)
    for name, (matrix, matrices) in reader.read(written, None, "exploration").items():
        exploration[name].exploration_mat, exploration[name].exploration_matrices = matrix, matrices


def _write_attributes(writer: Writer, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    return write_attributes(writer, _own(model, ELSEWHERE), "algorithm")


def _read_attributes(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    _warn_about_changes(model, written)
    _read_own(reader, written, model, ELSEWHERE, "algorithm")


def _write_parameters(writer: Writer, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    return writer.write(model.get_parameters(), "parameters")


def _read_parameters(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    model.set_parameters(reader.read(written, None, "parameters"), exact_match=True)


def _write_log(writer: Writer, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    return writer.write({name: dict(part) for name, part in _log(model).items()}, "log")


def _read_log(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    recorded = reader.read(written, None, "log")
    for name, part in _log(model).items():
        part.clear()
        part.update(recorded[name])


def _write_replay(writer: Writer, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    buffer = getattr(model, "replay_buffer", None)
    return {} if buffer is None else write_attributes(writer, other_attributes(buffer), "replay")


def _read_replay(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    if written:
        read_attributes(reader, written, model.replay_buffer, "replay")  # type: ignore[attr-defined]


def _write_environment(writer: Writer, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    return writer.write(model.env, "environment")


def _read_environment(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    reader.read(written, model.env, "environment")
    if starts_anew(written):
        _reset_environments(model)


def _reset_environments(model: BaseAlgorithm) -> None:
    assert model.env is not None
    model._last_obs = model.env.reset()  # type: ignore[assignment]
    model._last_episode_starts = np.ones(model.env.num_envs, dtype=bool)
    if model._vec_normalize_env is not None:
        model._last_original_obs = model._vec_normalize_env.get_original_obs()
    end_all_episodes(getattr(model, "replay_buffer", None))


def _write_callbacks(writer: Writer, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    return writer.write(callback, "callback")


def _read_callbacks(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    reader.read(written, callback, "callback")


def _write_generators(writer: Writer, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    return writer.write(generator_states(), "generators")


def _read_generators(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    set_generator_states(reader.read(written, None, "generators"))


# What a training consists of, in the order in which it is put back.
PARTS = {
    "attributes": (_write_attributes, _read_attributes),
    "parameters": (_write_parameters, _read_parameters),
    "exploration": (_write_exploration, _read_exploration),
    "log": (_write_log, _read_log),
    "replay": (_write_replay, _read_replay),
    "environment": (_write_environment, _read_environment),
    "callbacks": (_write_callbacks, _read_callbacks),
    "generators": (_write_generators, _read_generators),
}
# Their tensors, such as logged values and the noise of gSDE, are on the device of the networks
WITH_THE_NETWORKS = ("attributes", "exploration")


def capture(model: BaseAlgorithm, callback: BaseCallback) -> Snapshot:
    """
    :param model: Algorithm, between two rollouts.
    :param callback: Its callback, or list of callbacks.
    :return: Its state.
    """
    snapshot = Snapshot({"algorithm": type(model).__name__}, {}, [])
    for name, (write, _) in PARTS.items():
        writer = Writer(KINDS)
        snapshot.tree[name] = write(writer, model, callback)
        snapshot.tensors.update(writer.tensors)
        snapshot.anew.extend(writer.anew)
    return snapshot


def restore(model: BaseAlgorithm, callback: BaseCallback, tree: dict[str, Any], tensors: dict[str, th.Tensor]) -> None:
    """
    :param model: Algorithm, created as the saved one was, in :meth:`learn`.
    :param callback: Its callbacks, created as the saved ones were.
    :param tree: State as JSON, of a :class:`Snapshot`.
    :param tensors: Tensors of the state.
    :raises ResumeError: if the environment or the callbacks differ.
    """
    for name, (_, read) in PARTS.items():
        device = model.device if name in WITH_THE_NETWORKS else "cpu"
        try:
            read(Reader(tensors, KINDS, device), tree[name], model, callback)
        except RecursionError as error:
            raise ResumeError(f"The part {name!r} of the checkpoint is nested too deeply") from error


def check_algorithm(model: BaseAlgorithm, tree: dict[str, Any]) -> None:
    """
    :param model: Algorithm.
    :param tree: State as JSON, of a :class:`Snapshot`.
    :raises ResumeError: if it is the state of a different algorithm.
    """
    missing = {"algorithm", "in_learn", *PARTS} - (tree.keys() if isinstance(tree, dict) else set())
    if missing:
        raise ResumeError(f"The state in the checkpoint is damaged: it has no {', '.join(sorted(missing))}")
    if type(model).__name__ != tree["algorithm"]:
        raise ResumeError(f"The checkpoint was saved by {tree['algorithm']}, but the model is a {type(model).__name__}")


def _warn_about_changes(model: BaseAlgorithm, saved: dict[str, Any]) -> None:
    """Warn about arguments of the constructor that differ from the checkpoint."""
    for name in inspect.signature(type(model)).parameters:
        now = vars(model).get(name)
        if isinstance(now, int | float) and isinstance(saved.get(name), int | float) and now != saved[name]:
            warnings.warn(
                f"{name} is {now}, but {saved[name]} in the checkpoint. The value in the checkpoint is used. To continue "
                "with other settings, load the model and use a new folder for its checkpoints",
                stacklevel=2,
            )
