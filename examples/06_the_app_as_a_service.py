"""A program has a running app make an asset, and fetches its mesh; start the app with ``make app``."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import httpx
import tyro
from gradio_client import Client


def main(
    prompt: str = "a teddy bear",
    preset: str = "draft",
    url: str = "http://127.0.0.1:7860",
    file: Path = Path("asset.glb"),
) -> Path:
    """Submit, wait, fetch. The header is a secret of this program's own; it says whose the job is."""
    mine = {"X-Studio-Client": secrets.token_urlsafe(24)}
    client = Client(url, headers=mine, verbose=False)
    job = client.predict(prompt=prompt, preset=preset, api_name="/submit")
    while job["state"] in ("queued", "running"):
        print(f"job {job['id']}: {job['state']}, step {job['step']} of {job['total_steps']}")
        time.sleep(1)
        job = client.predict(number=job["id"], api_name="/job")
    if job["state"] != "finished":
        raise SystemExit(f"job {job['id']} is {job['state']}: {job['reason']}")
    wanted = file.suffix.removeprefix(".")
    if wanted not in job["files"]:
        client.predict(number=job["id"], wanted=wanted, api_name="/export")
    answer = httpx.get(f"{url}/jobs/{job['id']}/{wanted}", headers=mine, timeout=60)
    file.write_bytes(answer.raise_for_status().content)
    print(file)
    return file


if __name__ == "__main__":
    tyro.cli(main)
