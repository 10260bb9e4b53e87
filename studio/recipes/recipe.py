"""A whole run: a prompt, a seed, a prior and a list of stages."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from studio.prompts import MAX_CHARACTERS
from studio.recipes.deformation import DeformableConfig
from studio.recipes.export import (
    CLIP,
    FLAT,
    FORMATS,
    HOLDS_ONE_INSTANT,
    HOLDS_SPLATS,
    NEEDS_MOTION,
    ExportConfig,
)
from studio.recipes.guidance import PictureGuidanceConfig
from studio.recipes.priors import AutoPriorConfig, NoPriorConfig, PriorConfig
from studio.recipes.scenes import SceneConfig, at_rest
from studio.recipes.shapes import FieldConfig
from studio.recipes.stage import Stage
from studio.recipes.values import STRICT, Count, Fraction, Positive


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WatchdogsConfig:
    """When the run warns, and when it gives up."""

    patience: Count = 25
    """Steps in a row that may be non-finite, or empty after the warm-up, before the run ends."""
    warm_up: Annotated[int, Field(ge=0)] = 100
    """Steps before emptiness counts."""
    min_alpha: Fraction = 0.004
    """Mean coverage of the pictures below which the scene counts as empty."""
    max_burnt: Fraction = 0.25
    """Share of the asset's pixels with a channel at 0 and one at 1 above which colours are burnt."""
    max_growth: Positive = 0.5
    """Share by which one topology edit may raise the number of splats."""
    min_depth_confidence: Fraction = 0.25
    """How far apart the directions must be from which a motion is seen, 0 for one direction to 1 for all
    alike; below, its depth is a guess."""
    max_acceleration: Positive = 0.25
    """Largest second difference of a node's places a sixteenth of the time apart, in world units, of which an
    asset spans one; above, the motion jumps."""


def _refuse_unmovable(before: SceneConfig, after: SceneConfig) -> None:
    """What moves goes on moving as it did; what begins to move is of the kind that was there, or a mesh."""
    if not isinstance(after, DeformableConfig):
        raise ValueError(
            f"a scene of kind 'deformable' cannot go on as one of kind '{after.kind}'; expected 'deformable'"
        )
    if not isinstance(before, DeformableConfig):
        if after.shape.kind not in (before.kind, "mesh"):
            raise ValueError(
                f"a scene of kind '{before.kind}' cannot go on as one of kind 'deformable' with a shape of "
                f"kind '{after.shape.kind}'; expected scene.shape of the same kind, or 'mesh'"
            )
    elif (before.shape.kind, before.motion) != (after.shape.kind, after.motion):
        raise ValueError(
            "deformable scenes of stages that follow one another must have shapes of one kind and equal "
            "motion"
        )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """A whole run."""

    description: str = ""
    """What the recipe is for, in one line."""
    preset: str = ""
    """The preset that it was made from; set when it is loaded."""
    prompt: Annotated[str, Field(max_length=MAX_CHARACTERS)] = ""
    """What to make; empty in a preset."""
    negative_prompt: Annotated[str, Field(max_length=MAX_CHARACTERS)] = ""
    """What the picture must not be; it takes the place of the empty prompt in the unconditional branch."""
    turned_negative_prompt: Annotated[str, Field(max_length=MAX_CHARACTERS)] = ""
    """What views that are not from the front must not be besides, such as "face" of a head."""
    view_words: bool = True
    """Tell the prior each view in words too: "a corgi, side view"."""
    view_blend: bool = False
    """Between two views in words, mix their embeddings by azimuth instead of taking the nearer one's."""
    prompt_debiasing: str | None = None
    """Folder or hub id of a BERT, such as ``google-bert/bert-base-uncased``, that says which words contradict
    a view: they are not told to it (D-SDS)."""
    tell_camera: bool = True
    """Hand each camera to a prior that can be told it; false asks its camera-free branch."""
    view_threshold_deg: Annotated[float, Field(gt=0.0, lt=90.0)] = 45.0
    """Half the width, in azimuth, of what counts as front and as back."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Two runs of one recipe on one machine's CPU are identical, bit for bit."""
    particles: Annotated[int, Field(ge=1, le=64)] = 1
    """Scenes that are optimised side by side, seen from the same cameras, each from a start of its own. A
    critic learns from all of them (ProlificDreamer)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """``auto`` takes CUDA where there is a GPU."""
    prior: PriorConfig = AutoPriorConfig()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    export: ExportConfig = ExportConfig()
    watchdogs: WatchdogsConfig = WatchdogsConfig()
    checkpoint_every: Count = 100
    """Steps between two checkpoints."""
    preview_every: Count = 50
    """Steps between two previews."""
    log_every: Count = 10
    """Steps between two lines in ``events.jsonl``; the first, the last and warnings are always written."""

    @model_validator(mode="after")
    def _stages_follow(self) -> Recipe:
        for before, after in itertools.pairwise(stage.scene for stage in self.stages):
            if isinstance(before, DeformableConfig) or isinstance(after, DeformableConfig):
                _refuse_unmovable(before, after)
            elif after.kind not in (before.kind, "surface", "mesh"):
                raise ValueError(
                    f"a scene of kind '{before.kind}' cannot go on as one of kind '{after.kind}'; expected "
                    "the same kind, 'surface' or 'mesh'"
                )
            if isinstance(before, FieldConfig) and isinstance(after, FieldConfig):
                alike = replace(
                    after,
                    table_rate=before.table_rate,
                    layers_rate=before.layers_rate,
                    occupancy_every=before.occupancy_every,
                )
                if alike != before:
                    raise ValueError(
                        "fields of stages that follow one another must be alike, but for their rates "
                        "and occupancy_every"
                    )
        return self

    @model_validator(mode="after")
    def _someone_to_ask(self) -> Recipe:
        terms = [term for stage in self.stages for term in stage.guidance]
        asking = [term.method for term in terms if (term.prior or self.prior) == NoPriorConfig()]
        wrong = [method.kind for method in asking if not isinstance(method, PictureGuidanceConfig)]
        if wrong:
            raise ValueError(
                f"prior.kind is 'none' and the method {wrong[0]} asks one; expected another prior, such as "
                "'library', or method.kind = 'pixels'"
            )
        return self

    @model_validator(mode="after")
    def _formats_hold_the_scene(self) -> Recipe:
        kind = at_rest(self.stages[-1].scene).kind
        moves = isinstance(self.stages[-1].scene, DeformableConfig)
        if kind == "clipart":
            unfit = [(frozenset(FORMATS) - CLIP, "hold solid shapes, and the last scene is clipart")]
        else:
            unfit = [(FLAT, f"hold flat drawings, and the last scene is of kind '{kind}'")]
            if kind != "gaussians":
                unfit += [(HOLDS_SPLATS, f"hold splats, and the last scene is of kind '{kind}'")]
            if moves:
                unfit += [(HOLDS_ONE_INSTANT, "hold one instant, and the last scene moves")]
            else:
                unfit += [(NEEDS_MOTION, "hold motion, and the last scene is at rest")]
        fitting = frozenset(FORMATS).difference(*(formats for formats, _ in unfit))
        for formats, reason in unfit:
            if wrong := [name for name in self.export.formats if name in formats]:
                raise ValueError(
                    f"export.formats has {', '.join(wrong)}, which {reason}; expected formats among "
                    f"{', '.join(name for name in FORMATS if name in fitting)}"
                )
        return self

    @property
    def total_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)
