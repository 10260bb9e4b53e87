"""The 4D page: from a prompt or an asset, and a motion or a video, to an animated asset in the queue."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.prompts import MAX_CHARACTERS
from studio.recipes.load import load
from studio.web import markup
from studio.web.film_field import film_field
from studio.web.forms import OWN
from studio.web.inspection import START_SUFFIXES
from studio.web.motion_forms import MOTIONS, MovingForm, followers, moving_presets
from studio.web.request import GO_AND_WATCH, client_of, told
from studio.web.service import Service
from studio.web.upload_field import upload_field

_FIELD_PX = 300
"""Narrower, the fields for files stand one below the other."""


def page(service: Service, blocks: gr.Blocks) -> None:
    """The components of the page and what they do."""
    offered = moving_presets(service.options)
    if not offered:
        gr.HTML("<p>None of the presets that this app offers moves.</p>")
        return
    first = "moving" if "moving" in offered else offered[0]
    prompt = gr.Textbox(
        label="Prompt", placeholder="a teddy bear", max_length=MAX_CHARACTERS, elem_id="moving-prompt"
    )
    with gr.Row():
        preset = gr.Dropdown(list(offered), value=first, label="Preset", elem_id="moving-preset")
        motion = gr.Dropdown(
            [OWN, *MOTIONS], value=OWN, label="Motion of the exact prior", elem_id="moving-motion"
        )
    about = gr.HTML(_about(first))
    with gr.Row():
        frames = gr.Number(24, label="Frames", precision=0, minimum=2, maximum=240)
        seconds = gr.Number(2.0, label="Seconds", minimum=0.1, maximum=60)
        loops = gr.Checkbox(False, label="Loops", elem_id="loops")
        steps = gr.Number(
            0, label="Steps (0: the preset's own)", precision=0, minimum=0, elem_id="moving-steps"
        )
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    with gr.Row():
        with gr.Column(min_width=_FIELD_PX):
            label = "An asset that moves instead of what the prompt makes, or a picture for Zero123"
            start = upload_field("moving-start", label, START_SUFFIXES, "starts")
        with gr.Column(min_width=_FIELD_PX):
            film = film_field("moving-film", preset, followers(offered))
    number = gr.Number(visible=False)
    create = gr.Button("Create", variant="primary", elem_id="moving-create")
    preset.change(_about, preset, about, api_visibility="private", show_progress="hidden")

    def submitted(request: gr.Request, *values: Any) -> int:
        with told():
            recipe = MovingForm(*values).recipe(service.options, service.films, service.starts)
            return service.submit_all([recipe], client_of(request))[0].id

    fields = [prompt, preset, motion, frames, seconds, loops, steps, seed, film, start]
    create.click(submitted, fields, number, api_visibility="private").success(
        None, number, None, js=GO_AND_WATCH
    )


def _about(preset: str) -> str:
    """What a preset is for."""
    return f"<p>{markup.text(load(preset).description)}</p>"
