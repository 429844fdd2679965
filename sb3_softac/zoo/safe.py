"""
RL Zoo's tools without running what is in a run's folder, if ``SB3_SOFTAC_SAFE_LOAD`` is set.

A run's folder contains YAML files with Python objects, expressions that are evaluated, names of classes that are imported, and
pickles. Here, the files are read by a loader that knows what the Zoo writes; expressions are literals; a named class must be a
wrapper, policy or callback of a known package; and pickles are refused. The statistics of VecNormalize have a plain twin, see
:mod:`sb3_softac.zoo.statistics`.
"""

import argparse
import ast
import importlib
import operator
import os
import pickle
import stat
import sys
from collections import OrderedDict
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

import gymnasium as gym
import yaml
from stable_baselines3.common import save_util
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize
from yaml.constructor import ConstructorError

from sb3_softac.algorithm.plain_json import CLASSES
from sb3_softac.files.plain_files import SAFE_LOAD, leads_to_a_file, safe_load_is_on
from sb3_softac.zoo.statistics import load_plain
from sb3_softac.zoo.wrapping import wrap_once

KNOWN_MODULES = (
    *("gymnasium.wrappers", "stable_baselines3.common", "stable_baselines3.her", "sb3_contrib.common", "minigrid.wrappers"),
    *("rl_zoo3.wrappers", "rl_zoo3.callbacks", "rl_zoo3.utils", "sb3_softac"),
)
"""Modules that may be imported because a file names them."""
IMPORT_IT = "If you trust the module, import it with --gym-packages"
LONGEST_EXPRESSION = 10_000
OPERATORS: dict[type, Callable[..., Any]] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv},
    **{ast.USub: operator.neg, ast.UAdd: operator.pos},
}
BUILTINS: dict[str, Callable[..., Any]] = {"dict": dict, "list": list, "tuple": tuple, "float": float, "int": int}


def refuse(what: str, remedy: str = "") -> NoReturn:
    """
    :param what: What would run code.
    :param remedy: What to do about it.
    :raises ValueError: always.
    """
    raise ValueError(
        f"Refused: {what}. {remedy + '. ' if remedy else ''}If you trust whoever made the files, unset {SAFE_LOAD}, which is "
        f"{os.environ.get(SAFE_LOAD)!r}"
    )


class SafeZooLoader(yaml.SafeLoader):
    """Reads what the Zoo writes: plain data, tuples, ordered dictionaries, and classes that saved models name."""

    def class_of(self, suffix: str, node: yaml.Node) -> type:
        """:return: One of the classes that saved models may contain."""
        cls = CLASSES.get(suffix.rpartition(".")[2])
        if cls is None or f"{cls.__module__}.{cls.__qualname__}" != suffix:
            self.refuse(node)
        return cls

    def ordered(self, node: yaml.Node) -> OrderedDict[Any, Any]:
        """:return: An ordered dictionary."""
        if not isinstance(node, yaml.SequenceNode):
            self.refuse(node)
        return OrderedDict(*self.construct_sequence(node, deep=True))

    def refuse(self, node: yaml.Node) -> NoReturn:
        """:raises ConstructorError: always."""
        problem = (
            f"Refused: {node.tag.removeprefix('tag:yaml.org,2002:')!r} could run code. If you trust whoever made the file, "
            f"unset {SAFE_LOAD}"
        )
        raise ConstructorError(None, None, problem, node.start_mark)


PYTHON = "tag:yaml.org,2002:python/"
SafeZooLoader.add_constructor(f"{PYTHON}tuple", lambda loader, node: tuple(loader.construct_sequence(node, deep=True)))
SafeZooLoader.add_constructor(f"{PYTHON}object/apply:collections.OrderedDict", SafeZooLoader.ordered)
SafeZooLoader.add_constructor(None, SafeZooLoader.refuse)
SafeZooLoader.add_multi_constructor(f"{PYTHON}name:", SafeZooLoader.class_of)


def literal(text: str, *others: Any) -> Any:
    """
    Evaluate an expression of a file of hyperparameters without running code; stands for ``eval``.

    :param text: Literals, sums and products of numbers, ``dict(key=value)``, and classes such as ``nn.ReLU``.
    :return: Its value.
    :raises ValueError: if it contains anything else.
    """
    try:
        if len(text) > LONGEST_EXPRESSION:
            raise ValueError("it is too long")
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, ArithmeticError, MemoryError) as error:
        refuse(f"{text!r:.200} would have to be evaluated, which can run any code ({error})")


def _value(node: ast.AST) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.List() | ast.Tuple() | ast.Set():
            return {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)](map(_value, node.elts))
        case ast.Dict() if None not in node.keys:
            return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key is not None}
        case ast.UnaryOp() if type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](_number(node.operand))
        case ast.BinOp() if type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](_number(node.left), _number(node.right))
        case ast.Call(func=ast.Name(id=name)) if name in BUILTINS and all(keyword.arg for keyword in node.keywords):
            keywords = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
            return BUILTINS[name](*map(_value, node.args), **keywords)
        case ast.Name() | ast.Attribute():
            return _class(ast.unparse(node))
    raise ValueError(f"{ast.unparse(node)!r:.99} is not a literal")


def _number(node: ast.AST) -> int | float:
    value = _value(node)
    if not isinstance(value, int | float):
        raise ValueError(f"{ast.unparse(node)!r:.99} is not a number")
    return value


def _class(path: str) -> type:
    module, _, name = path.rpartition(".")
    if name not in CLASSES or module.split(".")[0] not in ("", "nn", "th", "torch", "sb3", "stable_baselines3"):
        raise ValueError(f"{path!r:.99} is not one of the classes that saved models may contain")
    return CLASSES[name]


def named_class(name: Any, bases: tuple[type, ...]) -> Any:
    """
    :param name: Path of a class, or the class.
    :param bases: What it has to be a subclass of.
    :return: The class, which is not called.
    :raises ValueError: if it is something else, or its module is neither known nor imported.
    """
    found = name
    if isinstance(name, str):
        module, _, attribute = name.rpartition(".")
        if module not in sys.modules:
            if not any(module == known or module.startswith(f"{known}.") for known in KNOWN_MODULES):
                refuse(
                    f"the files of the run name {name!r:.200}, whose module would be imported", "Import it by --gym-packages"
                )
            importlib.import_module(module)
        found = getattr(sys.modules[module], attribute, None)
    flatten = gym.Wrapper in bases and found is not None and found is _flatten()
    if not flatten and not (isinstance(found, type) and issubclass(found, bases)):
        refuse(f"the files of the run name {name!r:.200}, which is no {' or '.join(base.__name__ for base in bases)}")
    return found


def _flatten() -> Any:
    """:return: The one function of the Zoo that serves as a wrapper."""
    return getattr(sys.modules.get("rl_zoo3.utils"), "flatten_dict_observations", None)


def check_named(named: Any, bases: tuple[type, ...]) -> None:
    """
    :param named: Wrappers or callbacks as hyperparameters name them: a path, a path with arguments, or a list of these.
    :param bases: What they have to be subclasses of.
    :raises ValueError: if one is something else, or an argument says which file is written.
    """
    for one in named if isinstance(named, list | tuple) else [named]:
        if one is None or isinstance(one, BaseCallback):
            continue
        (name, arguments) = next(iter(one.items())) if isinstance(one, dict) and one else (one, {})
        named_class(name, bases)
        for key, value in _texts(arguments, ""):
            if leads_to_a_file(key, value):
                refuse(f"the files of the run pass {key}={value!r:.200} to {name}, which may say where it writes")


def _texts(value: Any, name: str) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [text for key, part in value.items() for text in _texts(part, str(key))]
    if isinstance(value, list | tuple | set):
        return [text for part in value for text in _texts(part, name)]
    return (
        [(name, value if isinstance(value, str) else value.decode(errors="replace"))] if isinstance(value, str | bytes) else []
    )


BASES: dict[str, tuple[type, ...]] = {"env_wrapper": (gym.Wrapper,), "vec_env_wrapper": (VecEnvWrapper,)}


def _checked_wrapper(original: Any, hyperparams: dict[str, Any], key: str = "env_wrapper") -> Any:
    check_named(hyperparams.get(key), BASES[key])
    return original(hyperparams, key)


def _checked_callbacks(original: Any, hyperparams: dict[str, Any]) -> Any:
    check_named(hyperparams.get("callback"), (BaseCallback,))
    return original(hyperparams)


def _checked_class(original: Any, name: str) -> Any:
    return named_class(name, (BasePolicy, BaseCallback))


def _without_pickles(original: Any, json_string: str, custom_objects: dict[str, Any] | None = None) -> Any:
    """SB3's reader of a model's attributes, for models that are not of this package."""
    given = custom_objects or {}

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        pickled = [
            key for key, part in content.items() if isinstance(part, dict) and ":serialized:" in part and key not in given
        ]
        if pickled:
            refuse(f"{sorted(pickled)} of the model would have to be unpickled, which can run any code")
        return content

    save_util.json.loads(json_string, object_pairs_hook=check)
    return original(json_string, custom_objects)


def _no_replay_buffer(original: Any, self: Any, path: Any, *args: Any, **kwargs: Any) -> NoReturn:
    refuse(f"{path} is a pickle, which can run any code", "To continue with an empty replay buffer, move the file away")


def _load_statistics(original: Any, load_path: Any, venv: Any) -> VecNormalize:
    statistics = load_plain(load_path, venv)
    if statistics is None:
        refuse(f"{load_path} is a pickle, which can run any code, and has no plain twin")
    return statistics


def _no_pickles_in_files(original: Any, file: Any, *args: Any, **kwargs: Any) -> Any:
    """``pickle.load``, which processes also use to talk to each other."""
    try:
        is_file = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (AttributeError, OSError):
        is_file = False
    if is_file:
        refuse(f"{getattr(file, 'name', 'a file')} is a pickle, which can run any code")
    return original(file, *args, **kwargs)


CHECKED: dict[str, Callable[..., Any]] = {
    "get_wrapper_class": _checked_wrapper,
    "get_callback_list": _checked_callbacks,
    "get_class_by_name": _checked_class,
}
"""What stands before the Zoo's functions that import what a file names."""


def make_safe(utils: ModuleType) -> None:
    """
    Make the Zoo's functions refuse what could run code. It ends the program if this is not possible.

    :param utils: ``rl_zoo3.utils``.
    """
    if not safe_load_is_on():
        return
    try:
        for name in ("UnsafeLoader", "Loader", "FullLoader", "CUnsafeLoader", "CLoader", "CFullLoader"):
            if hasattr(yaml, name):
                setattr(yaml, name, SafeZooLoader)
        for name, check in CHECKED.items():
            original = getattr(utils, name)
            wrap_once(utils, name, check)  # type: ignore[arg-type]
            for module in list(sys.modules.values()):  # that have imported it by its name
                if module is not None and module.__name__.startswith("rl_zoo3") and vars(module).get(name) is original:
                    setattr(module, name, getattr(utils, name))
        utils.__dict__["eval"] = literal
        wrap_once(save_util, "json_to_data", _without_pickles)
        wrap_once(OffPolicyAlgorithm, "load_replay_buffer", _no_replay_buffer)
        wrap_once(VecNormalize, "load", _load_statistics)
        setattr(VecNormalize, "load", staticmethod(VecNormalize.load))  # noqa: B010  (for mypy, a method)
        wrap_once(pickle, "load", _no_pickles_in_files)
    except Exception as error:
        sys.exit(f"{SAFE_LOAD} is set, but RL Zoo's tools cannot be made safe: {error!r}")


def make_experiments_safe(exp_manager: ModuleType) -> None:
    """
    :param exp_manager: ``rl_zoo3.exp_manager``.
    """
    if safe_load_is_on():
        exp_manager.__dict__["eval"] = literal


RESUMED_OPTIONS = (
    *(
        ["--algo"],
        ["--env"],
        ["-n", "--n-timesteps"],
        ["--eval-freq"],
        ["--eval-episodes"],
        ["--n-eval-envs"],
        ["--save-freq"],
    ),
    *(["--seed"], ["--vec-env"], ["--num-threads"], ["--log-interval"], ["--verbose"], ["--device"]),
    *(["-conf", "--conf-file"], ["-f", "--log-folder"]),
)
RESUMED_LISTS = (["-params", "--hyperparams"], ["--env-kwargs"], ["--eval-env-kwargs"])
RESUMED_SWITCHES = (["-P", "--progress"], ["--save-replay-buffer"], ["-uuid", "--uuid"])


def _parse(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for names in RESUMED_OPTIONS:
        parser.add_argument(*names, dest=names[-1])
    for names in RESUMED_LISTS:
        parser.add_argument(*names, dest=names[-1], nargs="+")
    for names in RESUMED_SWITCHES:
        parser.add_argument(*names, dest=names[-1], action="store_true")
    try:
        known, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        refuse(f"the command of the run cannot be read: {error}")
    return vars(known), unknown


def safe_command(arguments: list[str], presets: set[str]) -> list[str]:
    """
    :param arguments: Arguments of the Zoo's ``train`` that a file contains.
    :param presets: Names of files of hyperparameters that belong to this package.
    :return: The same without the folder of the logs, which is that of the run.
    :raises ValueError: if one of them names a module or a place.
    """
    said, unknown = _parse(arguments)
    if unknown:
        refuse(
            f"the command of the run contains {unknown[0]!r:.99}, which may name a module or a place",
            "Options that you trust can follow the folder of the run",
        )
    if said["--conf-file"] is not None and said["--conf-file"] not in presets:
        refuse(f"the command of the run reads its hyperparameters from {said['--conf-file']!r:.200}")
    if said["--env"] is not None and ":" in said["--env"]:
        refuse(f"the command of the run imports the module of {said['--env']!r:.200}", IMPORT_IT)
    del said["--log-folder"]
    safe: list[str] = []
    for name, value in said.items():
        if isinstance(value, list):
            safe += [name, *value]
        elif value is not None and value is not False:
            safe += [name] if value is True else [f"{name}={value}"]
    return safe
