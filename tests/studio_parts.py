"""A server in this process, with models that need no weights, and a client for it."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import supervision as sv
from fake_follower import picture
from PIL import Image
from session_parts import SIZE, DriftingFollower
from starlette.testclient import TestClient

from grounded_sam2.masks import boxes_around, encode_rle
from studio import Limits, Models, build_app

DOG, CAT = 40, 90  # colours
NUM_FRAMES = 12
ADDRESS = "http://localhost"
# what is uploaded is opened in this process: half a second less for each file
QUICK = Limits(look_seconds=None, sessions_per_user=1000, sessions=1000)


class ByColour:
    """Finds dogs and cats by their colours."""

    def detect(self, image: np.ndarray, text_prompt: str, **options: Any) -> list[sv.Detections]:
        names = {DOG: "dog", CAT: "cat"}
        there = [colour for colour in names if (image == colour).all(-1).any() and names[colour] in text_prompt]
        masks = np.array([(image == colour).all(-1) for colour in there], bool).reshape(-1, *image.shape[:2])
        xyxy = boxes_around(masks) if there else np.zeros((0, 4), np.float32)
        class_id = np.arange(len(there))
        class_name = np.array([names[colour] for colour in there], str)
        confidence = np.full(len(there), 0.8, np.float32)
        return [sv.Detections(xyxy, confidence=confidence, class_id=class_id, data={"class_name": class_name})]


def make_models(follower: Any = None, **detectors: Callable[[], Any]) -> Models:
    return Models(follower or DriftingFollower(), detectors or {"colours": ByColour}, note="small models")


def zipped_frames(num_frames: int = NUM_FRAMES) -> bytes:
    """A zip of PNG images: a dog and a cat, who walk to the right."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for t in range(num_frames):
            image = io.BytesIO()
            boxes = {DOG: (2 + t, 4, 12 + t, 14), CAT: (2 + t, 30, 14 + t, 40)}
            Image.fromarray(picture(boxes, SIZE)).save(image, "PNG")
            archive.writestr(f"{t}.png", image.getvalue())
    return packed.getvalue()


def counts_of(mask: np.ndarray) -> str:
    return str(encode_rle(mask[None])[0]["counts"])


class Page:
    """A page of one session, as far as it speaks to the server."""

    def __init__(self, client: TestClient, token: str) -> None:
        self.client = client
        self.token = token
        self.address = f"/studio/{token}"

    def get(self, path: str) -> Any:
        answer = self.client.get(f"{self.address}/{path}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def do(self, command: str, **args: Any) -> Any:
        """Do a command; returns its whole answer."""
        answer = self.client.post(f"{self.address}/do/{command}", json=args)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def result(self, command: str, **args: Any) -> Any:
        return self.do(command, **args)["result"]

    def refused(self, command: str, **args: Any) -> tuple[int, str]:
        """Status and sentence of a command that is refused."""
        headers = {"Content-Type": "application/json"}
        answer = self.client.post(f"{self.address}/do/{command}", content=json.dumps(args), headers=headers)
        assert list(answer.json()) == ["error"], answer.text
        return answer.status_code, answer.json()["error"]

    def start(self, kind: str, **args: Any) -> dict[str, Any]:
        answer = self.client.post(f"{self.address}/jobs", json={"kind": kind, **args})
        assert answer.status_code == 200, answer.text
        return answer.json()["job"]

    def job(self, kind: str, **args: Any) -> dict[str, Any]:
        """Start a job and wait for its end."""
        return self.wait(self.start(kind, **args)["id"])

    def wait(self, job_id: str, seconds: float = 20.0) -> dict[str, Any]:
        """A job once it is over."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            [job] = [job for job in self.get("state")["jobs"] if job["id"] == job_id]
            if job["state"] in ("done", "cancelled", "failed"):
                return job
            time.sleep(0.01)
        raise AssertionError(f"{job} is not over")

    def masks(self, first: int = 0, last: int = NUM_FRAMES - 1) -> dict[int, dict[int, Any]]:
        """Frame → object → cell."""
        frames = self.get(f"masks?first={first}&last={last}")["frames"]
        return {int(t): {cell["id"]: cell for cell in cells} for t, cells in frames.items()}


def upload(client: TestClient, content: bytes, name: str = "clip.zip") -> str:
    """Upload a file as the page does; returns the path on the server."""
    answer = client.post("/gradio_api/upload", files={"files": (name, content)})
    assert answer.status_code == 200, answer.text
    return str(answer.json()[0])


def new_page(client: TestClient, content: bytes | None = None, **args: Any) -> Page:
    """A session of an uploaded zip."""
    path = upload(client, zipped_frames() if content is None else content)
    answer = client.post("/studio/sessions", json={"upload": path, "name": "clip.zip", **args})
    assert answer.status_code == 200, answer.text
    return Page(client, answer.json()["token"])


@contextmanager
def serving(folder: Path, models: Models | None = None, limits: Limits = QUICK, **options: Any) -> Iterator[TestClient]:
    """A server of a folder, running until the block ends; the client's `app.state.studio` has its rooms."""
    app = build_app(models or make_models(), folder, limits=limits, **options)
    with TestClient(app, ADDRESS) as client:
        yield client
