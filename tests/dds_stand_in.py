"""The DDS cloud's HTTP protocol on loopback: it answers from ground truth, and misbehaves when it is told to."""

from __future__ import annotations

import base64
import io
import json
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

from grounded_sam2.masks import encode_rle
from training.scenes import Scene

TOKEN = "5ecre7-70ken-0f-7he-7e57s"
_MODELS = {
    "/v2/task/dinox/detection": ("DINO-X-1.0",),
    "/v2/task/grounding_dino/detection": ("GroundingDino-1.5-Pro", "GroundingDino-1.5-Edge", "GroundingDino-1.6-Pro"),
}


@dataclass
class Task:
    """A task that was started: what was asked, and how often it was looked at since."""

    body: dict[str, Any]
    polls: int = 0


@dataclass
class Truth:
    """What an image shows: boxes (N, 4) xyxy and masks (N, H, W) in its pixels, and N phrases, the surest first."""

    image: np.ndarray
    boxes_xyxy: np.ndarray
    masks: np.ndarray
    phrases: list[str]
    scores: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, scene: Scene) -> Truth:
        """The objects of a scene that are to be seen."""
        seen = np.flatnonzero(scene.masks.any(axis=(1, 2)))
        phrases = [scene.phrases[index] for index in seen]
        return cls(scene.image, scene.boxes_xyxy[seen], scene.masks[seen], phrases)

    def __post_init__(self) -> None:
        self.scores = self.scores or [round(0.95 - 0.02 * index, 2) for index in range(len(self.phrases))]


class StandIn(ThreadingHTTPServer):
    """The service. Each entry of `mischief["POST"]` or `mischief["GET"]` spoils one request; see `Handler`.

    Attributes:
        asked: method and path of every request, in order.
        tasks: what was started, by uuid; this is what an account pays for.
        polls_until_done: how often a task is "waiting" or "running" before it is done.
    """

    daemon_threads = True

    def __init__(self, truths: Sequence[Truth]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.truths = list(truths)
        self.mischief: dict[str, list[str]] = {"POST": [], "GET": []}
        self.asked: list[tuple[str, str]] = []
        self.tasks: dict[str, Task] = {}
        self.uuid_of_key: dict[str, str] = {}
        self.polls_until_done = 0
        self.going_down = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start_task(self, key: str, body: dict[str, Any]) -> str:
        """Start a task, once for each idempotency key."""
        if key not in self.uuid_of_key:
            self.uuid_of_key[key] = str(uuid.uuid4())
            self.tasks[self.uuid_of_key[key]] = Task(body)
        return self.uuid_of_key[key]

    def objects(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """What the known image that is most like the one sent shows of the prompt."""
        encoded = body["image"].removeprefix("data:image/jpeg;base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))
        truth = min(self.truths, key=lambda truth: np.abs(_small(truth.image) - _small(np.asarray(picture))).mean())
        height, width = truth.image.shape[:2]
        scale = np.array([picture.width / width, picture.height / height] * 2)
        wanted = [text.strip() for text in body["prompt"]["text"].split(".")]
        found = []
        for phrase, score, box, mask in zip(truth.phrases, truth.scores, truth.boxes_xyxy, truth.masks, strict=True):
            if phrase in wanted and score >= body["bbox_threshold"]:
                found.append({"bbox": (box * scale).tolist(), "score": score, "category": phrase})
                if "mask" in body["targets"]:
                    assert body["mask_format"] == "coco_rle"
                    sent = np.asarray(Image.fromarray(mask).resize(picture.size, Image.Resampling.NEAREST))
                    found[-1]["mask"] = {**encode_rle(sent[None])[0], "format": "coco_rle"}
        return found


def _small(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((32, 32)), dtype=float)


class Handler(BaseHTTPRequestHandler):
    """Kinds of mischief: "500" and other statuses, "429 after 3" (Retry-After), "hang", "reset", "no json", "no
    protocol", "quota", "refuse", "redirect URL", and for a task that is looked at "fail", "no result", "bad objects".
    """

    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self._is_spoilt():
            return
        request = json.loads(body)
        if request["model"] not in _MODELS.get(self.path, ()):
            self._answer(
                404, {"code": 10404, "msg": "Resource Not Found. API docs: https://cloud.deepdataspace.com/docs"}
            )
            return
        task_uuid = self.server.start_task(self.headers["Idempotency-Key"], request)
        if self.server.mischief["POST"][:1] == ["lose"]:  # the task is started, the answer never arrives
            self.server.mischief["POST"].pop(0)
            self._reset()
            return
        self._answer(200, {"code": 0, "msg": "ok", "data": {"task_uuid": task_uuid}})

    def do_GET(self) -> None:
        task = self.server.tasks.get(self.path.removeprefix("/v2/task_status/"))
        mischief = self.server.mischief["GET"][:1]
        if self._is_spoilt():
            return
        if task is None:
            self._answer(404, {"code": 10404, "msg": "Resource Not Found"})
            return
        task.polls += 1
        state: dict[str, Any] = {"status": "success", "error": None}
        if mischief == ["fail"]:
            state = {"status": "failed", "error": f"the image is broken, says {TOKEN}"}
        elif mischief == ["no result"]:
            state["result"] = None
        elif mischief == ["bad objects"]:
            state["result"] = {"objects": [{"bbox": [1, 2, "three"], "score": 0.9, "category": "dog"}]}
        elif task.polls <= self.server.polls_until_done:
            state["status"] = "waiting" if task.polls == 1 else "running"
        else:
            state["result"] = {"objects": self.server.objects(task.body)}
        self._answer(200, {"code": 0, "msg": "ok", "data": state})

    def _is_spoilt(self) -> bool:
        """Do what the next mischief says, if it is one for any request; every message echoes the token."""
        self.server.asked.append((self.command, self.path))
        mischiefs = self.server.mischief[self.command]
        if self.headers["Token"] != TOKEN:
            self._answer(401, {"code": 10401, "msg": f"invalid token {self.headers['Token']}"})
            return True
        if mischiefs[:1] == ["lose"]:
            return False
        kind, _, value = (mischiefs.pop(0) if mischiefs else "").partition(" ")
        mischief = f"{kind} {value}".strip()
        if kind.isdigit():
            retry_after = {"Retry-After": value.removeprefix("after ")} if value else {}
            self._answer(int(kind), {"code": 1, "msg": f"not now, {TOKEN}"}, retry_after)
        elif mischief == "hang":
            self.server.going_down.wait(10)
        elif mischief == "reset":
            self._reset()
        elif mischief == "no json":
            self._answer(200, f"<html>Welcome, {TOKEN}</html>")
        elif mischief == "no protocol":
            self._answer(200, {"welcome": TOKEN})
        elif mischief == "quota":
            self._answer(200, {"code": 10005, "msg": "Token out of Quota"})
        elif mischief == "refuse":
            self._answer(400, {"code": 10400, "msg": f"prompt too long for {TOKEN}"})
        elif kind == "redirect":
            self._answer(307, "", {"Location": value})
        else:
            return False
        return True

    def _reset(self) -> None:
        self.close_connection = True
        os.close(self.connection.detach())

    def _answer(self, status: int, answer: dict[str, Any] | str, headers: dict[str, str] | None = None) -> None:
        content = (answer if isinstance(answer, str) else json.dumps(answer)).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running(truths: Sequence[Truth]) -> Iterator[StandIn]:
    """A stand-in that serves until the block ends."""
    server = StandIn(truths)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.going_down.set()
        server.shutdown()
        server.server_close()
        thread.join()
