"""A prompt as it was typed: checked, and as the name of a folder."""

from __future__ import annotations

import re
import unicodedata

from studio.errors import StudioError

MAX_CHARACTERS = 1000
LONGEST_NAME = 64
"""Of a folder named after a prompt."""


def clean_prompt(text: str) -> str:
    """The prompt with its white space tidied.

    Raises:
        StudioError: it is empty, longer than ``MAX_CHARACTERS``, or holds characters that cannot be printed.
    """
    cleaned = " ".join(text.split())
    if not cleaned:
        raise StudioError("the prompt is empty; expected a few words, try 'a teddy bear'")
    if len(cleaned) > MAX_CHARACTERS:
        raise StudioError(
            f"the prompt has {len(cleaned)} characters; expected at most {MAX_CHARACTERS}, try fewer words"
        )
    if not cleaned.isprintable():
        strange = next(character for character in cleaned if not character.isprintable())
        raise StudioError(
            f"the prompt holds the unprintable character {strange!r}; expected plain text, try removing it"
        )
    return cleaned


def slug(prompt: str) -> str:
    """The prompt as a file name: lower-case ASCII words joined by hyphens, ``run`` if nothing is left."""
    plain = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:LONGEST_NAME].strip("-") or "run"
