"""An idle app leaves the processor to the runs, and works with a Gradio that cannot be told to."""

from __future__ import annotations

import time
from types import SimpleNamespace

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from studio.web.polling import look_seldom


def idle_processor_seconds(blocks: gr.Blocks) -> float:
    """Of a second in which nobody asks for anything."""
    with TestClient(gr.mount_gradio_app(FastAPI(), blocks, "/")):
        time.sleep(0.3)
        began = time.process_time()
        time.sleep(1.0)
        return time.process_time() - began


def blocks_with_a_button() -> gr.Blocks:
    with gr.Blocks(analytics_enabled=False) as blocks:
        gr.Button().click(lambda: None)
    return blocks.queue()


def test_an_idle_server_rests() -> None:
    restless, resting = blocks_with_a_button(), blocks_with_a_button()
    look_seldom(resting)
    assert idle_processor_seconds(resting) < 0.5 * idle_processor_seconds(restless)


@pytest.mark.parametrize("queue", [None, SimpleNamespace(), SimpleNamespace(sleep_when_free="auto")])
def test_a_gradio_without_those_figures_is_left_as_it_is(queue: SimpleNamespace | None) -> None:
    blocks = gr.Blocks(analytics_enabled=False)
    blocks._queue = queue  # type: ignore[assignment]
    before = dict(vars(queue)) if queue else {}
    look_seldom(blocks)
    assert (dict(vars(queue)) if queue else {}) == before
