"""A small denoiser trained from nothing while a run lasts, for priors that have no network of their own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from studio.cameras import CAMERA_FEATURES, camera_features
from studio.errors import StudioError
from studio.schedule import NoiseSchedule
from studio.types import Condition

WIDTH = 48
SQUARE = 4
"""Pixels along the side of a cell: squares of pixels become channels, so that a step stays cheap."""
_COARSER = 4
_DATA_STD = 0.5
_WAVES = 6


class SmallDenoiser:
    """A few residual convolutions at two scales, told the noise level and the camera.

    It is no text-to-image model: it begins with random weights, ignores the prompt (a run has one), and has
    only the run's own renders to learn from, which is all that a critic is for. Before it has learned
    anything it predicts as for a Gaussian of standard deviation 0.5 around zero (preconditioning of Karras et
    al. 2022, table 1).

    Args:
        schedule: the prior's; images have three channels and sides that are multiples of ``SQUARE``.
        rng: its seed draws the first weights.
    """

    def __init__(self, schedule: NoiseSchedule, rng: torch.Generator) -> None:
        self._schedule = schedule
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(rng.initial_seed())
            self._network = _Network(3 * SQUARE**2)

    def parameters(self) -> Mapping[str, nn.Parameter]:
        """All weights."""
        return dict(self._network.named_parameters())

    def predict_noise(
        self, x_t: Float[Tensor, "b c h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b c h w"]:
        """The noise in ``x_t``; without cameras, for any view.

        Raises:
            StudioError: the images have another shape than it can take.
        """
        if x_t.shape[1] != 3 or x_t.shape[2] % SQUARE or x_t.shape[3] % SQUARE:
            raise StudioError(
                f"the critic was given images of shape {tuple(x_t.shape)}; expected 3 channels and sides "
                f"that are multiples of {SQUARE}, try another resolution"
            )
        network = self._network.to(x_t.device)
        exact = x_t.to(torch.promote_types(x_t.dtype, torch.float32))
        alpha, sigma = self._schedule.alpha_sigma(timesteps, exact.dtype)
        ratio = sigma / alpha
        spread = (ratio**2 + _DATA_STD**2).sqrt()
        camera = exact.new_zeros(len(exact), CAMERA_FEATURES)
        if condition.cameras is not None:
            camera = camera_features(condition.cameras).to(camera)
        answer = network(
            functional.pixel_unshuffle(exact / alpha / spread, SQUARE).float(),
            ratio.log().flatten(1).float(),
            camera.float(),
        )
        answer = functional.pixel_shuffle(answer, SQUARE).to(exact.dtype)
        clean = (_DATA_STD / spread) ** 2 * exact / alpha + ratio * _DATA_STD / spread * answer
        return ((exact - alpha * clean) / sigma).to(x_t.dtype)


class _Network(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(2 * _WAVES + CAMERA_FEATURES, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU()
        )
        self.enter = nn.Conv2d(channels + 4 * 2, WIDTH, 3, padding=1)
        self.first = _Block(WIDTH)
        self.widen = nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1)
        self.coarse = nn.ModuleList([_Block(2 * WIDTH), _Block(2 * WIDTH)])
        self.narrow = nn.Conv2d(2 * WIDTH, WIDTH, 1)
        self.last = _Block(WIDTH)
        self.leave = nn.Conv2d(WIDTH, channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(
        self, cells: Float[Tensor, "b c h w"], log_ratio: Float[Tensor, "b 1"], camera: Float[Tensor, "b 13"]
    ) -> Float[Tensor, "b c h w"]:
        waves = log_ratio * 2.0 ** torch.arange(_WAVES, device=cells.device) / 4
        told = self.embed(torch.cat([waves.sin(), waves.cos(), camera], dim=1))
        x = self.first(self.enter(torch.cat([cells, _places(cells)], dim=1)), told)
        size = x.shape[-2:]
        below = functional.interpolate(x, [max(1, side // _COARSER) for side in size], mode="area")
        below = self.widen(below)
        for block in self.coarse:
            below = block(below, told)
        below = functional.interpolate(self.narrow(below), size, mode="bilinear")
        result: Tensor = self.leave(self.last(x + below, told))
        return result


class _Block(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))) scaled and shifted by what it is told)); at first x."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.told = nn.Linear(WIDTH, 2 * width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.norms = nn.ModuleList([nn.GroupNorm(8, width), nn.GroupNorm(8, width)])
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b c h w"], told: Float[Tensor, "b d"]) -> Float[Tensor, "b c h w"]:
        scale, shift = self.told(told)[:, :, None, None].chunk(2, dim=1)
        before, after = self.norms
        inner = after(self.first(functional.silu(before(x)))) * (1 + scale) + shift
        change: Tensor = self.second(functional.silu(inner))
        return x + change


def _places(cells: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 8 h w"]:
    """Where in the image each cell is: a convolution alone would not know."""
    batch, _, height, width = cells.shape
    rows = (torch.arange(height, device=cells.device) + 0.5) / height
    columns = (torch.arange(width, device=cells.device) + 0.5) / width
    waves = [
        wave(frequency * torch.pi * places)
        for places in (rows[:, None].expand(height, width), columns[None].expand(height, width))
        for frequency in (1, 2)
        for wave in (torch.sin, torch.cos)
    ]
    return torch.stack(waves).expand(batch, -1, -1, -1)
