"""The exact prior: a diffusion model whose data distribution is known, because it is a catalogue of meshes.

For a prompt, a camera and a background colour the clean images are distributed as

    p(x) = sum_k w_k N(x; m_k, s² I),   m_k = 2 * (rendering of model k over the background) - 1

with the weights w_k that the prompt gives the models and a small s. Noised to a level (alpha, sigma) it
stays a mixture, with means alpha m_k and variance v = alpha² s² + sigma², so the noise that a perfectly
trained network would predict is known at every level:

    r_k  ∝ w_k N(x_t; alpha m_k, v I)
    noise = sigma / v * (x_t - alpha sum_k r_k m_k)

Whatever guidance makes of this prior can be held against the truth.

Models may move: then the mixture runs over each model in each of some known motions, at the camera's time.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from studio.cameras import filmed, orbit
from studio.interfaces import Renderer
from studio.priors.catalogue import Catalogue
from studio.priors.mixture import Crowd, Mixture, Picture, composite
from studio.priors.motions import KnownMotion
from studio.priors.vocabulary import VIEWS, PromptMatch, View, Vocabulary
from studio.renderers.raster import MeshRenderer
from studio.schedule import NoiseSchedule
from studio.types import Cameras, Condition, Mesh, PromptEmbedding
from studio.view_prompts import Direction, direction_of

CameraMode = Literal["exact", "view_words", "none"]
NullModel = Literal["broad", "subset"]

DEFAULT_STD = 0.02
UNDECIDED_SIZE = 32
NULL_MODELS = 32
_RETRIEVAL_SIZE = 32
_CROWDS_KEPT = 512
_WORDS: dict[Direction, View] = {
    Direction.FRONT: "front",
    Direction.SIDE: "side",
    Direction.BACK: "back",
    Direction.OVERHEAD: "above",
}


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
    directions = map(direction_of, azimuth.tolist(), elevation.tolist())
    return orbit(azimuth, elevation, width, height), tuple(_WORDS[direction] for direction in directions)


@dataclass(frozen=True)
class Member:
    """One of the models that a prompt means.

    Attributes:
        entry: its index in the catalogue.
        motion: how it moves, or None where it stands still.
    """

    entry: int
    motion: KnownMotion | None = None


class _View(NamedTuple):
    """What tells two views apart: size, pose to 1e-5, intrinsics to 1e-3 pixels, time to 1e-6."""

    camera: Hashable
    time: float | None


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
class _Seen:
    """The views that one image's mixture runs over.

    Attributes:
        places: among the views at hand.
        shares: of each, summing to one.
    """

    places: Sequence[int]
    shares: Float[Tensor, "v"]

    def key(self, views: Sequence[_View]) -> Hashable:
        """What tells this set of views of models at rest from others."""
        return tuple(views[place].camera for place in self.places)


class LibraryPrior:
    """The exact prior over a catalogue. See the module's text for the distribution.

    The camera enters in one of three ways:

    * ``exact``: the models are drawn from each image's own camera;
    * ``view_words``: only words of the prompt ("back view") tell where from: the mixture runs over the models
      and over all fixed views of that word, as for a text-to-image model;
    * ``none``: the mixture runs over all fixed views.

    The last two have the Janus problem by construction. A condition without cameras is the camera-free
    branch: all fixed views, of models at rest.

    The unconditional branch is an approximation. ``broad``, the default, is a single Gaussian about the mean
    image of 32 models spread over the catalogue, seen from the same camera, as wide as their spread. Its
    score is weak near the modes, so classifier-free guidance sharpens early decisions and leaves the modes in
    place at low noise. ``subset`` is the mixture over these 32 models: exact for a smaller catalogue, but its
    modes repel a result whose own model is not among them. In both, its models stand still.

    Args:
        catalogue: the models.
        resolution: the image size for which the schedule is shifted; other sizes work as well.
        camera: how the camera enters.
        null: the unconditional branch.
        std: s, in units of [-1, 1]; 0.02 is 40 dB below the range.
        motions: the models do any of these, each as likely; none, and they stand still.
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
        motions: Sequence[KnownMotion] = (),
        renderer: Renderer[Mesh] | None = None,
        cache_bytes: int = 2**30,
    ) -> None:
        self.catalogue = catalogue
        self.vocabulary = Vocabulary(catalogue.entries)
        self.camera: CameraMode = camera
        self.null: NullModel = null
        self.std = std
        self.motions = tuple(motions)
        self._schedule = library_schedule(resolution)
        self._renderer: Renderer[Mesh] = MeshRenderer() if renderer is None else renderer
        self._pictures = _Cache(cache_bytes)
        self._crowds: dict[Hashable, Crowd] = {}
        self._mesh = lru_cache(maxsize=64)(lambda index: catalogue.entries[index].mesh())
        step = max(len(catalogue) / NULL_MODELS, 1.0)
        self._null_members = tuple(
            Member(int(place * step)) for place in range(min(NULL_MODELS, len(catalogue)))
        )

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

    def members(self, prompt: str, at_rest: bool = False) -> tuple[Member, ...]:
        """The models that a prompt means, each in each of its motions, or ``at_rest``.

        Raises:
            StudioError: the prompt names nothing in the catalogue.
        """
        return self._cast(self.match(prompt).members, at_rest)

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
        return torch.stack(
            [
                mixture.noise(x_t[row], float(alpha[row]), float(sigma[row]))
                for row, mixture in enumerate(self._mixtures(x_t, condition))
            ]
        )

    def log_density(
        self, x_t: Float[Tensor, "b 3 h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b"]:
        """The log of the noised density; ``predict_noise`` is -sigma times its gradient."""
        alpha, sigma = self.schedule.alpha_sigma(timesteps, torch.float64)
        return torch.stack(
            [
                mixture.log_density(x_t[row], float(alpha[row]), float(sigma[row]))
                for row, mixture in enumerate(self._mixtures(x_t, condition))
            ]
        )

    def responsibilities(
        self, x_t: Float[Tensor, "b 3 h w"], timesteps: Float[Tensor, "b"], condition: Condition
    ) -> Float[Tensor, "b n"]:
        """The posterior probability of each catalogue model given noisy images, summed over its views and
        motions.

        Raises:
            ValueError: the unconditional branch, which may have no models.
        """
        if not bool((condition.prompt.tokens[..., : len(self.catalogue)].sum(-1) > 0).all()):
            raise ValueError("responsibilities need a prompt that names some model")
        alpha, sigma = self.schedule.alpha_sigma(timesteps, torch.float64)
        rows = torch.zeros(len(x_t), len(self.catalogue), dtype=torch.float64, device=x_t.device)
        tokens = condition.prompt.expanded(len(x_t)).tokens
        for row, mixture in enumerate(self._mixtures(x_t, condition)):
            entries = tokens[row, 0, : len(self.catalogue)].nonzero().squeeze(1)
            found = mixture.responsibilities(x_t[row], float(alpha[row]), float(sigma[row]))
            rows[row, entries] = found.reshape(len(entries), -1).sum(1)
        return rows

    def load_models(self, prompt: str) -> None:
        """Read the meshes that a run of ``prompt`` draws: a damaged one is told of before anything begins.

        Raises:
            StudioError: a mesh cannot be read, or the prompt names nothing.
        """
        for entry in {*self.match(prompt).members, *(member.entry for member in self._null_members)}:
            self._mesh(entry)

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
        members = dict.fromkeys(self._null_members)
        for row in prompt.tokens[:, 0]:
            members |= dict.fromkeys(self._members(row, cameras.time is None)[0])
        views = cameras
        if self.camera != "exact":
            views, _ = fixed_views(cameras.width, cameras.height)
            if cameras.time is not None:
                views = filmed(views, torch.unique(cameras.time))
        for done, member in enumerate(members):
            self._draw({member: list(range(len(views)))}, views)
            if progress is not None:
                progress(done + 1, len(members))

    def true_renderings(
        self, prompt: str, cameras: Cameras, background: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "k b 3 h w"]:
        """What each of ``members`` looks like from each camera, in 0-1: the known truth.

        Without a time they are at rest.
        """
        members = self.members(prompt, at_rest=cameras.time is None)
        return torch.stack([self.images_of(member, cameras, background) for member in members])

    def nearest_entry(
        self, images: Float[Tensor, "b 3 h w"], cameras: Cameras, background: Float[Tensor, "b 3"]
    ) -> Retrieval:
        """The catalogue model that images from several cameras look most like, by vote of the views.

        Distances are between images averaged down to 32 pixels a side.
        """
        small = adaptive_avg_pool2d(images.detach().float().cpu(), _RETRIEVAL_SIZE)
        rows = []
        for index in range(len(self.catalogue)):
            truth = adaptive_avg_pool2d(self.images_of(Member(index), cameras, background), _RETRIEVAL_SIZE)
            rows.append((truth - small).square().mean((1, 2, 3)))
        distances = torch.stack(rows)
        votes = distances.argmin(0).tolist()
        counts = Counter(votes)
        most = max(counts.values())
        tied = [index for index, count in counts.items() if count == most]
        return Retrieval(min(tied, key=lambda index: float(distances[index].sum())), tuple(votes))

    def images_of(
        self, member: Member, cameras: Cameras, background: Float[Tensor, "b 3"]
    ) -> Float[Tensor, "b 3 h w"]:
        """One model's images in 0-1 from each camera over each background."""
        self._draw({member: list(range(len(cameras)))}, cameras)
        pictures = torch.stack([self._pictures[_key(member, view)].rgba for view in _views_of(cameras)])
        colors = background.cpu().to(torch.float32).expand(len(cameras), 3)
        return torch.stack(
            [
                (composite(picture[None], color)[0] + 1) / 2
                for picture, color in zip(pictures, colors, strict=True)
            ]
        )

    def _cast(self, entries: Sequence[int], at_rest: bool) -> tuple[Member, ...]:
        """Models, each in each of its motions, or at rest."""
        motions = (None,) if at_rest or not self.motions else self.motions
        return tuple(Member(entry, motion) for entry in entries for motion in motions)

    def _members(
        self, token: Float[Tensor, "d"], at_rest: bool
    ) -> tuple[tuple[Member, ...], Float[Tensor, "k"]]:
        """What a token gives a weight, and the weights, which sum to one; nothing for no prompt."""
        weights = token[: len(self.catalogue)].detach().double().cpu()
        entries = weights.nonzero().squeeze(1)
        members = self._cast(entries.tolist(), at_rest)
        if not members:
            return members, weights[entries]
        chosen = weights[entries].repeat_interleave(len(members) // len(entries))
        return members, chosen / chosen.sum()

    def _mixtures(self, x_t: Float[Tensor, "b 3 h w"], condition: Condition) -> Iterator[Mixture]:
        """For each image its clean distribution."""
        batch, _, height, width = x_t.shape
        tokens = condition.prompt.expanded(batch).tokens[:, 0]
        backgrounds = torch.ones(batch, 3) if condition.background is None else condition.background
        backgrounds = backgrounds.detach().to(x_t.device, x_t.dtype).expand(batch, 3)
        if self.camera == "exact" and condition.cameras is not None:
            views = condition.cameras.to("cpu").resized(width, height)
            seen = [_Seen([row], torch.ones(1, dtype=torch.float64)) for row in range(batch)]
        else:
            views, words = fixed_views(width, height)
            seen = [self._seen(token, words) for token in tokens]
            if condition.cameras is not None and condition.cameras.time is not None:
                times, instants = torch.unique(condition.cameras.time.to("cpu"), return_inverse=True)
                views = filmed(views, times)
                seen = [
                    _Seen([place * len(times) + instant for place in branch.places], branch.shares)
                    for branch, instant in zip(seen, instants.tolist(), strict=True)
                ]
        known, at_rest = _views_of(views), views.time is None
        members = [self._members(token, at_rest) for token in tokens]
        self._draw(self._needed([chosen for chosen, _ in members], seen, known), views)
        for row, (chosen, weights) in enumerate(members):
            yield self._mixture(chosen, weights, seen[row], known, backgrounds[row])

    def _needed(
        self, members: Sequence[Sequence[Member]], seen: Sequence[_Seen], views: Sequence[_View]
    ) -> dict[Member, list[int]]:
        """Which pictures the mixtures of a batch are made of: the places of the views, by model."""
        if len(self._crowds) >= _CROWDS_KEPT:
            self._crowds.clear()
        needed: dict[Member, list[int]] = {}
        for chosen, branch in zip(members, seen, strict=True):
            known = self.null == "broad" and branch.key(views) in self._crowds
            for member in chosen or (() if known else self._null_members):
                needed.setdefault(member, []).extend(branch.places)
        return needed

    def _mixture(
        self,
        members: Sequence[Member],
        weights: Float[Tensor, "k"],
        seen: _Seen,
        views: Sequence[_View],
        background: Float[Tensor, "3"],
    ) -> Mixture:
        """The clean distribution of one image, whose pictures are drawn."""
        if not members and self.null == "broad":
            crowd = self._crowd(seen, views)
            std = math.hypot(crowd.std_over(background), self.std)
            return Mixture([crowd.mean], torch.zeros(1, dtype=torch.float64), std, background)
        if not members:
            members = self._null_members
            weights = torch.full((len(members),), 1 / len(members), dtype=torch.float64)
        pictures = [self._pictures[_key(member, views[i])] for member in members for i in seen.places]
        log_weights = (weights[:, None] * seen.shares).log().reshape(-1)
        return Mixture(pictures, log_weights, self.std, background)

    def _seen(self, token: Float[Tensor, "d"], words: Sequence[View]) -> _Seen:
        """The fixed views that a branch without a camera runs over.

        Where words are what the prior goes by, each word's flag is shared by the views of that word.
        """
        flags = dict(zip(VIEWS, token[len(self.catalogue) :].tolist(), strict=True))
        if self.camera != "view_words" or not any(flags.values()):
            shares = torch.ones(len(words), dtype=torch.float64)
        else:
            shares = torch.tensor([flags[word] / words.count(word) for word in words], dtype=torch.float64)
        places = shares.nonzero().squeeze(1)
        return _Seen(places.tolist(), shares[places] / shares.sum())

    def _crowd(self, seen: _Seen, views: Sequence[_View]) -> Crowd:
        """The mean of the unconditional branch's models over some views."""
        key = seen.key(views)
        if key not in self._crowds:
            drawn = [_key(member, views[place]) for member in self._null_members for place in seen.places]
            self._crowds[key] = Crowd.of(torch.stack([self._pictures[key].rgba for key in drawn]))
        return self._crowds[key]

    def _draw(self, wanted: dict[Member, list[int]], views: Cameras) -> None:
        """Bring the pictures of some models from some of the views into the cache."""
        known = _views_of(views)
        self._pictures.trim()
        for member, places in wanted.items():
            # By time, then by key: one batch may hold a view twice, once for each branch.
            missing: dict[float | None, dict[Hashable, int]] = {}
            for place in places:
                key = _key(member, known[place])
                if key not in self._pictures:
                    time = None if member.motion is None else known[place].time
                    missing.setdefault(time, {})[key] = place
            for time, by_key in missing.items():
                drawn = self._drawn(member, time, views[list(by_key.values())])
                for key, picture in zip(by_key, drawn, strict=True):
                    self._pictures[key] = picture

    def _drawn(self, member: Member, time: float | None, views: Cameras) -> list[Picture]:
        mesh = self._mesh(member.entry)
        with torch.no_grad():
            if member.motion is not None and time is not None:
                mesh = member.motion.of(mesh, time)
            images = self._renderer(mesh, views, torch.zeros(len(views), 3))
        rgba = torch.cat([images.rgb, images.alpha], 1).clamp(0, 1).mul(255).round().byte().cpu()
        return [Picture.of(picture.clone()) for picture in rgba]


class _Cache:
    """Pictures by (model, view), the most recently used last."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._pictures: OrderedDict[Hashable, Picture] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._pictures

    def __getitem__(self, key: Hashable) -> Picture:
        self._pictures.move_to_end(key)
        return self._pictures[key]

    def __setitem__(self, key: Hashable, picture: Picture) -> None:
        assert key not in self._pictures
        self._pictures[key] = picture
        self._bytes += picture.rgba.nbytes

    def trim(self) -> None:
        """Drop the least recently used down to the limit. Apart from ``__setitem__``, so that what one call
        has drawn stays until that call is over."""
        while self._bytes > self._limit_bytes:
            _, picture = self._pictures.popitem(last=False)
            self._bytes -= picture.rgba.nbytes


def _key(member: Member, view: _View) -> Hashable:
    """What tells a model's pictures apart; the time only where it moves."""
    if member.motion is None or view.time is None:
        return member.entry, view.camera
    return member, view


def _views_of(cameras: Cameras) -> list[_View]:
    poses = (cameras.world_to_camera.double() * 1e5).round().to(torch.int64).reshape(len(cameras), -1)
    intrinsics = (cameras.intrinsics.double() * 1e3).round().to(torch.int64).reshape(len(cameras), -1)
    numbers = torch.cat([poses, intrinsics], 1).numpy()
    times = [None] * len(cameras) if cameras.time is None else cameras.time.tolist()
    return [
        _View((cameras.width, cameras.height, row.tobytes()), None if time is None else round(time, 6))
        for row, time in zip(numbers, times, strict=True)
    ]
