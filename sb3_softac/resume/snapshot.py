"""
The complete state of training except the rows of the replay buffer: algorithm, environments, callbacks, random generators.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.save_util import recursive_getattr

from sb3_softac.algorithm.off_policy import SoftOffPolicyAlgorithm
from sb3_softac.resume.codecs import delete_gone, note_texts, read_attributes, read_classes, write_classes, write_separately
from sb3_softac.resume.describe import NOT_DESCRIBED, describe
from sb3_softac.resume.environments import ENVIRONMENT_CODECS
from sb3_softac.resume.generators import generator_states, set_generator_states
from sb3_softac.resume.replay import end_all_episodes, other_attributes
from sb3_softac.resume.serialization import REMEDY, Codec, Reader, ResumeError, Writer, check_needs
from sb3_softac.resume.settings import Start, argument_names, differences, different_structure
from sb3_softac.resume.vec_envs import VEC_ENV

# Attributes of an algorithm that are saved elsewhere, or belong to the call of learn() and not to what is trained.
ELSEWHERE = {
    *("policy", "env", "_vec_normalize_env", "replay_buffer", "_logger", "_custom_logger"),
    *("start_time", "_total_timesteps", "_num_timesteps_at_start"),
    *("device", "policy_kwargs", "replay_buffer_kwargs", "cuda_graphs", "verbose"),
    *("engines", "watch", "_checked_version", "_arguments_before", "_announced"),
}

# Attributes of a callback that belong to the call of learn().
CALL = {"model", "locals", "globals", "parent", "verbose"}


class Snapshot(NamedTuple):
    """The state of training at one moment."""

    tree: dict[str, Any]
    """Everything except tensors, as JSON."""
    tensors: dict[str, th.Tensor]
    restarted: list[str]
    """Vectorized environments whose state could not be captured, each with the reason."""
    lost: list[str]
    """Attributes that could not be captured, except those of environments."""


def _own(holder: Any, left_out: set[str]) -> dict[str, Any]:
    """Attributes by name. Strings are settings and are not restored: paths may differ where training is resumed."""
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
    """What has changed since training started is kept apart from what has not, such as settings."""
    attributes, baseline = _own(value, _left_out(value)), writer.baseline
    writer.note_classes(value)
    others = {name: part for name, part in vars(value).items() if name not in _left_out(value)}
    note_texts(writer, value, others, path, texts=False)
    if baseline is None:
        return {"class": type(value).__name__, "attributes": write_separately(writer, attributes, path)}
    described = {name: describe(part) for name, part in attributes.items()}
    if writer.recording:
        baseline.attributes[id(value)] = {name: json.dumps(texts) for name, texts in described.items()}
        return {"attributes": write_separately(writer, attributes, path)}
    before = baseline.attributes.get(id(value), {})
    texts = {name: json.dumps(texts) for name, texts in described.items() if NOT_DESCRIBED not in texts.values()}
    same = {name for name, text in texts.items() if before.get(name) == text}
    return {
        "class": type(value).__name__,
        "gone": [name for name in before if name not in vars(value)],
        "attributes": write_separately(writer, {n: part for n, part in attributes.items() if n not in same}, path),
        "constants": write_separately(writer, {n: part for n, part in attributes.items() if n in same}, path),
        "settings": {name: texts[name] for name in same & argument_names(type(value))},
    }


def _read_callback(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    """The program's settings take precedence; where they differ, so do the values that it has derived from them."""
    if type(live).__name__ != content["class"]:
        raise ResumeError(f"{path} differs from the {content['class']} in the checkpoint: use the same callbacks as before")
    _read_own(reader, content["attributes"], live, _left_out(live), path)
    now = {} if reader.baseline is None else reader.baseline.attributes.get(id(live), {})
    if all(now.get(name) == text for name, text in content.get("settings", {}).items()):
        _read_own(reader, content.get("constants", {}), live, _left_out(live), path)
    reader.change(delete_gone, {"gone": [name for name in content.get("gone", ()) if name in now]}, live)
    return live


def _callback_differences(written: Any, live: Any, start: Start) -> list[str]:
    """The settings of callbacks that differ from the checkpoint, readable."""
    content = written["callback"]
    now = start.baseline.attributes.get(id(live), {})
    found = []
    for name, text in content.get("settings", {}).items():
        before, after = json.loads(text), json.loads(now.get(name, "{}"))
        found += differences(
            {f"{content['class']}: {name}{key and '.' + key}": part for key, part in before.items()},
            {f"{content['class']}: {name}{key and '.' + key}": part for key, part in after.items()},
        )
    attributes = content["attributes"] | content.get("constants", {})
    inner = zip(attributes.get("callbacks", {}).get("list", []), getattr(live, "callbacks", []), strict=False)
    for part, callback in [*inner, (attributes.get("callback"), getattr(live, "callback", None))]:
        if isinstance(part, dict) and "callback" in part:
            found += _callback_differences(part, callback, start)
    return found


def _write_algorithm(writer: Writer, value: BaseAlgorithm, path: str) -> Any:
    """Another algorithm than the one that is trained, for example an opponent."""
    buffer: Any = getattr(value, "replay_buffer", None)
    if buffer is not None and buffer.size():
        writer.lose(f"{path}.replay_buffer")
    parameters = writer.write_data(value.get_parameters(), f"{path}.parameters")
    return {"parameters": parameters, "attributes": _write_attributes(writer, value, None, path)}


def _read_algorithm(reader: Reader, content: Any, live: Any, path: str, in_place: bool) -> Any:
    _read_parameters(reader, content["parameters"], live, None)
    _read_attributes(reader, content["attributes"], live, None, path)
    return live


CODECS = (
    Codec("algorithm", lambda v: isinstance(v, BaseAlgorithm), _write_algorithm, _read_algorithm, shared=True),
    Codec("callback", lambda v: isinstance(v, BaseCallback), _write_callback, _read_callback, shared=True),
    VEC_ENV,
    *ENVIRONMENT_CODECS,
)


def _exploration(model: BaseAlgorithm) -> dict[str, StateDependentNoiseDistribution]:
    """The noise of gSDE by the name of the network that has it."""
    parts = {name: getattr(module, "action_dist", None) for name, module in model.policy.named_modules()}
    return {name: part for name, part in parts.items() if isinstance(part, StateDependentNoiseDistribution)}


def _log(model: BaseAlgorithm) -> dict[str, dict[str, Any]]:
    """The values recorded since the log was last written."""
    return {name: getattr(model.logger, name) for name in ("name_to_value", "name_to_count", "name_to_excluded")}


def _write_exploration(writer: Writer, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    noise = {name: (part.exploration_mat, part.exploration_matrices) for name, part in _exploration(model).items()}
    return writer.write(noise, "exploration")


def _read_exploration(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    exploration = _exploration(model)
    for name, (matrix, matrices) in reader.read_data(written, "exploration").items():
        reader.change(setattr, exploration[name], "exploration_mat", matrix)
        reader.change(setattr, exploration[name], "exploration_matrices", matrices)


def _write_log(writer: Writer, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    log = {name: dict(part) for name, part in _log(model).items()}
    for key, value in log["name_to_value"].copy().items():
        probe = Writer(CODECS, created=True)
        probe.write(value, key)
        if probe.unknown:  # SB3's pictures and the like
            writer.unknown.append(f"log.{key} ({type(value).__name__})")
            for part in log.values():
                part.pop(key, None)
    return writer.write(log, "log")


def _write_attributes(writer: Writer, model: BaseAlgorithm, callback: BaseCallback | None, path: str = "algorithm") -> Any:
    for name in model._get_torch_save_params()[0]:  # saved as parameters
        part = recursive_getattr(model, name)
        for module in part.modules() if isinstance(part, th.nn.Module) else [part]:
            writer.leave(module)
    rollouts = getattr(model, "rollout_buffer", None)
    for name in ("pad", "pad_and_flatten"):  # functions that sb3-contrib's recurrent buffers make anew for each update
        if hasattr(rollouts, name):
            writer.leave(getattr(rollouts, name))
    writer.note_classes(model)
    note_texts(writer, model, {name: part for name, part in vars(model).items() if name not in ELSEWHERE}, path, False)
    return write_separately(writer, _own(model, ELSEWHERE), path)


def _read_attributes(
    reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback | None, path: str = "algorithm"
) -> None:
    _read_own(reader, written, model, ELSEWHERE, path)
    if isinstance(model, SoftOffPolicyAlgorithm):
        reader.change(model.accept_arguments)  # all that follows from the arguments has been restored, too


def _read_parameters(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback | None) -> None:
    parameters = reader.read_data(written, "parameters")
    if parameters.keys() != model.get_parameters().keys():
        raise ResumeError(
            f"The checkpoint has parameters of {', '.join(parameters)}, and the model of other objects. {REMEDY}"
        )
    for name, part in model.get_parameters().items():
        now = {key: value.shape for key, value in part.items() if isinstance(value, th.Tensor)}
        if {key: getattr(parameters[name].get(key), "shape", None) for key in now} != now:
            raise ResumeError(f"The parameters of {name} in the checkpoint do not fit the present networks. {REMEDY}")
    reader.change(model.set_parameters, parameters, True)


def _read_log(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    recorded = reader.read_data(written, "log")
    for name, part in _log(model).items():
        reader.change(part.clear)
        reader.change(part.update, recorded[name])


def _write_replay(writer: Writer, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    buffer = getattr(model, "replay_buffer", None)
    if buffer is None:
        return {}
    attributes = other_attributes(buffer)
    writer.note_classes(buffer)
    note_texts(writer, buffer, attributes, "replay")
    return write_separately(writer, attributes, "replay")


def _read_replay(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    if written:
        read_attributes(reader, written, model.replay_buffer, "replay")  # type: ignore[attr-defined]


def _read_environment(reader: Reader, written: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    reader.read(written, model.env, "environment")
    reader.change(_reset_environments, reader, written, model)


def _reset_environments(reader: Reader, written: Any, model: BaseAlgorithm) -> None:
    """Begin new episodes if those of the checkpoint could not be saved or restored."""
    if written["vec_env"]["environments"] is not None and not reader.restarted:
        return
    assert model.env is not None
    try:
        model._last_obs = model.env.reset()  # type: ignore[assignment]
    except RuntimeError as error:
        raise ResumeError(
            f"The episodes of the environments have to start over, which they refuse ({error}): create them in another way, "
            "for example by Monitor(env, allow_early_resets=True)"
        ) from error
    model._last_episode_starts = np.ones(model.env.num_envs, dtype=bool)
    if model._vec_normalize_env is not None:
        model._last_original_obs = model._vec_normalize_env.get_original_obs()
    end_all_episodes(getattr(model, "replay_buffer", None))


# What a training consists of, in the order in which it is restored: how each part is written and read
PARTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "attributes": (_write_attributes, _read_attributes),
    "parameters": (lambda w, model, callback: w.write(model.get_parameters(), "parameters"), _read_parameters),
    "exploration": (_write_exploration, _read_exploration),
    "log": (_write_log, _read_log),
    "replay": (_write_replay, _read_replay),
    "environment": (lambda w, model, callback: w.write(model.env, "environment"), _read_environment),
    "callbacks": (
        lambda w, model, callback: w.write(callback, "callback"),
        lambda r, written, model, callback: r.read(written, callback, "callback"),
    ),
    "generators": (
        lambda w, model, callback: w.write(generator_states(), "generators"),
        lambda r, written, model, callback: r.change(set_generator_states, r.read_data(written, "generators")),
    ),
}
# Their tensors, such as logged values and the noise of gSDE, are on the device of the networks
WITH_THE_NETWORKS = ("attributes", "exploration")
# Whose objects are compared with those at the start of the training
WITH_BASELINE = ("attributes", "replay", "environment", "callbacks")


def capture(model: BaseAlgorithm, callback: BaseCallback, start: Start | None = None) -> Snapshot:
    snapshot = Snapshot({"algorithm": type(model).__name__, "needs": {}, "classes": {}}, {}, [], [])
    for name, (write, _) in PARTS.items():
        writer = Writer(CODECS, start.baseline if start is not None and name in WITH_BASELINE else None)
        writer.leave(model)
        snapshot.tree[name] = write(writer, model, callback)
        snapshot.tree["classes"][name] = write_classes(writer)
        writer.unknown.extend(writer.memory.connect())
        snapshot.tree["needs"][name] = writer.needs
        snapshot.tensors.update(writer.tensors)
        snapshot.restarted.extend(writer.restarted)
        snapshot.lost.extend(writer.unknown)
        if start is not None and name == "environment":
            start.environment = {path: text for path, text in start.environment.items() if writer.settings.get(path) == text}
    if start is not None:
        settings = {"structure": start.structure, "arguments": start.arguments, "environment": start.environment}
        snapshot.tree["settings"] = settings
    return snapshot


def note_start(model: BaseAlgorithm, callback: BaseCallback) -> Start:
    """Record what the training starts with."""
    start = Start(model, callback)
    for name in WITH_BASELINE:
        writer = Writer(CODECS, start.baseline, recording=True)
        writer.leave(model)
        PARTS[name][0](writer, model, callback)
        write_classes(writer)
        if name == "environment":
            start.environment = writer.settings
    return start


def read_snapshot(
    model: BaseAlgorithm,
    callback: BaseCallback,
    tree: dict[str, Any],
    tensors: dict[str, th.Tensor],
    start: Start | None = None,
    parts: Iterable[str] = PARTS,
) -> Callable[[], list[str]]:
    """Read a state. Nothing is changed by this, so that a checkpoint that is refused leaves everything as it was."""
    readers = []
    for name in parts:
        _, read = PARTS[name]
        device = model.device if name in WITH_THE_NETWORKS else "cpu"
        reader = Reader(tensors, CODECS, device, start.baseline if start is not None and name in WITH_BASELINE else None)
        try:
            read(reader, tree[name], model, callback)
            read_classes(reader, tree["classes"][name])
        except ResumeError:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ResumeError(f"The part {name!r} of the checkpoint is damaged or was changed ({reason:.200})") from error
        readers.append(reader)

    def restore() -> list[str]:
        for reader in readers:
            reader.apply()
        return [reason for reader in readers for reason in reader.restarted]

    return restore


def check_start(callback: BaseCallback, tree: dict[str, Any], start: Start) -> list[str]:
    """Compare a program with the one that saved a checkpoint, before anything is changed."""
    missing = {"algorithm", "in_learn", "logs", "iteration", "needs", "classes", "settings", *PARTS}
    missing -= tree.keys() if isinstance(tree, dict) else set()
    if missing:
        raise ResumeError(f"The state in the checkpoint is damaged: it has no {', '.join(sorted(missing))}")
    saved = tree["settings"]
    if found := different_structure(saved["structure"], start.structure):
        raise ResumeError(
            f"The program differs from the one that saved the checkpoint: {'; '.join(found)}. Use the same algorithm, policy, "
            "environments and callbacks as before, or a new folder for another training"
        )
    environment = {name: text for name, text in saved["environment"].items() if name in start.environment}
    found = [
        *differences(saved["arguments"], start.arguments),
        *differences(environment, {name: start.environment[name] for name in environment}),
        *_callback_differences(tree["callbacks"], callback, start),
    ]
    for name in ("attributes", "replay", "callbacks"):
        try:
            check_needs(tree["needs"][name], start.baseline)
        except ResumeError as error:
            raise ResumeError(f"{'; '.join(found)}{': ' if found else ''}{error}") from None
    return found
