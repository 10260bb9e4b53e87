"""The Create page: from a prompt to a job in the queue."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from studio.evaluate.compare import method_kinds
from studio.priors.catalogue import Catalogue
from studio.priors.vocabulary import Vocabulary
from studio.prompts import MAX_CHARACTERS
from studio.recipes.load import load
from studio.web import markup
from studio.web.controls import controls
from studio.web.forecasting import Forecaster
from studio.web.forms import OWN, SCENES, Form, choice, details_of
from studio.web.preset_pictures import preset_picture
from studio.web.request import GO_AND_WATCH, client_of, told
from studio.web.service import Service

_KEEP_DETAILS = """
element.addEventListener('change', event => {
  props.value = JSON.stringify({...JSON.parse(props.value), [event.target.name]: event.target.value});
});
"""
_PICK_PRESET = """
element.addEventListener('change', event => { props.value = event.target.value; trigger('change'); });
"""


def page(service: Service, blocks: gr.Blocks) -> None:
    """The components of the page and what they do."""
    offered = service.options.presets
    first = "default" if "default" in offered else offered[0]
    forecaster = Forecaster()

    prompt = gr.Textbox(
        label="Prompt",
        placeholder="a teddy bear",
        info="What to make. The exact prior knows the words below.",
        max_length=MAX_CHARACTERS,
        autofocus=True,
        elem_id="prompt",
    )
    names = _names()
    with gr.Row():
        suggestion = gr.Dropdown(
            names, value=None, label="Words that the catalogue knows", filterable=True, elem_id="vocabulary"
        )
        negative_prompt = gr.Textbox(
            label="Negative prompt", placeholder="what it must not be", max_length=MAX_CHARACTERS
        )
    with gr.Accordion("Preset", open=True):
        cards = [(name, load(name).description, preset_picture(name) is not None) for name in offered]
        preset = gr.HTML(
            first,
            html_template=markup.preset_cards(cards, first),
            js_on_load=_PICK_PRESET,
            elem_id="preset",
            max_height=420,
        )
    with gr.Row():
        prior = gr.Dropdown([OWN, *service.options.priors], value=OWN, label="Prior", min_width=190)
        guidance = gr.Dropdown([OWN, *method_kinds()], value=OWN, label="Guidance", min_width=190)
        scene = gr.Dropdown(list(SCENES), value=OWN, label="Scene", min_width=190)
        steps = gr.Number(0, label="Steps (0: the preset's own)", precision=0, minimum=0, elem_id="steps")
        seed = gr.Number(0, label="Seed", precision=0, minimum=0)
    with gr.Accordion("Advanced", open=False):
        details = gr.HTML(
            "{}",
            html_template=markup.fields(controls(load(first))),
            js_on_load=_KEEP_DETAILS,
            elem_id="details",
        )

    def fresh(chosen: str) -> gr.HTML:
        """The settings of another preset, none of them touched."""
        with told():
            recipe = load(choice("preset", chosen, offered))
        return gr.HTML("{}", html_template=markup.fields(controls(recipe)))

    preset.change(fresh, preset, details, api_visibility="private", show_progress="hidden")
    suggestion.change(
        lambda name, before: before if not name else f"a {name}",
        [suggestion, prompt],
        prompt,
        api_visibility="private",
        show_progress="hidden",
    )
    number = gr.Number(visible=False)
    with gr.Row():
        predict = gr.Button("Predict time and memory")
        create = gr.Button("Create", variant="primary", elem_id="create")
    prediction = gr.HTML("", elem_id="prediction")
    fields = [prompt, negative_prompt, preset, prior, guidance, scene, steps, seed, details]

    def form(*values: Any) -> Form:
        """The fields in the order of ``Form``'s."""
        return replace(Form(*values[:-1]), details=details_of(values[-1]))

    def predicted(*values: Any) -> str:
        with told():
            recipe = form(*values).recipe(service.options)
            return f"<p>{markup.text(forecaster.words(recipe))}</p>"

    def submitted(request: gr.Request, *values: Any) -> int:
        with told():
            return service.submit(form(*values), client_of(request)).id

    predict.click(predicted, fields, prediction, api_visibility="private", concurrency_limit=1)
    create.click(submitted, fields, number, api_visibility="private").success(
        None, number, None, js=GO_AND_WATCH
    )


def _names() -> list[str]:
    return [name for name, _ in Vocabulary(Catalogue.load().entries).names()]
