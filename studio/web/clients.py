"""Who asks: every browser is a client of its own, known by a cookie; where there are passwords, every person.

A client is written down as a digest: what the queue holds lets nobody speak for another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.errors import StudioError

COOKIE = "studio_client"
HEADER = "x-studio-client"
"""A program has no cookie; it sends a secret of its own, of 22 characters or more."""
MOST_BODY_BYTES = 2**18
"""No request is longer: a table of prompts is the largest thing that comes, but for videos and assets."""
MOST_FILE_BYTES = 2**23
_SCOPE_KEY = "studio.client"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,128}")
_YEAR_S = 365 * 24 * 3600
# The page asks no other machine for anything, whatever a library of it would like to.
_HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "connect-src 'self' data: blob:; worker-src 'self' blob:; font-src 'self' data:; "
    "frame-ancestors 'self'; form-action 'self'; base-uri 'self'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}


def read_passwords(path: Path) -> dict[str, str]:
    """People and their passwords, a line ``name:password`` each.

    Raises:
        StudioError: the file cannot be read, or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StudioError(f"Cannot read the passwords in {path}: {error}.") from error
    pairs = [line.partition(":") for line in lines if line.strip()]
    if not pairs or not all(name and password for name, _, password in pairs):
        raise StudioError(f"{path} is no list of passwords; expected lines such as ada:correct horse.")
    return {name: password for name, _, password in pairs}


def client_of(scope: Mapping[str, Any]) -> str | None:
    """Whose request it is; None of a program that has not said."""
    found: str | None = scope.get(_SCOPE_KEY)
    return found


class Gate:
    """Everything that comes in passes here: it says whose it is, and turns away what is not welcome.

    Args:
        app: what lies behind.
        passwords: by name; None lets everyone in.
        hosts: names that the server may be called by, against pages that rebind theirs; None for any.
    """

    def __init__(
        self, app: ASGIApp, passwords: Mapping[str, str] | None = None, hosts: frozenset[str] | None = None
    ) -> None:
        self._app = app
        self._passwords = passwords
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request (ASGI)."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        request = Request(scope)
        refusal = self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        new_token = self._name(request)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if new_token:
                    headers.append("set-cookie", _cookie(new_token, request))
            await send(message)

        received, most = 0, _most_bytes(request)

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                return {"type": "http.disconnect"}
            return message

        await self._app(scope, limited, answer)

    def _refusal(self, request: Request) -> PlainTextResponse | None:
        if self._hosts is not None and request.url.hostname not in self._hosts:
            return PlainTextResponse("This server is called otherwise.", 421)
        length = request.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > (most := _most_bytes(request)):
            return PlainTextResponse(f"Expected at most {most} bytes.", 413)
        if "/upload" in request.url.path:
            return PlainTextResponse("Files are not uploaded this way.", 404)
        if self._passwords is not None and self._person(request) is None:
            return PlainTextResponse(
                "Name and password, please.",
                401,
                {"www-authenticate": 'Basic realm="Studio", charset="UTF-8"'},
            )
        return None

    def _person(self, request: Request) -> str | None:
        kind, _, encoded = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic" or self._passwords is None:
            return None
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None
        expected = self._passwords.get(name, "")
        same = hmac.compare_digest(password.encode(), expected.encode())
        return name if same and expected else None

    def _name(self, request: Request) -> str | None:
        """Notes whose request it is; returns the secret of a browser that has none yet."""
        if (person := self._person(request)) is not None:
            request.scope[_SCOPE_KEY] = person
            return None
        token = request.headers.get(HEADER) or request.cookies.get(COOKIE) or ""
        if _TOKEN.fullmatch(token):
            request.scope[_SCOPE_KEY] = hashlib.sha256(token.encode()).hexdigest()[:16]
            return None
        return secrets.token_urlsafe(24) if request.method == "GET" else None


def _most_bytes(request: Request) -> int:
    is_file = request.method == "POST" and request.url.path.endswith(("/films", "/starts"))
    return MOST_FILE_BYTES if is_file else MOST_BODY_BYTES


def _cookie(token: str, request: Request) -> str:
    secure = "; Secure" if request.url.scheme == "https" else ""
    return f"{COOKIE}={token}; Path=/; Max-Age={_YEAR_S}; HttpOnly; SameSite=Lax{secure}"


class RateLimit:
    """How often a client may do something.

    Args:
        most: times within ``every_s`` seconds.
        what: in words, for the refusal.
        clock: seconds that never go backwards.
    """

    def __init__(
        self, most: int, every_s: float, what: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most, self._every_s, self._what, self._clock = most, every_s, what, clock
        self._moments: dict[str, deque[float]] = {}

    def take(self, client: str) -> None:
        """Counts one time.

        Raises:
            StudioError: it is too soon.
        """
        now = self._clock()
        if len(self._moments) > 10_000:
            self._moments = {
                name: moments for name, moments in self._moments.items() if moments[-1] > now - self._every_s
            }
        moments = self._moments.setdefault(client, deque(maxlen=self._most))
        if len(moments) == self._most and moments[0] > now - self._every_s:
            wait = moments[0] + self._every_s - now
            raise StudioError(
                f"Too many {self._what} at once: {self._most} in {self._every_s:g} s are fine. "
                f"Wait {wait:.0f} s."
            )
        moments.append(now)
