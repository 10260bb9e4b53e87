"""The Watch page: a job as it goes on, and the buttons that stop it and let it go on."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.jobs.queue import OVER, State
from studio.run.folder import latest_preview
from studio.web import markup
from studio.web.live import Now, live
from studio.web.progress import progress
from studio.web.request import client_of, job_number, told
from studio.web.service import Action, Service

_WHERE: dict[Action, tuple[State, ...]] = {
    "pause": (State.QUEUED, State.RUNNING),
    "resume": (State.PAUSED,),
    "cancel": (State.QUEUED, State.RUNNING, State.PAUSED),
    "retry": (State.FAILED, State.CANCELLED),
}
"""The states in which each button does something."""
_PARTS = """
<div data-part="status"></div>
<div data-part="preview" id="preview"></div>
<details open><summary>Curves</summary><div data-part="curves"></div></details>
<details><summary>Log</summary><div data-part="log"></div></details>
<div data-part="jobs"></div>
"""


def watched_now(service: Service, number: int | None, client: str | None) -> Now:
    """What the page shows: a client's job as it is; by default the one whose turn it is.

    Raises:
        StudioError: there is none that this client may see.
    """
    jobs = service.jobs(client, others_too=True, most=12)
    job = service.job(number, client) if number is not None else next(iter(jobs), None)
    if job is None:
        nothing = dict.fromkeys(("preview", "curves", "log", "jobs"), "")
        status = "<p>Nothing here yet: create something.</p>"
        return Now(parts={"status": status, **nothing}, busy=False, actions=[])
    newest, run = latest_preview(job.folder), progress(job.folder)
    parts = {
        "status": markup.status(job, run, service.queue.ahead_of(job.id)),
        "preview": markup.preview(job, None if newest is None else newest.name),
        "curves": markup.curves(run.curves, job.total_steps),
        "log": markup.log(run.log),
        "jobs": markup.cards(jobs, "asset", ""),
    }
    actions = [action for action, states in _WHERE.items() if job.state in states]
    return Now(parts=parts, busy=any(each.state not in OVER for each in (job, *jobs)), actions=actions)


def page(service: Service, blocks: gr.Blocks) -> None:
    """The components of the page and what they do; its address says which job it shows."""
    with gr.Row():
        buttons: dict[Action, gr.Button] = {
            "pause": gr.Button("Pause", elem_id="pause", min_width=80),
            "resume": gr.Button("Resume", elem_id="resume", min_width=80),
            "cancel": gr.Button("Cancel", elem_id="cancel", variant="stop", min_width=80),
            "retry": gr.Button("Retry", elem_id="retry", min_width=80),
        }
    live("watched", _PARTS)

    def acting(action: Action) -> Any:
        def act(request: gr.Request) -> None:
            client, number = client_of(request), job_number(request)
            with told():
                if number is None:
                    number = next((job.id for job in service.jobs(client, most=1)), 0)
                service.act(action, number, client)

        return act

    for action, button in buttons.items():
        button.click(acting(action), api_visibility="private", show_progress="hidden")
