"""The Batch page: a table of prompts, its jobs as they go on, and what they made in one archive."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.jobs.queue import Job
from studio.web import markup
from studio.web.desk import Desk
from studio.web.request import client_of, tag_named, told

_EVERY_S = 1.0
_TABLE = """
<label class="studio-upload"><b>A table of prompts</b>
<input type="file" accept=".csv,text/csv" aria-describedby="studio-columns">
<small id="studio-columns">CSV in UTF-8 with a column prompt; also negative, seed, preset, prior, steps, or
any setting of the Create page by its key, such as stages.0.resolution.</small></label>
<p role="alert" class="studio-refusal"></p>
"""
# The file goes to the server as it is, and is never written there.
_SEND = """
element.addEventListener('change', async event => {
  const [file] = event.target.files;
  if (!file) return;
  const refusal = element.querySelector('.studio-refusal');
  refusal.textContent = 'Reading it …';
  const answer = await fetch('batches?name=' + encodeURIComponent(file.name), {method: 'POST', body: file});
  const text = await answer.text();
  if (answer.ok) window.location.assign('batch?tag=' + text);
  else refusal.textContent = text;
  event.target.value = '';
});
"""


def page(desk: Desk, blocks: gr.Blocks) -> None:
    """The components of the page and what they do; its address says which table it shows."""
    gr.HTML(html_template=_TABLE, js_on_load=_SEND, elem_id="table")
    seen = gr.State(())
    tags, cards = gr.HTML(), gr.HTML(elem_id="rows")
    shown = [seen, tags, cards]

    def show(before: tuple[Job, ...], request: gr.Request) -> tuple[Any, ...]:
        client, tag = client_of(request), tag_named(request)
        mine = [each for each in desk.tags(client) if each.startswith("batch-")]
        jobs: tuple[Job, ...] = ()
        if tag is not None:
            with told():
                jobs = tuple(desk.tagged(tag, client))
        if jobs == before and jobs:
            return (gr.skip(),) * len(shown)
        made = markup.together(jobs) + markup.cards(jobs, "asset", "")
        return jobs, markup.tags(mine, "batch"), f"{markup.archive(tag)}{made}" if tag else ""

    blocks.load(show, seen, shown, api_visibility="private", show_progress="hidden")
    timer = gr.Timer(_EVERY_S)
    timer.tick(show, seen, shown, api_visibility="private", show_progress="hidden", concurrency_limit=4)
