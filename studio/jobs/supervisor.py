"""Keeps a worker at work on each device of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_LOOK_EVERY_S = 0.5
_LONGEST_PAUSE_S = 60.0
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Device:
    """What one worker computes on.

    Attributes:
        name: for people to read.
        visible: the CUDA device's number, or None for the CPU.
    """

    name: str
    visible: int | None = None

    def environment(self) -> dict[str, str]:
        """The variables of a process that sees this device and no other."""
        visible = "" if self.visible is None else str(self.visible)
        return {**os.environ, "CUDA_VISIBLE_DEVICES": visible}


def devices() -> tuple[Device, ...]:
    """Every GPU, or the CPU where there is none."""
    # Not above: the app's server and a batch's driver compute nothing themselves.
    import torch

    if not torch.cuda.is_available():
        return (Device("cpu"),)
    return tuple(Device(f"cuda {number}", number) for number in range(torch.cuda.device_count()))


class Supervisor:
    """One worker process a device, from ``with`` to its end; one that dies is started again.

    Args:
        workspace: whose queue they work on.
        devices: by default all that this machine has.
    """

    def __init__(self, workspace: Path, devices: tuple[Device, ...] | None = None) -> None:
        self._workspace = workspace
        self._devices = devices
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Supervisor:
        for device in devices() if self._devices is None else self._devices:
            thread = threading.Thread(target=self._keep, args=(device,), name=f"keeper of {device.name}")
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _keep(self, device: Device) -> None:
        pause = 1.0
        while not self._stop.is_set():
            started = time.monotonic()
            worker = self._started(device)
            while worker.poll() is None and not self._stop.wait(_LOOK_EVERY_S):
                pass
            if self._stop.is_set():
                _ended(worker)
                return
            # One that dies at once, again and again, is started ever more seldom.
            pause = 1.0 if time.monotonic() - started > _PATIENCE_S else min(2 * pause, _LONGEST_PAUSE_S)
            self._stop.wait(pause)

    def _started(self, device: Device) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "studio.cli", "jobs", "work", "--with-parent"]
        return subprocess.Popen(  # noqa: S603  (no word of it comes from a user)
            [*command, "--workspace", str(self._workspace.resolve())],
            env=device.environment(),
            stdin=subprocess.DEVNULL,
        )


def _ended(worker: subprocess.Popen[bytes]) -> None:
    """Politely, so that it saves its run; then not."""
    worker.terminate()
    try:
        worker.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
