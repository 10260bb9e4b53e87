"""Parts of a page that show what is so now: the page asks for them again and again."""

from __future__ import annotations

import hashlib
import json
from typing import TypedDict

import gradio as gr
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from studio.web.service import Action

# Not through Gradio, whose events cost 50 ms of a core each. Nothing is asked while the page is hidden, and
# less often once nothing goes on.
_LOOK = """
let etag = '', busy = true;
const shown = {};
const look = async () => {
  try {
    const asked = {cache: 'no-store', headers: {'If-None-Match': etag}};
    const answer = document.hidden ? null : await fetch('ADDRESS' + window.location.search, asked);
    if (answer && answer.ok) {
      etag = answer.headers.get('etag');
      const now = await answer.json();
      busy = now.busy;
      for (const [name, html] of Object.entries(now.parts)) {
        if (shown[name] !== html) element.querySelector(`[data-part=${name}]`).innerHTML = html;
        shown[name] = html;
      }
      for (const name of ['pause', 'resume', 'cancel', 'retry']) {
        const button = document.getElementById(name);
        if (button) button.disabled = !now.actions.includes(name);
      }
    }
  } catch {}  // The server is away; it may come back.
  setTimeout(look, busy ? 700 : 2000);
};
look();
"""


class Now(TypedDict):
    """What a page shows now.

    Attributes:
        parts: HTML by the name of the part.
        busy: whether it may be other than this soon.
        actions: the buttons that do something.
    """

    parts: dict[str, str]
    busy: bool
    actions: list[Action]


def live(address: str, template: str) -> gr.HTML:
    """A component whose elements with a ``data-part`` show what the server answers there.

    Args:
        address: where to ask for ``Now``; the page's own query is put behind it.
        template: HTML with the elements.
    """
    return gr.HTML(html_template=template, js_on_load=_LOOK.replace("ADDRESS", address))


def answer(request: Request, now: Now) -> Response:
    """What a page shows, or that it shows that already."""
    etag = f'"{hashlib.sha256(json.dumps(now).encode()).hexdigest()[:32]}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304)
    return JSONResponse(now, headers={"etag": etag, "cache-control": "no-store"})
