"""
Faster ways to compute what ``_update`` computes. Each folder in here is one; it may be deleted, and nothing else changes.
"""

from importlib import import_module
from pkgutil import iter_modules

for _engine in iter_modules(__path__):
    if _engine.ispkg:
        import_module(f"{__name__}.{_engine.name}")
