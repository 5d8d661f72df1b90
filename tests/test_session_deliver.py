"""Every file that a session gives, made of a snapshot and read back by another reader."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO
from session_parts import NUM_FRAMES, DriftingFollower, box_mask, make_session
from tracked_clip import NUM_FRAMES as CLIP_FRAMES
from tracked_clip import SIZE as CLIP_SIZE
from tracked_clip import box, write_video
from written import decoded

from grounded_sam2.export import read_frame_annotations
from grounded_sam2.owned import RECORD_NAME
from grounded_sam2.session import (
    RESULTS,
    Snapshot,
    add_object,
    annotated,
    clear,
    create_session,
    hide,
    load_snapshot,
    make_result,
    objects_on,
    propagate,
    recolor,
    remove,
    rename,
    result_path,
    snapshot,
)

DOG, CAT = box_mask(2, 4, 12, 14), box_mask(2, 30, 14, 40)  # on frame 0; each moves right by a pixel a frame


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Objects 1 (Rex, a dog, not seen on frame 5), 2 (a cat) and 3, which has no mask left, of images."""
    folder = tmp_path_factory.mktemp("session")
    with make_session(folder) as session:
        add_object(session, 0, mask=DOG, class_name="dog", name="Rex")
        add_object(session, 0, mask=CAT, class_name="cat")
        for _ in propagate(session):
            pass
        add_object(session, 3, mask=box_mask(50, 40, 60, 46), class_name="bird")
        clear(session, 3, 0, NUM_FRAMES - 1)
        clear(session, 1, 5, 5)
        recolor(session, 2, "#00ff00")
        return snapshot(session, folder / "snapshot")


def at(mask: np.ndarray, frame_idx: int) -> np.ndarray:
    """Where `DriftingFollower` has a mask of frame 0 later on."""
    return np.roll(mask, frame_idx, axis=1)


def make(taken: Snapshot, kind: str, folder: Path, **settings: object) -> Path:
    """Make a result to its end, and see that it is the only file there."""
    steps = list(make_result(taken, kind, folder, **settings))  # type: ignore[arg-type]
    assert steps[0][0] == 0 and steps[-1][0] == steps[-1][1] and all(done < total for done, total in steps[:-1])
    path = result_path(taken, kind, folder)
    assert {entry.name for entry in folder.iterdir()} == {path.name, RECORD_NAME}
    return path


def unzipped(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
    return folder


# ---- the snapshot ----


def test_a_snapshot_stays_as_it_was_while_people_work_on(tmp_path: Path) -> None:
    with make_session(tmp_path) as session:
        add_object(session, 0, mask=DOG, class_name="dog")
        hide(session, add_object(session, 0, mask=CAT, class_name="cat"))
        was = [objects_on(session, t) for t in range(NUM_FRAMES)]
        taken = snapshot(session, tmp_path / "snapshot")
        assert taken.hidden == (2,) and taken.colors == {1: session.objects[1].color, 2: session.objects[2].color}
        steps = make_result(taken, "jsonl", tmp_path / "out")
        next(steps)
        rename(session, 1, "Rex")
        remove(session, 2)
        list(steps)
    path = result_path(taken, "jsonl", tmp_path / "out")
    for frame_idx, frame in enumerate(read_frame_annotations(path)):
        assert len(frame.detections) == len(was[frame_idx])
        if len(was[frame_idx]):
            np.testing.assert_array_equal(frame.detections.mask, was[frame_idx].mask)
            np.testing.assert_array_equal(frame.detections.xyxy, was[frame_idx].xyxy)
            assert frame.detections.data["name"].tolist() == was[frame_idx].data["name"].tolist()
    assert load_snapshot(tmp_path / "snapshot") == taken and taken.stem == "frames"


def test_a_snapshot_decodes_no_mask_and_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with make_session(tmp_path) as session:
        add_object(session, 0, mask=DOG, class_name="dog")
        for name in ("decode_rle", "encode_rle"):
            for module in ("grounded_sam2.session.results", "grounded_sam2.export.annotations"):
                monkeypatch.setattr(f"{module}.{name}", None, raising=False)
        monkeypatch.setattr(type(session.frames), "__getitem__", None)
        snapshot(session, tmp_path / "snapshot")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"colors": {}, "hidden": 3}'])
def test_a_damaged_snapshot_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "snapshot.json").write_text(text)
    with pytest.raises(ValueError, match="is no snapshot of a session"):
        load_snapshot(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_snapshot(tmp_path / "nowhere")


# ---- all results ----


@pytest.mark.parametrize("kind", RESULTS)
def test_every_result_is_one_file_that_can_be_read(taken: Snapshot, tmp_path: Path, kind: str) -> None:
    path = make(taken, kind, tmp_path / "out")
    assert path.name == f"frames{RESULTS[kind].file_name}" and RESULTS[kind].label
    if path.suffix == ".zip":
        assert not [name for name in zipfile.ZipFile(path).namelist() if "/." in f"/{name}"]
    elif path.suffix in (".mp4", ".webm", ".mov"):
        assert len(decoded(path)) == NUM_FRAMES
    elif path.suffix in (".gif", ".webp"):
        with Image.open(path) as picture:
            assert picture.n_frames == 5
    elif path.suffix == ".json":
        assert json.loads(path.read_text())
    else:
        assert path.read_text()


def test_a_session_with_nothing_in_it_gives_every_result(tmp_path: Path) -> None:
    with make_session(tmp_path, num_frames=2) as session:
        taken = snapshot(session, tmp_path / "snapshot")
    for kind in RESULTS:
        list(make_result(taken, kind, tmp_path / "out"))
        assert result_path(taken, kind, tmp_path / "out").exists()


def test_the_annotated_video_has_the_sessions_look_and_the_sound(tmp_path: Path) -> None:
    source = write_video(tmp_path / "clip.mp4")
    with create_session(tmp_path / "clip.session", source, DriftingFollower()) as session:
        add_object(session, 0, mask=box(20, 20, 80, 60), class_name="dog")
        hide(session, add_object(session, 0, mask=box(100, 70, 160, 110), class_name="cat"))
        recolor(session, 1, "#00ff00")
        taken = snapshot(session, tmp_path / "snapshot")
        expected = [annotated(session, t) for t in (0, 5)]
    assert Path(taken.video_path).is_relative_to(tmp_path / "clip.session") and taken.stem == "clip"
    path = make(taken, "video", tmp_path / "out")
    frames = decoded(path)
    assert len(frames) == CLIP_FRAMES and frames[0].shape == (*CLIP_SIZE[::-1], 3)
    assert all(np.abs(frames[t].astype(int) - look).mean() < 6 for t, look in zip((0, 5), expected, strict=True))
    with av.open(str(path)) as container:
        [sound] = container.streams.audio
        assert sound.codec_context.name == "aac" and container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert sum(frame.samples for frame in container.decode(sound)) / 8000 == pytest.approx(0.8, abs=0.3)


def test_masks_are_maps_of_ids_in_a_palette(taken: Snapshot, tmp_path: Path) -> None:
    path = make(taken, "masks", tmp_path / "out")
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist(), key=lambda name: int(name[:-4])) == [f"{t}.png" for t in range(NUM_FRAMES)]
        for frame_idx in range(NUM_FRAMES):
            picture = Image.open(io.BytesIO(archive.read(f"{frame_idx}.png")))
            expected = 2 * at(CAT, frame_idx) + (0 if frame_idx == 5 else at(DOG, frame_idx))
            assert picture.mode == "P" and np.array_equal(np.asarray(picture), expected)


def test_data_sets_are_read_by_their_readers(taken: Snapshot, tmp_path: Path) -> None:
    coco = COCO(make(taken, "coco", tmp_path / "coco"))
    found = coco.loadAnns(coco.getAnnIds(imgIds=3))
    assert [(entry["track_id"], coco.annToMask(entry).sum()) for entry in found] == [(1, DOG.sum()), (2, CAT.sum())]
    table = np.loadtxt(make(taken, "mot", tmp_path / "mot"), delimiter=",")
    assert table[:, 0].max() == NUM_FRAMES and len(table) == 2 * NUM_FRAMES - 1
    yolo = unzipped(make(taken, "yolo", tmp_path / "yolo"), tmp_path / "set")
    assert set(yaml.safe_load((yolo / "data.yaml").read_text())["names"].values()) == {"dog", "cat", "bird"}
    assert len(list((yolo / "images").iterdir())) == len(list((yolo / "labels").iterdir())) == NUM_FRAMES


# ---- chosen objects ----


@pytest.mark.parametrize(
    ("obj_ids", "everything_else", "expected"),
    [
        (None, False, lambda t: at(CAT, t) | (at(DOG, t) if t != 5 else False)),
        ([2], False, lambda t: at(CAT, t)),
        ([2], True, lambda t: ~at(CAT, t)),
        ([3], False, lambda t: np.zeros_like(CAT)),
        ([], True, lambda t: np.ones_like(CAT)),
    ],
)
def test_cut_outs_are_of_the_chosen_objects(taken, tmp_path, obj_ids, everything_else, expected) -> None:  # type: ignore[no-untyped-def]
    path = make(taken, "cutout_png", tmp_path / "out", obj_ids=obj_ids, everything_else=everything_else, margin=0)
    with zipfile.ZipFile(path) as archive:
        for frame_idx in range(NUM_FRAMES):
            picture = np.asarray(Image.open(io.BytesIO(archive.read(f"{frame_idx:05d}.png"))))
            assert np.array_equal(picture[..., 3], np.where(expected(frame_idx), 255, 0))


@pytest.mark.parametrize(
    ("kind", "settings", "where"),
    [
        ("cover", {"obj_ids": [2]}, lambda t: at(CAT, t)),
        ("cover", {"obj_ids": [2], "everything_else": True}, lambda t: ~at(CAT, t)),
        ("remove_background", {"obj_ids": [2]}, lambda t: ~at(CAT, t)),
        ("remove_background", {"obj_ids": [2], "everything_else": True}, lambda t: at(CAT, t)),
    ],
)
def test_what_is_covered_is_what_was_chosen(taken, tmp_path, kind, settings, where) -> None:  # type: ignore[no-untyped-def]
    folder = unzipped(make(taken, kind, tmp_path / "out", **settings, margin=0, color="white"), tmp_path / "in")
    [mp4] = folder.glob("*.mp4")
    frames = decoded(mp4)
    log = json.loads(next(folder.glob("*.audit.json")).read_text(encoding="utf-8"))
    assert log["output"]["name"] == mp4.name and log["source"]["name"] == "frames" and len(log["frames"]) == NUM_FRAMES
    for frame_idx, frame in enumerate(frames):
        area = where(frame_idx)
        assert log["frames"][frame_idx]["num_changed_pixels"] == area.sum()
        assert frame[area].mean() > 225 and frame[~area].mean() < 150


@pytest.mark.parametrize("kind", ["blur", "pixelate"])
def test_anonymised_videos_say_where_to_look_again(taken: Snapshot, tmp_path: Path, kind: str) -> None:
    folder = unzipped(make(taken, kind, tmp_path / "out", obj_ids=[1, 3], strength=1.0), tmp_path / "in")
    log = json.loads(next(folder.glob("*.audit.json")).read_text(encoding="utf-8"))
    assert (log["effect"]["kind"], log["effect"]["strength"], log["effect"]["obj_ids"]) == (kind, 1.0, [1])
    [warning] = log["warnings"]
    assert (warning["name"], warning["first_frame"], warning["is_bridged"]) == ("#1 Rex", 5, True)
    assert log["frames"][5]["objects"] == [
        {"obj_id": 1, "name": "#1 Rex", "num_pixels": log["frames"][5]["num_changed_pixels"], "is_bridged": True}
    ]
    assert log["frames"][5]["num_changed_pixels"] >= (at(DOG, 4) | at(DOG, 6)).sum()
    assert len(decoded(next(folder.glob("*.mp4")))) == NUM_FRAMES


# ---- what does not go ----


def test_unknown_kinds_and_objects_are_refused(taken: Snapshot, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a result of video, gif, .*, got 'avi'"):
        list(make_result(taken, "avi", tmp_path))
    with pytest.raises(ValueError, match=r"expected some of the objects \[1, 2, 3\], got 7"):
        list(make_result(taken, "blur", tmp_path, obj_ids=[1, 7]))
    with pytest.raises(ValueError, match="color: expected a name"):
        list(make_result(taken, "cover", tmp_path, color="bluish"))
    assert not [path for path in tmp_path.iterdir() if path.name != RECORD_NAME]


def test_a_format_that_cannot_hold_the_objects_says_so(taken: Snapshot, tmp_path: Path) -> None:
    lines = Path(taken.annotations_path).read_text(encoding="utf-8").replace('"tracker_id": 2', '"tracker_id": 300')
    (tmp_path / "many.jsonl").write_text(lines)
    many = Snapshot(str(tmp_path / "many.jsonl"), taken.video_path, taken.name, taken.colors, taken.hidden)
    with pytest.raises(ValueError, match="a DAVIS image holds ids up to 255, frame 0 has 300"):
        list(make_result(many, "masks", tmp_path / "out"))
    assert not [path for path in (tmp_path / "out").iterdir() if path.name != RECORD_NAME]


def test_files_of_others_stay_and_earlier_results_are_replaced(taken: Snapshot, tmp_path: Path) -> None:
    path = result_path(taken, "mot", tmp_path)
    path.write_text("mine")
    with pytest.raises(ValueError, match="is there already and was not written by this program"):
        list(make_result(taken, "mot", tmp_path))
    assert path.read_text() == "mine"
    path.unlink()
    for _ in range(2):
        list(make_result(taken, "mot", tmp_path))
    assert path.read_text().startswith("1,1,")


@pytest.mark.parametrize("kind", ["video", "gif", "webp", "cutout_webm", "cutout_prores", "cutout_png", "blur"])
def test_a_cancelled_result_leaves_nothing(taken: Snapshot, tmp_path: Path, kind: str) -> None:
    steps = make_result(taken, kind, tmp_path)
    for num_done, _ in steps:
        if num_done >= 5:
            break
    steps.close()
    del steps
    assert not [path for path in tmp_path.iterdir() if path.name != RECORD_NAME]


def test_a_video_that_is_gone_is_one_clear_error(taken: Snapshot, tmp_path: Path) -> None:
    gone = Snapshot(taken.annotations_path, str(tmp_path / "gone.mp4"), taken.name, taken.colors, taken.hidden)
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4"):
        list(make_result(gone, "video", tmp_path / "out"))
