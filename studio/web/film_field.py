"""A field for a video to be followed: it is sent at once, and its first frame is shown."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from studio.video import SUFFIXES

_FIELD = f"""
<label class="studio-upload"><b>A video to follow, for presets that do: choose a file, or drop it here</b>
<input type="file" accept="{",".join(SUFFIXES)}"><small>At most 8 MB.</small></label>
<img hidden alt="Its first frame" height="128">
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
  if (called) picture.src = `films/${called}/picture`;
};
const send = async file => {
  if (!file) return;
  show('');
  said.textContent = 'Looking at it …';
  const answer = await fetch('films?name=' + encodeURIComponent(file.name), {method: 'POST', body: file});
  const text = await answer.text();
  said.textContent = answer.ok ? '' : text;
  if (answer.ok) show(text);
};
field.addEventListener('change', () => { send(field.files[0]); field.value = ''; });
buttons.addEventListener('click', () => show(''));
element.addEventListener('dragover', event => event.preventDefault());
element.addEventListener('drop', event => { event.preventDefault(); send(event.dataTransfer.files[0]); });
"""


def film_field(name: str, preset: gr.Dropdown, followers: Sequence[str]) -> gr.HTML:
    """The field; its value is what the service calls the video, or empty.

    Args:
        name: of its element.
        preset: is set to a follower where it is none when a video comes.
        followers: the presets on offer that follow a video; without any the field is hidden.
    """
    field = gr.HTML("", html_template=_FIELD, js_on_load=_SEND, elem_id=name, visible=bool(followers))

    def followed(film: str, chosen: str) -> str:
        return followers[0] if film and chosen not in followers else chosen

    field.change(followed, [field, preset], preset, api_visibility="private", show_progress="hidden")
    return field
