"""The addresses under /studio: JSON in, JSON out, frames as JPEG, events as they happen.

Every error is {"error": "One clear sentence."} with a status of 4xx or 5xx.

    GET    /studio/samples                   videos that can be tried
    POST   /studio/sessions                  {"upload": path, "name"} or {"sample": name}, "fps" → {"token", "state"}
    GET    /studio/{token}/state             see `Room.state`
    DELETE /studio/{token}                   removes the session
    GET    /studio/{token}/frames/{t}        ?width=640, a JPEG
    GET    /studio/{token}/masks             ?first=0&last=63, see `cells_json`
    GET    /studio/{token}/timeline          see `timeline_json`
    GET    /studio/{token}/doubts            ?limit=200, the most doubtful first
    POST   /studio/{token}/do/{command}      see `commands`: {"result", "touched", "state"}
    POST   /studio/{token}/jobs              see `work`: {"job"}
    DELETE /studio/{token}/jobs/{id}         cancels; what was done stays
    GET    /studio/{token}/events            server-sent events, see `events`
    GET    /studio/{token}/files/{id}        what a job made
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import cv2
from anyio import CapacityLimiter
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from grounded_sam2.session import doubts
from studio.checks import check_args, number, text, whole
from studio.commands import do
from studio.describe import Json, cells_json, doubt_json, timeline_json
from studio.errors import NotFoundError, answer_to
from studio.jobs import Job
from studio.limits import LimitError
from studio.room import Room
from studio.rooms import Rooms
from studio.turns import BusyError
from studio.uploads import Uploads
from studio.work import start_job

__all__ = ["Studio", "routes"]

T = TypeVar("T")

WIDTHS = (320, 640, 960, 1280, 1920, 3840)
JPEG_QUALITY = 88
MOST_BODY_BYTES = 32 * 2**20
MOST_LISTENERS = 64  # pages that a session tells what happens
FORM_BYTES = 2**16  # around a file that is uploaded
NEW_SESSION = {"upload": text, "name": text, "sample": text, "fps": number}
SAMPLES = {"parade": ("Parade (bundled sample)", Path(__file__).resolve().parent.parent / "assets" / "parade.mp4")}


class Studio:
    """What the routes and the API stand on.

    Args:
        rooms: all sessions.
        uploads: the files that were uploaded.
    """

    def __init__(self, rooms: Rooms, uploads: Uploads) -> None:
        self.rooms = rooms
        self.uploads = uploads
        self.slow = CapacityLimiter(32)  # threads of requests that may wait for a turn
        self.quick = CapacityLimiter(8)  # threads of frames, which never do

    async def in_thread(self, function: Callable[[], T], has_limit: bool = True) -> T:
        """Do what may take its time in a thread.

        Args:
            function: does it.
            has_limit: it may take no longer than a request.

        Raises:
            BusyError: it takes longer; it is done all the same.
        """
        seconds = self.rooms.limits.request_seconds if has_limit else math.inf
        with anyio.move_on_after(seconds):
            return await anyio.to_thread.run_sync(function, limiter=self.slow, abandon_on_cancel=True)
        raise BusyError(f"This takes longer than {seconds:g} seconds: what it changes is shown when it is done.")

    def create(self, args: Json, user: str | None) -> Json:
        """Make a session of an upload or a sample."""
        check_args("a new session", args, NEW_SESSION, [])
        fps = args.get("fps") or 30.0
        if not 0.1 <= fps <= 1000:
            raise ValueError(f"fps: expected 0.1 to 1000 frames per second, got {fps}")
        if args.get("sample") is not None:
            if args["sample"] not in SAMPLES:
                raise ValueError(f"expected a sample of {', '.join(SAMPLES)}, got {args['sample']!r}")
            path = SAMPLES[args["sample"]][1]
            room = self.rooms.create(path, path.name, fps, user, is_sample=True)
        else:
            path = self.uploads.find(args.get("upload"))
            name = Path(text("name", args.get("name") or path.name).replace("\\", "/")).name[:200] or "video"
            room = self.rooms.create(path, name, fps, user)
        with room.use() as session:
            room.look_at(0)
            return {"token": room.token, "state": room.state(session)}

    def start_job(self, room: Room, args: Json) -> Job:
        """Start a job, see `studio.work`; LimitError when there is no more disk for what it makes."""
        self.rooms.check_disk()
        return start_job(room, args)

    def check_upload(self, num_bytes: int | None) -> None:
        """LimitError for an upload that is too large, or when there is no more disk for any; see `Guard`."""
        most = self.rooms.limits.upload_bytes
        if num_bytes is not None and num_bytes > most + FORM_BYTES:
            raise LimitError(f"The file has {num_bytes / 2**20:.0f} MiB, at most {most / 2**20:.0f} MiB are taken.")
        self.rooms.check_disk()


def routes(studio: Studio) -> list[Route]:
    """All routes; the first path that fits counts."""
    handlers: list[tuple[str, str, Callable[[Studio, Request], Any]]] = [
        ("GET", "/studio/samples", _samples),
        ("POST", "/studio/sessions", _sessions),
        ("GET", "/studio/{token}/state", _state),
        ("DELETE", "/studio/{token}", _remove),
        ("GET", "/studio/{token}/frames/{t}", _frame),
        ("GET", "/studio/{token}/masks", _masks),
        ("GET", "/studio/{token}/timeline", _timeline),
        ("GET", "/studio/{token}/doubts", _doubts),
        ("POST", "/studio/{token}/do/{command}", _do),
        ("POST", "/studio/{token}/jobs", _start_job),
        ("DELETE", "/studio/{token}/jobs/{id}", _cancel_job),
        ("GET", "/studio/{token}/events", _events),
        ("GET", "/studio/{token}/files/{id}", _file),
    ]
    found = [Route(path, partial(_answered, studio, handler), methods=[method]) for method, path, handler in handlers]
    every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    return [*found, Route("/studio/{path:path}", partial(_answered, studio, _nothing), methods=every)]


async def _answered(studio: Studio, handler: Callable[[Studio, Request], Any], request: Request) -> Response:
    """What a handler answers, or what went wrong as one sentence."""
    try:
        answer = await handler(studio, request)
    except ClientDisconnect:  # went while it was still sending
        return Response(status_code=400)
    except Exception as error:
        status, sentence = answer_to(error, studio.rooms.folder)
        return JSONResponse({"error": sentence}, status)
    return answer if isinstance(answer, Response) else JSONResponse(answer, headers={"Cache-Control": "no-store"})


def _room(studio: Studio, request: Request) -> Room:
    return studio.rooms.get(request.path_params["token"], request.state.user)


async def _body(request: Request) -> Json:
    content = bytearray()  # grows without being copied each time
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BODY_BYTES:
            raise ValueError(f"expected at most {MOST_BODY_BYTES // 2**20} MiB of JSON")
    try:
        args = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        raise ValueError("expected JSON") from None
    if not isinstance(args, dict):
        raise ValueError("expected a JSON object")
    return args


def _query(request: Request, name: str, default: int | None = None) -> int:
    value = request.query_params.get(name)
    if value is None and default is not None:
        return default
    try:
        return whole(name, int(value or ""))
    except ValueError:
        raise ValueError(f"{name}: expected a whole number, got {value!r}") from None


async def _samples(studio: Studio, request: Request) -> list[Json]:
    return [{"name": name, "label": label} for name, (label, path) in SAMPLES.items() if path.is_file()]


async def _nothing(studio: Studio, request: Request) -> Json:
    raise NotFoundError("There is no such address.")


async def _sessions(studio: Studio, request: Request) -> Json:
    args, user = await _body(request), request.state.user
    return await studio.in_thread(lambda: studio.create(args, user), has_limit=False)  # a large file is copied


async def _state(studio: Studio, request: Request) -> Json:
    room = _room(studio, request)

    def state() -> Json:
        with room.use() as session:
            return room.state(session)

    return await studio.in_thread(state)


async def _remove(studio: Studio, request: Request) -> Json:
    room = _room(studio, request)
    await studio.in_thread(lambda: studio.rooms.remove(room))
    return {"removed": room.token}


async def _frame(studio: Studio, request: Request) -> Response:
    room, width = _room(studio, request), _query(request, "width", 1280)
    try:
        frame_idx = int(request.path_params["t"])
    except ValueError:
        raise NotFoundError("There is no such frame.") from None
    if width not in WIDTHS:
        raise ValueError(f"width: expected one of {', '.join(map(str, WIDTHS))}, got {width}")
    jpeg = await anyio.to_thread.run_sync(lambda: _jpeg(room, frame_idx, width), limiter=studio.quick)
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=31536000, immutable"})


def _jpeg(room: Room, frame_idx: int, width: int) -> bytes:
    frames = room.shown_frames()
    if not 0 <= frame_idx < len(frames):
        raise NotFoundError(f"There is no frame {frame_idx}: the video has {len(frames)}.")
    image = frames[frame_idx]
    if width < image.shape[1]:
        height = max(1, round(image.shape[0] * width / image.shape[1]))
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return encoded.tobytes()


async def _masks(studio: Studio, request: Request) -> Json:
    room, first = _room(studio, request), _query(request, "first")
    last = _query(request, "last", first)

    def masks() -> Json:
        with room.use() as session:
            return cells_json(session, first, last)

    return await studio.in_thread(masks)


async def _timeline(studio: Studio, request: Request) -> Json:
    room = _room(studio, request)

    def timeline() -> Json:
        with room.use() as session:
            return timeline_json(session, room.cuts())

    return await studio.in_thread(timeline)


async def _doubts(studio: Studio, request: Request) -> list[Json]:
    room, limit = _room(studio, request), _query(request, "limit", 200)
    if limit < 1:
        raise ValueError(f"limit: expected at least 1, got {limit}")

    def found() -> list[Json]:
        with room.use() as session:
            return [doubt_json(doubt) for doubt in doubts(session, limit=limit)]

    return await studio.in_thread(found)


async def _do(studio: Studio, request: Request) -> Json:
    room, args = _room(studio, request), await _body(request)
    return await studio.in_thread(lambda: do(room, request.path_params["command"], args))


async def _start_job(studio: Studio, request: Request) -> Json:
    room, args = _room(studio, request), await _body(request)
    return {"job": (await studio.in_thread(lambda: studio.start_job(room, args))).to_json()}


async def _cancel_job(studio: Studio, request: Request) -> Json:
    room = _room(studio, request)
    job = room.jobs.get(request.path_params["id"])
    if job is None:
        raise NotFoundError("There is no such job.")
    job.cancel()
    return {"job": job.to_json()}


async def _events(studio: Studio, request: Request) -> Response:
    room = _room(studio, request)
    if len(room.hub) >= MOST_LISTENERS:
        raise BusyError(f"{len(room.hub)} pages show this session: close some of them.")
    subscriber = room.hub.subscribe()

    def begin() -> None:
        with room.use() as session:  # where states are made and told: an older one comes after none
            subscriber.put({"event": "state", "state": room.state(session), "touched": []})

    async def lines() -> AsyncIterator[str]:
        try:
            async for line in subscriber.lines():
                yield line
        finally:
            room.hub.unsubscribe(subscriber)

    try:
        await studio.in_thread(begin)
    except BaseException:
        room.hub.unsubscribe(subscriber)
        raise
    return StreamingResponse(lines(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _file(studio: Studio, request: Request) -> Response:
    room = _room(studio, request)
    job = room.jobs.get(request.path_params["id"])
    path = None if job is None else job.path
    if job is None or job.state != "done" or path is None or not path.is_file():
        raise NotFoundError("There is no such file: results are made anew in the Download panel.")
    await asyncio.sleep(0)
    return FileResponse(path, filename=path.name, headers={"Cache-Control": "no-store"})
