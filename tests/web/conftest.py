"""A real server on a port of its own, with its worker, and a browser that is headless Chromium."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.conftest import CUBE, QUICK_RECIPE

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Server:
    """``studio app`` as a process."""

    workspace: Path
    url: str
    words: list[str]
    process: subprocess.Popen[bytes]

    @classmethod
    def started(cls, workspace: Path, *options: str | Path) -> Server:
        """One on a port of its own; it answers on return."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [sys.executable, "-m", "studio.cli", "app", "--workspace", str(workspace)]
        words += ["--port", str(port), *map(str, options)]
        server = cls(workspace, f"http://127.0.0.1:{port}/", words, subprocess.Popen(words))
        server.wait()
        return server

    def kill(self) -> None:
        """As a power cut would: the server, and with it whoever listened."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        """Bring it up again as it was."""
        self.process = subprocess.Popen(self.words)
        self.wait()

    def wait(self) -> None:
        """Return once it answers."""
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(self.url, timeout=5).read()  # noqa: S310  (our own server)
                return
            assert self.process.poll() is None and time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)


Start = Callable[..., Server]


@pytest.fixture(scope="module")
def offered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick recipe with a prior of two cubes, as a preset of whoever starts the app."""
    folder = tmp_path_factory.mktemp("offered")
    models = folder / "models"
    models.mkdir()
    (models / "red.obj").write_text(CUBE.format(name="red"))
    (models / "red.mtl").write_text("newmtl paint\nKd 0.8 0.1 0.1\n")
    (models / "captions.txt").write_text("red.obj: a red cube\n")
    recipe = folder / "quick.toml"
    # Long enough to be stopped by hand; the prior is a path of whoever starts the app.
    text = QUICK_RECIPE.replace("steps = 4", "steps = 400").replace("preview_every = 2", "preview_every = 20")
    text += "mesh_faces = 300\ntexture_size = 64\n"
    lines = f"prior = {{ kind = 'library', folder = '{models}' }}\n{text.partition(chr(10))[2]}"
    recipe.write_text(f'base = "default"\n{lines}')
    return recipe


@pytest.fixture(scope="module")
def start(offered: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts servers that offer the quick recipe, and stops them in the end."""
    servers = []

    def start(*options: str | Path) -> Server:
        servers.append(Server.started(tmp_path_factory.mktemp("workspace"), "--preset", offered, *options))
        return servers[-1]

    yield start
    for server in servers:
        server.process.terminate()
        server.process.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    if CHROMIUM is None:
        pytest.fail("There is no Chromium here; try: apt-get install chromium")
    with sync_playwright() as playwright:
        # Chromium's sandbox wants privileges that containers lack; it shows our own pages only.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
