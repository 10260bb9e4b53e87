"""The Watch page: a job as it goes on, and the buttons that stop it and let it go on."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.jobs.queue import State
from studio.run.session import latest_preview
from studio.web import markup
from studio.web.desk import Action, Desk
from studio.web.progress import progress
from studio.web.request import client_of, job_number, told

_EVERY_S = 0.5
_WHERE: dict[Action, tuple[State, ...]] = {
    "pause": (State.QUEUED, State.RUNNING),
    "resume": (State.PAUSED,),
    "cancel": (State.QUEUED, State.RUNNING, State.PAUSED),
    "retry": (State.FAILED, State.CANCELLED),
}
"""The states in which each button does something."""
_NONE_YET = "Nothing here yet: create something."


def page(desk: Desk, blocks: gr.Blocks) -> None:
    """The components of the page and what they do; its address says which job it shows."""
    seen = gr.State("")
    status = gr.HTML(elem_id="status")
    with gr.Row():
        buttons: dict[Action, gr.Button] = {
            "pause": gr.Button("Pause", elem_id="pause", min_width=80),
            "resume": gr.Button("Resume", elem_id="resume", min_width=80),
            "cancel": gr.Button("Cancel", elem_id="cancel", variant="stop", min_width=80),
            "retry": gr.Button("Retry", elem_id="retry", min_width=80),
        }
    preview = gr.HTML(elem_id="preview")
    with gr.Accordion("Curves", open=True):
        curves = gr.HTML()
    with gr.Accordion("Log", open=False):
        log = gr.HTML()
    others = gr.HTML(elem_id="jobs")
    shown = [seen, status, preview, curves, log, others, *buttons.values()]

    def show(before: str, request: gr.Request) -> tuple[Any, ...]:
        """Everything that is shown, or nothing where nothing is new."""
        client, number = client_of(request), job_number(request)
        with told():
            jobs = desk.jobs(client, others_too=True, most=12)
            job = desk.job(number, client) if number is not None else next(iter(jobs), None)
        if job is None:
            return "", f"<p>{_NONE_YET}</p>", "", "", "", "", *(gr.Button(interactive=False),) * len(buttons)
        newest = latest_preview(job.folder)
        name = None if newest is None else newest.name
        now = repr((job, name, [(other.id, other.state) for other in jobs]))
        if now == before:
            return (gr.skip(),) * len(shown)
        run = progress(job.folder)
        return (
            now,
            markup.status(job, run, desk.queue.ahead_of(job.id)),
            markup.preview(job, name),
            markup.curves(run.curves, job.total_steps),
            markup.log(run.log),
            markup.cards(jobs, "asset", ""),
            *(gr.Button(interactive=job.state in _WHERE[action]) for action in buttons),
        )

    def acting(action: Action) -> Any:
        def act(request: gr.Request) -> None:
            client, number = client_of(request), job_number(request)
            with told():
                if number is None:
                    number = next((job.id for job in desk.jobs(client, most=1)), 0)
                desk.act(action, number, client)

        return act

    for action, button in buttons.items():
        button.click(acting(action), api_visibility="private").then(
            show, seen, shown, api_visibility="private", show_progress="hidden"
        )
    blocks.load(show, seen, shown, api_visibility="private", show_progress="hidden")
    timer = gr.Timer(_EVERY_S)
    timer.tick(show, seen, shown, api_visibility="private", show_progress="hidden", concurrency_limit=4)
