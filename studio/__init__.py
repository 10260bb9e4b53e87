"""Studio: a text-to-3D and 4D score-distillation studio.

>>> import studio
>>> run = studio.start("a teddy bear")
>>> for report in run:
...     print(report.step, report.losses)

``studio.generate`` does the same to the end and exports the asset. Nothing heavy is loaded before first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.errors import StudioError
    from studio.recipes.config import Recipe
    from studio.recipes.load import load as load_recipe
    from studio.run.session import Run, generate, start

__all__ = ["Recipe", "Run", "StudioError", "generate", "load_recipe", "start"]

_HOMES = {
    "Recipe": ("studio.recipes.config", "Recipe"),
    "Run": ("studio.run.session", "Run"),
    "StudioError": ("studio.errors", "StudioError"),
    "generate": ("studio.run.session", "generate"),
    "load_recipe": ("studio.recipes.load", "load"),
    "start": ("studio.run.session", "start"),
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'studio' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
