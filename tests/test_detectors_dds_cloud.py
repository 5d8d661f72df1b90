"""The DDS cloud detector against a stand-in of the service on loopback, which also misbehaves."""

from __future__ import annotations

import email.utils
import json
import logging
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from dds_stand_in import TOKEN, StandIn, Truth, running

from grounded_sam2.detectors.dds import DDSCloudDetector, DDSModel
from grounded_sam2.detectors.dds import service as dds_service
from grounded_sam2.detectors.dds.errors import (
    BudgetError,
    DDSError,
    QuotaError,
    RefusedError,
    TaskFailedError,
    TokenError,
)
from training.scenes import make_scene

ROOT = Path(__file__).resolve().parent.parent
GDINO: DDSModel = "GroundingDino-1.5-Pro"
DINOX: DDSModel = "DINO-X-1.0"
ATTEMPTS = dds_service.ATTEMPTS

Build = Callable[..., DDSCloudDetector]


@pytest.fixture(scope="module")
def truths() -> list[Truth]:
    """Three images, two of one size, with several objects each."""
    sizes = ((96, 128), (128, 96), (96, 128))
    return [
        Truth.of(make_scene(seed, size, num_objects=(4, 6), stretch=1.0)) for seed, size in enumerate(sizes, start=21)
    ]


@pytest.fixture
def server(truths: list[Truth], monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DDS_API_TOKEN", TOKEN)
    monkeypatch.setattr(dds_service, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(dds_service, "FIRST_POLL_S", 0.001)
    monkeypatch.setattr(dds_service, "LONGEST_POLL_S", 0.01)
    with running(truths) as server:
        yield server


@pytest.fixture
def build(server: StandIn, tmp_path: Path) -> Build:
    """A function that makes a detector on the stand-in, with its cache in `tmp_path`."""

    def build_with(model: DDSModel = GDINO, **settings: Any) -> DDSCloudDetector:
        return DDSCloudDetector(model, **{"endpoint": server.url, "cache_dir": tmp_path / "cache", **settings})

    return build_with


def phrases_of(truths: list[Truth]) -> list[str]:
    return sorted({phrase for truth in truths for phrase in truth.phrases})


def check_found(detections: Any, truth: Truth, phrases: list[str], atol: float = 0.01) -> None:
    """All objects of the truth, the most confident first."""
    assert detections.data["class_name"].tolist() == truth.phrases
    assert detections.class_id.tolist() == [phrases.index(phrase) for phrase in truth.phrases]
    np.testing.assert_allclose(detections.xyxy, truth.boxes_xyxy, atol=atol)
    np.testing.assert_allclose(detections.confidence, truth.scores, atol=1e-6)
    assert detections.xyxy.dtype == detections.confidence.dtype == np.float32


# ---- what is found ----


@pytest.mark.parametrize("model", get_args(DDSModel))
def test_finds_what_there_is(server: StandIn, truths: list[Truth], build: Build, model: DDSModel) -> None:
    phrases = phrases_of(truths)
    (detections,) = build(model, nms_threshold=None).detect(truths[0].image, phrases)
    check_found(detections, truths[0], phrases)
    assert detections.mask is None
    path = "/v2/task/dinox/detection" if model == DINOX else "/v2/task/grounding_dino/detection"
    (task,) = server.tasks.values()
    assert server.asked[0] == ("POST", path) and task.body["model"] == model
    assert task.body["prompt"] == {"type": "text", "text": ".".join(phrases)}
    assert task.body["targets"] == ["bbox"] and task.body["bbox_threshold"] == 0.35


def test_several_images_give_what_each_alone_does(server: StandIn, truths: list[Truth], build: Build) -> None:
    phrases, images = phrases_of(truths), [truth.image for truth in truths]
    together = build(cache_dir=None, nms_threshold=None).detect(images, phrases)
    for image, truth, detections in zip(images, truths, together, strict=True):
        (alone,) = build(cache_dir=None, nms_threshold=None).detect(image, phrases)
        np.testing.assert_array_equal(alone.xyxy, detections.xyxy)
        check_found(detections, truth, phrases)
    assert len(server.tasks) == 6
    assert build().detect([], phrases) == []


def test_nothing_found_is_a_value(truths: list[Truth], build: Build) -> None:
    for model, masks in ((GDINO, False), (DINOX, True)):
        (detections,) = build(model, masks=masks).detect(truths[0].image, "xylophone factory.")
        assert detections.xyxy.shape == (0, 4) and detections.xyxy.dtype == np.float32
        assert detections.confidence.shape == detections.class_id.shape == detections.data["class_name"].shape == (0,)
        assert detections.mask is None if not masks else detections.mask.shape == (0, 96, 128)


def test_masks_of_dino_x(truths: list[Truth], build: Build) -> None:
    phrases = phrases_of(truths)
    (detections,) = build(DINOX, masks=True, nms_threshold=None).detect(truths[1].image, phrases)
    check_found(detections, truths[1], phrases)
    assert detections.mask.dtype == bool
    np.testing.assert_array_equal(detections.mask, truths[1].masks)
    with pytest.raises(ValueError, match="finds boxes only"):
        build(GDINO, masks=True)


def test_masks_follow_the_boxes_that_are_kept(server: StandIn, truths: list[Truth], build: Build) -> None:
    box = np.array([[8, 8, 40, 40], [60, 20, 90, 50], [9, 9, 40, 40]], dtype=np.float32)
    masks = np.zeros((3, *truths[0].image.shape[:2]), dtype=bool)
    for mask, (left, top, right, bottom) in zip(masks, box.astype(int), strict=True):
        mask[top:bottom, left:right] = True
    server.truths = [Truth(truths[0].image, box, masks, ["dog", "cat", "dog"], [0.5, 0.6, 0.9])]
    (detections,) = build(DINOX, masks=True).detect(truths[0].image, "dog. cat.")
    np.testing.assert_array_equal(detections.xyxy, box[[2, 1]])  # the first lies under the third
    np.testing.assert_array_equal(detections.mask, masks[[2, 1]])


def test_large_images_are_sent_smaller_and_boxes_come_back_in_their_pixels(
    server: StandIn, truths: list[Truth], build: Build
) -> None:
    image = np.kron(truths[0].image, np.ones((20, 20, 1), dtype=np.uint8))  # 2560 x 1920
    large = Truth(
        image, truths[0].boxes_xyxy * 20, np.kron(truths[0].masks, np.ones((1, 20, 20))) > 0, truths[0].phrases
    )
    server.truths = [large]
    phrases = phrases_of(truths)
    (detections,) = build(DINOX, masks=True, nms_threshold=None).detect(image, phrases)
    check_found(detections, large, phrases)
    overlap = (detections.mask & large.masks).sum((1, 2)) / (detections.mask | large.masks).sum((1, 2))
    assert overlap.min() > 0.99
    (task,) = server.tasks.values()
    assert len(task.body["image"]) < image.nbytes / 4


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_images_of_extreme_shapes(server: StandIn, build: Build, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 77, dtype=np.uint8)
    server.truths = [Truth(image, np.array([[0, 0, size[1], size[0]]], np.float32), np.ones((1, *size), bool), ["dog"])]
    (detections,) = build().detect(image, "dog.")
    assert detections.xyxy.tolist() == [[0, 0, size[1], size[0]]]


def test_labels_are_phrases_of_the_prompt_only(
    server: StandIn,
    truths: list[Truth],
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = ["T - Shirt", "3 5 inch disk", "dog cat", "##og", "kick scooter"]
    boxes = [[10 * index, 0, 10 * index + 5, 9] for index in range(len(names))]
    objects = [{"bbox": box, "score": 0.9, "category": name} for box, name in zip(boxes, names, strict=True)]
    monkeypatch.setattr(server, "objects", lambda _: objects)
    prompt = ["t-shirt", "3.5 inch disk", "dog", "cat", "e-scooter"]
    (detections,) = build().detect(truths[0].image, prompt, aliases={"e-scooter": "kick scooter"})
    assert detections.data["class_name"].tolist() == ["t-shirt", "3.5 inch disk", "e-scooter"]
    assert detections.class_id.tolist() == [0, 1, 4]
    assert "##og, dog cat" in caplog.text
    (task,) = server.tasks.values()
    assert task.body["prompt"]["text"] == "t-shirt.3 5 inch disk.dog.cat.e-scooter.kick scooter"


def test_thresholds(server: StandIn, truths: list[Truth], build: Build) -> None:
    truth = truths[0]
    (detections,) = build(nms_threshold=None).detect(truth.image, truth.phrases, box_threshold=truth.scores[1])
    assert detections.confidence.tolist() == pytest.approx(truth.scores[:2])
    first = truth.phrases[0]
    detector = build(nms_threshold=None)
    (detections,) = detector.detect(truth.image, truth.phrases, box_threshold={first: 1.0}, top_k=1)
    assert set(detections.data["class_name"]) == set(truth.phrases) - {first}
    assert [task.body["bbox_threshold"] for task in server.tasks.values()] == [truth.scores[1], 0.35]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"model": "GroundingDino-2"}, "GroundingDino-1.6-Pro"),
        ({"nms_threshold": 2.0}, "nms_threshold in"),
        ({"max_requests": -1}, "max_requests"),
        ({"request_timeout_s": 0.0}, "request_timeout_s"),
        ({"task_timeout_s": -3.0}, "task_timeout_s"),
        ({"endpoint": "ftp://example.com"}, "ftp://example.com"),
        ({"endpoint": "http://"}, "endpoint"),
        ({"token": "Your API token"}, "spaces"),
        ({"token": "ключ"}, "characters"),
        ({"token": f"{TOKEN}\nToken: x"}, "characters"),
    ],
)
def test_bad_settings(server: StandIn, build: Build, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as caught:
        build(**settings)
    assert TOKEN not in str(caught.value) and "Your API" not in str(caught.value)
    assert server.asked == []


def test_bad_input_is_not_sent(server: StandIn, truths: list[Truth], build: Build) -> None:
    for image, prompt, settings in (
        (truths[0].image[..., 0], "dog", {}),
        (truths[0].image, " . ", {}),
        (truths[0].image, "dog", {"box_threshold": 35}),
        (truths[0].image, "dog", {"text_threshold": -1}),
        (truths[0].image, "dog", {"top_k": 0}),
    ):
        with pytest.raises(ValueError):
            build().detect(image, prompt, **settings)
    assert server.asked == []


# ---- faults ----

RETRY_DATE = "a date in 30 seconds"
PASSING = ["500", "503", "hang", "reset", "no json", "no protocol", "429 after 1", f"429 after {RETRY_DATE}", "429"]


def spoil(server: StandIn, method: str, mischief: list[str]) -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    server.mischief[method] = [one.replace(RETRY_DATE, date) for one in mischief]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between attempts, not waited for."""
    taken: list[float] = []
    monkeypatch.setattr(dds_service, "time", FakeTime(taken))
    return taken


class FakeTime:
    """The module's clock, on which sleeping costs nothing."""

    def __init__(self, taken: list[float]) -> None:
        self.taken = taken

    def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)

    def monotonic(self) -> float:
        return time.monotonic() + sum(self.taken)

    def time(self) -> float:
        return time.time()


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("mischief", PASSING)
def test_what_passes_is_tried_again_and_paid_for_once(
    server: StandIn, truths: list[Truth], build: Build, pauses: list[float], method: str, mischief: str
) -> None:
    phrases = phrases_of(truths)
    spoil(server, method, [mischief] * 2)
    detector = build(request_timeout_s=0.3, nms_threshold=None)
    (detections,) = detector.detect(truths[0].image, phrases)
    check_found(detections, truths[0], phrases)
    assert [asked for asked, _ in server.asked] == (
        ["POST"] * 3 + ["GET"] if method == "POST" else ["POST"] + ["GET"] * 3
    )
    assert len(server.tasks) == detector.service.num_requests == 1
    least = 1.0 if "after" in mischief else dds_service.FIRST_PAUSE_S
    assert len(pauses) == 2 and min(pauses) >= least
    assert pauses[1] == pytest.approx(2 * pauses[0]) or "after" in mischief


def test_an_answer_that_is_lost_on_the_way_is_not_paid_for_twice(
    server: StandIn, truths: list[Truth], build: Build
) -> None:
    spoil(server, "POST", ["lose"])
    (detections,) = build(nms_threshold=None).detect(truths[0].image, phrases_of(truths))
    assert len(detections) == len(truths[0].phrases)
    assert len(server.asked) == 3 and len(server.tasks) == 1


# mischief on POST, on GET; requests until it is given up; what is raised, and words the user sees
FINAL = [
    (["500"] * 9, [], ATTEMPTS, DDSError, "answers 500"),
    (["reset"] * 9, [], ATTEMPTS, DDSError, "broke the connection off"),
    (["hang"] * 9, [], ATTEMPTS, DDSError, "no answer within 0.2 s"),
    (["no json"] * 9, [], ATTEMPTS, DDSError, "no JSON"),
    (["429"] * 9, [], ATTEMPTS, DDSError, "answers 429"),
    (["429 after 7200"], [], 1, DDSError, "asks to wait 7200 s"),
    (["quota"], [], 1, QuotaError, "used up (Token out of Quota)"),
    (["402"], [], 1, QuotaError, "used up"),
    (["401"], [], 1, TokenError, "does not accept the token"),
    (["403"], [], 1, TokenError, "does not accept the token"),
    (["refuse"], [], 1, RefusedError, "prompt too long"),
    (["404"], [], 1, RefusedError, "refuses the request"),
    (["redirect http://127.0.0.1:1/v2"], [], 1, RefusedError, "307"),
    ([], ["fail"], 2, TaskFailedError, "the image is broken"),
    ([], ["no result"], 2, TaskFailedError, "without a result"),
    ([], ["bad objects"], 2, TaskFailedError, "cannot be read"),
    ([], ["500"] * 9, 1 + ATTEMPTS, DDSError, "answers 500"),
    ([], ["no protocol"] * 9, 1 + ATTEMPTS, DDSError, "no JSON"),
    ([], ["401"], 2, TokenError, "does not accept the token"),
]


@pytest.mark.parametrize(("on_post", "on_get", "num_requests", "kind", "says"), FINAL)
def test_faults(
    server: StandIn,
    truths: list[Truth],
    build: Build,
    pauses: list[float],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    on_post: list[str],
    on_get: list[str],
    num_requests: int,
    kind: type[DDSError],
    says: str,
) -> None:
    """The user is told in plain words, the token is nowhere, and the answers before the fault are not lost."""
    caplog.set_level(logging.DEBUG)
    phrases, images = phrases_of(truths), [truth.image for truth in truths]
    detector = build(request_timeout_s=0.2)
    detector.detect(images[:1], phrases)
    assert len(server.asked) == 2
    spoil(server, "POST", on_post)
    spoil(server, "GET", on_get)
    with pytest.raises(DDSError) as caught:
        detector.detect(images, phrases)
    assert type(caught.value) is kind and says in str(caught.value)
    assert "answers so far are kept in" in str(caught.value)
    assert len(server.asked) == 2 + num_requests

    whole = "".join(traceback.format_exception(caught.value))
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).decode()
    said = capfd.readouterr()
    for text in (whole, written, said.out, said.err, caplog.text, repr(detector)):
        assert TOKEN not in text

    spoil(server, "POST", [])
    spoil(server, "GET", [])
    num_tasks = len(server.tasks)
    assert [len(found) > 0 for found in build().detect(images, phrases)] == [True] * 3
    if kind is TaskFailedError:
        assert num_tasks == 2 and len(server.tasks) == 4  # one of three images was done, and one failed
    else:
        assert len(server.tasks) == 3  # each image was paid for once, a task whose answer did not come among them


def test_wrong_token(
    server: StandIn, truths: list[Truth], build: Build, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = TOKEN[::-1]
    with pytest.raises(TokenError, match="check DDS_API_TOKEN or --api-token") as caught:
        build(token=wrong).detect(truths[0].image, "dog")
    assert len(server.asked) == 1
    assert wrong not in "".join(traceback.format_exception(caught.value)) + caplog.text
    assert list(tmp_path.rglob("*.json")) == []


def test_no_token(server: StandIn, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DDS_API_TOKEN")
    for token in (None, "", "  "):
        with pytest.raises(ValueError, match="set the environment variable DDS_API_TOKEN"):
            build(token=token)


def test_nobody_there(server: StandIn, truths: list[Truth], build: Build, pauses: list[float]) -> None:
    with pytest.raises(DDSError, match=r"127\.0\.0\.1:9 cannot be reached \(5 attempts\)"):
        build(endpoint="http://127.0.0.1:9").detect(truths[0].image, "dog")
    assert len(pauses) == ATTEMPTS - 1


def test_a_redirection_is_not_followed(server: StandIn, truths: list[Truth], build: Build) -> None:
    with running(truths) as other:
        spoil(server, "POST", [f"redirect {other.url}/v2/task/grounding_dino/detection"])
        with pytest.raises(RefusedError):
            build().detect(truths[0].image, "dog")
        assert other.asked == []


def test_slow_task(server: StandIn, truths: list[Truth], build: Build, pauses: list[float]) -> None:
    server.polls_until_done = 6
    (detections,) = build(nms_threshold=None).detect(truths[0].image, phrases_of(truths))
    assert len(detections) == len(truths[0].phrases)
    assert [method for method, _ in server.asked] == ["POST"] + ["GET"] * 7
    assert pauses == sorted(pauses) and len(pauses) == 6 and max(pauses) <= dds_service.LONGEST_POLL_S


def test_a_task_that_takes_too_long_is_gone_on_with(
    server: StandIn, truths: list[Truth], build: Build, pauses: list[float]
) -> None:
    server.polls_until_done = 10**6
    with pytest.raises(DDSError, match=r"did not finish a task within 0\.05 s \((waiting|running)\)"):
        build(task_timeout_s=0.05).detect(truths[0].image, phrases_of(truths))
    server.polls_until_done = 0
    (detections,) = build(max_requests=0).detect(truths[0].image, phrases_of(truths))
    assert len(detections) > 0 and len(server.tasks) == 1


def test_a_started_task_that_the_service_forgot_is_started_anew(
    server: StandIn, truths: list[Truth], build: Build
) -> None:
    spoil(server, "GET", ["401"])
    with pytest.raises(TokenError):
        build().detect(truths[0].image, phrases_of(truths))
    server.tasks.clear()
    (detections,) = build().detect(truths[0].image, phrases_of(truths))
    assert len(detections) > 0 and len(server.tasks) == 1


def test_budget(server: StandIn, truths: list[Truth], build: Build) -> None:
    phrases, images = phrases_of(truths), [truth.image for truth in truths]
    detector = build(max_requests=2)
    with pytest.raises(BudgetError, match="budget of 2 requests to the DDS cloud is used up; answers so far are kept"):
        detector.detect(images, phrases)
    assert len(server.tasks) == 2 == detector.service.num_requests
    assert [len(found) > 0 for found in detector.detect(images[:2], phrases)] == [True, True]  # still free
    with pytest.raises(BudgetError):
        build(max_requests=0).detect(images, phrases)
    assert len(server.tasks) == 2
    assert [len(found) > 0 for found in build(max_requests=1).detect(images, phrases)] == [True] * 3
    assert len(server.tasks) == 3


# ---- the cache ----


def test_what_was_asked_once_is_free(server: StandIn, truths: list[Truth], build: Build) -> None:
    phrases, images = phrases_of(truths), [truth.image for truth in truths]
    first = build(DINOX, masks=True).detect([*images, images[0].copy()], phrases)
    assert len(server.tasks) == 3
    server.asked.clear()
    again = build(DINOX, masks=True, max_requests=0).detect([*images, images[0]], phrases)
    assert server.asked == []
    for one, other in zip(first, again, strict=True):
        assert one == other


def test_another_question_is_asked(server: StandIn, truths: list[Truth], build: Build) -> None:
    image, changed = truths[0].image, truths[0].image.copy()
    changed[0, 0, 0] ^= 1
    build().detect(image, "dog. cat.")
    for settings, picture, prompt, threshold in (
        ({}, changed, "dog. cat.", 0.35),
        ({}, image.reshape(128, 96, 3), "dog. cat.", 0.35),
        ({}, image, "cat. dog.", 0.35),
        ({}, image, "dog. cat.", 0.4),
        ({"nms_threshold": 0.5}, image, "dog. cat.", 0.35),
        ({"model": "GroundingDino-1.6-Pro"}, image, "dog. cat.", 0.35),
        ({"model": DINOX}, image, "dog. cat.", 0.35),
        ({"model": DINOX, "masks": True}, image, "dog. cat.", 0.35),
        ({"cache_dir": None}, image, "dog. cat.", 0.35),
    ):
        before = len(server.tasks)
        build(**settings).detect(picture, prompt, box_threshold=threshold)
        assert len(server.tasks) == before + 1
    with running(truths) as other:
        build(endpoint=other.url).detect(image, "dog. cat.")
        assert len(other.tasks) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"objects": [{"bbox"',
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b'{"objects": 3}',
        b'{"objects": [3]}',
        b'{"objects": [{"bbox": [1, 2, 3], "score": 0.9, "category": "dog"}]}',
        b'{"objects": [{"bbox": [1, 2, 3, NaN], "score": 0.9, "category": "dog"}]}',
        b'{"objects": [{"bbox": [1, 2, 3, 4], "score": "high", "category": "dog"}]}',
        b'{"objects": [{"bbox": [1, 2, 3, 4], "score": 0.9, "category": 7}]}',
        b'{"objects": [{"bbox": [1, 2, 3, 4], "score": 0.9, "category": "dog", "mask": {"size": [1]}}]}',
        b'{"objects": [{"bbox": [1, 2, 3, 4], "score": 0.9, "category": "dog", "mask": "none"}]}',
        b'{"task_uuid": 12}',
        b'{"task_uuid": "unknown"}',
    ],
)
def test_damaged_answers_are_asked_for_again(
    server: StandIn, truths: list[Truth], build: Build, tmp_path: Path, content: bytes
) -> None:
    phrases = phrases_of(truths)
    (before,) = build().detect(truths[0].image, phrases)
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(content)
    (after,) = build().detect(truths[0].image, phrases)
    assert after == before and len(server.tasks) == 2
    assert len(json.loads(path.read_text())["objects"]) == len(truths[0].phrases)
    assert list((tmp_path / "cache").iterdir()) == [path]


def test_an_answer_that_cannot_be_kept_is_still_given(
    server: StandIn, truths: list[Truth], build: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    detector = build()
    (tmp_path / "cache").rmdir()
    (tmp_path / "cache").write_text("a file where the folder was")
    (detections,) = detector.detect(truths[0].image, phrases_of(truths))
    assert len(detections) > 0
    assert "would be paid for again" in caplog.text
    with pytest.raises(OSError, match="cache"):
        build()


# ---- the SDK ----


def test_the_crash_reporter_of_the_sdk_does_not_start() -> None:
    """It would send the token away; nor does anything else of it stay in the process."""
    code = (
        "import http.client, sys\n"
        "before = http.client.HTTPConnection.putrequest, sys.excepthook\n"
        "import grounded_sam2.detectors.dds.service, dds_cloudapi_sdk.tasks.base, sentry_sdk\n"
        "assert not sentry_sdk.get_client().is_active()\n"
        "assert before == (http.client.HTTPConnection.putrequest, sys.excepthook)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_the_detector_needs_no_sdk() -> None:
    code = (
        "import sys\n"
        "sys.modules['dds_cloudapi_sdk'] = None\n"
        "from grounded_sam2.detectors.dds import DDSCloudDetector\n"
        "assert 'sentry_sdk' not in sys.modules\n"
        "try:\n"
        "    DDSCloudDetector('DINO-X-1.0', token='x', cache_dir=None)\n"
        "except OSError as error:\n"
        "    assert '[cloud]' in str(error)\n"
        "else:\n"
        "    sys.exit('no error')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_plain_http_to_another_machine_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    DDSCloudDetector(GDINO, token=TOKEN, endpoint="http://gateway.example", cache_dir=None)
    assert "unencrypted" in caplog.text and TOKEN not in caplog.text
    caplog.clear()
    for endpoint in (None, "api.example.com", "https://api.example.com/"):
        service = DDSCloudDetector(GDINO, token=TOKEN, endpoint=endpoint, cache_dir=None).service
        assert service.endpoint.startswith("https://") and not service.endpoint.endswith("/")
    assert caplog.text == ""
