"""How much the queue takes and how fast it answers; how soon the app is there, and what it costs a run.

``python benchmarks/jobs.py`` prints a line for each figure; those of the app want a Chromium.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import psutil
from playwright.sync_api import BrowserContext, sync_playwright

from studio.jobs.queue import Job, Queue
from studio.recipes.load import load
from studio.run.events import EventLog

SUBMISSIONS, LISTED, REPEATS = 200, 10_000, 5
MINE = {"x-studio-client": "benchmark" * 4}
STEPS, BLOCK, IDLE_S = 700, 20, 20.0
"""Of the run that is watched; each block has a preview, two lines of events and nothing else to write."""
TABLE = (
    "prompt,preset,steps,stages.0.resolution,preview_every,checkpoint_every\n"
    f"a teddy bear,default,{STEPS},64,{BLOCK},10000\n"
).encode()
PAGE_ASKS_EVERY_S = 0.7
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


@dataclass(frozen=True)
class Watched:
    """What it costs to have a run watched by one page.

    Attributes:
        delays_s: how long each preview took from the disk to the page.
        share: the server's processor time beside the worker's.
        browser_share: the browser's.
        step_ratios: the time of some steps with the app beside that of their neighbours without it.
    """

    delays_s: list[float]
    share: float
    browser_share: float
    step_ratios: list[float]


def idle_share(server: psutil.Process) -> float:
    """The processor time of a server that nobody asks anything, beside that of a core."""
    began = _busy(server)
    time.sleep(IDLE_S)
    return (_busy(server) - began) / IDLE_S


def watched(context: BrowserContext, url: str, workspace: Path, server: psutil.Process) -> Watched:
    """Has a run watched, in its second half in every other block of steps: the app is frozen in between."""
    queue, job = Queue(workspace), _submitted(url, workspace)
    page = context.new_page()
    page.goto(f"{url}watch?job={job.id}")
    page.locator("#preview img").wait_for(timeout=300_000)
    (worker,) = server.children()
    began, delays, seen = (_busy(server), _busy(worker), _browser_busy()), [], ""
    while queue.job(job.id).step < STEPS // 2:
        source = page.locator("#preview img").get_attribute("src") or ""
        name = source.rpartition("?")[2]
        if seen and name != seen:
            delays.append(time.time() - (job.folder / "previews" / name).stat().st_mtime)
        seen = name
        time.sleep(0.02)
    now = _busy(server), _busy(worker), _browser_busy()
    shown, made, drawn = (after - before for before, after in zip(began, now, strict=True))
    ratios = step_ratios(EventLog(job.folder / "events.jsonl"), server)
    page.close()
    return Watched(delays, shown / made, drawn / made, ratios)


def polled(url: str, workspace: Path, server: psutil.Process) -> list[float]:
    """``step_ratios`` of a run whose server is asked what a page asks, by a program that draws nothing."""
    job, over = _submitted(url, workspace), threading.Event()
    asking = threading.Thread(target=_ask_as_a_page_does, args=(url, job.id, over))
    asking.start()
    log = EventLog(job.folder / "events.jsonl")
    while not (job.folder.is_dir() and any(event["event"] == "step" for event in log.read())):
        time.sleep(0.1)
    try:
        return step_ratios(log, server)
    finally:
        over.set()
        asking.join()


def _submitted(url: str, workspace: Path) -> Job:
    tag = httpx.post(f"{url}batches", content=TABLE, headers=MINE).raise_for_status().text
    (job,) = Queue(workspace).jobs(tag=tag)
    return job


def _ask_as_a_page_does(url: str, number: int, over: threading.Event) -> None:
    etag, shown = "", ""
    with httpx.Client(headers=MINE, timeout=60) as client:
        while not over.wait(PAGE_ASKS_EVERY_S):
            # A server that was frozen lets go of connections.
            with contextlib.suppress(httpx.TransportError):
                answer = client.get(f"{url}watched?job={number}", headers={"if-none-match": etag})
                if answer.status_code == httpx.codes.OK:
                    etag, preview = answer.headers["etag"], answer.json()["parts"]["preview"]
                    if preview != shown:
                        client.get(f"{url}jobs/{number}/preview")
                    shown = preview


def step_ratios(log: EventLog, server: psutil.Process) -> list[float]:
    """The time of a run's steps beside that of their neighbours, in which the server is frozen."""
    try:
        blocks = list(_blocks(log, server))
    finally:
        server.resume()
    neighbours = zip(blocks[1::2], blocks[::2], blocks[2::2], strict=False)
    return [2 * shown / (before + after) for shown, before, after in neighbours]


def _blocks(log: EventLog, server: psutil.Process) -> Iterator[float]:
    """The seconds that each block of steps took; the server is frozen in the first and every other one."""
    first, frozen, since = _last_step(log)[0], False, 0.0
    first += BLOCK - first % BLOCK
    for end in range(first, STEPS - BLOCK, BLOCK):
        while (last := _last_step(log))[0] < end:
            time.sleep(0.01)
        if frozen or since:
            yield last[1] - since
        frozen, since = not frozen, last[1]
        (server.suspend if frozen else server.resume)()


def _last_step(log: EventLog) -> tuple[int, float]:
    """The last step that a run has told of, and the seconds until then."""
    last = next(event for event in reversed(log.read()) if event["event"] == "step")
    return last["step"], last["elapsed_s"]


def _browser_busy() -> float:
    browser = [each for each in psutil.Process().children(recursive=True) if "chrom" in each.name()]
    return sum(map(_busy, browser))


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
            print(f"{idle_share(server):.1%} of a core goes to a server that nobody asks anything")
            cost = watched(context, url, folder / "c", server)
            slowest, count = max(cost.delays_s), len(cost.delays_s)
            print(f"{min(cost.delays_s):.2f} to {slowest:.2f} s from a preview's file to the page ({count})")
            print(f"{cost.share:.1%} of the worker's processor time goes to showing its run to one page")
            print(f"{cost.browser_share:.1%} of it goes to the browser that draws the page")
            beside = "a step beside one with a frozen app"
            middle, count = statistics.median(cost.step_ratios), len(cost.step_ratios)
            print(f"{middle - 1:+.1%} {beside}, the browser on the same cores ({count} blocks)")
            browser.close()
            ratios = polled(url, folder / "c", server)
            middle, count = statistics.median(ratios), len(ratios)
            print(f"{middle - 1:+.1%} {beside}, asked as by a page and without a browser ({count} blocks)")
            print(f"The load of the machine is {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
