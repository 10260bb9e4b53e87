"""One stretch of optimisation: the sentence of the studio with every word decided."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from studio.recipes.cameras import AlignedConfig, CamerasConfig, FixedSetConfig, InstantsConfig
from studio.recipes.clipart import ClipartConfig
from studio.recipes.deformation import DeformableConfig
from studio.recipes.guidance import AnyGuidanceConfig, FootageConfig, PictureGuidanceConfig, PixelsConfig
from studio.recipes.priors import PriorConfig
from studio.recipes.ramps import MOMENTS, Ramp, refuse_outside, value_at
from studio.recipes.regularizers import RegularizersConfig
from studio.recipes.renderers import (
    DRAWN_BY,
    AugmentationConfig,
    BackgroundConfig,
    RandomBackgroundConfig,
    RendererConfig,
    SplattingConfig,
)
from studio.recipes.scenes import SceneConfig, at_rest
from studio.recipes.shapes import GaussiansConfig
from studio.recipes.topology import NoTopologyConfig, TopologyConfig
from studio.recipes.values import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GuidanceTerm:
    """One method and how much it counts."""

    weight: Ramp = 1.0
    """Factor of the method's loss."""
    share: Ramp | None = None
    """Odds of this term among those that have a share: each step takes one of them, drawn anew. Left out, the
    term counts in every step."""
    prior: PriorConfig | None = None
    """The prior that the method asks; left out, the recipe's."""
    views_prior: PriorConfig | None = None
    """A second prior, of several views at once, for a method that asks two: ``jsd``."""
    cameras: CamerasConfig | None = None
    """Where this term looks from; left out, what the stage shows."""
    instants: InstantsConfig | None = None
    """When this term sees a moving scene; left out, as the stage does."""
    augmentation: AugmentationConfig | None = None
    """What happens to the pictures before the method sees them; left out, nothing."""
    method: AnyGuidanceConfig
    """The method."""

    @model_validator(mode="after")
    def _targets_stay(self) -> GuidanceTerm:
        if self.augmentation is not None and isinstance(self.method, PictureGuidanceConfig):
            raise ValueError(
                "augmentation came with a method that compares pictures, whose target stays as it is; "
                "expected it with a method that asks a prior, leave it out"
            )
        return self

    @property
    def compares_with_video(self) -> bool:
        """Whether the method compares views from the front with a video."""
        return isinstance(self.method, PixelsConfig) and isinstance(self.method.target, FootageConfig)

    @property
    def looks_elsewhere(self) -> bool:
        """Whether the term sees pictures of its own instead of the stage's."""
        return self.cameras is not None or self.instants is not None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Stage:
    """One stretch of optimisation with everything decided."""

    steps: Annotated[int, Field(ge=1, le=1_000_000)]
    """How many steps."""
    resolution: Ramp = 128.0
    """Width and height of the pictures in pixels, rounded to a multiple of 8."""
    learning_rate: Ramp = 1.0
    """Factor of all learning rates of the scene."""
    scene: SceneConfig = GaussiansConfig()
    renderer: RendererConfig = SplattingConfig()
    guidance: Annotated[tuple[GuidanceTerm, ...], Field(min_length=1)]
    cameras: CamerasConfig = FixedSetConfig()
    instants: InstantsConfig | None = None
    """When a moving scene is drawn; scenes that stand still have none."""
    background: BackgroundConfig = RandomBackgroundConfig()
    topology: TopologyConfig = NoTopologyConfig()
    regularizers: RegularizersConfig = RegularizersConfig()

    @model_validator(mode="after")
    def _resolution_in_range(self) -> Stage:
        refuse_outside("resolution", self.resolution, 16.0, 2048.0, " pixels")
        return self

    @model_validator(mode="after")
    def _parts_fit_the_scene(self) -> Stage:
        scene = self.scene.kind
        for cameras, instants in map(self.looks, (None, *self.guidance)):
            if (instants is None) == isinstance(self.scene, DeformableConfig | ClipartConfig):
                raise ValueError(
                    f"a scene of kind '{scene}' came {'without' if instants is None else 'with'} instants; "
                    "expected instants.kind = 'random', 'frames' or 'clip' for one of kind 'deformable' or "
                    "'clipart', and no instants for others"
                )
            if (cameras.kind == "front") != isinstance(self.scene, ClipartConfig):
                raise ValueError(
                    f"a scene of kind '{scene}' came with cameras of kind '{cameras.kind}'; expected "
                    "cameras.kind = 'front' for clipart, and for nothing else"
                )
        wanted = DRAWN_BY[at_rest(self.scene).kind]
        if self.renderer.kind != wanted:
            raise ValueError(
                f"a renderer of kind '{self.renderer.kind}' cannot draw a scene of kind '{scene}'; "
                f"expected renderer.kind = '{wanted}'"
            )
        if self.regularizers.orientation != 0.0 and not getattr(self.renderer, "normals", False):
            raise ValueError(
                "regularizers.orientation looks at the normals of a field; expected 0, or renderer.normals = "
                "true on a renderer of kind 'volume'"
            )
        if self.regularizers.normal_consistency != 0.0 and getattr(self.renderer, "backend", "") == "gsplat":
            raise ValueError(
                "regularizers.normal_consistency looks at normals, which the gsplat backend does not draw; "
                "expected 0, or renderer.backend = 'auto'"
            )
        if scene != "gaussians" and self.topology.kind != "none":
            raise ValueError(
                f"topology of kind '{self.topology.kind}' edits Gaussians, not a scene of kind '{scene}'; "
                "expected topology.kind = 'none'"
            )
        return self

    @model_validator(mode="after")
    def _something_to_align_with(self) -> Stage:
        looks = [self.looks(term)[0] for term in (None, *self.guidance)]
        if isinstance(looks[0], AlignedConfig) and looks[0].to == "prior":
            raise ValueError(
                "the stage's cameras are aligned to a prior, of which each term has its own; expected "
                "cameras.to = 'video', or such cameras in a term of guidance"
            )
        if any(isinstance(own, AlignedConfig) for own in looks) and not any(
            term.compares_with_video for term in self.guidance
        ):
            raise ValueError(
                "cameras of kind 'aligned' look for where a video was filmed from, and there is none; "
                "expected a term of guidance with method.kind = 'pixels' and method.target.kind = 'video'"
            )
        return self

    @model_validator(mode="after")
    def _some_share(self) -> Stage:
        shares = [term.share for term in self.guidance if term.share is not None]
        for moment in MOMENTS:
            odds = [value_at(share, moment) for share in shares]
            if odds and (min(odds) < 0.0 or sum(odds) == 0.0):
                raise ValueError("the shares of guidance must never be negative, nor all be 0 at once")
        return self

    def looks(self, term: GuidanceTerm | None) -> tuple[CamerasConfig, InstantsConfig | None]:
        """Where from and when the scene is seen by a term of guidance; None for the stage itself."""
        if term is None:
            return self.cameras, self.instants
        return term.cameras or self.cameras, term.instants or self.instants

    def resolution_at(self, progress: float) -> int:
        """Width and height at ``progress`` in 0-1, in pixels."""
        return 8 * round(value_at(self.resolution, progress) / 8)
