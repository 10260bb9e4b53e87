"""The Compare page: one prompt, many guidance methods, a run for each, then all on one page."""

from __future__ import annotations

import gradio as gr

from studio.evaluate.compare import method_kinds
from studio.prompts import MAX_CHARACTERS
from studio.web import markup
from studio.web.forms import Form
from studio.web.request import client_of, tag_named, told
from studio.web.service import Service
from studio.web.tagged_jobs import tagged_jobs

_GO = "tag => { if (tag) window.location.assign('compare?tag=' + tag); }"


def page(service: Service, blocks: gr.Blocks) -> None:
    """The components of the page and what they do; its address says which comparison it shows."""
    offered = list(service.options.presets)
    first = "draft" if "draft" in offered else offered[0]
    with gr.Row():
        prompt = gr.Textbox(
            label="Prompt", placeholder="a teddy bear", max_length=MAX_CHARACTERS, elem_id="prompt", scale=2
        )
        preset = gr.Dropdown(offered, value=first, label="Preset")
        steps = gr.Number(0, label="Steps (0: the preset's own)", precision=0, minimum=0)
    methods = gr.CheckboxGroup(list(method_kinds()), value=["sds", "ism", "csd"], label="Guidance methods")
    start = gr.Button("Compare", variant="primary", elem_id="compare")
    begun = gr.Textbox(visible=False)
    tagged_jobs("compare")
    side_by_side = gr.Button("Side by side", elem_id="side-by-side")
    frame = gr.HTML()

    def started(prompt: str, preset: str, steps: int, methods: list[str], request: gr.Request) -> str:
        with told():
            return service.compare(Form(prompt, preset=preset, steps=steps), methods, client_of(request))

    def compared(request: gr.Request) -> str:
        tag = tag_named(request) or ""
        with told():
            service.comparison(tag, client_of(request))
        return markup.comparison(tag)

    start.click(started, [prompt, preset, steps, methods], begun, api_visibility="private").success(
        None, begun, None, js=_GO
    )
    side_by_side.click(compared, None, frame, api_visibility="private", concurrency_limit=1)
