"""What a form holds, as what a person asks for.

A form may only choose: presets and priors among those that the app offers, keys among the controls. Whatever
else stands in a field is text, never a path.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from studio.errors import StudioError, nearest
from studio.evaluate.compare import method_kinds, method_of_kind
from studio.prompts import clean_prompt
from studio.recipes.config import DRAWN_BY, Recipe
from studio.recipes.load import load
from studio.run.asked import Asked
from studio.web.controls import LONGEST_VALUE, controls
from studio.web.options import Options

OWN = "the preset's own"
SCENES = (OWN, *(kind for kind in DRAWN_BY if kind != "clipart"))  # which wants a drawing beside it
MOST_STEPS = 20_000


@dataclass(frozen=True)
class Form:
    """The fields of the Create page. Empty ones leave the preset's own.

    Attributes:
        prompt, negative_prompt: text.
        preset, prior, guidance, scene: choices.
        steps: the budget, of all stages together; 0 or None for the preset's own.
        seed: another one gives another asset.
        details: key and value of the controls that were set.
    """

    prompt: str
    negative_prompt: str = ""
    preset: str = "default"
    prior: str = OWN
    guidance: str = OWN
    scene: str = OWN
    steps: int | None = None
    seed: int | None = None
    details: tuple[tuple[str, str], ...] = ()

    def recipe(self, options: Options) -> Recipe:
        """The recipe that it asks for.

        Raises:
            StudioError: a choice that is not offered, a value that does not fit, an empty or strange prompt.
        """
        choice("preset", self.preset, options.presets)
        choice("prior", self.prior, (OWN, *options.priors))
        choice("guidance", self.guidance, (OWN, *method_kinds()))
        choice("scene", self.scene, SCENES)
        if not 0 <= (self.steps or 0) <= MOST_STEPS:
            raise StudioError(f"steps is {self.steps}; expected 0 (the preset's own) to {MOST_STEPS}.")
        negative = clean_prompt(self.negative_prompt) if self.negative_prompt.strip() else None
        asked = Asked(
            clean_prompt(self.prompt),
            self.preset,
            negative_prompt=negative,
            prior=None if self.prior == OWN else self.prior,
            steps=self.steps or None,
            seed=self.seed,
            overrides=(*self._scene_lines(), *self._guidance_lines(), *self._detail_lines()),
        )
        return asked.recipe()

    def _scene_lines(self) -> list[str]:
        if self.scene == OWN:
            return []
        recipe = load(self.preset)
        lines = []
        for index in range(len(recipe.stages)):
            lines += [
                f"stages.{index}.scene.kind={self.scene}",
                f"stages.{index}.renderer.kind={DRAWN_BY[self.scene]}",
                f"stages.{index}.regularizers={{}}",
            ]
            if self.scene != "gaussians":
                lines.append(f"stages.{index}.topology.kind=none")
        if self.scene != "gaussians":
            kept = [name for name in recipe.export.formats if name not in ("ply", "splat", "spz")]
            lines.append(f"export.formats={kept}")
        return lines

    def _guidance_lines(self) -> list[str]:
        if self.guidance == OWN:
            return []
        method = method_of_kind(self.guidance)
        lines = []
        for index, stage in enumerate(load(self.preset).stages):
            before = stage.guidance[0].method
            lines.append(f"stages.{index}.guidance.0.method.kind={self.guidance}")
            # The scale belongs to the preset's prior more than to the method.
            if hasattr(before, "cfg_scale") and hasattr(method, "cfg_scale"):
                if isinstance(before.cfg_scale, int | float):
                    lines.append(f"stages.{index}.guidance.0.method.cfg_scale={before.cfg_scale}")
        return lines

    def _detail_lines(self) -> list[str]:
        known = {control.key for control in controls(load(self.preset))}
        lines = []
        for key, value in self.details:
            choice("setting", key, tuple(known))
            if len(value) > LONGEST_VALUE or not value.isprintable():
                raise StudioError(f"{key} has {len(value)} characters; expected one short value.")
            if value.strip():
                lines.append(f"{key}={value.strip()}")
        return lines


def details_of(text: str) -> tuple[tuple[str, str], ...]:
    """The keys and values of a JSON object, as the page keeps those that were set.

    Raises:
        StudioError: it is something else.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise StudioError("The settings are no JSON object of texts; load the page again.")
    return tuple(found.items())


def choice(what: str, came: str, offered: tuple[str, ...]) -> str:
    """What came, if it is offered.

    Raises:
        StudioError: it is not.
    """
    if came not in offered:
        shown = came if len(came) <= 40 else f"{came[:40]}…"
        raise StudioError(
            f"There is no {what} {shown!r} here; expected one of {', '.join(offered)}."
            f"{nearest(shown, offered)}"
        )
    return came
