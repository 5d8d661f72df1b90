"""The server: Gradio's page, uploads and login, our addresses beside them, and what runs in the background."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import webbrowser
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from starlette.staticfiles import StaticFiles

from studio.guard import Guard, is_loopback
from studio.limits import Limits
from studio.models import Models
from studio.page import STYLE, build_page
from studio.rooms import Rooms
from studio.routes import Studio, routes

__all__ = ["build_app", "serve"]

logger = logging.getLogger(__name__)

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
    uploads = folder / ".uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(uploads)  # the only way to tell Gradio where uploads go
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    rooms = Rooms(folder, models, limits)
    studio = Studio(rooms, uploads)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=_background(rooms))
    app.state.studio = studio
    app.mount("/studio/static", _Static(directory=STATIC), name="static")
    app.router.routes.extend(routes(studio))
    gr.mount_gradio_app(
        app,
        build_page(),
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
    gradio_app = next(route.app for route in app.routes if getattr(route, "path", None) == "")
    app.add_middleware(
        Guard, is_local=is_loopback(host) and not auth, needs_login=bool(auth), user_of=_user_of(gradio_app)
    )
    return app


def serve(app: FastAPI, host: str, port: int, *, open_browser: bool = True) -> None:
    """Listen until Ctrl-C or SIGTERM; then jobs are ended, with what they did kept, and sessions closed."""
    address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    print(f"Studio is at {address} (Ctrl-C ends it)")
    if open_browser:
        threading.Timer(1.0, webbrowser.open, [address]).start()
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)


class _Static(StaticFiles):
    """The page's own files, asked for anew each time: a new version is there at once."""

    def file_response(self, *args, **kwargs):  # type: ignore[no-untyped-def]
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def _user_of(gradio_app):  # type: ignore[no-untyped-def]
    """Who is logged in, by the cookie that Gradio's login sets."""

    def user_of(request: HTTPConnection) -> str | None:
        names = (f"access-token-{gradio_app.cookie_id}", f"access-token-unsecure-{gradio_app.cookie_id}")
        token = next((request.cookies[name] for name in names if name in request.cookies), None)
        return None if token is None else gradio_app.tokens.get(token)

    return user_of


def _background(rooms: Rooms):  # type: ignore[no-untyped-def]
    """What runs beside the requests, from the start of the server to its end."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        stop = threading.Event()
        threads = [
            threading.Thread(target=work, args=(stop,), name=name, daemon=True)
            for name, work in (("janitor", rooms.run_janitor), ("ahead", rooms.ahead.run))
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            rooms.close()

    return lifespan
