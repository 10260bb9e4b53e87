"""Training of the learned prior: a loop that can be stopped at any moment and goes on bit for bit.

Every draw is named by (seed, purpose, step), so a checkpoint is the weights, their average, the optimiser's
moments and the step.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from studio.cameras import camera_features, orbit
from studio.errors import StudioError
from studio.priors.families import StableDiffusion
from studio.priors.latent import LatentPrior
from studio.priors.text import ClipTextEmbedder
from studio.priors.training.config import TrainConfig
from studio.priors.training.data import Batch, TrainingViews, draw_batch, load_views
from studio.priors.training.evaluate import DdimSampler, sample_sheet, save_png
from studio.priors.training.model import (
    PREDICTION,
    TextToImageModel,
    codec_of,
    load_weights,
    save_model,
    schedule_of,
)
from studio.randomness import generator

CHECKPOINT = "checkpoint.safetensors"
MODEL = "model"


@dataclass(frozen=True)
class TrainReport:
    """One step, as the caller sees it.

    Attributes:
        step, total_steps: steps done and to do in all.
        loss: mean squared error of the clean image, in -1 to 1.
        images_per_second: over the steps since training (re)started.
        eta_seconds: time left at that pace.
        sheet: a sample sheet that this step wrote, or None.
    """

    step: int
    total_steps: int
    loss: float
    images_per_second: float
    eta_seconds: float
    sheet: Path | None = None


def train(config: TrainConfig) -> Iterator[TrainReport]:
    """Train, step by step. Closing the iterator, like reaching the end, leaves a checkpoint.

    Beside each checkpoint the averaged weights are written to ``folder / MODEL``, which ``--prior`` takes.

    Raises:
        StudioError: when the views are missing, or the checkpoint is of another model or not readable.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    views = load_views(config.views)
    trainer = Trainer(config, views)
    if not trainer.resume() and config.start is not None:
        trainer.start_from(config.start)
    started, first, saved = time.monotonic(), trainer.step, time.monotonic()
    try:
        while trainer.step < config.total_steps:
            loss = trainer.advance()
            sheet = None
            if config.sheet_every and trainer.step % config.sheet_every == 0:
                sheet = trainer.write_sheet()
            if time.monotonic() - saved > config.checkpoint_seconds:
                trainer.save()
                saved = time.monotonic()
            done = trainer.step - first
            seconds_a_step = (time.monotonic() - started) / done
            yield TrainReport(
                step=trainer.step,
                total_steps=config.total_steps,
                loss=loss,
                images_per_second=config.batch / seconds_a_step,
                eta_seconds=(config.total_steps - trainer.step) * seconds_a_step,
                sheet=sheet,
            )
    finally:
        trainer.save()


class Trainer:
    """The running state of one training: weights, their average, the optimiser and the step."""

    def __init__(self, config: TrainConfig, views: TrainingViews) -> None:
        self.config, self.views, self.step = config, views, 0
        from diffusers.models.attention_processor import AttnProcessor

        # The weights' first values come from the seed, whatever was drawn before.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = TextToImageModel(config.model, views.words)
            self.average = TextToImageModel(config.model, views.words)
        self.model.to(config.device)
        self.average.to(config.device).requires_grad_(False)
        self.average.load_state_dict(self.model.state_dict())
        if torch.device(config.device).type == "cpu":
            # On a CPU the backward of torch's fused attention is slower than two matrix products.
            self.model.unet.set_attn_processor(AttnProcessor())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=config.weight_decay, fused=True
        )
        self.schedule = schedule_of(config.model)
        self.half = config.half and _half_is_faster(torch.device(config.device))

    def start_from(self, folder: Path) -> None:
        """Take the weights of a trained model.

        Raises:
            StudioError: when the folder holds none, or one of another shape.
        """
        load_weights(self.model, folder)
        self.average.load_state_dict(self.model.state_dict())

    def advance(self) -> float:
        """One step; the loss before it."""
        config = self.config
        rng = generator(config.seed, "train", self.step)
        batch = draw_batch(self.views, config.batch, rng)
        loss = self._loss(batch, rng)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for averaged, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
                averaged.lerp_(current, 1 - decay)
        self.step += 1
        return float(loss.detach())

    def _loss(self, batch: Batch, rng: torch.Generator) -> Float[Tensor, ""]:
        device, schedule, size = self.config.device, self.schedule, len(batch.captions)
        x = codec_of(self.config.model).encode(batch.rgb)
        noise = torch.randn(x.shape, generator=rng)
        # One level in each of as many equal intervals as there are images: less variance than free draws.
        levels = (torch.arange(size) + torch.rand(size, generator=rng)) / size
        timesteps = levels * (len(schedule) - 1)
        x_t = schedule.add_noise(x, noise, timesteps)
        image_size = self.config.model.image_size
        cameras = orbit(batch.azimuth_deg, batch.elevation_deg, image_size, image_size)
        camera = camera_features(cameras) * batch.has_camera[:, None]
        tokens = self.model.tokenize(batch.captions)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=self.half):
            output = self.model(x_t.to(device), timesteps.to(device), tokens.to(device), camera.to(device))
        return functional.mse_loss(output.float(), x.to(device))

    def prior(self) -> LatentPrior:
        """The averaged weights as a prior; it sees later steps too."""
        average = self.average.eval()
        text = ClipTextEmbedder(average.tokenizer, average.text_encoder)
        return LatentPrior(
            average.unet,
            codec_of(self.config.model),
            text,
            self.schedule,
            PREDICTION,
            family=StableDiffusion(uses_camera=True),
        )

    def export(self, folder: Path, dtype: torch.dtype = torch.float16) -> None:
        """Write the averaged weights as a folder that `studio.priors.latent` loads."""
        save_model(self.average, self.config.model, folder, dtype)

    def write_sheet(self) -> Path:
        """Draw some of the captions from four sides."""
        nouns = self.views.nouns
        captions = [f"a {noun}" for noun in nouns[:: max(len(nouns) // 12, 1)][:12]]
        sampler = DdimSampler(self.prior(), steps=20, guidance_scale=2.0)
        size = self.config.model.image_size
        sheet = sample_sheet(sampler, captions, size, generator(self.config.seed, "sheet"))
        path = self.config.folder / f"samples-{self.step:07d}.png"
        save_png(sheet, path)
        return path

    def save(self) -> None:
        """Write the checkpoint; a crash while writing leaves the one before."""
        from safetensors.torch import save_file

        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        names = [name for name, _ in self.model.named_parameters()]
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{key}.{names[index]}": value for key, value in moments.items()}
        folder = self.config.folder
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{CHECKPOINT}.part"
        metadata = {"step": str(self.step), "recipe": self._recipe()}
        save_file({name: value.contiguous() for name, value in tensors.items()}, part, metadata)
        os.replace(part, folder / CHECKPOINT)
        self.export(folder / MODEL)

    def resume(self) -> bool:
        """Go on from the checkpoint in the folder; False when there is none.

        Raises:
            StudioError: it is damaged, or of another training.
        """
        from safetensors import SafetensorError, safe_open

        path = self.config.folder / CHECKPOINT
        if not path.exists():
            return False
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError) as error:
            raise StudioError(
                f"{path} cannot be read ({error}); delete it to train from the beginning."
            ) from error
        if metadata["recipe"] != self._recipe():
            raise StudioError(
                f"{path} was trained with {metadata['recipe']}, but {self._recipe()} was asked for; "
                "use the same model, views and seed, or another folder."
            )

        def part(prefix: str) -> dict[str, Tensor]:
            return {
                name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
            }

        self.model.load_state_dict(part("model."))
        self.average.load_state_dict(part("average."))
        moments = {key: part(f"{key}.") for key in ("step", "exp_avg", "exp_avg_sq")}
        state = {
            index: {key: _laid_out_like(values[name], parameter) for key, values in moments.items()}
            for index, (name, parameter) in enumerate(self.model.named_parameters())
            if name in moments["step"]
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step = int(metadata["step"])
        return True

    def _recipe(self) -> str:
        """What must not change between a checkpoint and its continuation."""
        fixed = {"model": asdict(self.config.model), "words": self.views.words, "seed": self.config.seed}
        return json.dumps(fixed, sort_keys=True)


def learning_rate(config: TrainConfig, step: int) -> float:
    """Linear warm-up, constant, then linear to zero: until it falls, the total may still be changed."""
    decay_steps = max(config.decay_fraction * config.total_steps, 1.0)
    rising, falling = (step + 1) / max(config.warmup_steps, 1), (config.total_steps - step) / decay_steps
    return config.learning_rate * min(1.0, rising, falling)


def _laid_out_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy in the parameter's memory order, in which the fused optimiser pairs the two."""
    return torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value


def _half_is_faster(device: torch.device) -> bool:
    if device.type == "cuda":
        return True
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
