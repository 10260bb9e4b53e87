"""Whom to thank: every method names its paper."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Citation:
    """One paper. ``arxiv`` is an identifier such as ``"2209.14988"``; ``year`` is the first version's."""

    authors: str
    title: str
    year: int
    arxiv: str
