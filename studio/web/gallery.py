"""The Gallery page: past runs, to be searched and deleted."""

from __future__ import annotations

import gradio as gr

from studio.web import markup
from studio.web.desk import Desk
from studio.web.request import client_of, told

_PAGE = 24


def page(desk: Desk, blocks: gr.Blocks) -> None:
    """The components of the page and what they do."""
    with gr.Row():
        words = gr.Textbox(label="Search", placeholder="words of the prompt", elem_id="search", scale=3)
        everyone = gr.Checkbox(
            label="Everyone's", value=False, visible=desk.options.shared_queue, min_width=120
        )
    cards = gr.HTML(elem_id="gallery")
    more = gr.Button("More")
    count = gr.State(_PAGE)
    with gr.Accordion("Delete", open=False), gr.Row():
        number = gr.Number(None, label="Job", precision=0, elem_id="delete-number")
        delete = gr.Button("Delete for good", variant="stop", elem_id="delete")

    def show(words: str, everyone: bool, count: int, request: gr.Request) -> str:
        with told():
            jobs = desk.jobs(client_of(request), words, others_too=everyone, most=count)
        return markup.cards(jobs, "asset", "Nothing found.")

    def deleted(number: int | None, request: gr.Request) -> None:
        with told():
            desk.delete(number or 0, client_of(request))

    asked = [words, everyone, count]
    blocks.load(show, asked, cards, api_visibility="private", show_progress="hidden")
    for changed in (words.change, everyone.change):
        changed(show, asked, cards, api_visibility="private", show_progress="hidden")
    more.click(lambda count: count + _PAGE, count, count, api_visibility="private").then(
        show, asked, cards, api_visibility="private"
    )
    delete.click(deleted, number, None, api_visibility="private").success(
        show, asked, cards, api_visibility="private"
    )
