"""Every address of the server, without a browser: what is answered, what is refused, and what is still there later."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import httpx
import numpy as np
import pytest

pytest.importorskip("gradio")

import uvicorn
from clips import make_video
from session_parts import SIZE, DriftingFollower, DriftingVideo, box_mask, forward
from starlette.requests import Request
from starlette.testclient import TestClient
from studio_parts import NUM_FRAMES, QUICK, Page, counts_of, make_models, new_page, serving, zipped_frames

from grounded_sam2.masks import decode_rle
from grounded_sam2.session import open_session
from studio import build_app, routes
from studio.app import listening
from studio.commands import COMMANDS
from studio.events import Subscriber
from studio.room import Room

pytestmark = pytest.mark.usefixtures("quick_disk")

MASK, OTHER = box_mask(4, 4, 12, 12), box_mask(30, 20, 40, 30)


class Slow(DriftingFollower):
    """Takes a moment for each frame."""

    def open_video(self, frames: Any) -> DriftingVideo:
        video = super().open_video(frames)
        follow = video.follow

        def slowly(frame_idx: int, reverse: bool = False) -> Any:
            for item in follow(frame_idx, reverse):
                time.sleep(0.03)
                yield item

        video.follow = slowly  # type: ignore[method-assign]
        return video


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(tmp_path_factory.mktemp("server")) as client:
        yield client


@pytest.fixture
def page(client: TestClient) -> Page:
    return new_page(client)


def mask_of(cell: dict[str, Any]) -> np.ndarray:
    return decode_rle([{"size": [SIZE[1], SIZE[0]], "counts": cell["counts"]}])[0]


# ---- sessions, frames, masks ----


def test_the_samples_can_be_opened(client: TestClient) -> None:
    [sample] = client.get("/studio/samples").json()
    made = client.post("/studio/sessions", json={"sample": sample["name"]}).json()
    assert made["state"]["num_frames"] == 192 and made["state"]["note"] is None
    assert made["state"] | {"version": 0} == Page(client, made["token"]).get("state") | {"version": 0}


def test_the_state_of_a_new_session(page: Page) -> None:
    state = page.get("state")
    assert state.pop("version") > 0 and state.pop("results")[0].keys() >= {"kind", "label", "takes_objects"}
    assert state == {
        "token": page.token, "name": "clip.zip", "num_frames": NUM_FRAMES, "width": 64, "height": 48, "fps": 30.0,
        "objects": [], "search": {"text_prompt": "", "box_threshold": 0.35, "text_threshold": 0.25},
        "undo": None, "redo": None, "unfinished": None, "jobs": [], "detectors": ["colours"], "has_sound": False,
        "note": "small models",
    }  # fmt: skip
    assert len(page.token) == 32


def test_frames_are_jpegs_of_the_asked_width_and_never_enlarged(client: TestClient, tmp_path: Path) -> None:
    video = make_video(tmp_path / "clip.mp4", num_frames=3, size=(700, 350))
    page = new_page(client, video.read_bytes(), fps=25)
    for asked, width in ((320, 320), (640, 640), (1280, 700)):
        answer = client.get(f"{page.address}/frames/1?width={asked}")
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
        assert image.shape == (width // 2, width, 3)
    shown = page.client.app.state.studio.rooms.get(page.token).shown_frames()[1]  # type: ignore[attr-defined]
    assert np.abs(image[..., ::-1].astype(int) - shown).mean() < 4


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("frames/12", 404), ("frames/-1", 404), ("frames/x", 404), ("frames/0?width=17", 400), ("masks", 400),
        ("masks?first=0&last=12", 400), ("masks?first=5&last=3", 400), ("masks?first=x", 400), ("doubts?limit=0", 400),
        ("files/abc", 404), ("nothing", 404),
    ],
)  # fmt: skip
def test_what_is_not_there_is_one_sentence(page: Page, path: str, status: int) -> None:
    answer = page.client.get(f"{page.address}/{path}")
    assert answer.status_code == status, answer.text
    [sentence] = answer.json().values()
    assert list(answer.json()) == ["error"] and "\n" not in sentence and str(page.client) not in sentence


def test_at_most_64_frames_of_masks_at_a_time(client: TestClient) -> None:
    page = Page(client, client.post("/studio/sessions", json={"sample": "parade"}).json()["token"])
    assert len(page.masks(10, 73)) == 64
    answer = client.get(f"{page.address}/masks?first=10&last=74")
    assert (answer.status_code, answer.json()["error"]) == (400, "expected at most 64 frames at a time, got 65")


# ---- commands ----


def test_find_accept_track_correct_and_track_again(page: Page) -> None:
    page.do("set_search", text_prompt="dog. cat.", box_threshold={"dog": 0.5})
    assert page.get("state")["search"]["box_threshold"] == {"dog": 0.5}
    found = page.result("find", frame=0)
    assert [(item["key"], item["label"], item["known_as"]) for item in found["items"]] == [(0, "dog", 0), (1, "cat", 0)]
    answer = page.do("accept", find=found["find"], keys=[1])
    assert answer["result"] == {"ids": [1]} and answer["touched"] == [[1, 0, 0]]
    [cat] = answer["state"]["objects"]
    assert (cat["name"], cat["class_name"], cat["given"], cat["confidence"]) == ("cat 1", "cat", [0], 0.8)
    assert [item["known_as"] for item in page.result("find", frame=0)["items"]] == [0, 1]

    job = page.job("propagate")
    assert (job["state"], job["done"], job["total"], job["label"]) == ("done", 11, 11, "Tracking frames 0 to 11")
    masks = page.masks()
    np.testing.assert_array_equal(mask_of(masks[11][1]), forward(box_mask(2, 30, 14, 40), 11))
    assert masks[0][1]["kind"] == "given" and masks[1][1]["kind"] == "tracked"
    assert masks[1][1]["box"] == [3, 30, 15, 40] and masks[1][1]["area"] == 120 and masks[1][1]["score"] == 0.9

    page.do("set_mask", id=1, frame=6, counts=counts_of(MASK))
    assert page.job("propagate", ids=[1], until_barrier_from=6)["total"] == 11  # on frame 3 both sides meet
    np.testing.assert_array_equal(mask_of(page.masks()[6][1]), MASK)  # a barrier
    timeline = page.get("timeline")
    assert timeline["barriers"] == {"1": [0, 6]} and timeline["rounds"] == [0]
    assert timeline["objects"]["1"]["states"] == [["corrected", 1], ["seen", 5], ["corrected", 1], ["seen", 5]]
    assert timeline["objects"]["1"]["score"][:2] == [75, 90] and timeline["objects"]["1"]["score"][6] == -1
    assert {doubt["reason"] for doubt in page.get("doubts")} <= {"sides disagree", "area jump"}


def test_clicks_boxes_masks_and_brushes(page: Page) -> None:
    seen = page.result("preview", frame=2, box=[4, 4, 12, 12])
    assert seen["box"] == [4, 4, 12, 12] and seen["score"] == 0.9 and page.get("state")["objects"] == []
    assert page.result("add", frame=2, box=[4, 4, 12, 12], name="Rex", class_name="dog") == {"id": 1, "score": 0.9}
    np.testing.assert_array_equal(mask_of({"counts": seen["counts"]}), mask_of(page.masks()[2][1]))
    assert page.result("add", frame=0, points=[[20, 20]], labels=[1])["id"] == 2
    assert page.result("add", frame=0, counts=counts_of(OTHER)) == {"id": 3, "score": None}
    assert page.result("refine", id=1, frame=2, points=[[30, 30]], labels=[1]) == {"score": 0.9}
    assert page.masks()[2][1]["area"] == 64 + 25
    assert page.result("preview", frame=2, id=1, points=[[8, 8]], labels=[0])["score"] == 0.9
    assert page.result("paint", id=3, frame=0, stroke=[[10, 10], [12, 10]], radius=2)["area"] > 100
    page.do("paint", id=3, frame=0, stroke=[[35, 25]], radius=60, erase=True)
    assert page.masks()[0][3]["area"] == 0 and page.masks()[0][3]["box"] == [0, 0, 0, 0]
    assert page.result("show", frame=3) is None


def test_objects_and_spans(page: Page) -> None:
    for mask in (MASK, OTHER):
        page.do("add", frame=0, counts=counts_of(mask))
    page.job("propagate")
    page.do("rename", id=1, name="Rex", class_name="wolf")
    page.do("recolor", id=1, color="#00ff00")
    page.do("hide", id=1)
    page.do("lock", id=1, is_locked=True)
    [rex, _] = page.get("state")["objects"]
    assert rex | {"color": rex["color"].lower()} == {
        "id": 1, "name": "Rex", "class_name": "wolf", "color": "#00ff00", "home_frame": 0, "is_hidden": True,
        "is_locked": True, "confidence": 1.0, "given": [0],
    }  # fmt: skip
    assert page.refused("remove", id=1) == (400, "object 1 (Rex) is locked: unlock it first")
    page.do("lock", id=1, is_locked=False)
    assert page.do("swap", id=1, other=2, first=4, last=6)["touched"] == [[1, 4, 6], [2, 4, 6]]
    assert page.result("split", id=2, first=8)["id"] == 3
    assert page.do("merge", id=1, other=3)["touched"] == [[1, 8, 11], [3, 0, 11]]
    assert page.do("clear", id=1, first=10)["touched"] == [[1, 10, 11]]
    page.do("pin", id=1, frame=2)
    assert page.get("state")["objects"][0]["given"][:2] == [0, 2]
    page.do("release", id=1, frame=2)
    assert page.do("remove", id=2)["touched"] == [[2, 0, 11]]
    assert [obj["id"] for obj in page.get("state")["objects"]] == [1]


def test_everything_is_undone_and_redone(page: Page) -> None:
    page.do("add", frame=0, counts=counts_of(MASK))
    page.job("propagate")
    before = page.masks()
    version = page.get("state")["version"]
    answer = page.do("undo")
    assert answer["result"] == {"kind": "propagate"} and answer["touched"] == [[1, 1, 11]]
    assert (answer["state"]["undo"], answer["state"]["redo"]) == ("add", "propagate")
    assert answer["state"]["version"] > version
    assert page.do("redo")["touched"] == [[1, 1, 11]] and page.masks() == before
    assert page.result("redo") == {"kind": None}
    page.do("undo")
    page.do("undo")
    assert page.do("undo")["result"] == {"kind": None} and page.get("state")["objects"] == []


def test_pieces_are_united_in_groups(page: Page) -> None:
    page.do("set_search", text_prompt="dog. cat.")
    found = page.result("find", frame=0)  # pieces are accepted in the same way, whoever found them
    assert page.result("accept_pieces", find=found["find"], groups=[[0, 1], [1]], class_name="pet") == {"ids": [1, 2]}
    cells = page.masks()[0]
    assert (cells[1]["area"], cells[2]["area"]) == (220, 120)
    assert page.get("state")["undo"] == "accept"
    assert page.refused("everything", frame=0) == (
        400, "this model cannot segment everything on a frame: add objects by clicks or by text",
    )  # fmt: skip


def test_finds_are_kept_for_a_while(page: Page) -> None:
    page.do("set_search", text_prompt="dog.")
    first = page.result("find", frame=0)["find"]
    for t in range(8):
        page.result("find", frame=t)
    assert page.refused("accept", find=first, keys=[0])[0] == 409
    assert page.result("accept", find=page.result("find", frame=1)["find"], keys=[]) == {"ids": []}


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("fly", {}, "expected a command of add, refine"),
        ("add", {}, "add needs frame"),
        ("add", {"frame": 0}, "expected either a mask, or a box or points"),
        ("add", {"frame": 99, "box": [0, 0, 9, 9]}, "from 0 to 11, got 99"),
        ("add", {"frame": 0.5, "box": [0, 0, 9, 9]}, "frame: expected a whole number"),
        ("add", {"frame": True, "box": [0, 0, 9, 9]}, "frame: expected a number, got True"),
        ("add", {"frame": "0", "box": [0, 0, 9, 9]}, "frame: expected a number, got '0'"),
        ("add", {"frame": 1e300, "box": [0, 0, 9, 9]}, "frame: expected a whole number"),
        ("add", {"frame": 0, "box": [0, 0, 9]}, "expected a box of 4"),
        ("add", {"frame": 0, "box": [0, 0, 9, "x"]}, "box: expected a number"),
        ("add", {"frame": 0, "points": [[1, 2, 3]]}, "points: expected points"),
        ("add", {"frame": 0, "points": [[900, 2]]}, "expected points in a frame of 64x48"),
        ("add", {"frame": 0, "points": [[1, 2]], "labels": [2]}, "labels of 0 or 1"),
        ("add", {"frame": 0, "points": [[1, 2]] * 10_001}, "a list of at most 10000"),
        ("add", {"frame": 0, "counts": "xyz"}, "expected {"),
        ("add", {"frame": 0, "box": [0, 0, 9, 9], "wings": 2}, "got 'wings'"),
        ("preview", {"frame": 0, "id": 1}, "expected points to refine"),
        ("refine", {"id": 7, "frame": 0, "points": [[1, 1]]}, "got 7"),
        ("paint", {"id": 1, "frame": 0, "stroke": [[1, 1]], "radius": 0}, "expected one of the objects"),
        ("set_search", {"text_prompt": "."}, "prompt"),
        ("set_search", {"text_prompt": "dog.", "box_threshold": 3}, "3"),
        ("find", {"frame": 0}, "nothing to look for"),
        ("find", {"frame": 0, "detector": "eagle"}, "expected a detector of colours, got 'eagle'"),
        ("accept", {"find": "a", "keys": [0]}, "look again"),
        ("rename", {"id": 1, "name": "x" * 10_001}, "expected a text of at most"),
        ("recolor", {"id": 1, "color": "#00ff00"}, "expected one of the objects"),
        ("hide", {"id": 1, "is_hidden": 1}, "expected true or false"),
        ("merge", {"id": 1, "other": 1}, "expected one of the objects"),
        ("undo", {"steps": 3}, "undo takes nothing, got 'steps'"),
        ("show", {"frame": 10**400}, "frame: expected a number, got 1000"),
        ("add", {"frame": 0, "points": [[1, -(10**400)]]}, "points: expected a number, got -1000"),
        ("set_search", {"text_prompt": "dog.", "box_threshold": {"dog": 10**400}}, "box_threshold: expected a number"),
        ("set_search", {"text_prompt": "dog\ud800."}, "text_prompt: expected a text of whole characters"),
        ("set_search", {"text_prompt": "dog.", "box_threshold": {"\udfff": 0.1}}, "a text of whole characters"),
        ("add", {"frame": 0, "box": [0, 0, 9, 9], "name": "\ud83d"}, "name: expected a text of whole characters"),
        ("add", {"frame": 0, "points": [[1, 2]] * 501}, "expected at most 500 clicks"),
    ],
)  # fmt: skip
def test_a_bad_command_is_one_sentence_and_changes_nothing(
    page: Page, command: str, args: dict[str, Any], message: str
) -> None:
    before = page.get("state") | {"version": 0}
    status, sentence = page.refused(command, **args)
    assert 400 <= status < 500 and message in sentence and len(sentence) < 700 and "\n" not in sentence
    assert page.get("state") | {"version": 0} == before


def test_every_command_of_the_page_is_there() -> None:
    contract = (
        "add refine preview paint set_mask set_search find accept everything accept_pieces rename recolor hide lock "
        "remove merge split swap clear pin release undo redo show"
    )
    assert sorted(COMMANDS) == sorted(contract.split())


def test_a_number_of_any_length_in_an_address(page: Page) -> None:
    for path in ("masks?first=", "masks?first=0&last=", "doubts?limit="):
        answer = page.client.get(f"{page.address}/{path}{10**400}")
        assert answer.status_code == 400 and "expected a whole number" in answer.json()["error"]


def test_who_goes_while_sending_is_no_fault_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def handler(studio: Any, request: Request) -> Any:
        return await routes._body(request)

    studio: Any = SimpleNamespace(rooms=SimpleNamespace(folder=None))
    asyncio.run(routes._answered(studio, handler, Request({"type": "http"}, receive)))
    assert caplog.text == ""


def test_a_long_body_comes_in_small_pieces_and_holds_nobody_up() -> None:
    pieces = 32 * 64  # of 16 KiB each

    async def receive() -> dict[str, Any]:
        nonlocal pieces
        pieces -= 1
        return {"type": "http.request", "body": b" " * 2**14, "more_body": pieces > 0}

    started = time.process_time()
    with pytest.raises(ValueError, match=r"expected JSON$"):
        asyncio.run(routes._body(Request({"type": "http"}, receive)))
    assert time.process_time() - started < 2  # 0.1 s; where all is copied for each piece, 8 s


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b'"x"', b"\xff", b"[" * 100_000])
def test_what_is_no_json_object(page: Page, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = page.client.post(f"{page.address}/do/add", content=content, headers=headers)
    assert answer.status_code == 400 and list(answer.json()) == ["error"]


# ---- jobs ----


def wait_for(is_so: Callable[[], Any], seconds: float = 10.0) -> Any:
    ends = time.monotonic() + seconds
    while not (found := is_so()):
        assert time.monotonic() < ends
        time.sleep(0.01)
    return found


def num_done(page: Page) -> int:
    return sum(bool(cells) for cells in page.masks().values())


def test_a_job_that_is_cancelled_keeps_what_was_done_and_is_gone_on_with(tmp_path: Path) -> None:
    with serving(tmp_path, make_models(Slow())) as client:
        page = new_page(client)
        page.do("add", frame=0, counts=counts_of(MASK))
        job = page.start("propagate")
        wait_for(lambda: num_done(page) >= 4)
        assert client.delete(f"{page.address}/jobs/{job['id']}").json()["job"]["id"] == job["id"]
        assert page.wait(job["id"])["state"] == "cancelled"
        assert 4 <= num_done(page) < NUM_FRAMES
        assert page.get("state")["unfinished"] == {"first": 0, "last": 11, "direction": "both", "ids": [1]}
        assert page.job("resume")["state"] == "done"
        assert num_done(page) == NUM_FRAMES and page.get("state")["unfinished"] is None
        answer = client.post(f"{page.address}/jobs", json={"kind": "resume"})
        assert answer.status_code == 409 and "track again" in answer.json()["error"]
        assert client.delete(f"{page.address}/jobs/nothing").status_code == 404


def test_a_command_while_a_job_runs_is_refused_and_a_second_job_too(client: TestClient, page: Page) -> None:
    page.do("add", frame=0, counts=counts_of(MASK))
    room = client.app.state.studio.rooms.get(page.token)  # type: ignore[attr-defined]
    with room.models.turns.turn("test"):  # no frame is done meanwhile
        job = page.start("propagate")
        assert page.refused("rename", id=1, name="x") == (
            409, "Tracking frames 0 to 11 is running: stop it, which keeps what is done, or wait for its end.",
        )  # fmt: skip
        assert page.client.post(f"{page.address}/jobs", json={"kind": "propagate"}).status_code == 409
        assert page.get("state")["unfinished"] is None and page.masks()[0][1]["area"] == 64
    assert page.wait(job["id"])["state"] == "done"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "kind: expected one of propagate"),
        ({"kind": "propagate", "direction": "up"}, "direction: expected one of forward"),
        ({"kind": "propagate", "first": 5, "last": 2}, "got 5 to 2"),
        ({"kind": "propagate", "ids": [9]}, "got 9"),
        ({"kind": "propagate", "until_barrier_from": 3}, "needs the one object in ids"),
        ({"kind": "follow_and_find", "every": 0}, "got every 0"),
        ({"kind": "follow_and_find"}, "nothing to look for"),
        ({"kind": "follow_and_find", "detector": "eagle"}, "expected a detector"),
        ({"kind": "result"}, "result needs result"),
        ({"kind": "result", "result": "film"}, "result: expected one of video"),
        ({"kind": "result", "result": "blur", "options": {"speed": 1}}, "got 'speed'"),
        ({"kind": "resume", "first": 1}, "resume takes nothing"),
    ],
)
def test_a_bad_job_is_one_sentence(page: Page, args: dict[str, Any], message: str) -> None:
    answer = page.client.post(f"{page.address}/jobs", json=args)
    assert answer.status_code == 400 and message in answer.json()["error"]
    assert page.get("state")["jobs"] == []


def test_following_and_finding(page: Page) -> None:
    page.do("set_search", text_prompt="dog. cat.")
    assert page.job("follow_and_find", every=4)["state"] == "done"
    state = page.get("state")
    assert [obj["name"] for obj in state["objects"]] == ["dog 1", "cat 2"] and state["unfinished"] is None
    assert all(set(cells) == {1, 2} for cells in page.masks().values())


def test_results_are_made_and_kept_and_the_oldest_go(tmp_path: Path) -> None:
    limits = type(QUICK)(look_seconds=None, results=2)
    with serving(tmp_path, limits=limits) as client:
        page = new_page(client)
        page.do("add", frame=0, counts=counts_of(MASK), class_name="dog")
        page.job("propagate")
        jobs = [page.job("result", result=kind) for kind in ("coco", "mot", "video")]
        assert [job["file"] for job in jobs] == ["clip-coco.json", "clip-mot.txt", "clip-annotated.mp4"]
        answer = client.get(f"{page.address}/files/{jobs[1]['id']}")
        assert answer.text.count("\n") == NUM_FRAMES and len(answer.content) == jobs[1]["size"]
        assert answer.headers["content-disposition"] == 'attachment; filename="clip-mot.txt"'
        assert client.get(f"{page.address}/files/{jobs[0]['id']}").status_code == 404
        failed = page.job("result", result="blur", ids=[9])
        assert failed["state"] == "failed" and "got 9" in failed["error"]
    with serving(tmp_path, limits=limits) as client:  # they are there again after a restart
        again = Page(client, page.token)
        kept = [job["id"] for job in again.get("state")["jobs"]]
        assert jobs[2]["id"] in kept
        assert client.get(f"{page.address}/files/{jobs[2]['id']}").content[4:8] == b"ftyp"


def test_a_detector_that_cannot_be_built_says_why(tmp_path: Path) -> None:
    def build() -> Any:
        raise FileNotFoundError("no weights in eagle: python -m grounded_sam2.download eagle")

    with serving(tmp_path, make_models(eagle=build)) as client:
        page = new_page(client)
        page.do("set_search", text_prompt="dog.")
        assert page.refused("find", frame=0) == (500, "no weights in eagle: python -m grounded_sam2.download eagle")


# ---- what happens later ----


def test_an_idle_session_leaves_memory_and_comes_back(client: TestClient, page: Page) -> None:
    page.do("add", frame=0, counts=counts_of(MASK))
    before = page.get("state")
    room = client.app.state.studio.rooms.get(page.token)  # type: ignore[attr-defined]
    room.last_used -= 10_000
    client.app.state.studio.rooms.close_idle()  # type: ignore[attr-defined]
    assert not room.is_open()
    open_session(room.folder / "session").close()  # nobody has it open
    after = page.get("state")
    assert room.is_open() and after["version"] >= before["version"]
    assert after | {"version": 0} == before | {"version": 0}
    assert client.get(f"{page.address}/frames/3").status_code == 200


def test_those_used_longest_ago_leave_memory_when_too_many_are_open(tmp_path: Path) -> None:
    with serving(tmp_path, limits=type(QUICK)(look_seconds=None, open_sessions=1)) as client:
        first, second = new_page(client), new_page(client)
        second.get("state")
        rooms = client.app.state.studio.rooms  # type: ignore[attr-defined]
        rooms.close_idle()
        assert (rooms.get(first.token).is_open(), rooms.get(second.token).is_open()) == (False, True)


def test_sessions_survive_a_restart_of_the_server(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        page = new_page(client)
        page.do("add", frame=0, counts=counts_of(MASK))
        page.job("propagate")
        before, masks = page.get("state"), page.masks()
    with serving(tmp_path) as client:
        again = Page(client, page.token)
        assert again.masks() == masks
        assert again.get("state") | {"version": 0, "jobs": []} == before | {"version": 0, "jobs": []}
        assert again.do("undo")["result"] == {"kind": "propagate"}


def test_a_job_ends_with_the_server_and_is_gone_on_with(tmp_path: Path) -> None:
    with serving(tmp_path, make_models(Slow())) as client:
        page = new_page(client)
        page.do("add", frame=0, counts=counts_of(MASK))
        page.start("propagate")
        wait_for(lambda: num_done(page) >= 4)
    with serving(tmp_path) as client:
        again = Page(client, page.token)
        assert 4 <= num_done(again) < NUM_FRAMES and again.get("state")["unfinished"] is not None
        assert again.job("resume")["state"] == "done"
        np.testing.assert_array_equal(mask_of(again.masks()[11][1]), forward(MASK, 11))


def test_a_session_is_removed_with_all_its_files(client: TestClient, page: Page) -> None:
    folder = client.app.state.studio.rooms.folder  # type: ignore[attr-defined]
    assert (folder / page.token).is_dir()
    assert client.delete(page.address).json() == {"removed": page.token}
    assert not (folder / page.token).exists() and not (folder / f".{page.token}").exists()
    assert client.get(f"{page.address}/state").json() == {"error": "There is no such session."}
    assert client.delete(page.address).status_code == 404


def test_a_session_is_removed_by_several_at_a_time(tmp_path: Path) -> None:
    with serving(tmp_path, make_models(Slow())) as client:
        page = new_page(client)
        page.do("add", frame=0, counts=counts_of(MASK))
        page.start("propagate")  # all wait for its end
        with ThreadPoolExecutor(6) as threads:
            answers = list(threads.map(lambda _: client.delete(page.address), range(6)))
        assert sorted(answer.status_code for answer in answers) == [200, *[404] * 5]
        assert {answer.json().get("error") for answer in answers} - {None} <= {
            "This session was removed.", "There is no such session.",
        }  # fmt: skip


def test_what_a_killed_server_left_half_made_goes(tmp_path: Path) -> None:
    (tmp_path / f".{'x' * 32}").mkdir(parents=True)
    (tmp_path / ".mine").mkdir()
    with serving(tmp_path):
        assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", ".uploads"]


def test_the_model_is_asked_ahead_for_the_frame_that_is_shown(tmp_path: Path) -> None:
    looked: list[int] = []

    class Noting(DriftingFollower):
        def open_video(self, frames: Any) -> DriftingVideo:
            video = super().open_video(frames)
            propose = video.propose

            def noted(frame_idx: int, boxes: np.ndarray) -> Any:
                looked.append(frame_idx)
                return propose(frame_idx, boxes)

            video.propose = noted  # type: ignore[method-assign]
            return video

    with serving(tmp_path, make_models(Noting())) as client:
        page = new_page(client)
        wait_for(lambda: looked == [0])
        page.do("show", frame=7)
        wait_for(lambda: looked == [0, 7])


# ---- events, and programs; these need a server that listens ----


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on a port of its own."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        app = build_app(make_models(), tmp_path_factory.mktemp("listening"), limits=QUICK, port=port)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(10)


def events_of(client: httpx.Client, page: str) -> Iterator[dict[str, Any]]:
    with client.stream("GET", f"{page}/events", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


def test_pages_are_told_what_happens(address: str) -> None:
    with httpx.Client(base_url=address) as client, httpx.Client(base_url=address) as other:
        page = Page(other, new_page(other).token)  # type: ignore[arg-type]
        events = events_of(client, page.address)
        assert next(events)["state"]["objects"] == []
        page.do("add", frame=0, counts=counts_of(MASK))
        added = next(events)
        assert added["event"] == "state" and added["touched"] == [[1, 0, 0]] and added["state"]["objects"][0]["id"] == 1
        page.start("propagate")
        told = []
        for event in events:
            told.append(event)
            if event["event"] == "state":
                break
        assert [event["job"]["state"] for event in told if event["event"] == "job"][-1] == "done"
        progress = [(event["frame"], event["ids"]) for event in told if event["event"] == "progress"]
        assert [(t, ids) for t, ids in progress if ids] == [(t, [1]) for t in range(1, NUM_FRAMES)]
        assert told[-1]["touched"] == [[1, 1, 11]] and told[-1]["state"]["undo"] == "propagate"
        events.close()  # type: ignore[attr-defined]


def test_what_a_page_begins_with_is_told_before_anybody_changes_it(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a state that is older than one told before it would be shown until the next change."""
    state, put = Room.state, Subscriber.put
    rooms: list[Room] = []
    is_held: list[bool] = []
    monkeypatch.setattr(Room, "state", lambda room, session: rooms.append(room) or state(room, session))
    monkeypatch.setattr(Subscriber, "put", lambda *args: is_held.append(not rooms[-1]._turns.is_idle()) or put(*args))
    with httpx.Client(base_url=address) as client, httpx.Client(base_url=address) as other:
        events = events_of(client, Page(other, new_page(other).token).address)  # type: ignore[arg-type]
        assert next(events)["event"] == "state" and is_held == [True]
        events.close()  # type: ignore[attr-defined]


def test_too_many_pages_of_a_session_and_one_that_has_to_wait_too_long(
    client: TestClient, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = client.app.state.studio.rooms.get(page.token)  # type: ignore[attr-defined]
    monkeypatch.setattr(room, "_num_waiting", QUICK.waiting_requests)
    answer = client.get(f"{page.address}/events")
    assert answer.status_code == 503 and "Too many requests" in answer.json()["error"] and len(room.hub) == 0
    monkeypatch.setattr(routes, "MOST_LISTENERS", 0)
    answer = client.get(f"{page.address}/events")
    assert answer.status_code == 503 and "close some of them" in answer.json()["error"]


def test_programs_do_the_same_by_gradio_client(address: str, tmp_path: Path) -> None:
    from gradio_client import Client, handle_file

    (tmp_path / "clip.zip").write_bytes(zipped_frames())
    client = Client(address, verbose=False)
    made = client.predict(handle_file(str(tmp_path / "clip.zip")), "clip.zip", api_name="/create_session")
    token = made["token"]
    client.predict(token, "set_search", {"text_prompt": "dog."}, api_name="/do")
    found = client.predict(token, "find", {"frame": 0}, api_name="/do")["result"]
    keys = [item["key"] for item in found["items"]]
    accepted = client.predict(token, "accept", {"find": found["find"], "keys": keys}, api_name="/do")
    assert accepted["result"] == {"ids": [1]}
    told = list(client.submit(token, "propagate", {}, api_name="/run_job"))
    assert told[-1]["state"] == "done" and told[-1]["done"] == 11
    assert [cell["id"] for cell in client.predict(token, 11, 11, api_name="/masks")["frames"]["11"]] == [1]
    assert client.predict(token, api_name="/timeline")["barriers"] == {"1": [0]}
    assert client.predict(token, 10, api_name="/doubts") == []
    file = client.submit(token, "result", {"result": "mot"}, api_name="/run_job").result()
    assert httpx.get(address + file["address"]).text.count("\n") == NUM_FRAMES
    with pytest.raises(Exception, match="expected a command of add"):
        client.predict(token, "fly", {}, api_name="/do")
    assert client.predict(token, api_name="/state")["objects"][0]["name"] == "dog 1"
    client.predict(token, api_name="/remove_session")
    with pytest.raises(Exception, match="no such session"):
        client.predict(token, api_name="/state")


def test_a_killed_server_loses_nothing_that_was_done(tmp_path: Path) -> None:
    with serving(tmp_path / "killed", make_models(Slow())) as client:
        page = new_page(client)
        page.do("add", frame=0, counts=counts_of(MASK))
        page.start("propagate")
        wait_for(lambda: num_done(page) >= 4)
        shutil.copytree(tmp_path / "killed", tmp_path / "left")  # what is on the disk at this moment
    with serving(tmp_path / "left") as client:
        page = Page(client, page.token)
        assert num_done(page) >= 4 and page.get("state")["unfinished"] is not None
        assert page.job("resume")["total"] == 11
        np.testing.assert_array_equal(mask_of(page.masks()[11][1]), forward(MASK, 11))


def test_answers_are_sent_at_once() -> None:
    """asyncio only switches off Nagle's algorithm on a socket that says it is TCP's."""
    with listening("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
