"""The Florence-2 scripts, end to end through `main()`, on a tiny model of the real class and the bundled SAM 2."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tiny_florence2 import write_parrot

from grounded_sam2.export import read_caption, read_frame_annotations, read_json
from grounded_sam2.flags import override_from_flags
from grounded_sam2.images import read_image
from grounded_sam2.script import run
from grounded_sam2.video import VideoWriter, open_frames

REPOSITORY = Path(__file__).resolve().parent.parent
IMAGE_SCRIPT = "grounded_sam2_florence2_image_demo.py"
AUTOLABEL_SCRIPT = "grounded_sam2_florence2_autolabel_pipeline.py"
TRACKING_SCRIPT = "grounded_sam2_tracking_demo_with_florence2.py"
CAPTION_TYPES = ["caption", "detailed_caption", "more_detailed_caption"]
NUM_FRAMES = 4

# where things are in assets/scene.jpg, in thousandths of its sides
BOOK, BEAR, PIZZA = (20, 50, 198, 367), (533, 0, 775, 483), (383, 125, 531, 378)
SIZE = (640, 360)
OWL = (287, 304, 433, 673)  # in the first frame of assets/parade.mp4

Load = Callable[[str], ModuleType]
Parrot = Callable[[str], str]


def locs(*bins: int) -> str:
    return "".join(f"<loc_{number}>" for number in bins)


PIZZA_OUTLINE = (383, 125, 531, 125, 531, 378, 383, 378)
# pipeline, text, what the model writes, label and box of what is found
PIPELINES = [
    ("object_detection_segmentation", None, f"book{locs(*BOOK)}bear{locs(*BEAR)}",
     [("book", BOOK), ("bear", BEAR)]),
    ("dense_region_caption_segmentation", None, f"ein altes Buch, größer{locs(*BOOK)}熊{locs(*BEAR)}",
     [("ein altes Buch, größer", BOOK), ("熊", BEAR)]),
    ("region_proposal_segmentation", None, locs(*BOOK, *BEAR), [("region", BOOK), ("region", BEAR)]),
    ("phrase_grounding_segmentation", "A book lies beside a bear.",
     f"A book{locs(*BOOK)}a bear{locs(*BEAR)}", [("A book", BOOK), ("a bear", BEAR)]),
    ("referring_expression_segmentation", "the large pizza", locs(*PIZZA_OUTLINE), [("the large pizza", PIZZA)]),
    ("open_vocabulary_detection_segmentation", "pizza <and> bear", f"pizza{locs(*PIZZA)}<and>bear{locs(*BEAR)}",
     [("pizza", PIZZA), ("bear", BEAR)]),
]  # fmt: skip
NAMES_AND_TEXTS = [(pipeline, text) for pipeline, text, _, _ in PIPELINES]


@pytest.fixture(autouse=True)
def _at_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts name their files from the repository's root."""
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture
def parrot(tiny_florence2: Path, tmp_path: Path) -> Parrot:
    """Writes a model that gives one answer to every question."""
    return lambda text: write_parrot(tiny_florence2, tmp_path / "model", text)


def pixels(bins: tuple[int, ...]) -> list[float]:
    return [(number + 0.5) / 1000 * side for number, side in zip(bins, SIZE * 2, strict=True)]


@pytest.mark.parametrize(("pipeline", "text", "answer", "expected"), PIPELINES)
def test_pipeline(
    load_script: Load, parrot: Parrot, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    pipeline: str, text: str | None, answer: str, expected: list[tuple[str, tuple[int, ...]]],
) -> None:  # fmt: skip
    script = load_script(IMAGE_SCRIPT)
    script.PIPELINE, script.TEXT_INPUT = pipeline, text
    script.FLORENCE2_MODEL_ID, script.OUTPUT_DIR = parrot(answer), tmp_path / "out"
    script.main()

    image = read_image(script.IMAGE_PATH)
    annotated = read_image(tmp_path / "out" / f"scene_{pipeline}.jpg")
    assert annotated.shape == image.shape and np.abs(annotated.astype(int) - image).mean() > 1
    path = tmp_path / "out" / f"scene_{pipeline}.json"
    entry = json.loads(path.read_text(encoding="utf-8"))
    assert (entry["image_path"], entry["box_format"], entry["img_width"]) == (script.IMAGE_PATH, "xyxy", SIZE[0])
    assert len(entry["annotations"]) == len(expected)
    for name, bins in expected:
        box = pixels(bins)
        (annotation,) = (a for a in entry["annotations"] if a["bbox"] == pytest.approx(box, rel=1e-5))
        assert annotation["class_name"] == name
        assert annotation["score"] == pytest.approx(1, abs=1e-3)
        assert 0 < annotation["mask_score"] <= 1
    detections = read_json(path).detections
    for mask, (x1, y1, x2, y2) in zip(detections.mask, detections.xyxy.round().astype(int), strict=True):
        inside = mask[max(y1 - 3, 0) : y2 + 3, max(x1 - 3, 0) : x2 + 3].sum()
        assert inside > 0.9 * mask.sum() > 0.2 * (x2 - x1) * (y2 - y1)
    assert f"found {len(expected)}: " in capsys.readouterr().out


def test_outlines_as_they_are(load_script: Load, parrot: Parrot, tmp_path: Path) -> None:
    """Pixel columns 245 to 339 and rows 45 to 135 have their middle inside the outline, the box of the pizza."""
    script = load_script(IMAGE_SCRIPT)
    script.PIPELINE, script.TEXT_INPUT, script.REFINE_OUTLINES = "referring_expression_segmentation", "the pizza", False
    script.FLORENCE2_MODEL_ID, script.OUTPUT_DIR = parrot(locs(*PIZZA_OUTLINE)), tmp_path
    script.main()
    detections = read_json(tmp_path / f"scene_{script.PIPELINE}.json").detections
    expected = np.zeros((360, 640), bool)
    x1, y1, x2, y2 = np.round(pixels(PIZZA)).astype(int)
    expected[y1:y2, x1:x2] = True
    assert (detections.mask[0] ^ expected).sum() <= 2 * (x2 - x1 + y2 - y1)  # at most its border
    assert "mask_score" not in detections.data


@pytest.mark.parametrize(("pipeline", "text"), [NAMES_AND_TEXTS[0], NAMES_AND_TEXTS[4]])
def test_nothing_found(load_script: Load, parrot: Parrot, tmp_path: Path, pipeline: str, text: str | None) -> None:
    script = load_script(IMAGE_SCRIPT)
    script.PIPELINE, script.TEXT_INPUT = pipeline, text
    script.FLORENCE2_MODEL_ID, script.OUTPUT_DIR = parrot(""), tmp_path
    script.main()
    assert json.loads((tmp_path / f"scene_{pipeline}.json").read_text(encoding="utf-8"))["annotations"] == []
    assert (tmp_path / f"scene_{pipeline}.jpg").is_file()


@pytest.mark.parametrize(("pipeline", "text"), NAMES_AND_TEXTS)
def test_whatever_a_random_model_writes(
    load_script: Load, tiny_florence2: Path, tmp_path: Path, pipeline: str, text: str | None
) -> None:
    script = load_script(IMAGE_SCRIPT)
    script.PIPELINE, script.TEXT_INPUT = pipeline, text
    script.FLORENCE2_MODEL_ID, script.OUTPUT_DIR = str(tiny_florence2), tmp_path
    script.main()
    detections = read_json(tmp_path / f"scene_{pipeline}.json").detections
    assert (detections.xyxy >= 0).all() and (detections.xyxy <= SIZE * 2).all()


@pytest.mark.parametrize(("pipeline", "text"), NAMES_AND_TEXTS)
def test_text_where_none_belongs_and_none_where_it_does(
    load_script: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str], pipeline: str, text: str | None
) -> None:
    """Said before anything is read, built or written: neither the image nor the models are there."""
    script = load_script(IMAGE_SCRIPT)
    script.PIPELINE, script.TEXT_INPUT = pipeline, None if text else "a dog"
    script.IMAGE_PATH = script.FLORENCE2_MODEL_ID = script.SAM2_CHECKPOINT = str(tmp_path / "nowhere" / "nothing")
    script.OUTPUT_DIR = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        run(script.main)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert ("needs a text, such as" if text else "takes no text, got 'a dog'") in line
    assert not script.OUTPUT_DIR.exists()


@pytest.mark.parametrize("caption_type", CAPTION_TYPES)
def test_autolabel(
    load_script: Load, parrot: Parrot, tmp_path: Path, capsys: pytest.CaptureFixture[str], caption_type: str
) -> None:
    script = load_script(AUTOLABEL_SCRIPT)
    script.CAPTION_TYPE, script.OUTPUT_DIR = caption_type, tmp_path
    script.FLORENCE2_MODEL_ID = parrot(f"The image{locs(0, 1, 998, 999)} a book{locs(*BOOK)} über das Eis")
    script.main()
    path = tmp_path / f"scene_{caption_type}.json"
    assert read_caption(path) == "The image a book über das Eis"
    detections = read_json(path).detections
    assert list(detections.data["class_name"]) == ["a book"]  # "the image" is what the checkpoint bans
    np.testing.assert_allclose(detections.xyxy, [pixels(BOOK)], rtol=1e-5)
    assert detections.mask[0].sum() > 1000
    assert read_image(tmp_path / f"scene_{caption_type}.jpg").shape == (360, 640, 3)
    assert "caption: The image a book über das Eis\nfound 1: a book\n" in capsys.readouterr().out


def test_autolabel_without_a_caption(load_script: Load, parrot: Parrot, tmp_path: Path) -> None:
    script = load_script(AUTOLABEL_SCRIPT)
    script.FLORENCE2_MODEL_ID, script.OUTPUT_DIR = parrot(""), tmp_path
    script.main()
    entry = json.loads((tmp_path / "scene_caption.json").read_text(encoding="utf-8"))
    assert (entry["caption"], entry["annotations"]) == ("", [])


@pytest.fixture
def short_clip(tmp_path: Path) -> Path:
    frames = open_frames(REPOSITORY / "assets" / "parade.mp4")
    with VideoWriter(tmp_path / "short.mp4", frames.fps) as writer:
        for frame_idx in range(NUM_FRAMES):
            writer.write(frames[frame_idx])
    return tmp_path / "short.mp4"


@pytest.mark.parametrize("task", ["open_vocabulary", "phrase_grounding"])
def test_tracking(load_script: Load, parrot: Parrot, tmp_path: Path, short_clip: Path, task: str) -> None:
    """Every few frames Florence-2 points at where the owl is in the first; SAM 2 follows it under one id."""
    script = load_script(TRACKING_SCRIPT)
    script.VIDEO_PATH, script.OUTPUT_DIR, script.DETECT_EVERY = str(short_clip), tmp_path / "out", 2
    script.TEXT_PROMPT, script.DETECTION_TASK = "an owl.", task
    script.FLORENCE2_MODEL_ID = parrot(f"Owl{locs(*OWL)}")
    script.main()
    by_frame = list(read_frame_annotations(tmp_path / "out" / "short.jsonl"))
    assert [frame.frame_idx for frame in by_frame] == list(range(NUM_FRAMES))
    for frame in by_frame:
        assert frame.detections.tracker_id.tolist() == [1]
        assert list(frame.detections.data["class_name"]) == ["an owl"]
    assert len(list(open_frames(tmp_path / "out" / "short.mp4"))) == NUM_FRAMES


def test_tracking_in_tiles(load_script: Load, parrot: Parrot, tmp_path: Path, short_clip: Path) -> None:
    """What Florence-2 says of every tile is taken for where that tile is, and of the whole image for the image."""
    script = load_script(TRACKING_SCRIPT)
    script.VIDEO_PATH, script.OUTPUT_DIR, script.MAX_FRAMES = str(short_clip), tmp_path / "out", 1
    script.TEXT_PROMPT, script.SLICE_WH, script.OVERLAP_RATIO = "an owl.", (320, 360), (0.0, 0.0)
    script.FLORENCE2_MODEL_ID = parrot(f"Owl{locs(*OWL)}")
    script.main()
    (frame,) = read_frame_annotations(tmp_path / "out" / "short.jsonl")
    lefts = frame.detections.xyxy[:, 0]
    x1, x2 = 320 * OWL[0] / 1000, 320 * OWL[2] / 1000  # the owl's place in a tile, from its left edge
    assert ((lefts > 320 + x1 - 40) & (lefts < 320 + x2)).any() and (lefts < 320).any()


@pytest.mark.parametrize("name", [IMAGE_SCRIPT, AUTOLABEL_SCRIPT, TRACKING_SCRIPT])
def test_the_default_model_is_not_there_and_the_download_is_named(
    load_script: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Tests run with the hub switched off, see conftest."""
    script = load_script(name)
    script.OUTPUT_DIR = tmp_path
    with pytest.raises(SystemExit) as ended:
        run(script.main)
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Florence-2" in line]
    assert "python -m grounded_sam2.download florence-2-large" in line


@pytest.mark.parametrize("mark", ["-", "_"])
def test_flags_as_users_know_them(load_script: Load, mark: str) -> None:
    script = load_script(IMAGE_SCRIPT)
    pipeline = "phrase_grounding_segmentation"
    override_from_flags(
        vars(script),
        ["--pipeline", pipeline, f"--image{mark}path", "a.jpg", f"--text{mark}input", "a dog"],
    )
    given = (script.PIPELINE, script.IMAGE_PATH, script.TEXT_INPUT)
    assert given == (pipeline, "a.jpg", "a dog")
    script = load_script(AUTOLABEL_SCRIPT)
    pipeline = "caption_to_phrase_grounding"
    override_from_flags(
        vars(script),
        ["--pipeline", pipeline, f"--image{mark}path", "a.jpg", f"--caption{mark}type", "detailed_caption"],
    )
    given = (script.PIPELINE, script.IMAGE_PATH, script.CAPTION_TYPE)
    assert given == (pipeline, "a.jpg", "detailed_caption")


@pytest.mark.parametrize(
    ("name", "flags"),
    [(IMAGE_SCRIPT, ["--pipeline", "ocr"]), (AUTOLABEL_SCRIPT, ["--caption_type", "short"])],
)
def test_unknown_choices(load_script: Load, capsys: pytest.CaptureFixture[str], name: str, flags: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        override_from_flags(vars(load_script(name)), flags)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"expected one of {'caption, detailed_caption' if 'caption' in flags[0] else 'object_detection'}" in line
