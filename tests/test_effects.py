"""What blurring, covering and cutting out leave of a video, read back by other readers."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import supervision as sv
from PIL import Image
from tracked_clip import GAP, NUM_FRAMES, RATE, SIZE, box, masks_on, texture, write_lines, write_video
from written import decoded

from grounded_sam2.effects import (
    AnimationLimits,
    Effect,
    OutputSettings,
    TrackedVideo,
    changed_frames,
    changed_image,
    make_effect,
)
from grounded_sam2.effects.__main__ import main
from grounded_sam2.effects.animations import kept_frames
from grounded_sam2.effects.effect import rgb_of
from grounded_sam2.effects.pixels import blurred, covered, cut_out, grown, longest_side, pixelated
from grounded_sam2.export import FrameAnnotationWriter, read_frame_annotations
from grounded_sam2.files import Inputs
from grounded_sam2.masks import boxes_around
from grounded_sam2.owned import RECORD_NAME
from grounded_sam2.video.frame_source import ImageSequence
from grounded_sam2.video.timing import FrameTimes


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clip.mp4` and its annotations, `clip.jsonl`, and nothing else; tests write elsewhere."""
    folder = tmp_path_factory.mktemp("clip")
    write_lines(folder / "clip.jsonl", str(write_video(folder / "clip.mp4")))
    return folder


@pytest.fixture
def video(clip: Path) -> Iterator[TrackedVideo]:
    with TrackedVideo(clip / "clip.jsonl") as opened:
        yield opened


def make(video: TrackedVideo, effect: Effect, path: Path, format: str = "mp4", **settings: object) -> Path:
    """Make a file to its end; the last progress is that of all frames."""
    steps = list(make_effect(video, effect, path, OutputSettings(format, **settings), path.with_suffix(".json")))  # type: ignore[arg-type]
    assert steps[0][0] == 0 and steps[-1] == (len(video.frames), len(video.frames))
    assert [step[0] for step in steps] == sorted(step[0] for step in steps)
    return path


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["effects", *map(str, arguments)])
    main()


# ---- one frame ----


@pytest.mark.parametrize("change", [blurred, pixelated])
def test_a_frame_is_coarse_within_the_mask_and_untouched_beside_it(change) -> None:  # type: ignore[no-untyped-def]
    image, mask = np.random.default_rng(0).integers(0, 256, (128, 192, 3), dtype=np.uint8), box(10, 5, 74, 37)
    before = image.copy()
    changed = change(image, mask, 16)
    assert np.array_equal(image, before)
    assert np.array_equal(changed[~mask], image[~mask])
    # 4 by 2 cells remain, each the mean of its 256 pixels
    means = image[5:37, 10:74].reshape(2, 16, 4, 16, 3).mean(axis=(1, 3))
    assert np.abs(changed[5:37, 10:74].reshape(2, 16, 4, 16, 3).mean(axis=(1, 3)) - means).max() < 8
    assert np.abs(np.corrcoef(image[mask].ravel(), changed[mask].ravel())[0, 1]) < 0.2
    assert changed[mask].std() < image[mask].std() / 8
    if change is pixelated:
        assert len(np.unique(changed[mask], axis=0)) == 8


@pytest.mark.parametrize("change", [blurred, pixelated])
def test_colours_come_from_the_mask_alone(change) -> None:  # type: ignore[no-untyped-def]
    """A blue ring on red, with red in its middle and around it: no red bleeds in."""
    image = np.full((60, 60, 3), (255, 0, 0), np.uint8)
    mask = box(10, 10, 50, 50, (60, 60)) & ~box(20, 20, 40, 40, (60, 60))
    image[mask] = (0, 0, 255)
    for cell in (4, 7, 100):
        assert np.array_equal(change(image, mask, cell), image)


@pytest.mark.parametrize("mask", [np.zeros((128, 192), bool), np.ones((128, 192), bool), box(191, 127, 192, 128)])
def test_masks_of_no_pixel_of_one_and_of_all(mask: np.ndarray) -> None:
    image = texture(0)
    for change in (blurred, pixelated):
        assert np.array_equal(change(image, mask, 20)[~mask], image[~mask])
    assert (covered(image, mask, (1, 2, 3))[mask] == (1, 2, 3)).all()
    cut = cut_out(image, mask)
    assert np.array_equal(cut[..., 3] == 255, mask) and np.array_equal(cut[mask][:, :3], image[mask])
    assert (cut[~mask] == 0).all()
    assert grown(mask, 3).sum() == (11 if mask.sum() == 1 else mask.sum())  # a quarter of a disc in the corner


def test_a_margin_is_round_and_stays_in_the_picture() -> None:
    point = box(50, 30, 51, 31)
    rows, columns = np.indices(point.shape)
    assert np.array_equal(grown(point, 6), np.hypot(rows - 30, columns - 50) <= 6)
    assert np.array_equal(grown(box(0, 0, 5, 128), 2), box(0, 0, 7, 128))
    assert grown(point, 0) is point and longest_side(box(3, 4, 9, 30)) == 26


def test_objects_that_meet_are_made_of_the_source_and_their_own_size() -> None:
    image, small, large = texture(0), box(10, 10, 30, 30), box(20, 20, 80, 60)
    effect = Effect("pixelate", [1, 2])
    changed = changed_image(image, [(small, effect.cell(20)), (large, effect.cell(60))], effect)
    assert np.array_equal(changed[large], pixelated(image, large, 12)[large])
    assert np.array_equal(changed[small & ~large], pixelated(image, small, 4)[small & ~large])
    assert np.array_equal(changed[~(small | large)], image[~(small | large)])
    assert np.array_equal(changed_image(image, [], effect), image)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strength": 0}, "strength: expected more than 0 and at most 1, got 0"),
        ({"margin": 1.5}, "margin: expected 0 to 1, got 1.5"),
        ({"bridge": -1}, "bridge: expected at least 0 frames, got -1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Effect("blur", [1], **settings)  # type: ignore[arg-type]


def test_colours_have_names_and_numbers() -> None:
    assert rgb_of("#0a0B0c") == (10, 11, 12) and rgb_of("white") == (255, 255, 255)
    with pytest.raises(ValueError, match="color: expected a name or \"#rrggbb\", got 'bluish'"):
        rgb_of("bluish")


# ---- who is meant ----


@pytest.mark.parametrize(
    ("names", "expected"),
    [("", [1, 2]), ("dog", [1]), (" Tom ,dog", [1, 2]), ("tom", [2]), ("#2", [2]), ("1", [1]), (["CAT"], [2])],
)
def test_objects_are_chosen_by_class_name_and_id(video: TrackedVideo, names: str, expected: list[int]) -> None:
    assert video.choose(names) == expected


def test_a_name_that_nobody_has_is_answered_by_those_there_are(video: TrackedVideo) -> None:
    with pytest.raises(ValueError, match="no object is called 'person'; there are dog, dog 1, cat, Tom, #1, #2"):
        video.choose("dog, person")


def test_an_object_belongs_to_every_class_that_it_was_ever_taken_for(tmp_path: Path) -> None:
    with FrameAnnotationWriter(tmp_path / "a.jsonl", SIZE) as writer:
        for frame_idx, class_name in enumerate(("wolf", "dog")):
            mask = box(0, 0, 9, 9)[None]
            data = {"class_name": np.array([class_name])}
            writer.write(frame_idx, sv.Detections(boxes_around(mask), mask=mask, tracker_id=np.array([5]), data=data))
    with TrackedVideo(tmp_path / "a.jsonl", ImageSequence([texture(0)] * 2, "two", Fraction(5))) as video:
        assert video.choose("wolf") == video.choose("dog") == [5] and video.objects[5].label == "#5 dog"


def test_names_survive_the_lines(clip: Path) -> None:
    first = next(iter(read_frame_annotations(clip / "clip.jsonl"))).detections
    assert first.data["name"].tolist() == ["dog 1", "Tom"]


# ---- a video ----


def test_frames_are_read_once_and_in_order(clip: Path) -> None:
    asked: list[int] = []

    class Counting(ImageSequence):
        def __getitem__(self, frame_idx: int) -> np.ndarray:
            asked.append(frame_idx)
            return super().__getitem__(frame_idx)

    frames = Counting([texture(t) for t in range(NUM_FRAMES)], "frames", Fraction(RATE))
    asked.clear()
    with TrackedVideo(clip / "clip.jsonl", frames) as video:
        ahead = []
        for picture in changed_frames(video, Effect("blur", [1, 2])):
            ahead.append(len(asked) - picture.frame_idx)
    assert asked == list(range(NUM_FRAMES)) and max(ahead) <= 6


@pytest.mark.parametrize("kind", ["blur", "pixelate", "cover"])
def test_a_changed_video_is_the_source_beside_the_objects(video: TrackedVideo, tmp_path: Path, kind: str) -> None:
    effect = Effect(kind, video.choose("dog"), margin=0.1, bridge=0, color=(0, 255, 0))  # type: ignore[arg-type]
    path = make(video, effect, tmp_path / "out.mp4")
    frames, source = decoded(path), list(video.frames)
    assert len(frames) == NUM_FRAMES
    for frame_idx, (frame, original) in enumerate(zip(frames, source, strict=True)):
        masks = masks_on(frame_idx)
        inside = masks.get(1, np.zeros(SIZE[::-1], bool))
        beside = ~grown(inside, 6.4 + 8)  # blocks of the codec reach over the edge
        assert np.abs(frame[beside].astype(int) - original[beside]).mean() < 6
        if inside.any():
            correlation = np.corrcoef(frame[inside].ravel(), original[inside].ravel())[0, 1]
            assert not correlation > 0.6 and frame[inside].std(axis=0).mean() < original[inside].std(axis=0).mean() / 2
            if kind == "cover":
                assert np.abs(frame[inside].astype(int) - (0, 255, 0)).mean() < 12
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == RATE and not container.streams.audio
    assert path.read_bytes()[4:8] == b"ftyp" and path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")


def test_everything_else_changes_where_objects_are_kept(video: TrackedVideo) -> None:
    kept = Effect("cover", [1], keeps_objects=True, color=(9, 9, 9))
    for picture, original in zip(changed_frames(video, kept), video.frames, strict=True):
        mask = masks_on(picture.frame_idx).get(1, np.zeros(SIZE[::-1], bool))
        assert np.array_equal(picture.image[mask], original[mask]) and (picture.image[~mask] == 9).all()
        assert picture.num_changed == (~mask).sum() and not picture.bridged
    coarse = Effect("blur", [1], keeps_objects=True)
    picture, original = next(changed_frames(video, coarse)), video.frames[0]
    mask = masks_on(0)[1]
    assert np.array_equal(picture.image[mask], original[mask])
    assert np.array_equal(picture.image[~mask], blurred(original, ~mask, 0.05 * 192)[~mask])


def test_gaps_are_bridged_by_the_masks_beside_them_and_listed(video: TrackedVideo, tmp_path: Path) -> None:
    across = masks_on(GAP.start - 1)[1] | masks_on(GAP.stop)[1]
    for bridge, is_bridged in ((None, True), (3, True), (2, False), (0, False)):
        effect = Effect("cover", [1], margin=0, bridge=bridge, color=(0, 0, 0))
        pictures = {picture.frame_idx: picture for picture in changed_frames(video, effect)}
        for frame_idx in GAP:
            assert pictures[frame_idx].bridged == ([1] if is_bridged else [])
            assert pictures[frame_idx].num_changed == (across.sum() if is_bridged else 0)
            assert not is_bridged or (pictures[frame_idx].image[across] == 0).all()
        assert pictures[GAP.start - 1].num_changed == masks_on(0)[1].sum() and not pictures[GAP.stop].bridged
        assert pictures[NUM_FRAMES - 1].num_changed == 0  # after the last mask is no gap
        path = make(video, effect, tmp_path / f"{bridge}.mp4")
        log = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        [warning] = log["warnings"]
        assert (warning["obj_id"], warning["first_frame"], warning["last_frame"]) == (1, 6, 8)
        assert warning["is_bridged"] is is_bridged
        assert warning["message"].startswith("#1 dog 1 has no mask on frames 6 to 8, but before and after: ")
        assert ("look whether they cover it" in warning["message"]) is is_bridged
        listed = {entry["frame_idx"]: entry["objects"][0].get("is_bridged", False) for entry in log["frames"]}
        assert listed == {t: t in GAP for t in range(NUM_FRAMES - 1) if is_bridged or t not in GAP}


def test_the_log_says_what_was_done_to_what(clip: Path, video: TrackedVideo, tmp_path: Path) -> None:
    effect = Effect("blur", video.choose("cat"), strength=0.5)
    path = make(video, effect, tmp_path / "out.mp4", keep_sound=True)
    log = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert log["program"] == "grounded_sam2.effects" and log["version"]
    assert log["effect"] == {
        "kind": "blur", "obj_ids": [2], "keeps_objects": False, "strength": 0.5, "margin": 0.05, "bridge": "any length",
    }  # fmt: skip
    assert log["output"] == {"name": "out.mp4", "format": "mp4", "keep_sound": True}
    for key, name in (("source", "clip.mp4"), ("annotations", "clip.jsonl")):
        content = (clip / name).read_bytes()
        assert log[key]["name"] == name and log[key]["num_bytes"] == len(content)
        assert log[key]["sha256"] == hashlib.sha256(content).hexdigest()
    assert (log["source"]["num_frames"], log["source"]["fps"]) == (NUM_FRAMES, RATE)
    assert log["objects"] == [
        {"obj_id": 2, "name": "#2 Tom", "class_names": ["cat"], "num_frames": 20, "first_frame": 0, "last_frame": 19}
    ]
    area = int(grown(masks_on(0)[2], 0.05 * 48).sum())
    assert log["frames"] == [
        {"frame_idx": t, "num_changed_pixels": area, "objects": [{"obj_id": 2, "name": "#2 Tom", "num_pixels": area}]}
        for t in range(NUM_FRAMES)
    ]
    assert log["warnings"] == []


def test_sound_is_kept_when_asked_for_and_times_always(tmp_path: Path) -> None:
    times = [0, 4, 8, 20, 24, 28, 32, 60, 64, 68]
    source = write_video(tmp_path / "in.mp4", len(times), times)
    lines = write_lines(tmp_path / "in.jsonl", None, len(times))
    with TrackedVideo(lines, source) as video:
        for keep_sound in (True, False):
            path = make(video, Effect("cover", [2]), tmp_path / "out.mp4", keep_sound=keep_sound)
            with av.open(str(path)) as container:
                assert len(container.streams.audio) == keep_sound
                shown_at = [frame.time for frame in container.decode(video=0)]
            assert shown_at == pytest.approx([time / 100 for time in times], abs=1e-3)
            if keep_sound:
                with av.open(str(path)) as container:
                    sound = list(container.decode(audio=0))
                seconds = sum(frame.samples for frame in sound) / 8000
                assert sound[0].time == pytest.approx(0, abs=0.15) and seconds == pytest.approx(0.4, abs=0.3)


# ---- transparency ----


def alphas(path: Path) -> list[np.ndarray]:
    """The transparency (H, W) of each picture of a cut-out, by a reader that is not ours."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            pictures = [Image.open(io.BytesIO(archive.read(name))) for name in sorted(archive.namelist())]
            assert all(picture.mode == "RGBA" for picture in pictures)
            return [np.asarray(picture)[..., 3] for picture in pictures]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if path.suffix == ".mov":
            assert stream.codec_context.name == "prores" and stream.codec_context.profile == "4444"
            return [frame.to_ndarray(format="rgba")[..., 3] for frame in container.decode(stream)]
        assert {key.lower(): value for key, value in stream.metadata.items()}["alpha_mode"] == "1"
        decoder = av.CodecContext.create("libvpx-vp9", "r")  # FFmpeg's own one leaves transparency out
        frames = [
            frame for packet in container.demux(stream) for frame in decoder.decode(packet if packet.size else None)
        ]
        assert {frame.format.name for frame in frames} == {"yuva420p"}
        return [frame.to_ndarray(format="rgba")[..., 3] for frame in frames]


@pytest.mark.parametrize(("format", "suffix"), [("png", ".zip"), ("webm", ".webm"), ("prores", ".mov")])
@pytest.mark.parametrize("inverted", [False, True])
def test_transparency_reads_back_as_the_mask(
    video: TrackedVideo, tmp_path: Path, format: str, suffix: str, inverted: bool
) -> None:
    effect = Effect("cutout", [1, 2], keeps_objects=not inverted, margin=0, bridge=0)
    path = make(video, effect, tmp_path / f"out{suffix}", format)
    found = alphas(path)
    assert len(found) == NUM_FRAMES
    for frame_idx, alpha in enumerate(found):
        union = np.any(list(masks_on(frame_idx).values()), axis=0)
        expected = np.where(union != inverted, 255, 0)
        if format == "webm":
            assert ((alpha > 127) != (expected > 127)).mean() < 0.01 and np.abs(alpha - expected).mean() < 4
        else:
            assert np.array_equal(alpha, expected)
    if suffix != ".zip":
        with av.open(str(path)) as container:
            assert container.streams.video[0].average_rate == RATE
            assert container.duration == pytest.approx(NUM_FRAMES / RATE * 1e6, rel=0.01)


@pytest.mark.parametrize(("format", "suffix"), [("png", ".zip"), ("webm", ".webm"), ("prores", ".mov")])
def test_nothing_hides_under_transparency(video: TrackedVideo, tmp_path: Path, format: str, suffix: str) -> None:
    path = make(video, Effect("cutout", [1], keeps_objects=True), tmp_path / f"out{suffix}", format)
    if suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            rgb = np.asarray(Image.open(io.BytesIO(archive.read("00000.png"))))[..., :3]
    else:
        rgb = decoded(path)[0]  # as a player shows it that knows nothing of transparency
    far = ~grown(masks_on(0)[1], 12)
    assert rgb[far].std(axis=0).max() < 4 < video.frames[0][far].std(axis=0).min()


def test_odd_sizes_are_cut_out_whole(tmp_path: Path) -> None:
    size = (61, 47)
    frames = ImageSequence([texture(0, size)] * 3, "odd", Fraction(10))
    with TrackedVideo(write_lines(tmp_path / "odd.jsonl", None, 3, size), frames) as video:
        for format, suffix in (("webm", ".webm"), ("prores", ".mov")):
            path = make(video, Effect("cutout", [1], keeps_objects=True), tmp_path / f"odd{suffix}", format)
            for frame_idx, alpha in enumerate(alphas(path)):
                assert alpha.shape == size[::-1]
                assert ((alpha > 127) != masks_on(frame_idx)[1][:47, :61]).mean() < 0.02


# ---- GIF and WebP ----


@pytest.mark.parametrize("format", ["gif", "webp"])
@pytest.mark.parametrize("max_fps", [50.0, 10.0])
def test_animations_have_the_frames_and_the_time_of_the_video(
    video: TrackedVideo, tmp_path: Path, format: str, max_fps: float
) -> None:
    limits = AnimationLimits(max_side=48, max_fps=max_fps)
    path = make(video, Effect("cover", [2], color=(255, 255, 255)), tmp_path / f"out.{format}", format, limits=limits)
    kept = list(kept_frames(FrameTimes(Fraction(RATE), Fraction(1, RATE)), NUM_FRAMES, max_fps))
    assert len(kept) == (20 if max_fps == 50 else 8) and kept[0] == 0
    with Image.open(path) as picture:
        assert picture.size == (48, 32) and picture.n_frames == len(kept) and picture.info["loop"] == 0
        durations = []
        for position, frame_idx in enumerate(kept):
            picture.seek(position)
            shown = np.asarray(picture.convert("RGB"), dtype=int)
            durations.append(picture.info["duration"])
            small = np.asarray(Image.fromarray(video.frames[frame_idx]).resize((48, 32), Image.Resampling.BOX), int)
            beside = ~grown(masks_on(frame_idx)[2], 12)[::4, ::4]
            assert np.abs(shown - small)[beside].mean() < 14
            assert shown[19:29, 31:41].mean() > 230
    assert sum(durations) == 800


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_animations_of_cut_outs_are_transparent(video: TrackedVideo, tmp_path: Path, format: str) -> None:
    """Also where an object moves on: what was there before does not stay."""
    path = make(video, Effect("cutout", [1], keeps_objects=True), tmp_path / f"out.{format}", format,
                limits=AnimationLimits(max_fps=25))  # fmt: skip
    with Image.open(path) as picture:
        for frame_idx in range(picture.n_frames):
            picture.seek(frame_idx)
            alpha = np.asarray(picture.convert("RGBA"))[..., 3]
            expected = masks_on(frame_idx).get(1, np.zeros(SIZE[::-1], bool))
            assert np.array_equal(alpha > 127, expected)


def test_a_gif_of_many_palettes_keeps_its_colours(tmp_path: Path) -> None:
    """Black and white too, and more frames than one palette serves."""
    images = [np.full((16, 16, 3), value, np.uint8) for value in (0, 255, 128, 60) * 10]
    frames = ImageSequence(images, "flat", Fraction(10))
    with FrameAnnotationWriter(tmp_path / "flat.jsonl", (16, 16)) as writer:
        for frame_idx in range(40):
            writer.write(frame_idx, sv.Detections.empty())
    with TrackedVideo(tmp_path / "flat.jsonl", frames) as video:
        path = make(video, Effect("blur", []), tmp_path / "flat.gif", "gif")
    with Image.open(path) as picture:
        assert picture.n_frames == 40
        for frame_idx in range(40):
            picture.seek(frame_idx)
            shown = np.asarray(picture.convert("RGBA"), int)
            assert (shown[..., 3] == 255).all() and np.abs(shown[..., :3] - images[frame_idx]).max() <= 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_side": 0}, "max_side: expected 1 to"), ({"max_fps": 60.0}, "max_fps: expected more than 0 and at most 50")],
)
def test_limits_out_of_range_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AnimationLimits(**settings)  # type: ignore[arg-type]


# ---- what does not fit ----


def test_a_video_of_other_frames_is_refused(clip: Path, tmp_path: Path) -> None:
    other = ImageSequence([texture(0)] * 3, "other", Fraction(5))
    with pytest.raises(ValueError, match="has lines for 20 frames, other has 3: expected one line for each frame"):
        TrackedVideo(clip / "clip.jsonl", other)
    narrow = ImageSequence([texture(0)[:, :90]] * NUM_FRAMES, "narrow", Fraction(5))
    with pytest.raises(ValueError, match="is about frames of 192x128 pixels, narrow has 90x128"):
        TrackedVideo(clip / "clip.jsonl", narrow)
    lost = write_lines(tmp_path / "lost.jsonl", str(tmp_path / "gone.mp4"))
    with pytest.raises(FileNotFoundError, match="is not there any more: name it with --video-path"):
        TrackedVideo(lost)
    with pytest.raises(ValueError, match="does not say which video it is about"):
        TrackedVideo(write_lines(tmp_path / "unnamed.jsonl", None))
    with pytest.raises(FileNotFoundError, match="no such annotations"):
        TrackedVideo(tmp_path / "nowhere.jsonl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tracker_id": None}, "expected tracked objects with masks; frame 0 has one without an id"),
        ({"segmentation": None}, "expected tracked objects with masks; frame 0 has one without a mask"),
        ({"segmentation": {"size": [128, 192], "counts": "0"}}, "frame 0: expected"),
    ],
)
def test_lines_that_say_too_little_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = write_lines(tmp_path / "a.jsonl", None, 1)
    header, line = path.read_text().splitlines()
    entry = json.loads(line)
    entry["annotations"][1].update(change)
    path.write_text(f"{header}\n{json.dumps(entry)}\n")
    with pytest.raises(ValueError, match=message):
        TrackedVideo(path, ImageSequence([texture(0)], "one", Fraction(5)))


@pytest.mark.parametrize(
    ("kind", "format", "message"),
    [("cutout", "mp4", "mp4 has no transparency: choose one of webm, prores, png, gif, webp"),
     ("blur", "webm", "webm is for cut-outs: choose mp4, png, gif or webp")],
)  # fmt: skip
def test_formats_that_do_not_fit_are_refused(
    video: TrackedVideo, tmp_path: Path, kind: str, format: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(video, Effect(kind, [1]), tmp_path / "out.x", format)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_an_object_that_is_not_there_is_refused(video: TrackedVideo, tmp_path: Path) -> None:
    for log_path in (None, tmp_path / "log.json"):
        with pytest.raises(ValueError, match=r"expected some of the objects \[1, 2\], got 5"):
            list(make_effect(video, Effect("blur", [1, 5]), tmp_path / "out.mp4", log_path=log_path))
    with pytest.raises(ValueError, match="got 5"):
        list(changed_frames(video, Effect("blur", [5])))
    assert not list(tmp_path.iterdir())


def test_no_input_is_written_over(clip: Path, video: TrackedVideo) -> None:
    before = (clip / "clip.mp4").read_bytes()
    with pytest.raises(ValueError, match="it is read as an input"):
        make(video, Effect("blur", [1]), clip / "clip.mp4")
    assert (clip / "clip.mp4").read_bytes() == before and len(list(clip.iterdir())) == 2
    assert Inputs.refuse(clip / "other.mp4") is None


@pytest.mark.parametrize(
    ("kind", "format", "suffix"),
    [("blur", "mp4", ".mp4"), ("cutout", "webm", ".webm"), ("cutout", "prores", ".mov"), ("cutout", "png", ".zip"),
     ("blur", "gif", ".gif"), ("blur", "webp", ".webp")],
)  # fmt: skip
def test_a_cancelled_file_leaves_nothing(
    video: TrackedVideo, tmp_path: Path, kind: str, format: str, suffix: str
) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_bytes(b"mine")
    steps = make_effect(video, Effect(kind, [1], kind == "cutout"), path, OutputSettings(format), tmp_path / "log.json")  # type: ignore[arg-type]
    for num_done, _ in steps:
        if num_done > 5:
            break
    steps.close()
    assert path.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [path]


def test_a_killed_run_leaves_nothing_that_looks_complete(clip: Path, tmp_path: Path) -> None:
    code = f"""
        import os, signal
        from grounded_sam2.effects import *
        video = TrackedVideo({str(clip / "clip.jsonl")!r})
        for num_done, _ in make_effect(video, Effect("blur", [1]), {str(tmp_path / "out.mp4")!r}, None,
                                       {str(tmp_path / "log.json")!r}):
            if num_done > 5:
                os.kill(os.getpid(), signal.SIGKILL)
    """
    code = "\n".join(line[8:] for line in code.splitlines())
    ended = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert ended.returncode == -9
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())


# ---- the command ----


def test_the_command_writes_beside_the_annotations(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(monkeypatch, clip / "clip.jsonl", "--blur", "dog", "--keep-sound", "--output-dir", tmp_path)
    printed = capsys.readouterr().out
    assert f"wrote {tmp_path}/clip.blurred.mp4, {tmp_path}/clip.blurred.audit.json" in printed
    assert "look again: #1 dog 1 has no mask on frames 6 to 8" in printed
    names = {path.name for path in tmp_path.iterdir()} - {RECORD_NAME}
    assert names == {"clip.blurred.mp4", "clip.blurred.audit.json"}
    with av.open(str(tmp_path / "clip.blurred.mp4")) as container:
        assert container.streams.audio and container.streams.video[0].frames == NUM_FRAMES
    (tmp_path / "clip.annotated.gif").write_bytes(b"mine")
    run_main(monkeypatch, clip / "clip.jsonl", "--annotate", "--format", "gif", "--output-dir", tmp_path)
    assert (tmp_path / "clip.annotated.gif").read_bytes() == b"mine"
    with Image.open(tmp_path / "clip-2.annotated.gif") as picture:
        assert picture.n_frames == 10


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (["--remove-background", "cat", "--color", "red"], "clip.no-background.mp4"),
        (["--cutout", "cat", "--format", "webp"], "clip.cutout.webp"),
        (["--cutout"], "clip.cutout.zip"),
        (["--pixelate", "#1", "--invert", "--strength", "0.1", "--bridge", "0"], "clip.pixelated.mp4"),
        (["--annotate", "dog", "--invert"], "clip.annotated.mp4"),
    ],
)
def test_every_action_of_the_command(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: list[str], expected: str
) -> None:
    run_main(monkeypatch, clip / "clip.jsonl", *action, "--output-dir", tmp_path, "--video-path", clip / "clip.mp4")
    assert (tmp_path / expected).exists()
    if expected == "clip.no-background.mp4":
        assert np.abs(decoded(tmp_path / expected)[0][:30, :50].astype(int) - (255, 0, 0)).mean() < 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--blur", "person"], "no object is called 'person'; there are dog, dog 1, cat, Tom, #1, #2"),
        (["--cutout", "dog", "--format", "mp4"], "mp4 has no transparency"),
        (["--blur", "dog", "--format", "gif", "--keep-sound"], "sound can be kept in mp4 only, not in gif"),
        (["--cover", "dog", "--color", "bluish"], "color: expected a name"),
        (["--blur", "--video-path", "nowhere.mp4"], "nowhere.mp4"),
    ],
)
def test_bad_input_is_one_line(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], message: str,
) -> None:  # fmt: skip
    with pytest.raises(SystemExit) as ending:
        run_main(monkeypatch, clip / "clip.jsonl", *arguments, "--output-dir", tmp_path / "out")
    printed = capsys.readouterr().err
    assert ending.value.code == 2 and message in printed and printed.count("\n") == 1
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
