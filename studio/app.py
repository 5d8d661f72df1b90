"""The server: Gradio's page, uploads and login, our addresses beside them, and what runs in the background."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from studio.guard import Guard, is_loopback
from studio.limits import Limits
from studio.memory import give_back_memory, share_heaps
from studio.models import Models
from studio.page import STYLE, build_page
from studio.rooms import Rooms
from studio.routes import Studio, routes
from studio.uploads import Uploads

__all__ = ["build_app", "serve"]

logger = logging.getLogger(__name__)

TIDY_SECONDS = 10.0
EVERYWHERE = ("0.0.0.0", "::")
STATIC = Path(__file__).resolve().parent / "static"


def build_app(
    models: Models,
    folder: str | os.PathLike[str],
    *,
    limits: Limits | None = None,
    auth: Sequence[tuple[str, str]] | None = None,
    host: str = "127.0.0.1",
    port: int = 7860,
) -> FastAPI:
    """Make the server; nothing listens yet, see `serve`.

    Args:
        models: what all sessions share.
        folder: gets a folder for each session; those that are there are the sessions of an earlier run.
        limits: what users may have; None: the defaults.
        auth: users with their passwords; None lets everybody in who reaches the server.
        host: that it will listen on.
        port: that it will listen on.

    Returns:
        The application; `app.state.studio` has its rooms.
    """
    limits = limits or Limits()
    folder = Path(folder).resolve()
    uploads = Uploads(folder / ".uploads")
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.folder)  # the only way to tell Gradio where uploads go
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    rooms = Rooms(folder, models, limits)
    studio = Studio(rooms, uploads)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_background(studio))
    app.state.studio = studio
    app.state.needs_login = bool(auth)
    app.mount("/studio/static", _Static(directory=STATIC), name="static")
    app.router.routes.extend(routes(studio))
    gr.mount_gradio_app(
        app,
        build_page(studio),
        "/",
        server_name=host,
        server_port=port,
        auth=list(auth) if auth else None,
        max_file_size=limits.upload_bytes,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        theme=gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
    )
    gradio_app = next(route.app for route in app.routes if isinstance(route, Mount) and route.path == "")
    app.add_middleware(
        Guard,
        is_local=is_loopback(host) and not auth,
        needs_login=bool(auth),
        user_of=_user_of(gradio_app),
        check_upload=studio.check_upload,
    )
    return app


def serve(app: FastAPI, host: str, port: int, *, open_browser: bool = True) -> None:
    """Listen until Ctrl-C or SIGTERM; then jobs are ended, with what they did kept, and sessions closed.

    Raises:
        OSError: the port is taken, or the host is not this machine's.
    """
    listener = listening(host, port)
    share_heaps()
    address = f"http://{'127.0.0.1' if host in EVERYWHERE else f'[{host}]' if ':' in host else host}:{port}"
    print(f"Studio is at {address} (Ctrl-C ends it)", flush=True)
    if not is_loopback(host) and not app.state.needs_login:
        logger.warning("Note: everybody who reaches %s can use this server: set AUTH, or HOST to 127.0.0.1", address)
    if open_browser and _has_display():
        threading.Timer(0.5, webbrowser.open, [address]).start()
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3)
    uvicorn.Server(config).run(sockets=[listener])


def _has_display() -> bool:
    """Whether a browser would have a window; one of the terminal is not wanted."""
    is_unix = sys.platform not in ("win32", "darwin")
    return not is_unix or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens, made before anything is said about an address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        # asyncio sends at once what is written to a socket of TCP, and knows one by its protocol: else the body of each
        # answer waits 40 ms for the other side to say that it has the head
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
    except OSError as error:
        raise OSError(f"cannot listen on {host}, port {port}: {error.strerror}; set HOST or PORT") from error
    return listening


class _Static(StaticFiles):
    """The page's own files, asked for anew each time: a new version is there at once."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _user_of(gradio_app: Any) -> Callable[[HTTPConnection], str | None]:
    """Who is logged in, by the cookie that Gradio's login sets."""

    def user_of(request: HTTPConnection) -> str | None:
        names = (f"access-token-{gradio_app.cookie_id}", f"access-token-unsecure-{gradio_app.cookie_id}")
        token = next((request.cookies[name] for name in names if name in request.cookies), None)
        return None if token is None else gradio_app.tokens.get(token)

    return user_of


def _background(studio: Studio) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """What runs beside the requests, from the start of the server to its end."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop, rooms = threading.Event(), studio.rooms
        for work in (rooms.ahead.run, rooms.cut_finder.run, partial(_tidy, studio)):
            threading.Thread(target=work, args=(stop,), daemon=True).start()
        try:
            yield
        finally:
            stop.set()
            await anyio.to_thread.run_sync(rooms.close)

    return lifespan


def _tidy(studio: Studio, stop: threading.Event) -> None:
    """Close idle sessions, remove old uploads and give back memory, now and then, until `stop` is set."""
    while not stop.wait(TIDY_SECONDS):
        try:
            studio.rooms.close_idle()
            studio.uploads.sweep()
            give_back_memory()
        except Exception:
            logger.exception("tidying up failed")
