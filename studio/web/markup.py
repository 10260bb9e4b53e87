"""Pieces of the pages as HTML. Whatever a person wrote comes through ``text``, and stays text."""

from __future__ import annotations

import html
import math
import time
from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from studio.console import duration
from studio.evaluate.plots import Series, curve
from studio.export.formats import FORMATS
from studio.jobs.queue import Job, State, Wish
from studio.reports import Figure
from studio.run.folder import latest_preview
from studio.web.controls import LONGEST_VALUE, Control
from studio.web.progress import Progress


def text(value: object) -> str:
    """Anything as text that a browser shows as it is."""
    return html.escape(str(value))


def state_words(job: Job) -> str:
    """``running, will pause``."""
    return job.state.value + (f", will {job.wish.value}" if job.wish is not Wish.NONE else "")


def title(job: Job) -> str:
    """Which job it is."""
    return (
        f'<h2 class="studio-title">{text(job.prompt)}</h2>'
        f'<p>Job {job.id}, preset {text(job.preset)}: <b id="studio-state">{state_words(job)}</b></p>'
    )


def status(job: Job, told: Progress, ahead: int) -> str:
    """Where a job stands: its picture, its step, how long it will take."""
    step = max(job.step, told.step)
    parts = [f"step {step} of {job.total_steps}"]
    left = told.seconds_left(job.total_steps)
    if job.state is State.RUNNING and left is not None:
        parts.append(f"about {duration(left)} left" if step < job.total_steps else "writing the files")
    if told.seconds:
        parts.append(f"{duration(told.seconds)} so far")
    if job.state is State.QUEUED:
        parts.append(f"{ahead} before it")
    reason = f'<p role="alert">{text(job.reason)}</p>' if job.reason else ""
    if job.state is State.FINISHED:
        parts.append(f'<a href="asset?job={job.id}">see the asset</a>')
    return (
        f'{title(job)}<p id="studio-step" data-step="{step}">{", ".join(parts)}</p>{reason}'
        f'<progress max="{job.total_steps}" value="{step}" aria-label="steps"></progress>'
    )


def preview(job: Job, name: str | None) -> str:
    """The newest preview picture; its name keeps the browser from showing an old one."""
    if name is None:
        return '<p class="studio-dim">The first picture comes soon.</p>'
    return (
        f'<img class="studio-shown" src="jobs/{job.id}/preview?{text(name)}" '
        f'alt="The scene from four sides: {text(job.prompt)}">'
    )


def curves(series: Sequence[Series], last_step: int) -> str:
    """A small plot of each value over the steps."""
    drawn = []
    for values in series:
        finite = [value for _, value in values.points if math.isfinite(value)]
        if len(finite) > 1:
            low, high = min(0.0, *finite), max(finite)
            drawn.append(f"<div>{curve(values, last_step, (low, max(high, low + 1e-9)), False)}</div>")
    return f'<div class="studio-curves">{"".join(drawn)}</div>'


def log(lines: Sequence[str]) -> str:
    """The last lines that a run has written."""
    return f'<div class="studio-log" tabindex="0">{text(chr(10).join(lines))}</div>' if lines else ""


def cards(jobs: Sequence[Job], page: str, empty: str) -> str:
    """Jobs as cards with their pictures, each a link to a page about it."""
    if not jobs:
        return f'<p class="studio-dim">{text(empty)}</p>'
    return f'<div class="studio-cards">{"".join(_card(job, page) for job in jobs)}</div>'


def overview(jobs: Sequence[Job]) -> str:
    """How far all of these are."""
    if not jobs:
        return ""
    counts = Counter(job.state.value for job in jobs)
    step, total = sum(job.step for job in jobs), sum(job.total_steps for job in jobs)
    said = ", ".join(f"{count} {state}" for state, count in counts.items())
    reasons = "".join(f'<p role="alert">{job.id}: {text(job.reason)}</p>' for job in jobs if job.reason)
    return f'<p>{said}</p><progress max="{total}" value="{step}" aria-label="steps"></progress>{reasons}'


def tags(tags: Sequence[str], page: str) -> str:
    """Tags, each a link to a page about its jobs."""
    links = "".join(f'<a href="{page}?tag={text(tag)}">{text(tag)}</a>' for tag in tags)
    return f'<p class="studio-links">{links}</p>'


def archive(tag: str) -> str:
    """A link to what all jobs with a tag have made."""
    return (
        f'<p class="studio-links"><a href="batches/{text(tag)}" download>Download all as a zip file</a></p>'
    )


def comparison(tag: str) -> str:
    """The page about a comparison, kept apart from ours."""
    return (
        f'<div class="studio-page"><iframe src="comparisons/{text(tag)}" sandbox="allow-scripts" '
        'title="Methods side by side"></iframe></div>'
    )


def _card(job: Job, page: str) -> str:
    has_picture = latest_preview(job.folder) is not None
    picture = (
        f'<img src="jobs/{job.id}/preview?{job.step}" alt="" loading="lazy">'
        if has_picture
        else '<span class="studio-blank"></span>'
    )
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(job.submitted_at))
    target = "asset" if page == "asset" and job.state is State.FINISHED else "watch"
    return (
        f'<a class="studio-card" href="{target}?job={job.id}">{picture}<b>{text(job.prompt)}</b><br>'
        f"<small>{job.id}, {state_words(job)} {job.step}/{job.total_steps}<br>{when}</small></a>"
    )


def preset_cards(presets: Sequence[tuple[str, str, bool]], chosen: str) -> str:
    """The presets as a group of radio buttons: name, description, whether there is a picture."""
    made = []
    for name, description, has_picture in presets:
        picture = f'<img src="presets/{text(name)}" alt="" loading="lazy">' if has_picture else ""
        checked = " checked" if name == chosen else ""
        made.append(
            f'<label class="studio-card">'
            f'<input type="radio" name="studio-preset" value="{text(name)}"{checked}> <b>{text(name)}</b>'
            f"{picture}<br><small>{text(description)}</small></label>"
        )
    return f'<div class="studio-cards" role="radiogroup" aria-label="Preset">{"".join(made)}</div>'


def drawing_cards(drawings: Sequence[str]) -> str:
    """Drawings as a group of radio buttons."""
    made = [
        f'<label class="studio-card"><input type="radio" name="studio-drawing" value="{text(name)}">'
        f'<img src="drawings/{text(name)}/thumbnail" alt=""><small>{text(name)}</small></label>'
        for name in drawings
    ]
    return f'<div class="studio-cards" role="radiogroup" aria-label="Drawing">{"".join(made)}</div>'


def fields(controls: Sequence[Control]) -> str:
    """The settings of a recipe as fields, a group for each part; empty ones leave the preset's own."""
    return "".join(
        f"<fieldset><legend>{text(part)}</legend>{''.join(map(_field, members))}</fieldset>"
        for part, members in groupby(controls, key=lambda control: control.part)
    )


def _field(control: Control) -> str:
    name, value = f'name="{text(control.key)}"', text(control.value)
    if control.choices:
        options = "".join(f"<option>{text(choice)}</option>" for choice in control.choices)
        field = f'<select {name}><option value="">{value}</option>{options}</select>'
    else:
        field = f'<input {name} placeholder="{value}" maxlength="{LONGEST_VALUE}" autocomplete="off">'
    return f"<label><b>{text(control.label)}</b>{field}<small>{text(control.help)}</small></label>"


def figures(metrics: dict[str, Figure]) -> str:
    """A run's figures as a table."""

    def shown(value: Figure) -> str:
        return f"{value:.4g}" if isinstance(value, float) else text(value)

    rows = "".join(
        f"<tr><td>{text(name)}</td><td>{shown(value)}</td></tr>" for name, value in metrics.items()
    )
    return f'<table class="studio-figures">{rows}</table>' if rows else ""


def pictures(job: Job, present: Sequence[str]) -> str:
    """The turntable or clip, and the sheet of all sides or instants."""
    shown = ""
    if "mp4" in present:
        shown += (
            f'<video class="studio-shown" controls loop autoplay muted playsinline src="jobs/{job.id}/mp4" '
            f'aria-label="Film: {text(job.prompt)}"></video>'
        )
    if "png" in present:
        shown += f'<img class="studio-shown" src="jobs/{job.id}/png" alt="Contact sheet: {text(job.prompt)}">'
    return f'<div class="studio-pictures">{shown}</div>'


def downloads(job: Job, present: Sequence[str]) -> str:
    """A link for every file that is there."""
    links = "".join(
        f'<a href="jobs/{job.id}/{name}?download" download>{name}</a>' for name in FORMATS if name in present
    )
    return f'<p class="studio-links">Download: {links}<a href="jobs/{job.id}/recipe">recipe.toml</a></p>'
