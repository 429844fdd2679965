"""
The complete state of training except the rows of the replay buffer: algorithm, environments, callbacks, random generators.
"""

from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.distributions import StateDependentNoiseDistribution
from stable_baselines3.common.save_util import recursive_getattr

from sb3_softac.resume.environments import ENVIRONMENT_CODECS, starts_anew
from sb3_softac.resume.generators import generator_states, set_generator_states
from sb3_softac.resume.replay import end_all_episodes, other_attributes
from sb3_softac.resume.settings import Start, argument_names, differences, different_structure
from sb3_softac.resume.traversal import (
    NOT_SHOWN,
    Codec,
    Decoder,
    Encoder,
    Fresh,
    ResumeError,
    check_needs,
    class_name,
    decode_attributes,
    encode_attributes,
    leaves,
)

# Attributes of an algorithm that are saved otherwise, or belong to the call of learn() and not to what is trained.
ELSEWHERE = {
    *("policy", "env", "_vec_normalize_env", "replay_buffer", "_logger", "_custom_logger"),
    *("start_time", "_total_timesteps", "_num_timesteps_at_start"),
    *("device", "policy_kwargs", "replay_buffer_kwargs", "_step_runner", "cuda_graphs", "verbose", "_watched_before"),
}
# Attributes of a callback that belong to the call of learn().
OF_THE_CALL = {"model", "locals", "globals", "parent", "verbose"}


class Snapshot(NamedTuple):
    """The state of training at one moment."""

    tree: dict[str, Any]
    """Everything except tensors, as JSON."""
    tensors: dict[str, th.Tensor]
    restarted: list[str]
    """Vectorized environments whose state could not be captured, each with the reason."""
    lost: list[str]
    """Attributes of the algorithm and of callbacks that could not be captured, each with the reason."""


# Callbacks: the settings of the program hold; if they differ, so does what it has made of them.


def _left_out(callback: BaseCallback) -> set[str]:
    return OF_THE_CALL | set(getattr(callback, "not_resumed", ()))


def _attributes(callback: BaseCallback) -> dict[str, Any]:
    return {name: part for name, part in vars(callback).items() if name not in _left_out(callback)}


def _encode_callback(encoder: Encoder, callback: BaseCallback, path: str) -> Any:
    encoder.note_classes(callback)
    content = encode_attributes(encoder, callback, _attributes(callback), path, texts=False)
    constants, settings, before = [], {}, encoder.start.settings
    for name, node in content["attributes"].items():
        texts, prefix = leaves(node, encoder.memory.tensors, f"{path}.{name}"), (f"{path}.{name}", f"{path}.{name}.")
        encoder.note_settings(texts if encoder.recording else {})
        at_start = {leaf: text for leaf, text in before.items() if leaf == prefix[0] or leaf.startswith(prefix[1])}
        if texts == at_start and NOT_SHOWN not in texts.values():
            constants.append(name)
            settings |= texts if name in argument_names(type(callback)) else {}
    encoder.settings |= settings
    return {"class": class_name(callback), **content, "constants": constants, "settings": settings}


def _decode_callback(decoder: Decoder, content: Any, live: BaseCallback, path: str, at_start: bool) -> Any:
    nodes = content["attributes"]
    if any(decoder.start.settings.get(name) != text for name, text in content["settings"].items()):
        nodes = {name: node for name, node in nodes.items() if name not in content["constants"]}
    there, left_out = _attributes(live), _left_out(live)
    decode_attributes(decoder, {**content, "attributes": nodes}, live, path, there, texts=False, left_out=left_out)
    return live


CODECS = (
    Codec("callback", lambda v: isinstance(v, BaseCallback), _encode_callback, _decode_callback, in_place=True),
    *ENVIRONMENT_CODECS,
)


# What consists of objects


def _own(model: BaseAlgorithm) -> dict[str, Any]:
    return {name: part for name, part in vars(model).items() if name not in ELSEWHERE}


def _encode_model(encoder: Encoder, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    for name in model._get_torch_save_params()[0]:  # saved as parameters
        part = recursive_getattr(model, name)
        for module in part.modules() if isinstance(part, th.nn.Module) else [part]:
            encoder.leave(module)
    encoder.note_classes(model)
    return encode_attributes(encoder, model, _own(model), "algorithm", texts=False)


def _decode_model(decoder: Decoder, content: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    decode_attributes(decoder, content, model, "algorithm", _own(model), texts=False, left_out=ELSEWHERE)


def _encode_replay(encoder: Encoder, model: Any, callback: BaseCallback) -> Any:
    buffer = getattr(model, "replay_buffer", None)
    return None if buffer is None else encode_attributes(encoder, buffer, other_attributes(buffer), "replay")


def _decode_replay(decoder: Decoder, content: Any, model: Any, callback: BaseCallback) -> None:
    if content is not None:
        decode_attributes(decoder, content, model.replay_buffer, "replay", other_attributes(model.replay_buffer))


def _encode_environment(encoder: Encoder, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    return encoder.encode(model.env, "environment")


def _decode_environment(decoder: Decoder, node: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    decoder.decode(node, model.env, "environment")
    if starts_anew(node) or decoder.restarted:
        assert model.env is not None
        model._last_obs = model.env.reset()  # type: ignore[assignment]
        model._last_episode_starts = np.ones(model.env.num_envs, dtype=bool)
        if model._vec_normalize_env is not None:
            model._last_original_obs = model._vec_normalize_env.get_original_obs()
        end_all_episodes(getattr(model, "replay_buffer", None))


def _encode_callbacks(encoder: Encoder, model: BaseAlgorithm, callback: BaseCallback) -> Any:
    return encoder.encode(callback, "callback")


def _decode_callbacks(decoder: Decoder, node: Any, model: BaseAlgorithm, callback: BaseCallback) -> None:
    decoder.decode(node, callback, "callback")


PARTS = {
    "attributes": (_encode_model, _decode_model),
    "replay": (_encode_replay, _decode_replay),
    "environment": (_encode_environment, _decode_environment),
    "callbacks": (_encode_callbacks, _decode_callbacks),
}
"""What a training consists of, in the order in which it is put back."""


# What consists of numbers


def _exploration(model: BaseAlgorithm) -> dict[str, StateDependentNoiseDistribution]:
    """The noise of gSDE by the name of the network that has it."""
    parts = {name: getattr(module, "action_dist", None) for name, module in model.policy.named_modules()}
    return {name: part for name, part in parts.items() if isinstance(part, StateDependentNoiseDistribution)}


def _log(model: BaseAlgorithm) -> dict[str, dict[str, Any]]:
    """The values recorded since the log was last written."""
    return {name: getattr(model.logger, name) for name in ("name_to_value", "name_to_count", "name_to_excluded")}


def numbers_of(model: BaseAlgorithm) -> dict[str, Any]:
    noise = {name: [part.exploration_mat, part.exploration_matrices] for name, part in _exploration(model).items()}
    log = {name: dict(part) for name, part in _log(model).items()}
    return {"parameters": model.get_parameters(), "exploration": noise, "log": log, "generators": generator_states()}


def set_numbers(model: BaseAlgorithm, numbers: dict[str, Any]) -> None:
    model.set_parameters(numbers["parameters"], exact_match=True)
    exploration = _exploration(model)
    for name, matrices in numbers["exploration"].items():
        part = exploration[name]
        part.exploration_mat, part.exploration_matrices = (matrix.to(model.device) for matrix in matrices)
    for name, values in _log(model).items():
        values.clear()
        values.update(numbers["log"][name])
    set_generator_states(numbers["generators"])


def capture(model: BaseAlgorithm, callback: BaseCallback, start: Start) -> Snapshot:
    """
    :param model: Algorithm, between two rollouts.
    :param callback: Its callback, or list of callbacks.
    :param start: The program at the start of the training.
    :return: Its state.
    """
    snapshot = Snapshot({"structure": start.structure, "arguments": start.arguments}, {}, [], [])
    for name, (encode, _) in PARTS.items():
        encoder = Encoder(CODECS, start)
        snapshot.tree[name] = encoder.document(encode(encoder, model, callback))
        snapshot.tensors.update(encoder.memory.tensors)
        snapshot.restarted.extend(encoder.restarted)
        snapshot.lost.extend(encoder.lost)
    encoder = Encoder(CODECS, start)
    snapshot.tree["numbers"] = encoder.encode(Fresh(numbers_of(model)), "numbers")
    snapshot.tensors.update(encoder.memory.tensors)
    return snapshot


def note_start(model: BaseAlgorithm, callback: BaseCallback) -> Start:
    """
    :param model: Algorithm, at the start of :meth:`learn`.
    :param callback: Its callbacks.
    :return: What the training starts with.
    """
    start = Start(model, callback)
    for encode, _ in PARTS.values():
        encoder = Encoder(CODECS, start, recording=True)
        encoder.document(encode(encoder, model, callback))
    return start


def restore(
    model: BaseAlgorithm, callback: BaseCallback, tree: dict[str, Any], tensors: dict[str, th.Tensor], start: Start
) -> list[str]:
    """
    :param model: Algorithm, created as the saved one was, in :meth:`learn`.
    :param callback: Its callbacks, created as the saved ones were.
    :param tree: State as JSON, of a :class:`Snapshot`.
    :param tensors: Tensors of the state.
    :param start: The program at the start of the training.
    :return: Vectorized environments whose episodes start over although their state was saved, each with the reason.
    :raises ResumeError: if the environment or the callbacks differ.
    """
    restarted = []
    try:
        for name, (_, decode) in PARTS.items():
            decoder = Decoder(CODECS, start, tensors, model.device if name == "attributes" else "cpu")
            decode(decoder, tree[name]["nodes"], model, callback)
            decoder.decode_classes(tree[name]["classes"])
            restarted += decoder.restarted
        set_numbers(model, Decoder(CODECS, start, tensors).decode(tree["numbers"], None, "numbers"))
    except RecursionError as error:
        raise ResumeError("The checkpoint contains a value that is nested too deeply") from error
    start.arguments = tree["arguments"]  # those of the program are not in use
    return restarted


def check_start(tree: dict[str, Any], start: Start) -> list[str]:
    """
    Compare a program with the one that saved a checkpoint, before anything is changed.

    :param tree: State as JSON, of a :class:`Snapshot`.
    :param start: The program at the start of the training.
    :return: Settings that differ and may, readable.
    :raises ResumeError: if the state does not fit.
    """
    missing = {"structure", "arguments", "numbers", "in_learn", "logs", "iteration", *PARTS}
    missing -= tree.keys() if isinstance(tree, dict) else set()
    if missing:
        raise ResumeError(f"The state in the checkpoint is damaged: it has no {', '.join(sorted(missing))}")
    if found := different_structure(tree["structure"], start.structure):
        raise ResumeError(
            f"The program differs from the one that saved the checkpoint: {'; '.join(found)}. Use the same algorithm, policy, "
            "environments and callbacks as before, or a new folder for another training"
        )
    found = differences(tree["arguments"], start.arguments, start)
    for name in ("environment", "callbacks"):
        saved = tree[name]["settings"]
        found += differences(saved, {leaf: start.settings[leaf] for leaf in saved if leaf in start.settings}, start)
    for name in ("attributes", "replay", "callbacks"):
        try:
            check_needs(tree[name]["needs"], start)
        except ResumeError as error:
            raise ResumeError(f"{'; '.join(found)}{': ' if found else ''}{error}") from None
    return found
