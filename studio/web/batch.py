"""The Batch page: a table of prompts, its jobs as they go on, and what they made in one archive."""

from __future__ import annotations

import gradio as gr

from studio.web.service import Service
from studio.web.tagged_jobs import tagged_jobs

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


def page(service: Service, blocks: gr.Blocks) -> None:
    """The components of the page and what they do; its address says which table it shows."""
    gr.HTML(html_template=_TABLE, js_on_load=_SEND, elem_id="table")
    tagged_jobs("batch")
