"""All that a tracking script writes about a video: complete together, partial together, and of one run only."""

import contextlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import supervision as sv
from PIL import Image

from grounded_sam2.export import read_frame_annotations, read_header, read_id_map
from grounded_sam2.outputs import ObjectOutputs, TrackingOutputs
from grounded_sam2.owned import RECORD_NAME, OutputFiles
from grounded_sam2.track.events import IdentityEvent, read_events
from grounded_sam2.video import FrameSource, open_frames

SIZE = (32, 24)  # width, height
SETTINGS = {"BOX_THRESHOLD": 0.35}
BORN = IdentityEvent(0, 1, "born", "detected")


def frames_of(count: int) -> FrameSource:
    return open_frames([np.full((SIZE[1], SIZE[0], 3), min(40 * index, 255), np.uint8) for index in range(count)], 24)


def objects() -> sv.Detections:
    mask = np.zeros((1, SIZE[1], SIZE[0]), bool)
    mask[0, 4:9, 5:20] = True
    return sv.Detections(
        xyxy=np.array([[5, 4, 20, 9]], np.float32),
        mask=mask,
        confidence=np.array([0.5], np.float32),
        class_id=np.array([1]),
        tracker_id=np.array([1]),
        data={"class_name": np.array(["dog"])},
    )


def outputs_in(folder: Path, frames: FrameSource, with_identity: bool = True) -> TrackingOutputs:
    return TrackingOutputs(OutputFiles(folder, "clip.mp4"), frames, ["cat", "dog"], SETTINGS, with_identity)


def names_in(folder: Path) -> set[str]:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return files - {RECORD_NAME}


def write(folder: Path, count: int, with_identity: bool = True) -> str:
    frames = frames_of(max(count, 1))
    with outputs_in(folder, frames, with_identity) as outputs:
        for frame_idx in range(count):
            outputs.write(frame_idx, frames[frame_idx], objects(), [BORN] if frame_idx == 0 else [])
    return str(outputs)


MAPS = {"mask_data/mask_00000.npy", "json_data/mask_00000.json"}


def test_everything_about_a_run(tmp_path: Path) -> None:
    said = write(tmp_path, 1)
    assert names_in(tmp_path) == {"clip.mp4", "clip.jsonl", "events.jsonl", *MAPS}
    names = ("clip.mp4", "clip.jsonl", "events.jsonl", "mask_data", "json_data")
    assert said == ", ".join(str(tmp_path / name) for name in names)
    header = read_header(tmp_path / "clip.jsonl")
    assert header is not None and header.phrases == ("cat", "dog") and header.settings == SETTINGS
    assert (header.size, header.source, header.fps) == (SIZE, "list of frames", Fraction(24))
    [frame] = read_frame_annotations(tmp_path / "clip.jsonl")
    assert frame.detections.class_id.tolist() == [1] and frame.image_path is None
    assert read_id_map(tmp_path, 0).tracker_id.tolist() == [1] and read_events(tmp_path / "events.jsonl") == [BORN]
    assert len(open_frames(tmp_path / "clip.mp4")) == 1


def test_without_identity_there_are_no_maps_and_no_events(tmp_path: Path) -> None:
    said = write(tmp_path, 2, with_identity=False)
    assert names_in(tmp_path) == {"clip.mp4", "clip.jsonl"} and "events" not in said


@pytest.mark.parametrize("earlier", [0, 2])
def test_a_run_of_no_frames_is_a_header_and_nothing_stays_of_an_earlier_one(tmp_path: Path, earlier: int) -> None:
    write(tmp_path, earlier)
    (tmp_path / "clip.partial.mp4").write_text("of a run that was killed")
    said = write(tmp_path, 0)
    assert names_in(tmp_path) == {"clip.jsonl", "events.jsonl"} and "clip.mp4" not in said
    assert read_header(tmp_path / "clip.jsonl") is not None
    assert list(read_frame_annotations(tmp_path / "clip.jsonl")) == [] == read_events(tmp_path / "events.jsonl")


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_the_earlier_one_as_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    write(tmp_path, 1)
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    frames = frames_of(3)
    with pytest.raises(error), outputs_in(tmp_path, frames) as outputs:
        for frame_idx in range(2):
            outputs.write(frame_idx, frames[frame_idx], objects(), [BORN])
        raise error
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    partial = names_in(tmp_path) - set(before)
    assert {"clip.partial.mp4", "clip.partial.jsonl", "events.partial.jsonl"} < partial
    assert len(list(read_frame_annotations(tmp_path / "clip.partial.jsonl"))) == 2
    assert read_header(tmp_path / "clip.partial.jsonl") == outputs.header
    assert len(open_frames(tmp_path / "clip.partial.mp4")) == 2 and len(read_id_map(tmp_path / "partial", 1)) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_ends_before_the_first_frame_touches_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    """An interrupted run has lines here that --resume needs."""
    names = ("clip.jsonl", "clip.partial.jsonl", "clip.mp4", "clip.partial.mp4", "events.partial.jsonl")
    for name in names:
        (tmp_path / name).write_text("earlier")
    with pytest.raises(error), outputs_in(tmp_path, frames_of(1)):
        raise error
    assert names_in(tmp_path) == set(names)
    assert {(tmp_path / name).read_text() for name in names} == {"earlier"}


def test_frames_that_are_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("9.png", "10.png"):
        Image.new("RGB", SIZE).save(tmp_path / "in" / name)
    frames = open_frames(tmp_path / "in")
    with outputs_in(tmp_path / "out", frames) as outputs:
        for frame_idx, image in enumerate(frames):
            outputs.write(frame_idx, image, objects())
    assert read_header(tmp_path / "out" / "clip.jsonl").source == str(tmp_path / "in")
    paths = [frame.image_path for frame in read_frame_annotations(tmp_path / "out" / "clip.jsonl")]
    assert paths == [str(tmp_path / "in" / "9.png"), str(tmp_path / "in" / "10.png")]


# ---- single objects ----


def object_outputs_in(folder: Path, count: int, **options: object) -> str:
    """What is written of `count` frames with the dog on them."""
    frames = frames_of(max(count, 1))
    with ObjectOutputs(OutputFiles(folder, "clip.mp4"), frames, **options) as outputs:  # type: ignore[arg-type]
        for frame_idx in range(count):
            outputs.write(frame_idx, np.full((SIZE[1], SIZE[0], 3), 200, np.uint8), objects())
        return str(outputs)


@pytest.mark.parametrize("selected", ["dog", "1.", "cat. #1", "Dog. 7."])
def test_selected_objects_have_a_video_and_every_object_its_masks(tmp_path: Path, selected: str) -> None:
    said = object_outputs_in(tmp_path, 2, selected=selected, brightness=0.25)
    assert said == f"{tmp_path / 'object_masks'}, {tmp_path / 'clip_selected.mp4'}"
    masks = {f"object_masks/1_dog/0000{frame_idx}.png" for frame_idx in range(2)}
    assert names_in(tmp_path) == {"clip_selected.mp4", *masks}
    frames = open_frames(tmp_path / "clip_selected.mp4")
    assert len(frames) == 2
    np.testing.assert_allclose(frames[1][5:8, 7:18], 200, atol=12)
    np.testing.assert_allclose(frames[1][14:], 50, atol=12)


def test_nobody_is_selected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert object_outputs_in(tmp_path, 1, with_masks=False) == "" and names_in(tmp_path) == set()
    object_outputs_in(tmp_path, 1, with_masks=False, selected="owl. 2")
    assert f"no object of owl, 2 was seen: {tmp_path / 'clip_selected.mp4'} shows none" in caplog.text
    assert open_frames(tmp_path / "clip_selected.mp4")[0].max() < 12


def test_a_run_of_no_frames_leaves_nothing_of_single_objects(tmp_path: Path) -> None:
    object_outputs_in(tmp_path, 2, selected="dog")
    object_outputs_in(tmp_path, 0, selected="dog")
    assert names_in(tmp_path) == set()


def test_an_interrupted_run_leaves_single_objects_as_they_were(tmp_path: Path) -> None:
    object_outputs_in(tmp_path, 1, selected="dog")
    before = {name: (tmp_path / name).read_bytes() for name in names_in(tmp_path)}
    files = OutputFiles(tmp_path, "clip.mp4")
    with pytest.raises(KeyboardInterrupt), ObjectOutputs(files, frames_of(1), selected="dog") as outputs:
        outputs.write(0, np.zeros((SIZE[1], SIZE[0], 3), np.uint8), sv.Detections.empty())
        outputs.write(1, np.zeros((SIZE[1], SIZE[0], 3), np.uint8), objects())
        raise KeyboardInterrupt
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert names_in(tmp_path) - before.keys() == {"clip_selected.partial.mp4", "object_masks.partial/1_dog/00001.png"}


def test_selections_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    files = OutputFiles(tmp_path, "clip.mp4")
    with pytest.raises(ValueError, match=r"expected a brightness in \[0, 1\] of what is not selected, got 1.5"):
        ObjectOutputs(files, frames_of(1), selected="dog", brightness=1.5)
    with pytest.raises(ValueError, match="the text prompt names nothing"):
        ObjectOutputs(files, frames_of(1), selected="?")
    with ObjectOutputs(files, frames_of(1), False, "dog") as outputs:
        nameless = objects()
        nameless.data = {}
        with pytest.raises(ValueError, match="expected detections with tracker_id and class_name"):
            outputs.write(0, np.zeros((SIZE[1], SIZE[0], 3), np.uint8), nameless)


@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_what_is_drawn_behind_the_loop_is_there_at_its_end(tmp_path: Path, error: type[BaseException] | None) -> None:
    frames = frames_of(9)
    with contextlib.suppress(KeyboardInterrupt), outputs_in(tmp_path, frames) as outputs:
        for frame_idx, image in enumerate(frames):
            outputs.draw(frame_idx, image, objects() if frame_idx % 2 else sv.Detections.empty())
        if error is not None:
            raise error
    shown = open_frames(tmp_path / ("clip.mp4" if error is None else "clip.partial.mp4"))
    assert len(shown) == 9
    for frame_idx, image in enumerate(shown):
        assert abs(int(image[20, 28, 0]) - min(40 * frame_idx, 255)) < 20  # where no object is: a frame in its place
    folder = tmp_path if error is None else tmp_path / "partial"
    assert [len(read_id_map(folder, frame_idx)) for frame_idx in range(9)] == [0, 1] * 4 + [0]


def test_what_cannot_be_drawn_behind_the_loop_ends_the_run(tmp_path: Path) -> None:
    frames = frames_of(3)
    with pytest.raises(ValueError, match="expected"), outputs_in(tmp_path, frames) as outputs:
        outputs.draw(0, np.zeros((5, 5, 3), np.uint8), sv.Detections.empty())
    assert not (tmp_path / "clip.mp4").exists()
