"""A field for a file: it is sent at once, and a picture of it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from studio.web import markup

_FIELD = """
<label class="studio-upload"><b>LABEL: choose a file, or drop it here</b>
<input type="file" accept="SUFFIXES"><small>At most 8 MB.</small></label>
<img hidden alt="What it shows" height="128">
<p class="studio-buttons" hidden><button type="button">Take it away</button></p>
<p role="alert" class="studio-refusal"></p>
"""
_SEND = """
const said = element.querySelector('.studio-refusal'), picture = element.querySelector('img');
const buttons = element.querySelector('.studio-buttons'), field = element.querySelector('input');
const show = called => {
  props.value = called;
  trigger('change');
  picture.hidden = buttons.hidden = !called;
  if (called) picture.src = `ROUTE/${called}/picture`;
};
const send = async file => {
  if (!file) return;
  show('');
  said.textContent = 'Looking at it …';
  const answer = await fetch('ROUTE?name=' + encodeURIComponent(file.name), {method: 'POST', body: file});
  const text = await answer.text();
  said.textContent = answer.ok ? '' : text;
  if (answer.ok) show(text);
};
field.addEventListener('change', () => { send(field.files[0]); field.value = ''; });
buttons.addEventListener('click', () => show(''));
element.addEventListener('dragover', event => event.preventDefault());
element.addEventListener('drop', event => { event.preventDefault(); send(event.dataTransfer.files[0]); });
"""


def upload_field(name: str, label: str, suffixes: Sequence[str], route: str, visible: bool = True) -> gr.HTML:
    """The field; its value is what the service calls the file, or empty.

    Args:
        name: of its element.
        label: says what the file is for.
        suffixes: of the files that may be chosen.
        route: where they are sent, and where their pictures are.
    """
    field = _FIELD.replace("LABEL", markup.text(label)).replace("SUFFIXES", ",".join(suffixes))
    send = _SEND.replace("ROUTE", route)
    return gr.HTML("", html_template=field, js_on_load=send, elem_id=name, visible=visible)
