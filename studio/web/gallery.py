"""The Gallery page: past runs, to be searched and deleted."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.web import markup
from studio.web.request import client_of, told
from studio.web.service import Service

_PAGE = 24


def page(service: Service, blocks: gr.Blocks) -> None:
    """The components of the page and what they do."""
    with gr.Row():
        words = gr.Textbox(label="Search", placeholder="words of the prompt", elem_id="search", scale=3)
        tag = gr.Dropdown([], value=None, label="Tag", elem_id="tag", min_width=160)
        everyone = gr.Checkbox(
            label="Everyone's", value=False, visible=service.options.shared_queue, min_width=120
        )
    cards = gr.HTML(elem_id="gallery")
    more = gr.Button("More")
    count = gr.State(_PAGE)
    with gr.Accordion("Delete", open=False), gr.Row():
        number = gr.Number(None, label="Job", precision=0, elem_id="delete-number")
        delete = gr.Button("Delete for good", variant="stop", elem_id="delete")

    def show(words: str, tag: str | None, everyone: bool, count: int, request: gr.Request) -> tuple[Any, ...]:
        with told():
            jobs = service.jobs(client_of(request), words, tag or None, others_too=everyone, most=count)
        found = markup.cards(jobs, "asset", "Nothing found.")
        return (
            found,
            gr.Dropdown(["", *service.tags(client_of(request))]),
            gr.Button(visible=len(jobs) == count),
        )

    def deleted(number: int | None, request: gr.Request) -> None:
        with told():
            service.delete(number or 0, client_of(request))

    asked, shown = [words, tag, everyone, count], [cards, tag, more]
    blocks.load(show, asked, shown, api_visibility="private", show_progress="hidden")
    for changed in (words.change, tag.input, everyone.change):
        changed(show, asked, shown, api_visibility="private", show_progress="hidden")
    more.click(lambda count: count + _PAGE, count, count, api_visibility="private").then(
        show, asked, shown, api_visibility="private"
    )
    delete.click(deleted, number, None, api_visibility="private").success(
        show, asked, shown, api_visibility="private"
    )
