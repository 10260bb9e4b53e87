"""Named endpoints for programs; ``examples/06_the_app_as_a_service.py`` calls them.

A program says whose it is with the header ``X-Studio-Client``.
"""

from __future__ import annotations

from typing import TypedDict

import gradio as gr

from studio.jobs.queue import Job
from studio.recipes.config import AssetFormat
from studio.web.forms import OWN, Form
from studio.web.request import client_of, told
from studio.web.service import Action, Service


class JobTold(TypedDict):
    """A job as a program sees it: files are had from ``jobs/{id}/{format}``."""

    id: int
    state: str
    wish: str
    step: int
    total_steps: int
    prompt: str
    preset: str
    reason: str
    files: list[AssetFormat]


def endpoints(service: Service) -> None:
    """Make the endpoints of an app; called within its blocks."""

    def told_of(job: Job) -> JobTold:
        return {
            "id": job.id,
            "state": job.state.value,
            "wish": job.wish.value,
            "step": job.step,
            "total_steps": job.total_steps,
            "prompt": job.prompt,
            "preset": job.preset,
            "reason": job.reason,
            "files": list(service.formats(job)),
        }

    def submit(
        request: gr.Request,
        prompt: str,
        negative_prompt: str = "",
        preset: str = "default",
        prior: str = OWN,
        guidance: str = OWN,
        scene: str = OWN,
        steps: int = 0,
        seed: int = 0,
    ) -> JobTold:
        """Put a prompt at the end of the queue. No steps means the preset's own."""
        form = Form(prompt, negative_prompt, preset, prior, guidance, scene, steps, seed)
        with told():
            return told_of(service.submit(form, client_of(request)))

    def job(request: gr.Request, number: int) -> JobTold:
        """One job."""
        with told():
            return told_of(service.job(number, client_of(request)))

    def jobs(request: gr.Request, words: str = "", most: int = 50, skip: int = 0) -> list[JobTold]:
        """Your jobs, those that are not over first."""
        with told():
            found = service.jobs(client_of(request), words, most=max(0, min(most, 1000)), skip=max(0, skip))
            return [told_of(each) for each in found]

    def act(request: gr.Request, action: Action, number: int) -> JobTold:
        """Cancel, pause, resume or retry a job."""
        with told():
            return told_of(service.act(action, number, client_of(request)))

    def export(request: gr.Request, number: int, wanted: str) -> JobTold:
        """Write a job's asset in one more format."""
        with told():
            service.export(number, wanted, client_of(request))
            return told_of(service.job(number, client_of(request)))

    for endpoint in (submit, job, jobs, act, export):
        gr.api(endpoint, api_name=endpoint.__name__)
