"""
RL Zoo's tools without executing anything from a run's folder, if ``SB3_SOFTAC_SAFE_LOAD`` is set.

A run's folder contains YAML files with Python objects, expressions that are evaluated, names of classes that are imported, and
pickles. Here, the files are read by a loader that knows what the Zoo writes; expressions are literals; a named class must be a
wrapper, policy or callback of a known package; and pickles are refused. The statistics of VecNormalize have a plain twin, see
:mod:`sb3_softac.zoo.vec_normalize`.
"""

import ast
import importlib
import os
import stat
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NoReturn

import gymnasium as gym
import yaml
from huggingface_hub.errors import EntryNotFoundError
from requests.exceptions import HTTPError
from stable_baselines3.common import save_util
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnvWrapper, VecNormalize
from yaml.constructor import ConstructorError

from sb3_softac.algorithm.plain_json import CLASSES
from sb3_softac.files.plain_files import SAFE_LOAD
from sb3_softac.resume.serialization import names_files
from sb3_softac.zoo.patches import replace, wrap
from sb3_softac.zoo.vec_normalize import load_plain, twin_of

KNOWN_MODULES = (
    *("gymnasium.wrappers", "stable_baselines3.common", "stable_baselines3.her", "sb3_contrib.common", "minigrid.wrappers"),
    *("rl_zoo3.wrappers", "rl_zoo3.callbacks", "rl_zoo3.utils", "sb3_softac"),
)
"""Modules that may be imported because a file names them."""
IMPORT_IT = "If you trust the module, import it with --gym-packages"
STATISTICS = "vec_normalize.pkl"
"""What the Zoo calls the statistics of VecNormalize on the hub."""
LONGEST_EXPRESSION = 10_000
BUILTINS: dict[str, Callable[..., Any]] = {"dict": dict, "list": list, "tuple": tuple, "float": float, "int": int}


def refuse(what: str, remedy: str = "") -> NoReturn:
    """:raises ValueError: always, with the remedy and the name of the switch."""
    raise ValueError(
        f"Refused: {what}. {remedy + '. ' if remedy else ''}If you trust whoever made the files, unset {SAFE_LOAD}, which is "
        f"{os.environ.get(SAFE_LOAD)!r}"
    )


class SafeZooLoader(yaml.SafeLoader):
    """Reads what the Zoo writes: plain data, tuples, ordered dictionaries, and classes that saved models name."""

    def _class(self, path: str, node: yaml.Node) -> type:
        cls = CLASSES.get(path.rpartition(".")[2])
        return cls if cls is not None and f"{cls.__module__}.{cls.__qualname__}" == path else self._refuse(node)

    def _ordered(self, node: yaml.Node) -> OrderedDict[Any, Any]:
        if not isinstance(node, yaml.SequenceNode):
            self._refuse(node)
        return OrderedDict(*self.construct_sequence(node, deep=True))

    def _refuse(self, node: yaml.Node) -> NoReturn:
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        problem = f"Refused: {tag!r} could run code. If you trust whoever made the file, unset {SAFE_LOAD}"
        raise ConstructorError(None, None, problem, node.start_mark)


PYTHON = "tag:yaml.org,2002:python/"
SafeZooLoader.add_constructor(f"{PYTHON}tuple", lambda loader, node: tuple(loader.construct_sequence(node, deep=True)))
SafeZooLoader.add_constructor(f"{PYTHON}object/apply:collections.OrderedDict", SafeZooLoader._ordered)
SafeZooLoader.add_constructor(None, SafeZooLoader._refuse)
SafeZooLoader.add_multi_constructor(f"{PYTHON}name:", SafeZooLoader._class)


def literal(text: str, *others: Any) -> Any:
    """
    Stand for ``eval``: literals, ``dict(key=value)``, and classes such as ``nn.ReLU``.

    :raises ValueError: if the expression contains anything else.
    """
    try:
        if len(text) > LONGEST_EXPRESSION:
            raise ValueError("it is too long")
        return _value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, TypeError, RecursionError, ArithmeticError, MemoryError) as error:
        refuse(f"{text!r:.200} would have to be evaluated, which can run arbitrary code ({error})")


def _value(node: ast.AST) -> Any:
    match node:
        case ast.List() | ast.Tuple() | ast.Set():
            return {ast.List: list, ast.Tuple: tuple, ast.Set: set}[type(node)](map(_value, node.elts))
        case ast.Dict() if None not in node.keys:
            return {_value(key): _value(value) for key, value in zip(node.keys, node.values, strict=True) if key is not None}
        case ast.Call(func=ast.Name(id=name)) if name in BUILTINS and all(keyword.arg for keyword in node.keywords):
            keywords = {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
            return BUILTINS[name](*map(_value, node.args), **keywords)
        case ast.Name() | ast.Attribute():
            module, _, name = (path := ast.unparse(node)).rpartition(".")
            if name not in CLASSES or module.split(".")[0] not in ("", "nn", "th", "torch", "sb3", "stable_baselines3"):
                raise ValueError(f"{path!r:.99} is not one of the classes that saved models may contain")
            return CLASSES[name]
    return ast.literal_eval(node)  # text, and numbers with a sign; ValueError for anything else


def named_class(name: Any, bases: tuple[type, ...]) -> Any:
    """
    Find the class of a path without calling it.

    :raises ValueError: if it is no subclass of the bases, or its module is neither known nor imported.
    """
    found = name
    if isinstance(name, str):
        module, _, attribute = name.rpartition(".")
        if module not in sys.modules:
            if not any(module == known or module.startswith(f"{known}.") for known in KNOWN_MODULES):
                refuse(f"the files of the run name {name!r:.200}, whose module would be imported", IMPORT_IT)
            importlib.import_module(module)
        found = getattr(sys.modules[module], attribute, None)
    # The one function of the Zoo that serves as a wrapper
    flatten = getattr(sys.modules.get("rl_zoo3.utils"), "flatten_dict_observations", None)
    is_flatten = gym.Wrapper in bases and found is not None and found is flatten
    if not is_flatten and not (isinstance(found, type) and issubclass(found, bases)):
        refuse(f"the files of the run name {name!r:.200}, which is no {' or '.join(base.__name__ for base in bases)}")
    return found


def check_named(named: Any, bases: tuple[type, ...]) -> None:
    """
    Check wrappers or callbacks as hyperparameters name them: a path, a path with arguments, or a list of these.

    :raises ValueError: if one is no subclass of the bases, or an argument says which file is written.
    """
    for one in named if isinstance(named, list | tuple) else [named]:
        if one is None or isinstance(one, BaseCallback):
            continue
        (name, arguments) = next(iter(one.items())) if isinstance(one, dict) and one else (one, {})
        named_class(name, bases)
        if names_files("", arguments):
            refuse(f"the files of the run pass {arguments!r:.200} to {name}, which may say where it writes")


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
    """Read the attributes of a model that is not of this package."""

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        pickled = {key for key, part in content.items() if isinstance(part, dict) and ":serialized:" in part}
        if pickled := pickled - (custom_objects or {}).keys():
            refuse(f"{sorted(pickled)} of the model would have to be unpickled, which can run arbitrary code")
        return content

    save_util.json.loads(json_string, object_pairs_hook=check)
    return original(json_string, custom_objects)


def _twin_of_statistics(original: Any, load_path: Any, venv: Any) -> VecNormalize:
    statistics = load_plain(load_path, venv)
    if statistics is None:
        refuse(f"{load_path} is a pickle, which can run arbitrary code, and has no plain twin")
    return statistics


def _twin_from_hub(original: Any, repo_id: Any, filename: str, *args: Any, **kwargs: Any) -> str:
    if filename != STATISTICS:
        return original(repo_id, filename, *args, **kwargs)
    try:
        return original(repo_id, str(twin_of(filename)), *args, **kwargs)
    except (HTTPError, EntryNotFoundError):
        original(repo_id, filename, *args, **kwargs)  # raises if the model has no statistics
        refuse(f"{filename} of {repo_id} is a pickle, which can run arbitrary code, and has no plain twin")


def _no_pickles_in_files(original: Any, file: Any, *args: Any, **kwargs: Any) -> Any:
    """Refuse whatever was opened by a name; processes use ``pickle.load`` also to talk to each other, by unnamed pipes."""
    name = getattr(file, "name", None)
    try:
        is_file = isinstance(name, str | bytes | os.PathLike) or stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    except (AttributeError, OSError):
        is_file = False
    if is_file:
        file.close()  # SB3 does not close it after an error
        remedy = "To continue with an empty replay buffer, move the file away" if "replay_buffer" in str(name) else ""
        refuse(f"{name} is a pickle, which can run arbitrary code", remedy)
    return original(file, *args, **kwargs)


def make_safe() -> None:
    """Make this process refuse whatever could run code, or end the program if that is impossible."""
    try:
        for loader in ("UnsafeLoader", "Loader", "FullLoader", "CUnsafeLoader", "CLoader", "CFullLoader"):
            if hasattr(yaml, loader):
                replace(f"yaml:{loader}", SafeZooLoader)
        wrap("rl_zoo3.utils:get_wrapper_class", _checked_wrapper)
        wrap("rl_zoo3.utils:get_callback_list", _checked_callbacks)
        wrap("rl_zoo3.utils:get_class_by_name", _checked_class)
        replace("rl_zoo3.utils:eval", literal)
        wrap("stable_baselines3.common.save_util:json_to_data", _without_pickles)
        wrap("stable_baselines3.common.vec_env:VecNormalize.load", _twin_of_statistics)
        wrap("pickle:load", _no_pickles_in_files)
        wrap("huggingface_sb3:load_from_hub", _twin_from_hub)
    except Exception as error:
        sys.exit(f"{SAFE_LOAD} is set, but RL Zoo's tools cannot be made safe: {error!r}")


def make_experiments_safe() -> None:
    """The same for the Zoo's ``ExperimentManager``, which evaluates expressions, too."""
    replace("rl_zoo3.exp_manager:eval", literal)
