"""What a step of guidance costs beside its denoiser, method by method, as ratios within one run.

Every method is asked for gradients over a whole run's progress. Time in the denoiser is measured by hooks on
the network, and so are the images that go through it; the way back through it (a critic's training, losses
through the networks) counts with it, as does what a critic adds to its layers. What is left is the step's
own: noise levels, noise, combination, the encoder, a critic's optimiser. Times on a CPU are of the process,
which a busy machine disturbs less. ::

    python benchmarks/guidance.py                              # the learned prior
    python benchmarks/guidance.py --size sd15 --methods sds,vsd --images 1 --steps 1

``sd15`` is a U-Net of Stable Diffusion 1.5's size with random weights, at 512², with a small autoencoder.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

from studio.cameras import orbit
from studio.errors import StudioError
from studio.evaluate.compare import method_kinds, method_of_kind
from studio.guidance.methods import asks_critic, build_guidance, descends_through_prior, negative_prompts
from studio.priors.codecs import Autoencoder
from studio.priors.latent import LatentPrior, load_latent_prior
from studio.randomness import generator
from studio.recipes.guidance import GuidanceConfig
from studio.run.build_prior import small_prior_folder
from studio.schedule import NoiseSchedule, Prediction
from studio.types import Conditioning, PromptEmbedding
from studio.view_prompts import ViewPrompts

PROMPT = "a teddy bear"
TOKENS, TOKEN_WIDTH = 77, 768


@dataclass(frozen=True)
class GuidanceBenchmark:
    """Times methods."""

    size: Literal["small", "sd15"] = "small"
    """The learned prior that ships with the studio, or a U-Net of Stable Diffusion 1.5's size."""
    methods: str = "all"
    """Which, such as sds,vsd,ism."""
    images: int = 4
    """A step's batch."""
    steps: int = 4
    """Steps to measure, spread over a run's progress, after one to warm up."""
    threads: int = 1
    """Of the CPU."""


def main() -> None:
    """Print the table."""
    args = tyro.cli(GuidanceBenchmark, description=__doc__)
    warnings.simplefilter("ignore")  # Of words that the small model does not know: they cost the same.
    torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    prior = small_prior(device) if args.size == "small" else sd15_prior(device)
    weights = sum(parameter.numel() for parameter in prior.denoiser.parameters())
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "transformers"))
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{args.threads} thread(s)"
    print(f"{libraries}, python {platform.python_version()}; {platform.machine()}, {where}")
    print(f"{args.size}: {weights / 1e6:.1f} M weights, {args.images} images a step, {args.steps} steps\n")
    print(
        "| method | step ms | denoiser ms | rest ms | rest / denoiser | calls an image | stated | peak MiB |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    kinds = method_kinds() if args.methods == "all" else args.methods.split(",")
    for kind in kinds:
        try:
            cost = measured(method_of_kind(kind), prior, args.images, args.steps, device)
        except StudioError as error:
            print(f"| {kind} | {error} | | | | | | |", flush=True)
            continue
        print(cost.row(kind, args.images), flush=True)


@dataclass(frozen=True)
class Cost:
    """Means over the steps.

    Attributes:
        step, denoiser: seconds.
        images: that the hooks saw in a step, one number a step.
        stated: what the guidance's own output says, one number a step.
        peak_bytes: of the GPU, or of the process on Linux, above what was held before the guidance was built;
            None elsewhere.
    """

    step: float
    denoiser: float
    images: tuple[int, ...]
    stated: tuple[int, ...]
    peak_bytes: int | None

    def row(self, kind: str, batch: int) -> str:
        """A line of the table."""
        rest = self.step - self.denoiser
        peak = "" if self.peak_bytes is None else f"{self.peak_bytes / 2**20:.0f}"
        return (
            f"| {kind} | {1000 * self.step:.1f} | {1000 * self.denoiser:.1f} | {1000 * rest:.1f} "
            f"| {rest / self.denoiser:.1%} | {_spread(self.images, batch)} | {_spread(self.stated, batch)} "
            f"| {peak} |"
        )


def _spread(counts: Sequence[int], batch: int) -> str:
    least, most = min(counts) / batch, max(counts) / batch
    return f"{least:g}" if least == most else f"{least:g}–{most:g}"


def measured(
    method: GuidanceConfig, prior: LatentPrior, batch: int, steps: int, device: torch.device
) -> Cost:
    """What a method costs.

    Raises:
        StudioError: the prior cannot serve it.
    """
    if descends_through_prior(method):
        prior = replace(prior, differentiable=True)
    held = begin_peak(device)
    guidance = build_guidance(method, prior)
    conditioning = conditioning_of(method, prior, batch, device)
    size = prior.codec.image_size if isinstance(prior.codec, Autoencoder) else 64
    rgb = torch.rand(batch, 3, size, size, generator=generator(0, "renders")).to(device)
    meter = Meter(prior.denoiser, device)
    times, images, stated = [], [], []
    for step in range(steps + 1):
        progress = (step - 1) / steps if step > 0 else 0.0
        rng = generator(0, "guidance", step, device)
        renders = rgb.clone().requires_grad_()
        with meter.counting() as reading:
            began = meter.now()
            output = guidance(renders, conditioning, progress, rng)
            whole = meter.now() - began
        if step == 0:
            continue
        times.append((whole, reading.seconds))
        images.append(reading.images)
        stated.append(output.denoiser_calls)
    peak = None if held is None else peak_memory(device) - held
    whole, inside = (sum(column) / steps for column in zip(*times, strict=True))
    return Cost(whole, inside, tuple(images), tuple(stated), peak)


def begin_peak(device: torch.device) -> int | None:
    """Forget the peak so far; bytes that are held now, None where there is no way to know."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        ctypes.CDLL(None).malloc_trim(0)  # What the method before has freed does not count as held.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # See proc(5).
    except (OSError, AttributeError):
        return None
    return _of_process("VmRSS")


def peak_memory(device: torch.device) -> int:
    """The most bytes held since ``begin_peak``."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _of_process("VmHWM")


def _of_process(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def conditioning_of(
    method: GuidanceConfig, prior: LatentPrior, batch: int, device: torch.device
) -> Conditioning:
    """The branches that a run would hand to the method, for views all around."""
    prompts = ViewPrompts(
        prior,
        PROMPT,
        negatives=negative_prompts(method),
        perp_neg=method.scores.perp_neg != 0.0,
        plain=asks_critic(method),
    )
    azimuth = torch.arange(batch) * (360.0 / batch)
    cameras = orbit(azimuth, torch.full_like(azimuth, 15.0), 64, 64).to(device)
    return prompts(cameras, torch.ones(batch, 3, device=device))


@dataclass
class Reading:
    """What the hooks saw."""

    seconds: float = 0.0
    images: int = 0


class Meter:
    """Time and images that go through a network, forwards, and time backwards."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = network
        self._device = device

    def now(self) -> float:
        """Seconds: of the process on a CPU, of the clock once the GPU is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            return time.perf_counter()
        return time.process_time()

    @contextlib.contextmanager
    def counting(self) -> Iterator[Reading]:
        """Reads while the block runs. Within a step of guidance, every way back leads through a network."""
        reading = Reading()
        began = 0.0
        grad = torch.autograd.grad

        def before(_: nn.Module, args: tuple[Any, ...]) -> None:
            nonlocal began
            began = self.now()
            reading.images += len(args[0])

        def after(_: nn.Module, __: tuple[Any, ...], ___: object) -> None:
            reading.seconds += self.now() - began

        def timed(*args: Any, **options: Any) -> tuple[Tensor, ...]:
            start = self.now()
            found = grad(*args, **options)
            reading.seconds += self.now() - start
            return found

        handles = [
            self._network.register_forward_pre_hook(before),
            self._network.register_forward_hook(after),
        ]
        torch.autograd.grad = timed  # type: ignore[assignment]
        try:
            yield reading
        finally:
            torch.autograd.grad = grad
            for handle in handles:
                handle.remove()


def small_prior(device: torch.device) -> LatentPrior:
    """The learned prior that ships with the studio."""
    return load_latent_prior(str(small_prior_folder()), device)


def sd15_prior(device: torch.device) -> LatentPrior:
    """Stable Diffusion 1.5's U-Net with random weights; its autoencoder has the ratio, not the width."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    torch.manual_seed(0)
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=TOKEN_WIDTH).to(device, dtype)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        norm_num_groups=4,
    ).to(device, dtype)
    return LatentPrior(
        unet.eval().requires_grad_(False),
        Autoencoder(vae.eval().requires_grad_(False), 512, 0.18215, 0.0),
        RandomText(device),
        NoiseSchedule.scaled_linear(),
        Prediction.EPSILON,
    )


@dataclass(frozen=True)
class RandomText:
    """Tokens of Stable Diffusion's size that mean nothing."""

    device: torch.device

    def __call__(self, prompts: Sequence[str]) -> PromptEmbedding:
        """One row for each prompt."""
        return PromptEmbedding(
            torch.stack(
                [torch.randn(TOKENS, TOKEN_WIDTH, generator=generator(0, prompt)) for prompt in prompts]
            ).to(self.device)
        )


if __name__ == "__main__":
    main()
