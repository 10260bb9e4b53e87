"""Predicted time and memory, without holding up the server: a process of its own takes the trial steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

from studio.console import duration
from studio.errors import StudioError
from studio.priors import weights
from studio.recipes.config import Recipe
from studio.recipes.load import parse, to_toml
from studio.run.build import build_device
from studio.run.build_prior import build_prior
from studio.run.forecast import Forecast, forecast

_TIMEOUT_S = 300.0
_REMEMBERED = 200


class Forecaster:
    """Predicts what recipes will cost here; it remembers what it has predicted."""

    def __init__(self) -> None:
        self._known: dict[Recipe, Forecast] = {}

    def predict(self, recipe: Recipe) -> Forecast:
        """What a recipe will cost.

        Raises:
            StudioError: its prior is not to be had, or its steps take too long to be tried.
        """
        key = replace(recipe, seed=0)
        if key not in self._known:
            if len(self._known) >= _REMEMBERED:
                self._known.pop(next(iter(self._known)))
            self._known[key] = _asked_elsewhere(key)
        return self._known[key]

    def words(self, recipe: Recipe) -> str:
        """The prediction for a person.

        Raises:
            StudioError: as ``predict``.
        """
        found = self.predict(recipe)
        return (
            f"About {duration(found.seconds)} for {recipe.total_steps} steps, then the export; "
            f"about {found.memory_bytes / 2**30:.1f} GiB."
        )


def _asked_elsewhere(recipe: Recipe) -> Forecast:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "studio.web.forecasting"],
            input=to_toml(recipe),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StudioError(
            f"A few trial steps took over {_TIMEOUT_S:g} s; expect this recipe to be slow."
        ) from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["the trial steps failed"]
        raise StudioError(lines[-1])
    return Forecast(**json.loads(done.stdout))


def main() -> int:
    """Reads a recipe, writes its forecast as JSON."""
    os.nice(10)
    try:
        with weights.offline():
            recipe = parse(sys.stdin.read(), "the recipe")
            found = forecast(recipe, build_prior(recipe, build_device(recipe)))
    except StudioError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(asdict(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
