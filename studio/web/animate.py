"""The Animate page: from a drawing with keypoints and a motion to a job in the queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from studio.clipart.drawing import SUFFIXES
from studio.clipart.gestures import GESTURES
from studio.prompts import MAX_CHARACTERS
from studio.web import markup
from studio.web.drawings import shipped
from studio.web.film_field import film_field
from studio.web.motion_forms import LOOPS, ClipForm, clipart_presets, followers
from studio.web.request import GO_AND_WATCH, client_of, told
from studio.web.service import Service

_EDITOR = Path(__file__).with_name("rig_editor.js").read_text(encoding="utf-8")
_RIG = """
<div class="studio-rig">
<div>DRAWINGS
<label class="studio-upload"><b>Or a drawing of yours: choose a file, or drop it here</b>
<input type="file" accept="SUFFIXES"><small>SVG, PNG, WebP or JPEG</small></label>
<p role="alert" class="studio-refusal" data-rig="said"></p></div>
<div><svg data-rig="canvas" viewBox="0 0 256 256" role="group" aria-label="Keypoints"></svg>
<p><small>Click to add a keypoint, drag it or use the arrow keys to move it; Delete removes it.</small></p>
<p class="studio-buttons"><button type="button" data-rig="remove">Remove the chosen one</button>
<button type="button" data-rig="again">Find all anew</button>
<button type="button" data-rig="tree">Join all anew</button></p>
<label><input type="checkbox" data-rig="joining"> Click two keypoints to join or to part them</label>
<label class="studio-bones">Bones <input data-rig="bones" autocomplete="off" spellcheck="false"></label></div>
</div>
"""
_FIRST, _PRESET = "crab", "aniclipart"


def page(service: Service, blocks: gr.Blocks) -> None:
    """The components of the page and what they do."""
    offered = clipart_presets(service.options)
    if not offered:
        gr.HTML("<p>None of the presets that this app offers is of clipart.</p>")
        return
    drawings = (_FIRST, *(name for name in shipped() if name != _FIRST))
    accepted = ",".join(SUFFIXES)
    drawing = gr.HTML(
        "",
        html_template=_RIG.replace("DRAWINGS", markup.drawing_cards(drawings)).replace("SUFFIXES", accepted),
        js_on_load=_EDITOR,
        elem_id="drawing",
    )
    with gr.Row():
        prompt = gr.Textbox(
            label="Motion", placeholder="the crab is dancing", max_length=MAX_CHARACTERS, elem_id="motion"
        )
        suggestion = gr.Dropdown(
            [gesture.name for gesture in GESTURES],
            value=None,
            label="Motions that are known",
            elem_id="gesture",
        )
    with gr.Row():
        preset = gr.Dropdown(
            list(offered), value=_PRESET if _PRESET in offered else offered[0], label="Preset"
        )
        loop = gr.Radio([(name.replace("_", " "), name) for name in LOOPS], value=LOOPS[0], label="Loop")
        strength = gr.Slider(0.25, 2.0, 1.0, step=0.05, label="How far it goes")
    with gr.Row():
        frames = gr.Number(24, label="Frames", precision=0, minimum=2, maximum=240)
        seconds = gr.Number(2.0, label="Seconds", minimum=0.1, maximum=60)
        steps = gr.Number(
            0, label="Steps (0: the preset's own)", precision=0, minimum=0, elem_id="clip-steps"
        )
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    film = film_field("clip-film", preset, followers(offered))
    number = gr.Number(visible=False)
    animate = gr.Button("Animate", variant="primary", elem_id="animate")
    suggestion.change(
        lambda name, before: f"let it {name}" if name else before,
        [suggestion, prompt],
        prompt,
        api_visibility="private",
        show_progress="hidden",
    )

    def submitted(request: gr.Request, *values: Any) -> int:
        with told():
            recipe = ClipForm(*values).recipe(service.options, service.drawings, service.films)
            return service.submit_all([recipe], client_of(request))[0].id

    fields = [drawing, prompt, preset, loop, strength, frames, seconds, steps, seed, film]
    animate.click(submitted, fields, number, api_visibility="private").success(
        None, number, None, js=GO_AND_WATCH
    )
