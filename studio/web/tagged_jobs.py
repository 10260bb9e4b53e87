"""Jobs with a tag in common, as they go on: the lower half of the pages that begin many at once."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.jobs.queue import Job
from studio.web import markup
from studio.web.request import client_of, tag_named, told
from studio.web.service import Service

_EVERY_S = 1.0


def tagged_jobs(service: Service, blocks: gr.Blocks, page: str) -> None:
    """Make the components.

    Args:
        page: whose; its tags begin with this word, and its address says which one is shown.
    """
    seen = gr.State(())
    tags, cards = gr.HTML(), gr.HTML(elem_id="rows")
    shown = [seen, tags, cards]

    def show(before: tuple[Job, ...], request: gr.Request) -> tuple[Any, ...]:
        client, tag = client_of(request), tag_named(request)
        mine = [each for each in service.tags(client) if each.startswith(f"{page}-")]
        if tag is None:
            return (), markup.tags(mine, page), ""
        with told():
            jobs = tuple(service.tagged(tag, client))
        if jobs == before:
            return (gr.skip(),) * len(shown)
        made = markup.overview(jobs) + markup.archive(tag) + markup.cards(jobs, "asset", "")
        return jobs, markup.tags(mine, page), made

    blocks.load(show, seen, shown, api_visibility="private", show_progress="hidden")
    timer = gr.Timer(_EVERY_S)
    timer.tick(show, seen, shown, api_visibility="private", show_progress="hidden", concurrency_limit=4)
