"""What stands before every request: who may ask, from where, and how the answers are marked."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse

from studio.limits import LimitError

__all__ = ["Guard", "is_loopback", "read_auth"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

UPLOAD_PATH = "/gradio_api/upload"
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
# A page may load nothing from anywhere else. Gradio makes functions of texts, and styles elements in place.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
}


class Guard:
    """Middleware over all of the server, Gradio's addresses included.

    Args:
        app: what is guarded.
        is_local: the server listens on this machine only and nobody logs in: requests by another host name are
            refused, so that no page elsewhere can make itself one of this server by renaming its own.
        user_of: the user who is logged in; None for nobody.
        needs_login: addresses under /studio answer to users who are logged in only.
        check_upload: is given the bytes that an upload announces, None where it does not say; LimitError refuses it.
    """

    def __init__(
        self,
        app: App,
        is_local: bool,
        needs_login: bool,
        user_of: Callable[[HTTPConnection], str | None],
        check_upload: Callable[[int | None], None],
    ) -> None:
        self.app = app
        self.is_local = is_local
        self.needs_login = needs_login
        self.user_of = user_of
        self.check_upload = check_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_marked(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._reason_to_refuse(scope)
        if refused is not None:
            status, sentence = refused
            await JSONResponse({"error": sentence}, status)(scope, receive, send_marked)
            return
        await self.app(scope, receive, send_marked)

    def _reason_to_refuse(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        if self.is_local and not is_loopback(split_place(f"//{headers.get('host', '')}").hostname or ""):
            return 403, "This server answers on this machine only: open it by http://localhost or http://127.0.0.1."
        if scope["method"] in CHANGING and is_from_elsewhere(headers):
            return 403, "This request comes from a page of another server, and is not done."
        if scope["path"].startswith("/studio"):
            user = self.user_of(HTTPConnection(scope))
            if self.needs_login and user is None:
                return 401, "Log in first: load the page again."
            scope.setdefault("state", {})["user"] = user
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if scope["method"] == "POST" and kind != "application/json":
                return 415, f"Expected application/json, got {kind or 'nothing'}."
        if scope["method"] == "POST" and scope["path"].rstrip("/") == UPLOAD_PATH:
            announced = headers.get("content-length", "")
            try:
                self.check_upload(int(announced) if announced.isdecimal() else None)
            except LimitError as error:
                return 413, str(error)
        return None


def read_auth(auth: str | None) -> list[tuple[str, str]] | None:
    """Who may log in, "ann:her password, bob:his", as names with passwords; None for None.

    Raises:
        ValueError: no name, no password, or a name twice.
    """
    if auth is None:
        return None
    users = []
    for entry in auth.split(","):
        name, _, password = entry.strip().partition(":")
        if not name or not password:  # without saying what was given: it may be a password
            raise ValueError('AUTH: expected "name:password", or several of them with commas between')
        users.append((name, password))
    if len({name for name, _ in users}) < len(users):
        raise ValueError("AUTH: expected each name once")
    return users


def is_from_elsewhere(headers: Headers) -> bool:
    """Whether a browser sent a request for a page of another server; other programs say nothing of the kind."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and split_place(origin).netloc.lower() != headers.get("host", "").lower()


def split_place(address: str) -> SplitResult:
    """The parts of an address that a stranger gave; none of one that is none."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
