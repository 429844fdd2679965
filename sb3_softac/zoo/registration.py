"""What is added to which module of RL Zoo, once that module has been imported."""

import functools
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

import sb3_softac

# Zoo id -> class in sb3_softac; the sampler and converter in sb3_softac.zoo.samplers are found by the id.
# The Zoo looks for a model's algorithm under the lower-cased class name, so id and class name must agree.
ALGORITHMS = {"softac_v1": "SoftAC_v1"}


def patch(module: ModuleType) -> None:
    """
    Add the algorithms to a module of RL Zoo, or repair a module that RL Zoo cannot use as it is. Existing entries win.

    :param module: One of the modules named in ``_sb3_softac_autoload.WATCHED``.
    """
    if module.__name__ == "rl_zoo3.utils":
        for algo, class_name in ALGORITHMS.items():
            module.ALGOS.setdefault(algo, getattr(sb3_softac, class_name))
    elif module.__name__ == "rl_zoo3.hyperparams_opt":
        samplers = importlib.import_module("sb3_softac.zoo.samplers")
        for algo in ALGORITHMS:
            module.HYPERPARAMS_SAMPLER.setdefault(algo, getattr(samplers, f"sample_{algo}_params"))
            module.HYPERPARAMS_CONVERTER.setdefault(algo, getattr(samplers, f"convert_{algo}_params"))
    elif module.__name__ == "rl_zoo3.exp_manager":
        _use_own_hyperparameters(module.ExperimentManager)
    elif module.__name__ == "huggingface_sb3.push_to_hub":
        _restore_generate_metadata(module)


def hyperparameter_file(algo: str) -> Path:
    """
    :param algo: Zoo id of one of our algorithms.
    :return: Its YAML file: inside the package when that was built, else (editable install) at the top of the repository.
    """
    package = Path(sb3_softac.__file__).parent
    folder = package / "hyperparams"
    return (folder if folder.is_dir() else package.parent / "hyperparams") / f"{algo}.yml"


def _use_own_hyperparameters(manager: Any) -> None:
    """Make our YAML files the default of ``ExperimentManager(config=...)``, which looks in the Zoo's own folder otherwise."""
    original = manager.__init__
    if hasattr(original, "_adds_sb3_softac"):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        if bound.arguments["algo"] in ALGORITHMS and not bound.arguments.get("config"):
            bound.arguments["config"] = str(hyperparameter_file(bound.arguments["algo"]))
        original(*bound.args, **bound.kwargs)

    __init__._adds_sb3_softac = True  # type: ignore[attr-defined]
    manager.__init__ = __init__


def _restore_generate_metadata(module: ModuleType) -> None:
    """
    RL Zoo 2.9 imports ``generate_metadata``, which sb3-team-hf-integration 3.2 has renamed to ``_generate_metadata``.

    The renamed function returns an object; the Zoo expects the dictionary of old.
    """
    if not hasattr(module, "generate_metadata") and hasattr(module, "_generate_metadata"):
        module.__dict__["generate_metadata"] = lambda *args, **kwargs: module._generate_metadata(*args, **kwargs).to_dict()
