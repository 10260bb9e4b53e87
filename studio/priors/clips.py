"""The exact motion prior: a diffusion model of clips whose distribution is known, because it is one drawing
in known gestures.

For a prompt, the clean clips of ``t`` frames are distributed as

    p(x) = sum_k w_k N(x; m_k, s² I),   m_k = 2 * (the drawing in performance k over the background) - 1

over all frames together, with the weights w_k that the prompt gives the performances. Noised, each frame to
its own level (alpha_f, sigma_f), it stays a mixture, with v_f = alpha_f² s² + sigma_f²:

    r_k  ∝ w_k exp(-sum_f |x_f - alpha_f m_kf|² / 2 v_f)
    noise_f = sigma_f / v_f * (x_f - alpha_f sum_k r_k m_kf)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from studio.cameras import frame_times, front
from studio.clipart.gestures import GESTURES, Performance, gestures_in, performances
from studio.clipart.puppet import Puppet
from studio.errors import StudioError
from studio.interfaces import Limits
from studio.priors.library import library_schedule
from studio.renderers.cutouts import CutoutRenderer
from studio.schedule import NoiseSchedule
from studio.types import Condition, PromptEmbedding

DEFAULT_STD = 0.02


@dataclass(frozen=True)
class Likeness:
    """The performance that a clip looks most like.

    Attributes:
        performance: which.
        psnr_db: of the clip to it, over white.
    """

    performance: Performance
    psnr_db: float


class ClipPrior:
    """The exact prior over one drawing's gestures: implements ``Prior`` and ``LimitedPrior``.

    Args:
        puppet: the drawing.
        frames: of a clip, evenly spaced from time 0 to time 1.
        resolution: of the pictures that its noise levels are made for, in pixels.
        std: of the Gaussian around each clip, per pixel, in the prior's -1 to 1.
        reach: factor of how far the gestures go.
    """

    def __init__(
        self, puppet: Puppet, frames: int, resolution: int, std: float = DEFAULT_STD, reach: float = 1.0
    ) -> None:
        self.frames = frames
        self.std = std
        self.performances = tuple(
            performance for gesture in GESTURES for performance in performances(gesture, reach)
        )
        self._puppet = puppet
        self._schedule = library_schedule(resolution)
        self._clips: dict[tuple[int, int], UInt8[Tensor, "k t 4 h w"]] = {}

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels."""
        return self._schedule

    @property
    def limits(self) -> Limits:
        """It is asked for whole clips."""
        return Limits(frames=self.frames)

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbedding:
        """The weight of each performance, in one token; the empty prompt weighs all alike.

        Raises:
            StudioError: nothing in a prompt is like a motion.
        """
        rows = []
        for prompt in prompts:
            meant = gestures_in(prompt) if prompt.strip() else GESTURES
            kinds = [performance.gesture for performance in self.performances]
            rows.append([float(kind in meant) / kinds.count(kind) for kind in kinds])
        weights = torch.tensor(rows)
        return PromptEmbedding((weights / weights.sum(1, keepdim=True))[:, None])

    def encode_images(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """From 0-1 to -1 to 1."""
        return 2 * rgb - 1

    def decode_images(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """From -1 to 1 to 0-1."""
        return ((x + 1) / 2).clamp(0, 1)

    def predict_noise(
        self, x_t: Float[Tensor, "b 3 h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b 3 h w"]:
        """The noise in clips that come one after the other, each frame at its own level.

        Raises:
            StudioError: pictures that are no whole clips.
        """
        batch, _, height, width = x_t.shape
        if batch % self.frames:
            raise StudioError(
                f"{batch} pictures came; the motion prior expected clips of {self.frames} frames. Use "
                f"instants.kind = 'clip' with count = {self.frames}."
            )
        weights = condition.prompt.expanded(batch).tokens[:: self.frames, 0].to(x_t)
        behind = x_t.new_ones(batch, 3) if condition.background is None else condition.background.to(x_t)
        alpha, sigma = self.schedule.alpha_sigma(timesteps, x_t.dtype)
        variance = (alpha * self.std).square() + sigma.square()
        clean = torch.empty_like(x_t)
        for clip, weight in enumerate(weights):
            rows = slice(clip * self.frames, (clip + 1) * self.frames)
            chosen = weight.nonzero().squeeze(1)
            means = self._means(chosen, behind.expand(batch, 3)[rows], height, width).to(x_t)
            apart = (x_t[rows] - alpha[rows] * means).square() / (2 * variance[rows])
            logits = weight[chosen].double().log() - apart.flatten(1).double().sum(1)
            clean[rows] = torch.einsum("k,kfchw->fchw", logits.softmax(0).to(x_t), means)
        return (x_t - alpha * clean) * (sigma / variance)

    def nearest(self, clip: Float[Tensor, "t 3 h w"]) -> Likeness:
        """The performance that a clip over white looks most like."""
        every = torch.arange(len(self.performances))
        truths = (self._means(every, torch.ones(len(clip), 3), *clip.shape[2:]) + 1) / 2
        errors = (truths - clip.detach().cpu()).square().mean((1, 2, 3, 4))
        best = int(errors.argmin())
        return Likeness(self.performances[best], float(-10 * errors[best].clamp_min(1e-10).log10()))

    def _means(
        self, chosen: Tensor, background: Float[Tensor, "t 3"], height: int, width: int
    ) -> Float[Tensor, "k t 3 h w"]:
        """Clips of performances over a background for each frame, in -1 to 1."""
        rgba = self._drawn(height, width)[chosen.cpu()].to(background) / 255
        rgb = rgba[:, :, :3] + (1 - rgba[:, :, 3:]) * background[:, :, None, None]
        return 2 * rgb - 1

    def _drawn(self, height: int, width: int) -> UInt8[Tensor, "k t 4 h w"]:
        """All performances, premultiplied."""
        if (height, width) not in self._clips:
            times, rest = frame_times(self.frames).tolist(), self._puppet.keypoints
            camera, black = front(width, height), torch.zeros(1, 3)
            renderer, clips = CutoutRenderer(), []
            with torch.no_grad():
                for performance in self.performances:
                    keypoints = torch.stack([performance(rest, time) for time in times])
                    seen = [renderer(cutout, camera, black) for cutout in self._puppet.posed(keypoints)]
                    clips.append(torch.cat([torch.cat([each.rgb, each.alpha], 1) for each in seen]))
            pixels = torch.stack(clips).clamp(0, 1).mul(255).round().byte()
            self._clips[height, width] = pixels.cpu()
        return self._clips[height, width]
