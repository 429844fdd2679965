"""
Tells RL Zoo about the algorithms of sb3_softac when, and only when, RL Zoo is imported.

Python runs :func:`install` at every start (see ``sb3_softac.pth`` and ``sb3_softac.start``), so this module is small, imports
only what Python has loaded by then, and must never fail. Set ``SB3_SOFTAC_NO_ZOO=1`` to switch it off; together with
``SB3_SOFTAC_SAFE_LOAD=1`` it says that RL Zoo's own scripts are not safe then.
"""

import os
import sys

# The modules of RL Zoo that something is added to
ZOO_MODULES = ("rl_zoo3.utils", "rl_zoo3.hyperparams_opt", "rl_zoo3.exp_manager")


def is_set(variable):
    return os.environ.get(variable, "0") not in ("", "0")


class PatchingLoader:
    """Loads a module with its own loader, then lets sb3_softac register itself there."""

    def __init__(self, loader):
        self.loader = loader

    def __getattr__(self, name):
        return getattr(self.loader, name)

    def create_module(self, spec):
        return self.loader.create_module(spec)

    def exec_module(self, module):
        # inspect, reload and pickle look at the loader: give them the real one
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        register(module)


class ZooFinder:
    """Finds the modules to patch where the other finders find them, and wraps their loaders."""

    switched_off = False

    def find_spec(self, name, path=None, target=None):
        if name not in ZOO_MODULES or self.switched_off:
            return None
        # Asking only the finders behind this one keeps two hooks of this kind from calling each other for ever.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            # Python, too, skips finders of the old kind, which have no find_spec
            spec = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = PatchingLoader(spec.loader)
                return spec
        return None


def register(module):
    """Add the algorithms to a module of RL Zoo; on any error warn once and leave it as it is, unless it is to be safe."""
    if is_set("SB3_SOFTAC_NO_ZOO"):
        ZooFinder.switched_off = True
        print(
            "SB3_SOFTAC_NO_ZOO leaves RL Zoo as it is, so SB3_SOFTAC_SAFE_LOAD does not protect it: unset the former, or run "
            "`python -m sb3_softac.zoo` instead",
            file=sys.stderr,
        )
        return
    try:
        from sb3_softac.zoo.registration import add_to

        add_to(module.__name__)
    except Exception as error:
        if is_set("SB3_SOFTAC_SAFE_LOAD"):
            sys.exit(f"SB3_SOFTAC_SAFE_LOAD is set, but sb3_softac could not make RL Zoo safe: {error!r}")
        import warnings

        ZooFinder.switched_off = True
        warnings.warn(f"sb3_softac could not register with RL Zoo, which works without it: {error!r}", stacklevel=2)


def install():
    """Put the finder in front of the others, once."""
    is_needed = is_set("SB3_SOFTAC_SAFE_LOAD") or not is_set("SB3_SOFTAC_NO_ZOO")
    if is_needed and not any(type(f) is ZooFinder for f in sys.meta_path):
        sys.meta_path.insert(0, ZooFinder())
