"""The DDS cloud as nobody would wish it: endless, poisoned, rude; and several programs with the same question."""

import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dds_stand_in import TOKEN, StandIn, Truth, running

from grounded_sam2.detectors.dds import DDSCloudDetector
from grounded_sam2.detectors.dds import service as dds_service
from grounded_sam2.detectors.dds.errors import DDSError, TaskFailedError
from training.scenes import make_scene

Build = Callable[..., DDSCloudDetector]
ESCAPE = "\x1b[2J\n"


@pytest.fixture(scope="module")
def truth() -> Truth:
    return Truth.of(make_scene(21, (96, 128), num_objects=(4, 6), stretch=1.0))


@pytest.fixture
def server(truth: Truth, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DDS_API_TOKEN", TOKEN)
    for name in ("FIRST_PAUSE_S", "FIRST_POLL_S"):
        monkeypatch.setattr(dds_service, name, 0.001)
    with running([truth]) as server:
        yield server


@pytest.fixture
def build(server: StandIn, tmp_path: Path) -> Build:
    def build_with(**settings: Any) -> DDSCloudDetector:
        options = {"endpoint": server.url, "cache_dir": tmp_path / "cache", "nms_threshold": None, **settings}
        return DDSCloudDetector(settings.pop("model", "GroundingDino-1.6-Pro"), **options)

    return build_with


def prompt_of(truth: Truth) -> list[str]:
    return list(dict.fromkeys(truth.phrases))


# ---- answers ----

OBJECT: dict[str, Any] = {"bbox": [1, 2, 30, 40], "score": 0.9, "category": "dog"}
BAD_OBJECTS = [
    {"score": 7}, {"score": -0.5}, {"score": True}, {"score": "0.9"}, {"score": 10**400}, {"bbox": [1, 2, 3]},
    {"bbox": [1, 2, 3, 10**400]}, {"bbox": [[1], [2], [3], [4]]}, {"bbox": "abcd"}, {"category": ["dog"]},
    {"mask": {"size": [100000, 100000], "counts": "0"}}, {"mask": {"size": [96, 128], "counts": ""}},
    {"mask": {"format": ESCAPE, "size": [96, 128], "counts": "0"}}, {"mask": [1]},
]  # fmt: skip


@pytest.mark.parametrize("changes", BAD_OBJECTS, ids=str)
def test_objects_that_can_be_none(
    server: StandIn, truth: Truth, build: Build, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    monkeypatch.setattr(server, "objects", lambda _: [{**OBJECT, **changes}])
    with pytest.raises(TaskFailedError, match="objects that cannot be read") as caught:
        build().detect(truth.image, prompt_of(truth))
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 600


def test_too_many_objects(server: StandIn, truth: Truth, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "objects", lambda _: [OBJECT] * 2001)
    with pytest.raises(TaskFailedError, match="at most 2000 objects"):
        build().detect(truth.image, prompt_of(truth))


@pytest.mark.parametrize(
    "entry",
    [
        *({"objects": [{**OBJECT, **changes}]} for changes in BAD_OBJECTS),
        "[" * 10**5,
        '{"objects": NaN}',
        {"task_uuid": "../../v2/token"},
        {"task_uuid": "a" * 10**4},
    ],
    ids=lambda entry: str(entry)[:50],
)
def test_a_poisoned_entry_counts_as_not_there(
    server: StandIn, truth: Truth, build: Build, tmp_path: Path, entry: Any
) -> None:
    (before,) = build().detect(truth.image, prompt_of(truth))
    (path,) = (tmp_path / "cache").glob("*.json")
    path.write_text(entry if isinstance(entry, str) else json.dumps(entry))
    (after,) = build().detect(truth.image, prompt_of(truth))
    assert after == before and len(server.tasks) == 2
    assert not any("token" in path for _, path in server.asked)


def test_what_the_service_says_steers_no_terminal(
    server: StandIn, truth: Truth, build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "objects", lambda _: [{**OBJECT, "category": f"{ESCAPE}cat"}])
    build(cache_dir=None).detect(truth.image, prompt_of(truth))
    assert r"left out what the DDS cloud calls \x1b[2J cat" in caplog.text and "\x1b" not in caplog.text
    detector = build(cache_dir=None)
    for status in (400, 500):
        answer = {"code": 9, "msg": f"{ESCAPE}no {TOKEN} " + "x" * 10**5}
        monkeypatch.setattr(detector.service._session, "request", lambda *_, **__: FakeResponse(status, answer))  # noqa: B023
        with pytest.raises(DDSError, match=r"\\x1b\[2J no \*\*\*") as caught:
            detector.detect(truth.image, prompt_of(truth))
        assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 600


class FakeResponse:
    """What `requests` gives, with an answer that no stand-in has to send."""

    reason = "no reason"

    def __init__(self, status: int, answer: Any) -> None:
        self.status_code, self.headers, self.content = status, {}, json.dumps(answer).encode()
        self.raw = self

    def read(self, size: int, decode_content: bool) -> bytes:
        return self.content[:size]

    def __enter__(self) -> "FakeResponse":
        return self

    def __exit__(self, *_: object) -> None:
        pass


# ---- without end ----


def test_a_server_that_drips_is_given_up(
    server: StandIn, truth: Truth, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dds_service, "ATTEMPTS", 2)
    gone = threading.Event()

    def drip(*_: Any, **__: Any) -> None:
        gone.wait(10)

    detector = build(request_timeout_s=0.05)
    monkeypatch.setattr(dds_service.requests.Session, "request", drip)
    with pytest.raises(DDSError, match=r"does not end its answer within 0\.2 s \(2 attempts\)"):
        detector.detect(truth.image, prompt_of(truth))
    gone.set()


def test_an_answer_without_end_is_given_up(truth: Truth, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dds_service, "MOST_BYTES", 20)
    with pytest.raises(DDSError, match="answers with more than 20 bytes"):
        build().detect(truth.image, prompt_of(truth))


# ---- several programs with the same question ----


def test_several_at_once_pay_for_each_question_once(
    server: StandIn, truth: Truth, build: Build, tmp_path: Path
) -> None:
    server.polls_until_done = 3
    images = [truth.image, truth.image[::-1].copy(), truth.image[:, ::-1].copy()]
    found: list[list[Any]] = []

    def work() -> None:
        found.append(build().detect(images, prompt_of(truth)))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 4 and all(each == found[0] for each in found)
    assert len(server.tasks) == 3
    assert all(path.suffix == ".json" for path in (tmp_path / "cache").iterdir())


@pytest.mark.parametrize(
    "endpoint",
    ["https://user:PW@api.example", "https://PW@api.example", "http://h:port", "https://", "https://[::1", "ftp://h",
     "https://h\n", "https://a b"],
)  # fmt: skip
def test_endpoints_that_are_none(build: Build, endpoint: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ValueError, match="expected an endpoint such as") as caught:
        build(endpoint=endpoint)
    assert "PW" not in str(caught.value) + caplog.text
