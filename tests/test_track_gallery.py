"""Ids across videos: what is written is known again, by its looks and its name; what is no gallery is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_follower import Boxes, FakeFollower, picture
from test_track_continuous import ColourDetector

from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.gallery import Gallery
from grounded_sam2.track.looks import COLOURS, Pointers
from grounded_sam2.track.rules import IdentityRules

POINTERS = Pointers("fake")  # of the fake follower: what differs in colour has nothing in common
LEFT, RIGHT = (2, 2, 18, 18), (40, 2, 60, 18)


def track(
    path: Path | None, *frames: Boxes, prompt: str = "red. blue.", **rules: int
) -> tuple[dict[int, str], list[str]]:
    """Follow through one video; the ids on its last frame with their names, and what happened."""
    with Gallery(path, POINTERS) as gallery:
        tracker = ContinuousTracker(
            ColourDetector(),
            FakeFollower(),
            prompt,
            detect_every=1,
            scene_cut=None,
            rules=IdentityRules(**rules),
            descriptor=POINTERS,
            gallery=gallery,
        )
        for boxes in frames:
            objects = tracker.step(picture(boxes))
        gallery.keep(tracker.keeper, tracker.phrases)
    names = dict(zip(objects.tracker_id.tolist(), objects.data["class_name"].tolist(), strict=True))
    return names, [f"{event.obj_id} {event.kind}: {event.reason}" for event in tracker.take_events()]


def saved(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def test_an_object_has_its_id_again_in_the_next_video(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    assert track(path, *[{7: LEFT, 9: RIGHT}] * 2)[0] == {1: "red", 2: "red"}
    names, events = track(path, *[{9: LEFT, 8: RIGHT}] * 2)  # 9 was object 2, 8 is new
    assert names == {2: "red", 3: "red"}
    assert "2 found again: from an earlier video by the detector" in events
    assert track(path, *[{7: LEFT, 8: RIGHT, 200: (2, 30, 18, 46)}] * 2)[0] == {1: "red", 3: "red", 4: "blue"}
    assert saved(path)["next_obj_id"] == 5 and len(saved(path)["objects"]) == 4


def test_ids_go_on_where_nothing_is_known_again(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    track(path, {7: LEFT})
    track(path, {9: LEFT})
    assert track(path, {11: LEFT})[0] == {3: "red"}


def test_a_lone_object_is_not_known_again_by_its_name(tmp_path: Path) -> None:
    """Within a video, the only one of its name that is missing is who comes; across videos its looks have to agree."""
    path = tmp_path / "people.json"
    track(path, {7: LEFT})
    assert track(path, {9: LEFT})[0] == {2: "red"}


def test_a_dog_never_becomes_a_cat(tmp_path: Path) -> None:
    """What looks like a known object and is called otherwise is another; a known one keeps its name for good."""
    path = tmp_path / "animals.json"
    assert track(path, {150: LEFT}, prompt="blue.")[0] == {1: "blue"}
    content = saved(path)
    content["objects"][0]["class_name"] = "dog"
    path.write_text(json.dumps(content))
    assert track(path, {150: LEFT}, prompt="blue.")[0] == {2: "blue"}  # the known one is a dog
    assert {entry["obj_id"]: entry["class_name"] for entry in saved(path)["objects"]} == {1: "dog", 2: "blue"}

    with Gallery(path, POINTERS) as gallery:
        tracker = ContinuousTracker(ColourDetector(), FakeFollower(), "blue.", descriptor=POINTERS, gallery=gallery)
        tracker.step(picture({150: LEFT}))
        for _ in range(50):
            tracker.keeper.tracks[2].vote(tracker.phrases.index("dog"), 1.0)
        assert tracker.phrases[tracker.keeper.tracks[2].class_id] == "blue"


def test_the_last_seen_are_kept_and_no_more_than_may_be_lost(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    for colour in (7, 8, 9):
        track(path, {colour: LEFT}, {colour: LEFT}, max_lost=1)
    assert [entry["obj_id"] for entry in saved(path)["objects"]] == [3, 2]
    assert len(saved(path)["objects"][0]["looks"]) == 1 and saved(path)["next_obj_id"] == 4


def test_objects_that_turned_out_to_be_one_are_one(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    with Gallery(path, POINTERS) as gallery:
        tracker = ContinuousTracker(ColourDetector(), FakeFollower(), "red.", descriptor=POINTERS, gallery=gallery)
        tracker.step(picture({7: LEFT, 9: RIGHT}))
        gallery.keep(tracker.keeper, tracker.phrases, renamed={2: 1})
    [entry] = saved(path)["objects"]
    assert entry["obj_id"] == 1 and np.argmax(entry["looks"], axis=1).tolist() == [7, 9]
    assert track(path, {9: LEFT})[0] == {1: "red"}


def test_a_run_that_fails_changes_nothing_and_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    track(path, {7: LEFT})
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), Gallery(path, POINTERS) as gallery:
        tracker = ContinuousTracker(ColourDetector(), FakeFollower(), "red.", descriptor=POINTERS, gallery=gallery)
        tracker.step(picture({9: LEFT}))
        gallery.keep(tracker.keeper, tracker.phrases)
        raise KeyboardInterrupt
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
    assert track(None, {7: LEFT})[0] == {1: "red"} and list(tmp_path.iterdir()) == [path]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    with Gallery(path, POINTERS), pytest.raises(BlockingIOError, match=r"another run uses .*people\.json"):
        Gallery(path, POINTERS)
    Gallery(path, POINTERS).__exit__(None, None, None)


def test_a_resumed_run_needs_the_gallery_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    marks = []
    for colour in (7, 7, 9):
        with Gallery(path, POINTERS) as gallery:
            marks.append(gallery.mark({"TEXT_PROMPT": "red."}))
        track(path, {colour: LEFT}, {colour: LEFT})
    assert marks[0] != marks[1] == marks[2] and marks[0]["TEXT_PROMPT"] == "red."


DAMAGES = {
    "no gallery, or is damaged": [b"", b"\x00\xff", b"[1]", b'{"format": NaN}', b"[" * 100_000],
    "no gallery of this version": [b'{"format": "x"}', b'{"format": "objects of grounded_sam2", "version": 99}'],
}


@pytest.mark.parametrize(
    ("message", "content"), [(message, content) for message, contents in DAMAGES.items() for content in contents]
)
def test_what_is_no_gallery_is_refused_and_left_alone(message: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"other.json is {message}"):
        Gallery(path, POINTERS)
    assert path.read_bytes() == content
    path.unlink()
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        Gallery(tmp_path, POINTERS)
    Gallery(path, POINTERS).__exit__(None, None, None)  # what was refused is not locked


@pytest.mark.parametrize(
    "change",
    [
        {"next_obj_id": 1},
        {"next_obj_id": "2"},
        {"objects": {}},
        {"objects": [{"obj_id": 1}]},
        {"objects": [{"obj_id": 0, "class_name": "red", "looks": [[1.0]]}]},
        {"objects": [{"obj_id": 1, "class_name": 3, "looks": [[1.0]]}]},
        {"objects": [{"obj_id": 1, "class_name": "red", "looks": []}]},
        {"objects": [{"obj_id": 1, "class_name": "red", "looks": [[1.0], [1.0, 0.0]]}]},
        {"objects": [{"obj_id": 1, "class_name": "red", "looks": [["a"]]}]},
        {"objects": [{"obj_id": 1, "class_name": "red", "looks": [[1e300]]}]},
        {"objects": [{"obj_id": 1, "class_name": "red", "looks": [[1.0]]}] * 2},
        {
            "objects": [{"obj_id": each, "class_name": "red", "looks": [[1.0] * each]} for each in (1, 2)],
            "next_obj_id": 3,
        },
    ],
)
def test_a_damaged_gallery_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    track(path, {7: LEFT})
    path.write_text(json.dumps(saved(path) | change))
    with pytest.raises(ValueError, match=r"people\.json is damaged"):
        Gallery(path, POINTERS)


def test_looks_of_another_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "people.json"
    track(path, {7: LEFT})
    with pytest.raises(ValueError, match=r"holds looks by 'pointers fake', this run describes them by 'colours "):
        Gallery(path, COLOURS)
    with pytest.raises(ValueError, match="known again by their looks, and these are off"):
        Gallery(path, None)
