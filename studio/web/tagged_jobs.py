"""Jobs with a tag in common, as they go on: the lower half of the pages that begin many at once."""

from __future__ import annotations

import gradio as gr

from studio.jobs.queue import OVER
from studio.web import markup
from studio.web.live import Now, live
from studio.web.service import Service

_PARTS = '<div data-part="tags"></div><div data-part="jobs" id="rows"></div>'


def tagged_jobs(page: str) -> gr.HTML:
    """The component; the page's address says which tag it shows.

    Args:
        page: whose; its tags begin with this word.
    """
    return live(f"tagged/{page}", _PARTS)


def tagged_now(service: Service, page: str, tag: str | None, client: str | None) -> Now:
    """What the component shows: the tags of a page, and the jobs of one of them.

    Raises:
        StudioError: no job of this client's has the tag.
    """
    mine = [each for each in service.tags(client) if each.startswith(f"{page}-")]
    parts = {"tags": markup.tags(mine, page), "jobs": ""}
    jobs = [] if tag is None else service.tagged(tag, client)
    if tag is not None:
        parts["jobs"] = markup.overview(jobs) + markup.archive(tag) + markup.cards(jobs, "asset", "")
    return Now(parts=parts, busy=any(job.state not in OVER for job in jobs), actions=[])
