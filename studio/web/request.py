"""What pages and programs have in common: whose request it is, which job it names, how a refusal is told."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr
from starlette.requests import Request

from studio.errors import StudioError
from studio.web import clients

GO_AND_WATCH = "number => { if (number) window.location.assign('watch?job=' + number); }"
"""Script that opens the page about a job that was just made."""


def client_of(request: gr.Request) -> str | None:
    """Whose request it is."""
    inner = request.request
    return None if inner is None else clients.client_of(inner.scope)


def job_number(request: gr.Request | Request) -> int | None:
    """The job that the page's address names, if it names one."""
    named = str(dict(request.query_params).get("job", ""))
    return int(named) if named.isascii() and named.isdecimal() and len(named) <= 12 else None


def tag_named(request: gr.Request | Request) -> str | None:
    """The tag that the page's address names, if it names one."""
    return str(dict(request.query_params).get("tag", "")) or None


@contextmanager
def told() -> Iterator[None]:
    """Tells the browser what a person can mend; its messages are HTML, ours are text."""
    try:
        yield
    except StudioError as error:
        raise gr.Error(html.escape(str(error), quote=False), print_exception=False) from error
