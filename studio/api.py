"""What programs use: the page's commands and jobs as endpoints of Gradio's, for `gradio_client` in any language.

    from gradio_client import Client, handle_file

    client = Client("http://127.0.0.1:7860")                     # auth=("ann", "her password") where one logs in
    session = client.predict(handle_file("clip.mp4"), "clip.mp4", api_name="/create_session")
    token = session["token"]
    client.predict(token, "set_search", {"text_prompt": "dog."}, api_name="/do")
    found = client.predict(token, "find", {"frame": 0}, api_name="/do")["result"]
    keys = [item["key"] for item in found["items"]]
    client.predict(token, "accept", {"find": found["find"], "keys": keys}, api_name="/do")
    for job in client.submit(token, "propagate", {}, api_name="/run_job"):
        print(job["done"], "of", job["total"])
    masks = client.predict(token, 0, 63, api_name="/masks")      # COCO's run-length encoding for each object and frame
    job = client.predict(token, "result", {"result": "video"}, api_name="/run_job")
    print(job["address"])                                        # of the file, on the same server

| endpoint | takes | gives |
|---|---|---|
| `/create_session` | a file, its name, or a sample; frames per second of images | token, state |
| `/do` | token, command, its arguments | result, touched, state; see `studio.commands` |
| `/run_job` | token, kind, its arguments | the job, again and again until it is over; see `studio.work` |
| `/state`, `/timeline` | token | as the page's own |
| `/masks` | token, first and last frame, at most 64 frames | as the page's own |
| `/doubts` | token, how many | as the page's own |
| `/remove_session` | token | nothing |

What cannot be done is an error with one sentence. A job goes on when nobody waits for it any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

import gradio as gr

from grounded_sam2.session import doubts as session_doubts
from studio.checks import text
from studio.commands import do as do_command
from studio.describe import cells_json, doubt_json, timeline_json
from studio.errors import answer_to
from studio.routes import Studio

__all__ = ["add_api"]

F = TypeVar("F", bound=Callable[..., Any])

AT_A_TIME = 16  # calls of each endpoint
LOOK_SECONDS = 0.2  # from one look at a job to the next


def add_api(studio: Studio) -> None:
    """Give the Blocks that are being made the endpoints."""

    def create_session(
        video: dict | None, name: str = "", sample: str | None = None, fps: float = 30.0, request: gr.Request = None
    ) -> dict:
        """Make a session of an uploaded video, image or zip of images, or of a sample."""
        args = {"sample": sample} if sample else {"upload": (video or {}).get("path"), "name": name}
        return studio.create({**args, "fps": fps}, _user(request))

    def remove_session(token: str, request: gr.Request = None) -> dict:
        """Remove a session and all its files."""
        studio.rooms.remove(studio.rooms.get(token, _user(request)))
        return {"removed": token}

    def do(token: str, command: str, args: dict | None = None, request: gr.Request = None) -> dict:
        """Do a command of the page."""
        return do_command(studio.rooms.get(token, _user(request)), text("command", command), args or {})

    def run_job(token: str, kind: str, args: dict | None = None, request: gr.Request = None) -> Iterator[dict]:
        """Start a job of the page, and tell how far it is until it is over."""
        room = studio.rooms.get(token, _user(request))
        job = studio.start_job(room, {**(args or {}), "kind": kind})
        while not job.is_over:
            time.sleep(LOOK_SECONDS)
            yield {**job.to_json(), "address": None}
        address = f"/studio/{token}/files/{job.id}" if job.path is not None else None
        yield {**job.to_json(), "address": address}

    def state(token: str, request: gr.Request = None) -> dict:
        """Objects, search, jobs and all else that the page shows of a session."""
        room = studio.rooms.get(token, _user(request))
        with room.use() as session:
            return room.state(session)

    def masks(token: str, first: int, last: int, request: gr.Request = None) -> dict:
        """The masks of a span of at most 64 frames."""
        with studio.rooms.get(token, _user(request)).use() as session:
            return cells_json(session, int(first), int(last))

    def timeline(token: str, request: gr.Request = None) -> dict:
        """What is known of each object on each frame."""
        room = studio.rooms.get(token, _user(request))
        with room.use() as session:
            return timeline_json(session, room.cuts())

    def doubts(token: str, limit: int = 200, request: gr.Request = None) -> list:
        """The frames that a person should look at, the most doubtful first."""
        with studio.rooms.get(token, _user(request)).use() as session:
            return [doubt_json(doubt) for doubt in session_doubts(session, limit=int(limit))]

    for endpoint in (create_session, remove_session, do, state, masks, timeline, doubts):
        gr.api(_answered(studio, endpoint), api_name=endpoint.__name__, concurrency_limit=AT_A_TIME)
    gr.api(_streamed(studio, run_job), api_name="run_job", concurrency_limit=AT_A_TIME)


def _user(request: gr.Request | None) -> str | None:
    return None if request is None else request.username


def _refused(studio: Studio, error: Exception) -> gr.Error:
    """What went wrong as one sentence; only what is a fault of the server's own goes to its log, by `answer_to`."""
    return gr.Error(answer_to(error, studio.rooms.folder)[1], print_exception=False)


def _answered(studio: Studio, function: F) -> F:
    """The function, with what goes wrong as one sentence."""

    @wraps(function)
    def answered(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise _refused(studio, error) from error

    return answered  # type: ignore[return-value]


def _streamed(studio: Studio, function: F) -> F:
    """The same of a function that yields."""

    @wraps(function)
    def streamed(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from function(*args, **kwargs)
        except Exception as error:
            raise _refused(studio, error) from error

    return streamed  # type: ignore[return-value]
