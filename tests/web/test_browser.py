"""The app as a person uses it: from a prompt to a download, with a server that is killed on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from studio.jobs.queue import Queue, State
from studio.meshes import load_mesh
from tests.web.conftest import Server, Start

pytestmark = pytest.mark.browser

SOON_MS = 90_000


@pytest.fixture(scope="module")
def server(start: Start) -> Server:
    return start()


@pytest.fixture
def person(browser: Browser) -> Iterator[BrowserContext]:
    with browser.new_context(accept_downloads=True) as context:
        context.set_default_timeout(SOON_MS)
        yield context


def created(page: Page, server: Server, prompt: str) -> int:
    """Fills the form in; returns the new job's number."""
    page.goto(server.url)
    page.locator("#prompt textarea").fill(prompt)
    page.locator("#preset input[value$='quick.toml']").check()
    page.locator("#create").click()
    page.wait_for_url("**/watch?job=*")
    return int(page.url.rpartition("=")[2])


def wait_for_state(page: Page, state: str) -> None:
    expect(page.locator("#studio-state")).to_have_text(re.compile(state), timeout=SOON_MS)


def test_from_a_prompt_to_a_download(server: Server, person: BrowserContext, tmp_path: Path) -> None:
    outside: list[str] = []
    page = person.new_page()
    page.on("request", lambda request: outside.append(request.url))
    number = created(page, server, "a red cube")
    # A first picture, then a pause.
    page.locator("#preview img").wait_for()
    page.locator("#pause").click()
    wait_for_state(page, "paused")
    paused_at = Queue(server.workspace).job(number).step
    assert 0 < paused_at < 400
    # The server dies and comes back; the page that stayed open goes on.
    server.kill()
    server.restart()
    page.reload()
    wait_for_state(page, "paused")
    page.locator("#resume").click()
    wait_for_state(page, "running|finished")
    # Cancelled in two tabs at once, then tried again.
    other = person.new_page()
    other.goto(page.url)
    wait_for_state(other, "running")
    page.locator("#cancel").click()
    other.locator("#cancel").click()
    wait_for_state(page, "cancelled")
    wait_for_state(other, "cancelled")
    assert Queue(server.workspace).job(number).state is State.CANCELLED
    other.close()
    page.locator("#retry").click()
    wait_for_state(page, "finished")
    # The asset, in the browser and on the disk.
    page.goto(f"{server.url}asset?job={number}")
    page.locator("#downloads a", has_text="ply").wait_for()
    page.locator("#format input").click()
    page.get_by_role("option", name="glb").click()
    page.locator("#make").click()
    link = page.locator("#downloads a", has_text="glb")
    link.wait_for()
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "a-red-cube.glb"
    path = tmp_path / "cube.glb"
    download.value.save_as(path)
    assert len(load_mesh(path).faces) > 10
    page.locator("canvas").first.wait_for()
    # Nothing was asked of any other machine.
    assert [url for url in outside if not url.startswith((server.url, "data:", "blob:"))] == []
