"""What a CLIP network says of pictures: how near their prompt is, and whether no other text is nearer.

The network is Radford et al. 2021, arXiv:2103.00020. The score is Hessel et al. 2021, arXiv:2104.08718, times
100 instead of 2.5. R-precision is as in Dream Fields (Jain et al. 2022, arXiv:2112.01455): the share of views
whose own prompt is nearer than all other texts of a pool. Figures of different networks or pools cannot be
compared.

Nothing is downloaded here: the network is a folder or lies in the hub's cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from studio.errors import StudioError
from studio.export.images import to_pixels
from studio.priors.library import LibraryPrior
from studio.priors.weights import cached, is_hub_id, missing_file

USUAL_NETS = (
    "openai/clip-vit-large-patch14",
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-base-patch16",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
)
"""What is taken unasked where the hub's cache has it, the first that is there: all have an MIT licence."""

_AT_ONCE = 64


class Clip:
    """A CLIP network with its tokenizer and its image processor.

    Args:
        folder: in transformers' layout: a ``CLIPModel`` in safetensors, a tokenizer and a processor.
        name: what it is called on a page.

    Raises:
        StudioError: the folder lacks one of them, or holds another kind of network.
    """

    def __init__(self, folder: Path, name: str, device: torch.device | str = "cpu") -> None:
        from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer, CLIPModel

        self.name = name
        try:
            kind = AutoConfig.from_pretrained(folder).model_type
            if kind != "clip":
                raise StudioError(f"{folder} holds a {kind} network; expected a CLIPModel of transformers.")
            model = CLIPModel.from_pretrained(folder, use_safetensors=True)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            self._processor: Any = AutoImageProcessor.from_pretrained(folder)
        except (OSError, ValueError, KeyError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
            raise StudioError(
                f"{folder} cannot be read as a CLIP network ({reason}); expected a CLIPModel in safetensors, "
                "its tokenizer and its preprocessor_config.json."
            ) from error
        self._device = torch.device(device)
        self._model: Any = model.eval().requires_grad_(False).to(self._device)

    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit vectors, on the CPU. What is longer than the network's context is cut."""
        length = self._model.config.text_config.max_position_embeddings
        found = []
        for start in range(0, len(texts), _AT_ONCE):
            tokens = self._tokenizer(
                list(texts[start : start + _AT_ONCE]),
                padding=True,
                truncation=True,
                max_length=length,
                return_tensors="pt",
            ).to(self._device)
            pooled = self._model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            found.append(self._model.text_projection(pooled))
        return torch.nn.functional.normalize(torch.cat(found), dim=-1).cpu()

    def embed_images(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit vectors of images in 0-1, on the CPU; the network's processor resizes them."""
        pixels = self._processor(images=list(to_pixels(rgb.cpu())), return_tensors="pt")["pixel_values"]
        pooled = self._model.vision_model(pixel_values=pixels.to(self._device)).pooler_output
        return torch.nn.functional.normalize(self._model.visual_projection(pooled), dim=-1).cpu()


def clip_at_hand(source: str | None, device: torch.device | str = "cpu") -> Clip | None:
    """The network in a folder or of a hub id; by default the first of the usual ones that the cache has.

    Raises:
        StudioError: what was asked for is not on this machine, or is no CLIP network.
    """
    if source is None:
        for name in USUAL_NETS:
            if (found := cached(name)) is not None and missing_file(found) is None:
                # Others keep parts of these networks there, or pickled weights: that is no reason to stop.
                with contextlib.suppress(StudioError):
                    return Clip(found, name.split("/")[1], device)
        return None
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Clip(folder, folder.resolve().name, device)
    found = cached(source) if is_hub_id(source) else None
    if found is None:
        wanted = source if is_hub_id(source) else USUAL_NETS[0]
        raise StudioError(
            f"There is no CLIP network {source} on this machine; expected a folder, or a hub id in the "
            f"cache. Try: hf download {wanted} --include '*.json' '*.txt' 'model*.safetensors'"
        )
    return Clip(found, source.split("/")[1], device)


@dataclass(frozen=True)
class Pool:
    """The texts that a view's own prompt is told from: what they are called, and the others."""

    name: str
    others: tuple[str, ...]


def pool_of(prompt: str, prompts: Sequence[str], prior: object) -> Pool:
    """The catalogue's nouns that the prompt does not mean; without the exact prior the compared prompts."""
    if not isinstance(prior, LibraryPrior):
        return Pool("the compared prompts", tuple(other for other in prompts if other != prompt))
    entries = prior.catalogue.entries
    meant = {entries[member].noun for member in prior.match(prompt).members}
    nouns = sorted({entry.noun for entry in entries} - meant)
    return Pool(
        "the catalogue's nouns", tuple(f"{'an' if noun[0] in 'aeio' else 'a'} {noun}" for noun in nouns)
    )


@dataclass(frozen=True)
class Judge:
    """A network that knows a prompt's vector and those of the other texts."""

    clip: Clip
    pool: Pool
    prompt: Float[Tensor, "d"]
    others: Float[Tensor, "n d"]

    @staticmethod
    def of(clip: Clip, prompt: str, pool: Pool) -> Judge:
        """The texts are read once, for any number of pictures."""
        vectors = clip.embed_texts([prompt, *pool.others])
        return Judge(clip, pool, vectors[0], vectors[1:])

    def figures(self, rgb: Float[Tensor, "b 3 h w"]) -> dict[str, float]:
        """Score, 0-100, and where there are other texts the R-precision, 0-1, over views in 0-1."""
        return clip_figures(self.clip.embed_images(rgb), self.prompt, self.others)


def clip_figures(
    views: Float[Tensor, "b d"], prompt: Float[Tensor, "d"], others: Float[Tensor, "n d"]
) -> dict[str, float]:
    """The same of unit vectors: ``100 mean max(cos, 0)``, and the share of views with no nearer text."""
    own = views @ prompt
    figures = {"clip_score": 100 * float(own.clamp_min(0).mean())}
    if len(others):
        figures["clip_r_precision"] = float((own > (views @ others.T).amax(1)).float().mean())
    return figures
