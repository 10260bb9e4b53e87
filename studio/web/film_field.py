"""A field for a video to be followed."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from studio.video import SUFFIXES
from studio.web.upload_field import upload_field


def film_field(name: str, preset: gr.Dropdown, followers: Sequence[str]) -> gr.HTML:
    """The field; its value is what the service calls the video, or empty.

    Args:
        name: of its element.
        preset: is set to a follower where it is none when a video comes.
        followers: the presets on offer that follow a video; without any the field is hidden.
    """
    label = "A video to follow, for presets that do"
    field = upload_field(name, label, SUFFIXES, "films", visible=bool(followers))

    def followed(film: str, chosen: str) -> str:
        return followers[0] if film and chosen not in followers else chosen

    field.change(followed, [field, preset], preset, api_visibility="private", show_progress="hidden")
    return field
