"""What training the learned prior is told; nothing heavy is loaded to read it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class RenderDataConfig:
    """Which pictures are drawn of each object.

    Attributes:
        image_size: width and height in pixels.
        views: pictures of each object to train on, from cameras of its own.
        held_out_views: pictures of each object from cameras that all share, to evaluate on.
        elevation_range_deg: lowest and highest camera; one view in eight stands above it, up to 80 degrees.
        seed: of the cameras.
    """

    image_size: int = 64
    views: int = 72
    held_out_views: int = 24
    elevation_range_deg: tuple[float, float] = (-15.0, 50.0)
    seed: int = 0


@dataclass(frozen=True)
class ModelConfig:
    """The shape of the network. The defaults are what ships as ``small``.

    Attributes:
        image_size: width and height of the images, in pixels.
        patch: pixels on a side that become channels of one cell, so that the U-Net sees image_size / patch
            cells.
        channels: width of each level of the U-Net, each at half the resolution of the one before.
        attention: whether each level reads the text by cross-attention.
        blocks: residual blocks on the way down through a level; one more on the way up.
        text_width: width of the word embeddings.
        text_layers: layers of the text encoder.
        schedule_shift: factor on sigma / alpha of the cosine schedule. Pictures of a few dozen objects
            differ so much that they can be told apart through noise 20 times stronger than they are; with a
            factor of 8 a quarter of the levels is noisier than that, where the words and the camera have to
            decide.
    """

    image_size: int = 64
    patch: int = 4
    channels: tuple[int, ...] = (64, 128, 192)
    attention: tuple[bool, ...] = (False, True, False)
    blocks: int = 1
    text_width: int = 192
    text_layers: int = 2
    schedule_shift: float = 8.0


@dataclass(frozen=True)
class TrainConfig:
    """The recipe, the same on a CPU and on CUDA.

    Attributes:
        views: folder of training views, as ``studio prior render-data`` makes it.
        folder: where the checkpoint, the model and the sample sheets go; training goes on from a checkpoint
            found there.
        model: the shape of the network; fixed once training has begun.
        start: a folder of a trained model of this shape whose weights a new training starts from, such as
            ``assets/prior/small``; words that it does not know start afresh.
        total_images: images to see in all.
        batch: images a step.
        learning_rate: of Adam, after the warm-up and until the decay.
        warmup_steps: steps over which the learning rate rises from 0.
        decay_fraction: last share of the images over which the learning rate falls linearly to 0.
        weight_decay: decoupled, of Adam.
        ema_decay: of the averaged weights that ship, reached by way of (1 + step) / (10 + step).
        checkpoint_seconds: time between checkpoints.
        sheet_every: steps between sample sheets; 0 for none.
        half: compute in bfloat16 where the machine is faster with it: CUDA, and CPUs with AVX512-BF16 or AMX.
        device: "cpu" or "cuda".
        threads: CPU threads, 0 for all.
        seed: of the weights and of every draw.
    """

    views: Path
    folder: Path
    model: ModelConfig = field(default_factory=ModelConfig)
    start: Path | None = None
    total_images: int = 500_000
    batch: int = 32
    learning_rate: float = 8e-4
    warmup_steps: int = 200
    decay_fraction: float = 0.3
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    checkpoint_seconds: float = 120.0
    sheet_every: int = 2000
    half: bool = True
    device: str = "cpu"
    threads: int = 0
    seed: int = 0

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return -(-self.total_images // self.batch)


@dataclass(frozen=True)
class EvaluateConfig:
    """How many samples are drawn, and how.

    Attributes:
        pairs: random (caption, camera) pairs; the cameras are ones that training never saw.
        steps: DDIM steps a sample.
        guidance_scale: classifier-free guidance, ``uncond + scale (cond - uncond)``; 1 turns it off.
        batch: samples drawn together.
        seed: of the pairs and the noise.
    """

    pairs: int = 200
    steps: int = 20
    guidance_scale: float = 2.5
    batch: int = 20
    seed: int = 0
