"""The app as a person uses it: from prompts to downloads, with a server that is killed on the way."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trimesh
from playwright.sync_api import Browser, BrowserContext, Page, expect

from studio.jobs.queue import Queue, State
from studio.meshes import load_mesh
from studio.recipes.config import ClipartConfig, DeformableConfig, GaussiansConfig, MeshConfig
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


def test_from_a_drawing_to_a_clip(start: Start, person: BrowserContext, tmp_path: Path) -> None:
    """Keypoints are added and moved on the picture, and the worker animates with them."""
    quick = tmp_path / "clip.toml"
    quick.write_text(
        'base = "aniclipart"\n[[stages]]\nsteps = 4\nresolution = 16\n'
        'instants = { kind = "clip", count = 3 }\n[stages.scene]\ntexture_size = 64\nedge_px = 24.0\n'
    )
    server, page = start("--preset", quick), person.new_page()
    page.goto(f"{server.url}animate")
    keypoints = page.locator("#drawing circle")
    keypoints.first.wait_for()
    # What is no drawing is told; another one gets a keypoint more, which is then dragged.
    file = page.locator("#drawing input[type=file]")
    file.set_input_files({"name": "a.svg", "mimeType": "image/svg+xml", "buffer": b"<svg/>"})
    expect(page.locator("#drawing [data-rig=said]")).to_have_text(
        re.compile("shows nothing"), timeout=SOON_MS
    )
    page.locator("#drawing input[value=cat]").check()
    expect(page.locator("#drawing image")).to_have_attribute("href", re.compile("cat"), timeout=SOON_MS)
    found = keypoints.count()
    canvas = page.locator("#drawing svg").bounding_box()
    assert canvas is not None
    x, y, unit = canvas["x"], canvas["y"], canvas["width"] / 256
    page.mouse.click(x + 150 * unit, y + 162 * unit)
    expect(keypoints).to_have_count(found + 1)
    page.mouse.move(x + 150 * unit, y + 162 * unit)
    page.mouse.down()
    page.mouse.move(x + 154 * unit, y + 168 * unit)
    page.mouse.up()
    expect(keypoints).to_have_count(found + 1)
    page.locator("#motion textarea, #motion input").fill("the cat jumps")
    page.get_by_role("combobox", name="Preset").click()
    page.get_by_role("option", name=str(quick)).click()
    page.locator("#animate").click()
    page.wait_for_url("**/watch?job=*")
    number = int(page.url.rpartition("=")[2])
    wait_for_state(page, "finished")
    scene = Queue(server.workspace).recipe(number).stages[0].scene
    assert isinstance(scene, ClipartConfig) and scene.keypoints is not None and scene.path == "cat"
    assert len(scene.keypoints) == found + 1
    assert scene.keypoints[-1] == pytest.approx((154, 168), abs=1)
    page.goto(f"{server.url}asset?job={number}")
    page.locator("video").wait_for()
    expect(page.locator("#downloads a")).to_have_text(
        ["mp4", "gif", "webp", "svg", "json", "clipart.json", "png", "recipe.toml"]
    )


def test_an_asset_begins_to_move(server: Server, person: BrowserContext) -> None:
    page = person.new_page()
    page.goto(f"{server.url}4d")
    file = page.locator("#moving-start input[type=file]")
    file.set_input_files({"name": "a.glb", "mimeType": "model/gltf-binary", "buffer": b"none"})
    expect(page.locator("#moving-start [role=alert]")).to_contain_text("cannot be read", timeout=SOON_MS)
    box = trimesh.creation.box((0.5, 0.5, 0.5)).export(file_type="glb")
    file.set_input_files({"name": "a.glb", "mimeType": "model/gltf-binary", "buffer": box})
    expect(page.locator("#moving-start img")).to_be_visible(timeout=SOON_MS)
    page.locator("#moving-prompt textarea, #moving-prompt input").fill("a teddy bear")
    page.locator("#moving-create").click()
    page.wait_for_url("**/watch?job=*")
    number = int(page.url.rpartition("=")[2])
    (stage,) = Queue(server.workspace).recipe(number).stages
    assert isinstance(stage.scene, DeformableConfig) and isinstance(stage.scene.shape, GaussiansConfig)
    assert isinstance(stage.scene.shape.initial, MeshConfig)
    page.locator("#cancel").click()


def test_a_table_is_watched_and_downloaded(
    server: Server, offered: Path, person: BrowserContext, tmp_path: Path
) -> None:
    page = person.new_page()
    page.goto(f"{server.url}batch")
    table = page.locator("#table input[type=file]")
    rows = f"a red cube,{offered},10\n"
    table.set_input_files(
        {"name": "wrong.csv", "mimeType": "text/csv", "buffer": b"prompt,preset\na,nothing\n"}
    )
    expect(page.locator("#table [role=alert]")).to_contain_text("Row 1: There is no preset")
    buffer = f"prompt,preset,steps\n{rows}{rows}".encode()
    table.set_input_files({"name": "My cubes.csv", "mimeType": "text/csv", "buffer": buffer})
    page.wait_for_url("**/batch?tag=batch-my-cubes-*")
    expect(page.locator("#rows")).to_contain_text("2 finished", timeout=SOON_MS)
    assert page.locator("#rows .studio-card img").count() == 2
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all").click()
    path = tmp_path / "cubes.zip"
    download.value.save_as(path)
    with zipfile.ZipFile(path) as archive:
        assert sum(name.endswith(".ply") for name in archive.namelist()) == 2
        assert len(archive.read("manifest.jsonl").splitlines()) == 2


def test_methods_are_compared(server: Server, person: BrowserContext) -> None:
    page = person.new_page()
    page.goto(f"{server.url}compare")
    page.locator("#prompt textarea").fill("a red cube")
    page.get_by_role("combobox", name="Preset").click()
    page.get_by_role("option", name="quick.toml").click()
    page.get_by_label("Steps").fill("10")
    page.get_by_label("ism", exact=True).uncheck()
    page.locator("#compare").click()
    page.wait_for_url("**/compare?tag=compare-a-red-cube-*")
    expect(page.locator("#rows")).to_contain_text("2 finished", timeout=SOON_MS)
    page.locator("#side-by-side").click()
    report = page.frame_locator("iframe[title='Methods side by side']")
    expect(report.locator("body")).to_contain_text("2 methods side by side", timeout=SOON_MS)


def tabbed_to(page: Page, selector: str) -> None:
    """Presses Tab until an element has the focus."""
    for _ in range(60):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"no number of tabs leads to {selector}")


def test_by_keyboard_alone(server: Server, person: BrowserContext) -> None:
    page = person.new_page()
    page.goto(server.url)
    page.locator("#create").wait_for()
    page.locator("body").evaluate("() => document.activeElement.blur()")
    tabbed_to(page, "#prompt textarea")
    page.keyboard.type("a red cube")
    tabbed_to(page, "#preset input")
    page.locator("#preset input").last.evaluate("last => { window.last = last; }")
    page.keyboard.press("ArrowUp")
    while not page.evaluate("() => document.activeElement === window.last"):
        page.keyboard.press("ArrowUp")
    tabbed_to(page, "#create")
    page.keyboard.press("Enter")
    page.wait_for_url("**/watch?job=*")
    wait_for_state(page, "running|queued")
    tabbed_to(page, "#cancel")
    page.keyboard.press("Space")
    wait_for_state(page, "cancelled")


_CONTRAST = """
() => {
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (; element; element = element.parentElement) {
      const color = numbers(getComputedStyle(element).backgroundColor);
      if (color.length < 4 || color[3] > 0.99) return color;
    }
    return [255, 255, 255];
  };
  const found = {};
  for (const element of document.querySelectorAll('main *, .gradio-container *')) {
    const words = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!words || !element.checkVisibility() || element.disabled) continue;
    const style = getComputedStyle(element), back = behind(element);
    const opaque = numbers(style.color)[3] ?? 1, seen = opaque * Number(style.opacity);
    const front = numbers(style.color).slice(0, 3).map((c, i) => c * seen + back[i] * (1 - seen));
    const [high, low] = [light(front), light(back)].sort((a, b) => b - a);
    found[element.textContent.trim().slice(0, 40)] = (high + 0.05) / (low + 0.05);
  }
  return [found, light(behind(document.body))];
}
"""


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_words_are_read_in_the_dark_and_in_the_light(server: Server, browser: Browser, scheme: str) -> None:
    with browser.new_context(color_scheme=scheme) as person:  # type: ignore[arg-type]  (a literal of theirs)
        page = person.new_page()
        for name, landmark in {
            "": "#create",
            "gallery": "#search",
            "batch": "#table",
            "watch": "#cancel",
        }.items():
            page.goto(server.url + name)
            page.locator(landmark).wait_for()
            page.wait_for_function(
                f"document.body.classList.contains('dark') === {str(scheme == 'dark').lower()}"
            )
            contrasts, ground = page.evaluate(_CONTRAST)
            assert (ground < 0.1) == (scheme == "dark")
            # The Web Content Accessibility Guidelines 2.2, success criterion 1.4.3 (AA).
            assert {words: found for words, found in contrasts.items() if found < 4.5} == {}
