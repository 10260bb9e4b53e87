"""How much the queue takes and how fast it answers; how soon the app is there, and what it costs a run.

``python benchmarks/jobs.py`` prints a line for each figure; those of the app want a Chromium.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
from playwright.sync_api import BrowserContext, sync_playwright

from studio.jobs.queue import Queue, State
from studio.recipes.load import load

SUBMISSIONS, LISTED, REPEATS = 200, 10_000, 5
MINE = {"x-studio-client": "benchmark" * 4}
TABLE = b"prompt,preset,stages.0.resolution,preview_every\na teddy bear,default,64,25\n"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def submissions_per_second(workspace: Path) -> float:
    """Jobs a second, one by one, each safe on the disk before the next comes."""
    queue, recipe = Queue(workspace), load("draft", "a teddy bear")
    began = time.perf_counter()
    for seed in range(SUBMISSIONS):
        queue.submit([replace(recipe, seed=seed)])
    return SUBMISSIONS / (time.perf_counter() - began)


def listing_seconds(workspace: Path) -> float:
    """The least of several lists of many jobs."""
    queue, recipe = Queue(workspace), load("draft", "a teddy bear")
    queue.submit([recipe] * LISTED)

    def once() -> float:
        began = time.perf_counter()
        assert len(queue.jobs()) == LISTED
        return time.perf_counter() - began

    return min(once() for _ in range(REPEATS))


@contextlib.contextmanager
def served(workspace: Path) -> Iterator[tuple[str, psutil.Process]]:
    """The app with its worker: the address at which it answers, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "studio.cli", "app", "--port", str(port), "--workspace", str(workspace)]
    server, url = subprocess.Popen(command), f"http://127.0.0.1:{port}/"
    try:
        while True:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(url, timeout=5)
                break
            time.sleep(0.1)
        yield url, psutil.Process(server.pid)
    finally:
        server.terminate()
        server.wait()


def first_paint_seconds(context: BrowserContext, url: str) -> float:
    """From asking a server that is up to the first text on the screen, and until the form is there."""
    page = context.new_page()
    page.goto(url)
    page.locator("#create").wait_for()
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1000
    page.close()
    return float(paint)


def watched(
    context: BrowserContext, url: str, workspace: Path, server: psutil.Process
) -> tuple[list[float], float]:
    """A run that somebody watches: how long each preview took from the disk to the page, in seconds, and the
    server's processor time as a share of the worker's."""
    queue = Queue(workspace)
    tag = httpx.post(f"{url}batches", content=TABLE, headers=MINE).raise_for_status().text
    (job,) = queue.jobs(tag=tag)
    page = context.new_page()
    page.goto(f"{url}watch?job={job.id}")
    page.locator("#preview img").wait_for(timeout=300_000)
    (worker,) = server.children()
    began, delays, seen = (_busy(server), _busy(worker)), [], ""
    while (job := queue.job(job.id)).state is State.RUNNING and job.step < job.total_steps:
        source = page.locator("#preview img").get_attribute("src") or ""
        name = source.rpartition("?")[2]
        if seen and name != seen:
            delays.append(time.time() - (job.folder / "previews" / name).stat().st_mtime)
        seen = name
        time.sleep(0.02)
    return delays, (_busy(server) - began[0]) / (_busy(worker) - began[1])


def _busy(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Prints the figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"{submissions_per_second(folder / 'a'):.0f} submissions/s, one by one, each on the disk")
        print(f"{1000 * listing_seconds(folder / 'b'):.0f} ms to list {LISTED} jobs")
        if CHROMIUM is None:
            print("There is no Chromium here: nothing is known of the app.")
            return
        with served(folder / "c") as (url, server), sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            context = browser.new_context(extra_http_headers=MINE)
            paints = [first_paint_seconds(context, url) for _ in range(REPEATS)]
            print(f"{paints[0]:.2f} s to the first paint, {min(paints):.2f} s once the browser knows the app")
            delays, share = watched(context, url, folder / "c", server)
            print(
                f"{min(delays):.2f} to {max(delays):.2f} s from a preview's file to the page ({len(delays)})"
            )
            print(f"{share:.1%} of the worker's processor time goes to showing its run to one page")
            browser.close()


if __name__ == "__main__":
    main()
