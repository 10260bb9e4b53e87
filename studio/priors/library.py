"""The exact prior: a diffusion model whose data distribution is known, because it is a catalogue of meshes.

For a prompt, a camera and a background colour the clean images are distributed as

    p(x) = sum_k w_k N(x; m_k, s² I),   m_k = 2 * (rendering of model k over the background) - 1

with the weights w_k that the prompt gives the models and a small s. Noised to a level (alpha, sigma) it
stays a mixture, with means alpha m_k and variance v = alpha² s² + sigma², so the noise that a perfectly
trained network would predict is known at every level:

    r_k  ∝ w_k N(x_t; alpha m_k, v I)
    noise = sigma / v * (x_t - alpha sum_k r_k m_k)

Whatever guidance makes of this prior can be held against the truth.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from studio.cameras import orbit
from studio.interfaces import Renderer
from studio.priors.catalogue import Catalogue
from studio.priors.vocabulary import VIEWS, PromptMatch, View, Vocabulary
from studio.renderers.raster import MeshRenderer
from studio.schedule import NoiseSchedule
from studio.types import Cameras, Condition, Mesh, PromptEmbedding

CameraMode = Literal["exact", "view_words", "none"]
NullModel = Literal["broad", "subset"]

DEFAULT_STD = 0.02
UNDECIDED_SIZE = 32
NULL_MODELS = 32
_MODES_AT_ONCE = 64
_RETRIEVAL_SIZE = 32


def library_schedule(resolution: int) -> NoiseSchedule:
    """The cosine schedule with sigma/alpha multiplied by resolution / 32.

    Averaged over a block of pixels, noise shrinks with the block's side, so the factor keeps the level at
    which the modes part the same at every resolution (Hoogeboom et al. 2023, "simple diffusion", eq. 4, with
    32 as the reference). At the top level nothing is decided: for two models whose renderings differ by d²
    summed over the pixels, the responsibilities' log-odds move by d² alpha² / (2 v), below 1e-3 there.
    """
    return NoiseSchedule.cosine().shifted(resolution / UNDECIDED_SIZE)


def fixed_views(width: int, height: int) -> tuple[Cameras, tuple[View, ...]]:
    """The views that stand for all views where the prior may not know the camera, and each one's word.

    Rings of twelve at elevations 0 and 30 and of six at 65. "Front" and "back" are the 90 degrees around
    azimuth 0 and 180 on the rings of twelve, "side" the rest of these, "above" the upper ring.
    """
    azimuth = torch.cat([torch.arange(12.0) * 30, torch.arange(12.0) * 30, torch.arange(6.0) * 60])
    elevation = torch.cat([torch.zeros(12), torch.full((12,), 30.0), torch.full((6,), 65.0)])
    words: list[View] = []
    for turn, height_deg in zip(azimuth.tolist(), elevation.tolist(), strict=True):
        from_front = abs((turn + 180) % 360 - 180)
        if height_deg > 60:
            words.append("above")
        else:
            words.append("front" if from_front < 45 else "back" if from_front > 135 else "side")
    return orbit(azimuth, elevation, width, height), tuple(words)


@dataclass(frozen=True)
class Retrieval:
    """Which catalogue model a set of images looks most like.

    Attributes:
        entry: the index with most votes; ties go to the smaller summed distance.
        votes: the nearest index in each view.
    """

    entry: int
    votes: tuple[int, ...]


@dataclass(frozen=True)
class _Mixture:
    """The clean images of one branch of one picture: isotropic Gaussians of one width.

    Attributes:
        pictures: what is at each mean: premultiplied rgba.
        log_weights: of each Gaussian.
        std: of all of them.
    """

    pictures: Sequence[Tensor]
    log_weights: Float[Tensor, "m"]
    std: float


@dataclass(frozen=True)
class _Crowd:
    """The mean of many pictures at one camera, and how far they spread about it.

    A model's image over a background b is p + t b with its premultiplied colour p and transmittance t, so its
    variance over any background follows from three moments, each averaged over the pixels.
    """

    mean: Float[Tensor, "4 h w"]
    color_variance: Float[Tensor, "3"]
    covariance: Float[Tensor, "3"]
    transmittance_variance: Float[Tensor, ""]

    @staticmethod
    def of(pictures: UInt8[Tensor, "k 4 h w"]) -> _Crowd:
        """The moments of some pictures."""
        values = pictures.double() / 255
        mean = values.mean(0)
        color, transmittance = values[:, :3] - mean[:3], mean[3] - values[:, 3]
        return _Crowd(
            mean=(mean * 255).float(),
            color_variance=color.square().mean((0, 2, 3)),
            covariance=(color * transmittance[:, None]).mean((0, 2, 3)),
            transmittance_variance=transmittance.square().mean(),
        )

    def std_over(self, background: Float[Tensor, "3"]) -> float:
        """The root mean square distance of an image's values, in [-1, 1], from the mean image's."""
        color = background.detach().cpu().double()
        variance = (
            self.color_variance + 2 * color * self.covariance + color.square() * self.transmittance_variance
        )
        return 2 * math.sqrt(float(variance.mean()))


class LibraryPrior:
    """The exact prior over a catalogue. See the module's text for the distribution.

    The camera enters in one of three ways:

    * ``exact``: the models are drawn from each image's own camera;
    * ``view_words``: only words of the prompt ("back view") tell where from: the mixture runs over the models
      and over all fixed views of that word, as for a text-to-image model;
    * ``none``: the mixture runs over all fixed views.

    The last two have the Janus problem by construction. A condition without cameras is the camera-free
    branch: all fixed views.

    The unconditional branch is an approximation. ``broad``, the default, is a single Gaussian about the mean
    image of 32 models spread over the catalogue, seen from the same camera, as wide as their spread. Its
    score is weak near the modes, so classifier-free guidance sharpens early decisions and leaves the modes in
    place at low noise. ``subset`` is the mixture over these 32 models: exact for a smaller catalogue, but its
    modes repel a result whose own model is not among them.

    Args:
        catalogue: the models.
        resolution: the image size for which the schedule is shifted; other sizes work as well.
        camera: how the camera enters.
        null: the unconditional branch.
        std: s, in units of [-1, 1]; 0.02 is 40 dB below the range.
        renderer: what draws the models.
        cache_bytes: how much the cached renderings may take; the least recently used go first.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        resolution: int = 128,
        camera: CameraMode = "exact",
        null: NullModel = "broad",
        std: float = DEFAULT_STD,
        renderer: Renderer[Mesh] | None = None,
        cache_bytes: int = 2**30,
    ) -> None:
        self.catalogue = catalogue
        self.vocabulary = Vocabulary(catalogue.entries)
        self.camera: CameraMode = camera
        self.null: NullModel = null
        self.std = std
        self._schedule = library_schedule(resolution)
        self._renderer: Renderer[Mesh] = MeshRenderer() if renderer is None else renderer
        self._pictures = _Cache(cache_bytes)
        self._crowds: dict[Hashable, _Crowd] = {}
        self._mesh = lru_cache(maxsize=64)(lambda index: catalogue.entries[index].mesh())
        step = max(len(catalogue) / NULL_MODELS, 1.0)
        self._null_members = tuple(int(place * step) for place in range(min(NULL_MODELS, len(catalogue))))

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels, see ``library_schedule``."""
        return self._schedule

    def match(self, prompt: str) -> PromptMatch:
        """The models that a prompt to be generated means.

        Raises:
            StudioError: the prompt names nothing in the catalogue.
        """
        return self.vocabulary.match_something(prompt)

    def encode_prompts(self, prompts: Sequence[str]) -> PromptEmbedding:
        """One token a prompt: the weight of each model, then a flag for each of front, side, back, above.

        A prompt that names nothing (empty, or of quality words alone like many negative prompts) has weights
        of zero and is the unconditional branch. What could not be used is warned of.
        """
        rows = torch.zeros(len(prompts), 1, len(self.catalogue) + len(VIEWS))
        for row, prompt in zip(rows, prompts, strict=True):
            if not prompt.strip():
                continue
            match = self.vocabulary.match(prompt)
            for message in match.warnings:
                warnings.warn(message, stacklevel=2)
            row[0, : len(self.catalogue)] = torch.tensor(match.weights)
            for view in match.views:
                row[0, len(self.catalogue) + VIEWS.index(view)] = 1.0
        return PromptEmbedding(rows)

    def encode_images(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Images in 0-1 to [-1, 1]."""
        return 2 * rgb - 1

    def decode_images(self, x: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """The inverse of ``encode_images``."""
        return (x + 1) / 2

    def predict_noise(
        self, x_t: Float[Tensor, "b 3 h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b 3 h w"]:
        """The posterior mean of the noise in ``x_t``, in closed form. Without a background it is white."""
        alpha, sigma = self.schedule.alpha_sigma(timesteps, torch.float64)
        noise = []
        for row, mixture, background in self._mixtures(x_t, condition):
            level = float(alpha[row]), float(sigma[row])
            noise.append(_mixture_noise(x_t[row], *level, mixture, background))
        return torch.stack(noise)

    def log_density(
        self, x_t: Float[Tensor, "b 3 h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b"]:
        """The log of the noised density; ``predict_noise`` is -sigma times its gradient."""
        alpha, sigma = self.schedule.alpha_sigma(timesteps, torch.float64)
        densities = []
        for row, mixture, background in self._mixtures(x_t, condition):
            level = float(alpha[row]), float(sigma[row])
            logits = torch.cat([chunk for chunk, _ in _logits(x_t[row], *level, mixture, background)])
            variance = level[0] ** 2 * mixture.std**2 + level[1] ** 2
            normaliser = 0.5 * x_t[row].numel() * math.log(2 * math.pi * variance)
            densities.append(torch.logsumexp(logits, 0) - normaliser)
        return torch.stack(densities)

    def responsibilities(
        self, x_t: Float[Tensor, "b 3 h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b n"]:
        """The posterior probability of each catalogue model given noisy images, summed over its views.

        Raises:
            ValueError: the unconditional branch, which may have no models.
        """
        if not bool((condition.prompt.tokens[..., : len(self.catalogue)].sum(-1) > 0).all()):
            raise ValueError("responsibilities need a prompt that names some model")
        alpha, sigma = self.schedule.alpha_sigma(timesteps, torch.float64)
        rows = torch.zeros(len(x_t), len(self.catalogue), dtype=torch.float64, device=x_t.device)
        tokens = condition.prompt.expanded(len(x_t)).tokens
        for row, mixture, background in self._mixtures(x_t, condition):
            members, _ = self._members(tokens[row, 0])
            level = float(alpha[row]), float(sigma[row])
            logits = torch.cat([chunk for chunk, _ in _logits(x_t[row], *level, mixture, background)])
            per_model = logits.softmax(0).reshape(len(members), -1).sum(1)
            rows[row, members] = per_model
        return rows

    def load_models(self, prompt: str) -> None:
        """Read the meshes that a run of ``prompt`` draws: a damaged one is told of before anything begins.

        Raises:
            StudioError: a mesh cannot be read, or the prompt names nothing.
        """
        for index in {*self.match(prompt).members, *self._null_members}:
            self._mesh(index)

    def warm(
        self,
        prompt: PromptEmbedding,
        cameras: Cameras,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Draw ahead what ``prompt`` and the unconditional branch need for ``cameras``.

        Args:
            prompt: the embeddings that a run will use.
            cameras: the views that it will use, at the size of its images.
            progress: told (models drawn, models in all).
        """
        members = set(self._null_members)
        for row in prompt.tokens[:, 0]:
            members.update(self._members(row)[0])
        size = cameras.width, cameras.height
        views = cameras if self.camera == "exact" else fixed_views(*size)[0]
        for done, index in enumerate(sorted(members)):
            self._draw({index: list(range(len(views)))}, views)
            if progress is not None:
                progress(done + 1, len(members))

    def true_renderings(
        self, prompt: str, cameras: Cameras, background: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "k b 3 h w"]:
        """What each model that the prompt means looks like from each camera, in 0-1: the known truth."""
        members = self.match(prompt).members
        return torch.stack([self._images(index, cameras, background) for index in members])

    def nearest_entry(
        self, images: Float[Tensor, "b 3 h w"], cameras: Cameras, background: Float[Tensor, "b 3"]
    ) -> Retrieval:
        """The catalogue model that images from several cameras look most like, by vote of the views.

        Distances are between images averaged down to 32 pixels a side.
        """
        small = adaptive_avg_pool2d(images.detach().float().cpu(), _RETRIEVAL_SIZE)
        rows = []
        for index in range(len(self.catalogue)):
            truth = adaptive_avg_pool2d(self._images(index, cameras, background), _RETRIEVAL_SIZE)
            rows.append((truth - small).square().mean((1, 2, 3)))
        distances = torch.stack(rows)
        votes = distances.argmin(0).tolist()
        counts = Counter(votes)
        most = max(counts.values())
        tied = [index for index, count in counts.items() if count == most]
        return Retrieval(min(tied, key=lambda index: float(distances[index].sum())), tuple(votes))

    def _images(
        self, index: int, cameras: Cameras, background: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "b 3 h w"]:
        """One model's images in 0-1 from each camera over each background."""
        self._draw({index: list(range(len(cameras)))}, cameras)
        pictures = torch.stack([self._pictures[index, key] for key in _view_keys(cameras)])
        colors = background.cpu().to(torch.float32).expand(len(cameras), 3)
        return torch.stack(
            [
                (_composite(picture[None], color)[0] + 1) / 2
                for picture, color in zip(pictures, colors, strict=True)
            ]
        )

    def _members(self, token: Float[Tensor, "d"]) -> tuple[list[int], Float[Tensor, "k"]]:
        """The models with a weight in a token, and their weights, which sum to one; none for no prompt."""
        weights = token[: len(self.catalogue)].detach().double().cpu()
        members = weights.nonzero().squeeze(1)
        chosen = weights[members]
        return members.tolist(), chosen / chosen.sum() if len(members) else chosen

    def _mixtures(
        self, x_t: Float[Tensor, "b 3 h w"], condition: Condition
    ) -> Iterator[tuple[int, _Mixture, Float[Tensor, "3"]]]:
        """For each image its row, its clean distribution and its background."""
        batch, _, height, width = x_t.shape
        tokens = condition.prompt.expanded(batch).tokens[:, 0]
        backgrounds = torch.ones(batch, 3) if condition.background is None else condition.background
        backgrounds = backgrounds.detach().to(x_t.device, x_t.dtype).expand(batch, 3)
        by_camera = self.camera == "exact" and condition.cameras is not None
        if by_camera:
            assert condition.cameras is not None
            views = condition.cameras.to("cpu").resized(width, height)
        else:
            views, words = fixed_views(width, height)
        keys = _view_keys(views)

        jobs: list[tuple[list[int], Float[Tensor, "k"], list[int], Float[Tensor, "v"]]] = []
        missing: dict[int, list[int]] = {}
        for row in range(batch):
            members, weights = self._members(tokens[row])
            places, shares = ([row], [1.0]) if by_camera else self._views(tokens[row], words)
            jobs.append((members, weights, places, torch.tensor(shares, dtype=torch.float64)))
            needs_crowd = not members and self._crowd_key(places, keys) not in self._crowds
            drawn = members or (self._null_members if self.null == "subset" or needs_crowd else ())
            for index in drawn:
                missing.setdefault(index, []).extend(places)
        self._draw(missing, views)

        for row, (members, weights, places, shares) in enumerate(jobs):
            if not members and self.null == "broad":
                crowd = self._crowd(places, keys)
                std = math.hypot(crowd.std_over(backgrounds[row]), self.std)
                yield row, _Mixture([crowd.mean], torch.zeros(1, dtype=torch.float64), std), backgrounds[row]
                continue
            chosen, of_each = members, weights
            if not members:
                chosen = list(self._null_members)
                of_each = torch.full((len(chosen),), 1 / len(chosen), dtype=torch.float64)
            pictures = [self._pictures[index, keys[place]] for index in chosen for place in places]
            log_weights = (of_each[:, None] * shares).log().reshape(-1)
            yield row, _Mixture(pictures, log_weights, self.std), backgrounds[row]

    def _views(self, token: Float[Tensor, "d"], words: Sequence[View]) -> tuple[list[int], list[float]]:
        """Which of the fixed views a branch without a camera runs over, and each one's share.

        Where words are what the prior goes by, each word's flag is shared by the views of that word.
        """
        flags = dict(zip(VIEWS, token[len(self.catalogue) :].tolist(), strict=True))
        total = sum(flags.values())
        if self.camera != "view_words" or total <= 0:
            return list(range(len(words))), [1 / len(words)] * len(words)
        places = [place for place, word in enumerate(words) if flags[word] > 0]
        return places, [flags[words[place]] / words.count(words[place]) / total for place in places]

    def _crowd_key(self, places: Sequence[int], keys: Sequence[Hashable]) -> Hashable:
        return tuple(keys[place] for place in places)

    def _crowd(self, places: Sequence[int], keys: Sequence[Hashable]) -> _Crowd:
        """The mean of the unconditional branch's models over some views."""
        key = self._crowd_key(places, keys)
        if key not in self._crowds:
            pictures = [
                self._pictures[index, keys[place]] for index in self._null_members for place in places
            ]
            self._crowds[key] = _Crowd.of(torch.stack(pictures))
        return self._crowds[key]

    def _draw(self, wanted: dict[int, list[int]], views: Cameras) -> None:
        """Bring the pictures of some models from some of the views into the cache."""
        keys = _view_keys(views)
        black = torch.zeros(1, 3)
        self._pictures.trim()
        for index, places in wanted.items():
            # By key: one batch may hold a camera twice, once for each branch.
            by_key = {keys[place]: place for place in places if (index, keys[place]) not in self._pictures}
            missing = list(by_key.values())
            if not missing:
                continue
            with torch.no_grad():
                drawn = self._renderer(self._mesh(index), views[missing], black.expand(len(missing), 3))
            rgba = torch.cat([drawn.rgb, drawn.alpha], 1).clamp(0, 1).mul(255).round().byte().cpu()
            for place, picture in zip(missing, rgba, strict=True):
                self._pictures[index, keys[place]] = picture.clone()


class _Cache:
    """Pictures by (model, view), the most recently used last."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._pictures: OrderedDict[Hashable, UInt8[Tensor, "4 h w"]] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._pictures

    def __getitem__(self, key: Hashable) -> UInt8[Tensor, "4 h w"]:
        self._pictures.move_to_end(key)
        return self._pictures[key]

    def __setitem__(self, key: Hashable, picture: UInt8[Tensor, "4 h w"]) -> None:
        assert key not in self._pictures
        self._pictures[key] = picture
        self._bytes += picture.nbytes

    def trim(self) -> None:
        """Drop the least recently used down to the limit. Apart from ``__setitem__``, so that what one call
        has drawn stays until that call is over."""
        while self._bytes > self._limit_bytes:
            _, picture = self._pictures.popitem(last=False)
            self._bytes -= picture.nbytes


def _view_keys(cameras: Cameras) -> list[Hashable]:
    """What tells two views apart: size, pose to 1e-5 and intrinsics to 1e-3 pixels."""
    poses = (cameras.world_to_camera.double() * 1e5).round().to(torch.int64).reshape(len(cameras), -1)
    intrinsics = (cameras.intrinsics.double() * 1e3).round().to(torch.int64).reshape(len(cameras), -1)
    numbers = torch.cat([poses, intrinsics], 1).numpy()
    return [(cameras.width, cameras.height, row.tobytes()) for row in numbers]


def _composite(pictures: Tensor, background: Float[Tensor, "3"]) -> Float[Tensor, "k 3 h w"]:
    """Premultiplied rgba pictures in 0-255 over a colour in 0-1, as values in [-1, 1]."""
    values = pictures.to(background.device, background.dtype)
    transmittance = 255 - values[:, 3:]
    color = (background * (2 / 255))[None, :, None, None]
    return values[:, :3].mul(2 / 255).addcmul_(transmittance, color).sub_(1)


def _logits(
    x_t: Float[Tensor, "3 h w"],
    alpha: float,
    sigma: float,
    mixture: _Mixture,
    background: Float[Tensor, "3"],
) -> Iterator[tuple[Float[Tensor, "k"], Float[Tensor, "k d"]]]:
    """Unnormalised log responsibilities of the mixture's Gaussians and their means, some at a time.

    Distances are summed from differences, not from expanded squares, so nothing cancels; they are taken in
    units of the clean image, |x_t / alpha - m|, which spares scaling every mean.
    """
    clean_scale = (x_t / alpha).reshape(1, -1)
    precision = alpha**2 / (alpha**2 * mixture.std**2 + sigma**2)
    for start in range(0, len(mixture.pictures), _MODES_AT_ONCE):
        chosen = slice(start, start + _MODES_AT_ONCE)
        means = _composite(torch.stack(list(mixture.pictures[chosen])), background).flatten(1)
        distances = torch.cdist(clean_scale, means, compute_mode="donot_use_mm_for_euclid_dist")[0].double()
        log_weights = mixture.log_weights[chosen].to(x_t.device)
        yield log_weights - 0.5 * precision * distances.square(), means


def _mixture_noise(
    x_t: Float[Tensor, "3 h w"],
    alpha: float,
    sigma: float,
    mixture: _Mixture,
    background: Float[Tensor, "3"],
) -> Float[Tensor, "3 h w"]:
    """The noise prediction of one image: the module's formula, with the softmax kept as running sums."""
    best = torch.tensor(-math.inf, dtype=torch.float64, device=x_t.device)
    total = torch.zeros((), dtype=torch.float64, device=x_t.device)
    mean = torch.zeros(x_t.numel(), dtype=x_t.dtype, device=x_t.device)
    for logits, means in _logits(x_t, alpha, sigma, mixture, background):
        new_best = torch.maximum(best, logits.max())
        rescale, shares = (best - new_best).exp(), (logits - new_best).exp()
        mean = mean * rescale.to(x_t.dtype) + shares.to(x_t.dtype) @ means
        total = total * rescale + shares.sum()
        best = new_best
    mean = (mean / total.to(x_t.dtype)).reshape(x_t.shape)
    variance = alpha**2 * mixture.std**2 + sigma**2
    return (x_t - alpha * mean) * (sigma / variance)
