"""How often Gradio looks whether there is something to do."""

from __future__ import annotations

import gradio as gr

_EVENTS_EVERY_S = 0.05
"""How long a click waits at most until the server hears of it."""
_BARS_EVERY_S = 1.0


def look_seldom(blocks: gr.Blocks) -> None:
    """Let an idle server rest: Gradio looks for events a thousand times a second and for bars of progress, of
    which there are none here, a hundred times, which takes 6 % of a core.

    Gradio has no public way to say so. A release that keeps these figures elsewhere is left as it is, and
    only looks more often.
    """
    queue = getattr(blocks, "_queue", None)
    seldom = {"sleep_when_free": _EVENTS_EVERY_S, "progress_update_sleep_when_free": _BARS_EVERY_S}
    for name, seconds in seldom.items():
        if isinstance(getattr(queue, name, None), int | float):
            setattr(queue, name, seconds)
