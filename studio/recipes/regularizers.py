"""What is asked of the scene beside guidance."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from studio.recipes.ramps import Ramp
from studio.recipes.values import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RegularizersConfig:
    """Weights of what is asked of the scene beside guidance. 0 leaves a term out."""

    opacity: Ramp = 0.0
    """Mean opacity of the splats: fewer, more decided splats."""
    scale: Ramp = 0.0
    """Mean scale of the splats, in world units: no haze of huge ones."""
    normal_consistency: Ramp = 0.0
    """Mean over the pixels of what the splats' normals lack to agree with those of the depth (2D Gaussian
    splatting): splats lie along the surface that they form."""
    sparsity: Ramp = 0.0
    """Mean coverage of the picture: against a fog that fills it."""
    entropy: Ramp = 0.0
    """Mean binary entropy of the coverage, in nats: a pixel is asset or background."""
    orientation: Ramp = 0.0
    """Mean over the pixels of how far a field's normals look away from the camera, squared, where it is seen
    (Ref-NeRF, DreamFusion): no matter behind the surface. Wants ``renderer.normals = true``."""
    smoothness: Ramp = 0.0
    """Mean of 1 minus the cosine between the normals of neighbouring faces: no crumpled surface."""
    sdf: Ramp = 0.0
    """Mean cross entropy of the signs along the grid's edges that a surface cuts: no loose sheets."""
    deviation: Ramp = 0.0
    """Mean absolute deviation of a vertex's distances to the crossings around it, in spacings of the grid:
    regular faces of ``flexicubes``."""
    rigidity: Ramp = 0.0
    """Of what moves: mean squared distance, in world units, of each node's neighbours from where its own
    rotation would carry them (as rigid as possible, Sorkine and Alexa 2007)."""
    acceleration: Ramp = 0.0
    """Of what moves: mean squared second difference of the nodes' places, a sixteenth of the time apart."""
    rest: Ramp = 0.0
    """Of what moves: mean squared motion of the nodes at time 0, which then is the shape at rest."""
    bones: Ramp = 0.0
    """Of clipart: mean squared change of the bones' lengths, as shares of the canvas (AniClipart)."""
    flips: Ramp = 0.0
    """Of clipart: how near its triangles are to flipping, squared."""
