"""Every script, end to end through its `main()`, on the bundled models and footage."""

import ast
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import av
import numpy as np
import pytest
import supervision as sv
from clips import bundled_clip
from PIL import Image

from grounded_sam2.export import read_frame_annotations, read_header, read_id_map, read_json
from grounded_sam2.flags import override_from_flags, setting_comments
from grounded_sam2.images import read_image, write_image
from grounded_sam2.masks import mask_iou
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.track.events import read_events
from grounded_sam2.video import open_frames
from training.make_assets import make_bundled_scene

REPOSITORY = Path(__file__).resolve().parent.parent
IMAGE_SCRIPT = "grounded_sam2_hf_model_demo.py"
TRACKING_SCRIPT = "grounded_sam2_tracking_demo.py"
CUSTOM_SCRIPT = "grounded_sam2_tracking_demo_custom_video_input_gd1.0_hf_model.py"
LOCAL_IMAGE_SCRIPT = "grounded_sam2_local_demo.py"
LOCAL_CUSTOM_SCRIPT = "grounded_sam2_tracking_demo_custom_video_input_gd1.0_local_model.py"
IMAGE_SCRIPTS = [IMAGE_SCRIPT, LOCAL_IMAGE_SCRIPT]
BATCH_SCRIPT = "grounded_sam2_batch_images_demo.py"  # what it writes is tested in test_batch.py
CUSTOM_SCRIPTS = [CUSTOM_SCRIPT, LOCAL_CUSTOM_SCRIPT]
CONTINUOUS_SCRIPT = "grounded_sam2_tracking_demo_with_continuous_id.py"
REVERSE_SCRIPT = "grounded_sam2_tracking_demo_with_continuous_id_plus.py"
CONTINUOUS_SCRIPTS = [CONTINUOUS_SCRIPT, REVERSE_SCRIPT]
CAMERA_SCRIPT = "grounded_sam2_tracking_camera_with_continuous_id.py"  # run in test_camera_script.py
WINDOW_SCRIPT = "grounded_sam2_interactive_window_demo.py"  # run in test_scripts_window.py
SCRIPTS = [*IMAGE_SCRIPTS, BATCH_SCRIPT, TRACKING_SCRIPT, *CUSTOM_SCRIPTS, *CONTINUOUS_SCRIPTS]
LANG_SCRIPT = "grounded_sam2_lang2segtrack_demo.py"  # run in test_scripts_lang2segtrack.py
FLORENCE2_SCRIPTS = [  # what they do is tested in test_florence2_scripts.py
    "grounded_sam2_florence2_image_demo.py",
    "grounded_sam2_florence2_autolabel_pipeline.py",
    "grounded_sam2_tracking_demo_with_florence2.py",
]
CLOUD_SCRIPTS = [  # what they do is tested in test_dds_scripts.py
    "grounded_sam2_gd1.5_demo.py",
    "grounded_sam2_dinox_demo.py",
    "grounded_sam2_tracking_demo_with_gd1.5.py",
    "grounded_sam2_tracking_demo_custom_video_input_gd1.5.py",
    "grounded_sam2_tracking_demo_custom_video_input_dinox.py",
    "grounded_sam2_tracking_demo_with_continuous_id_gd1.5.py",
]
APP_SCRIPT = "grounded_sam2_app.py"  # run in test_studio_script.py
HEADINGS = ("input", "models", "thresholds", "tracking", "limits", "output")
ALL_SCRIPTS = [
    *SCRIPTS, CAMERA_SCRIPT, WINDOW_SCRIPT, LANG_SCRIPT, APP_SCRIPT, *CLOUD_SCRIPTS, *FLORENCE2_SCRIPTS
]  # fmt: skip
NUM_FRAMES = 6

Load = Callable[[str], ModuleType]


@pytest.fixture(autouse=True)
def _at_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts name their files from the repository's root."""
    monkeypatch.chdir(REPOSITORY)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frames of the bundled clip."""
    return bundled_clip(tmp_path_factory.mktemp("clip") / "short.mp4", NUM_FRAMES)


def written_video(path: Path) -> tuple[str, str, int, float]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        count = sum(1 for _ in container.decode(stream))
        return stream.codec_context.name, stream.codec_context.pix_fmt, count, float(stream.average_rate)


@pytest.mark.parametrize("name", IMAGE_SCRIPTS)
def test_image_script(load_script: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    script = load_script(name)
    script.OUTPUT_DIR = tmp_path
    script.main()

    image = read_image(script.IMAGE_PATH)
    annotated = read_image(tmp_path / "scene_annotated.jpg")
    assert annotated.shape == image.shape
    assert np.abs(annotated.astype(int) - image).mean() > 1
    entry = json.loads((tmp_path / "scene.json").read_text(encoding="utf-8"))
    assert entry["image_path"] == script.IMAGE_PATH
    assert (entry["box_format"], entry["img_width"], entry["img_height"]) == ("xyxy", *image.shape[1::-1])
    class_names = {annotation["class_name"] for annotation in entry["annotations"]}
    assert class_names and class_names <= set(parse_prompt(script.TEXT_PROMPT))
    for annotation in entry["annotations"]:
        assert set(annotation) == {"class_name", "bbox", "segmentation", "score", "mask_score"}
        assert annotation["score"] >= script.BOX_THRESHOLD
    detections = read_json(tmp_path / "scene.json").detections
    assert detections.mask.shape == (len(detections), *image.shape[:2])
    assert f"found {len(detections)}: " in capsys.readouterr().out


def test_image_script_finds_and_masks_every_phrase_of_its_prompt(load_script: Load, tmp_path: Path) -> None:
    script = load_script(IMAGE_SCRIPT)
    script.OUTPUT_DIR = tmp_path
    script.main()
    detections = read_json(tmp_path / "scene.json").detections
    assert set(detections.data["class_name"]) == set(parse_prompt(script.TEXT_PROMPT))
    scene = make_bundled_scene()
    jpeg = io.BytesIO()
    Image.fromarray(scene.image).save(jpeg, "JPEG", quality=92)
    assert np.abs(np.asarray(Image.open(jpeg)).astype(int) - read_image(script.IMAGE_PATH)).mean() < 1
    for phrase, mask, xyxy in zip(detections.data["class_name"], detections.mask, detections.xyxy, strict=True):
        true = scene.phrases.index(phrase)
        assert sv.box_iou_batch(scene.boxes_xyxy[[true]], xyxy[None]).item() > 0.5, phrase
        assert mask_iou(mask, scene.masks[true]) > 0.5, phrase
        x1, y1, x2, y2 = xyxy.round().astype(int)
        assert mask[max(y1 - 3, 0) : y2 + 3, max(x1 - 3, 0) : x2 + 3].sum() > 0.9 * mask.sum() > 0, phrase


@pytest.mark.parametrize(("prompt_type", "start"), [("box", 0), ("point", 3), ("mask", NUM_FRAMES - 1)])
def test_tracking_script(load_script: Load, tmp_path: Path, clip: Path, prompt_type: str, start: int) -> None:
    script = load_script(TRACKING_SCRIPT)
    script.VIDEO_PATH, script.OUTPUT_DIR = str(clip), tmp_path
    script.PROMPT_TYPE_FOR_VIDEO, script.START_FRAME_IDX = prompt_type, start
    script.main()

    fps = float(open_frames(clip).fps)
    assert written_video(tmp_path / "short.mp4") == ("h264", "yuv420p", NUM_FRAMES, pytest.approx(fps))
    assert read_image(tmp_path / "short_start_frame.jpg").shape == open_frames(clip)[0].shape
    objects = read_json(tmp_path / "short_start_frame.json").detections
    assert len(objects) > 0
    by_frame = list(read_frame_annotations(tmp_path / "short.jsonl"))
    assert [frame.frame_idx for frame in by_frame] == list(range(NUM_FRAMES))
    assert all(len(frame.detections) > 0 for frame in by_frame)
    assert {obj_id for frame in by_frame for obj_id in frame.detections.tracker_id} == set(objects.tracker_id)
    assert {path.name for path in tmp_path.glob("[!.]*")} == {  # and the hidden record of what was written
        "short.mp4", "short.jsonl", "short_start_frame.jpg", "short_start_frame.json",
    }  # fmt: skip


def test_local_detector_finds_what_the_hugging_face_one_does(load_script: Load, tmp_path: Path) -> None:
    found = []
    for name in IMAGE_SCRIPTS:
        script = load_script(name)
        script.OUTPUT_DIR = tmp_path / name
        script.main()
        found.append(read_json(tmp_path / name / "scene.json").detections)
    assert found[0].data["class_name"].tolist() == found[1].data["class_name"].tolist()
    np.testing.assert_allclose(found[0].xyxy, found[1].xyxy, atol=0.5)
    np.testing.assert_allclose(found[0].confidence, found[1].confidence, atol=1e-3)


@pytest.mark.parametrize("name", IMAGE_SCRIPTS)
def test_image_script_finds_small_objects_in_tiles(load_script: Load, tmp_path: Path, name: str) -> None:
    """The bundled scene as a small part of a large picture: what is found on the scene by itself is found in tiles."""
    script = load_script(name)
    scene = read_image(script.IMAGE_PATH)
    height, width = scene.shape[:2]
    picture = np.full((4 * height, 4 * width, 3), 120, np.uint8)
    top, left = height + height // 3, 2 * width
    picture[top : top + height, left : left + width] = scene
    write_image(tmp_path / "large.png", picture)
    script.OUTPUT_DIR = tmp_path / "alone"
    script.main()
    alone = read_json(script.OUTPUT_DIR / "scene.json").detections  # what there is to find
    script.IMAGE_PATH, num_right = str(tmp_path / "large.png"), {}
    for slice_wh in (None, (width, height)):
        script.OUTPUT_DIR, script.SLICE_WH = tmp_path / str(slice_wh), slice_wh
        script.main()
        found = read_json(script.OUTPUT_DIR / "large.json").detections
        ious = sv.box_iou_batch(alone.xyxy + np.array([left, top] * 2), found.xyxy)
        is_named = alone.data["class_name"][:, None] == found.data["class_name"][None]
        num_right[slice_wh] = int(((ious > 0.5) & is_named).any(axis=1).sum())
        if slice_wh is not None:
            margin = 0.03 * width  # how exact the nano detector's boxes are
            assert (found.xyxy >= np.array([left, top] * 2) - margin).all()
            assert (found.xyxy <= np.array([left + width, top + height] * 2) + margin).all()
    assert num_right[None] < num_right[(width, height)] >= len(alone) - 2, (num_right, len(alone), len(found))
    assert len(found) - num_right[(width, height)] <= 2, found.data["class_name"]


@pytest.mark.parametrize("name", [TRACKING_SCRIPT, *CUSTOM_SCRIPTS, CONTINUOUS_SCRIPT, REVERSE_SCRIPT])
def test_tracking_scripts_take_tiles(load_script: Load, tmp_path: Path, clip: Path, name: str) -> None:
    script = load_script(name)
    override_from_flags(vars(script), ["--slice-wh", "240,180"])
    assert script.SLICE_WH == (240, 180)
    override_from_flags(vars(script), ["--overlap-ratio", "0.3", "0.25"])
    assert script.OVERLAP_RATIO == (0.3, 0.25)
    script.VIDEO_PATH, script.OUTPUT_DIR = str(clip), tmp_path
    script.TEXT_PROMPT = load_script(TRACKING_SCRIPT).TEXT_PROMPT
    script.main()
    by_frame = list(read_frame_annotations(tmp_path / "short.jsonl"))
    assert len(by_frame) == NUM_FRAMES
    assert all(len(frame.detections) > 0 for frame in by_frame)


@pytest.mark.parametrize("name", CUSTOM_SCRIPTS)
def test_custom_video_script(load_script: Load, tmp_path: Path, clip: Path, name: str) -> None:
    script = load_script(name)
    script.VIDEO_PATH, script.OUTPUT_DIR, script.MAX_FRAMES = str(clip), tmp_path, NUM_FRAMES - 2
    script.TEXT_PROMPT = load_script(TRACKING_SCRIPT).TEXT_PROMPT
    script.main()

    fps = float(open_frames(clip).fps)
    assert written_video(tmp_path / "short.mp4") == ("h264", "yuv420p", NUM_FRAMES - 2, pytest.approx(fps))
    by_frame = list(read_frame_annotations(tmp_path / "short.jsonl"))
    assert [frame.frame_idx for frame in by_frame] == list(range(NUM_FRAMES - 2))
    assert all(len(frame.detections) > 0 for frame in by_frame)


@pytest.mark.parametrize("name", CONTINUOUS_SCRIPTS)
def test_continuous_id_scripts(load_script: Load, tmp_path: Path, clip: Path, name: str) -> None:
    script = load_script(name)
    script.VIDEO_PATH, script.OUTPUT_DIR, script.DETECT_EVERY = str(clip), tmp_path, 2
    script.main()

    fps = float(open_frames(clip).fps)
    assert written_video(tmp_path / "short.mp4") == ("h264", "yuv420p", NUM_FRAMES, pytest.approx(fps))
    by_frame = list(read_frame_annotations(tmp_path / "short.jsonl"))
    assert len(by_frame) == NUM_FRAMES
    for frame in by_frame:
        in_map = read_id_map(tmp_path, frame.frame_idx)
        assert in_map.tracker_id.tolist() == frame.detections.tracker_id.tolist()
        assert in_map.data["class_name"].tolist() == frame.detections.data["class_name"].tolist()
        hidden = frame.detections.mask & ~in_map.mask  # under other objects
        assert not (hidden & ~in_map.mask.any(axis=0)).any() and not (in_map.mask & ~frame.detections.mask).any()
    shown = {int(obj_id) for frame in by_frame for obj_id in frame.detections.tracker_id}
    confirmed = {event.obj_id for event in read_events(tmp_path / "events.jsonl") if event.kind == "confirmed"}
    assert shown and (shown == confirmed or (name == REVERSE_SCRIPT and shown < confirmed))  # ids may be joined


@pytest.mark.parametrize("name", [CONTINUOUS_SCRIPT, pytest.param(REVERSE_SCRIPT, marks=pytest.mark.slow)])
def test_ids_go_on_in_the_next_video(load_script: Load, tmp_path: Path, clip: Path, name: str) -> None:
    """Objects that are found again, the second time from the other end, have their ids and names again."""
    backwards = tmp_path / "backwards"
    backwards.mkdir()
    for frame_idx, image in enumerate(list(open_frames(clip))[::-1]):
        write_image(backwards / f"{frame_idx:03}.png", image)
    script = load_script(name)
    script.GALLERY, script.DETECT_EVERY, script.OUTPUT_DIR = tmp_path / "known.json", 2, tmp_path / "out"
    found: list[dict[int, str]] = []
    for video in (clip, backwards):
        script.VIDEO_PATH = str(video)
        script.main()
        last = list(read_frame_annotations(tmp_path / "out" / f"{video.stem}.jsonl"))[-1].detections
        found.append(dict(zip(last.tracker_id.tolist(), last.data["class_name"].tolist(), strict=True)))
    again = found[0].keys() & found[1].keys()
    assert len(again) >= 4 and {found[0][obj_id] for obj_id in again} >= {"owl", "motorcycle"}
    assert all(found[0][obj_id] == found[1][obj_id] for obj_id in again)
    script.LOOKS = "pointers"
    with pytest.raises(ValueError, match=r"holds looks by 'colours .*', this run describes them by 'pointers"):
        script.main()


def test_nothing_found_still_writes_everything(load_script: Load, tmp_path: Path, clip: Path) -> None:
    for name in SCRIPTS:
        script = load_script(name)
        script.OUTPUT_DIR, script.BOX_THRESHOLD = tmp_path / name, 1.0
        if name not in IMAGE_SCRIPTS:
            script.VIDEO_PATH = str(clip)
        script.main()
    for name in IMAGE_SCRIPTS:
        assert json.loads((tmp_path / name / "scene.json").read_text(encoding="utf-8"))["annotations"] == []
        assert (tmp_path / name / "scene_annotated.jpg").is_file()
    for name in (TRACKING_SCRIPT, *CUSTOM_SCRIPTS, *CONTINUOUS_SCRIPTS):
        assert written_video(tmp_path / name / "short.mp4")[2] == NUM_FRAMES
        by_frame = list(read_frame_annotations(tmp_path / name / "short.jsonl"))
        assert [len(frame.detections) for frame in by_frame] == [0] * NUM_FRAMES


@pytest.mark.parametrize("name", [TRACKING_SCRIPT, CUSTOM_SCRIPT, *CONTINUOUS_SCRIPTS])
@pytest.mark.parametrize("max_frames", [0, 2])
def test_max_frames(load_script: Load, tmp_path: Path, clip: Path, name: str, max_frames: int) -> None:
    script = load_script(name)
    override_from_flags(vars(script), ["--max-frames", str(max_frames), "--video-path", str(clip)])
    script.OUTPUT_DIR, script.TEXT_PROMPT = tmp_path, "owl. green horse. pizza. not a red owl."
    script.main()
    header = read_header(tmp_path / "short.jsonl")
    frames = open_frames(clip)
    assert header is not None and (header.size, header.source, header.fps) == (frames.size, str(clip), frames.fps)
    assert header.phrases == ("owl", "green horse", "pizza")
    assert header.settings["MAX_FRAMES"] == max_frames and header.settings["TEXT_PROMPT"] == script.TEXT_PROMPT
    assert "OUTPUT_DIR" not in header.settings and "DEVICE" not in header.settings
    by_frame = list(read_frame_annotations(tmp_path / "short.jsonl"))
    assert [frame.frame_idx for frame in by_frame] == list(range(max_frames))
    for frame in by_frame:
        for class_id, class_name in zip(frame.detections.class_id, frame.detections.data["class_name"], strict=True):
            assert header.phrases[class_id] == class_name
    if max_frames:
        assert written_video(tmp_path / "short.mp4")[2] == max_frames
    else:
        assert not (tmp_path / "short.mp4").exists() and not list(tmp_path.glob("*.partial*"))


def test_one_file_of_settings_for_all_scripts(load_script: Load, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(
        """
        sam2_checkpoint = "checkpoints/sam2.1_hiera_large.pt"
        gdino_model_id = "gdino_checkpoints/grounding-dino-tiny"
        gdino_checkpoint = "gdino_checkpoints/groundingdino_swint_ogc.pth"
        florence2_model_id = "gdino_checkpoints/Florence-2-large"
        max_frames = 50
        slice_wh = [640, 640]
        step = 5

        [grounded_sam2_tracking_demo]
        max_frames = "none"

        ["grounded_sam2_tracking_demo_custom_video_input_gd1.0_hf_model"]
        slice_wh = "none"
        """,
        encoding="utf-8",
    )
    expected = {
        "SAM2_CHECKPOINT": "checkpoints/sam2.1_hiera_large.pt",
        "GDINO_MODEL_ID": "gdino_checkpoints/grounding-dino-tiny",
        "GDINO_CHECKPOINT": "gdino_checkpoints/groundingdino_swint_ogc.pth",
        "FLORENCE2_MODEL_ID": "gdino_checkpoints/Florence-2-large",
        "MAX_FRAMES": 50,
        "SLICE_WH": (640, 640),
        "DETECT_EVERY": 5,
    }
    own = {TRACKING_SCRIPT: {"MAX_FRAMES": None}, CUSTOM_SCRIPT: {"SLICE_WH": None}}
    for name in ALL_SCRIPTS:
        script = load_script(name)
        override_from_flags(vars(script), ["--settings", str(tmp_path / "my.toml")])
        for setting, value in {**expected, **own.get(name, {})}.items():
            assert getattr(script, setting, value) == value, (name, setting)
        override_from_flags(vars(script), ["--settings", str(tmp_path / "my.toml"), "--sam2-checkpoint", "a.pt"])
        assert script.SAM2_CHECKPOINT == "a.pt"


def test_the_file_of_settings_that_the_readme_shows(load_script: Load, tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (tmp_path / "my.toml").write_text(re.search(r"^```toml\n(.*?)^```", readme, re.M | re.S)[1], encoding="utf-8")
    for name, prompt_type in ((TRACKING_SCRIPT, "mask"), (CUSTOM_SCRIPT, "box")):
        script = load_script(name)
        override_from_flags(vars(script), ["--settings", str(tmp_path / "my.toml")])
        assert script.SAM2_CHECKPOINT == "checkpoints/sam2.1_hiera_large.pt"
        assert prompt_type == script.PROMPT_TYPE_FOR_VIDEO


# ---- what all scripts have in common ----


@pytest.mark.parametrize("name", ALL_SCRIPTS)
def test_scripts_keep_the_house_style(name: str) -> None:
    """No function but `main`, settings under headings and with a comment each, commands in the docstring."""
    source = (REPOSITORY / name).read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)] == ["main"]
    comments = setting_comments(source)
    assert comments and all(comments.values())
    assert not [comment for comment in comments.values() if " none " in comment.lower()]  # "none: off"
    assert f"python {name}" in (ast.get_docstring(tree) or "")
    steps = [line.strip() for line in source.splitlines() if line.strip().startswith("# Step ")]
    assert [int(step.split()[2].rstrip(":")) for step in steps] == list(range(1, len(steps) + 1))
    headings = [line[2:] for line in source.splitlines() if re.fullmatch("# [a-z]+", line)]
    assert headings == [heading for heading in HEADINGS if heading in headings] and headings[0] == "input"


# Settings that differ from script to script: in the value, and in what it may be.
OWN_VALUES = {"TEXT_PROMPT", "OUTPUT_DIR", "VIDEO_PATH", "PIPELINE", "DETECT_EVERY", "IMAGE_SIZE"}
OWN_COMMENTS = {"VIDEO_PATH", "PIPELINE", "MEMORY_POLICY"}


def test_the_same_setting_has_the_same_default_wording_and_heading_everywhere(load_script: Load) -> None:
    seen: dict[str, tuple[object, ...]] = {}
    for name in ALL_SCRIPTS:
        script = load_script(name)
        source = (REPOSITORY / name).read_text(encoding="utf-8")
        for setting, comment in setting_comments(source).items():
            before = source[: re.search(rf"^{setting}(?: =|:)", source, re.MULTILINE).start()]
            facts = (
                None if setting in OWN_VALUES else getattr(script, setting),
                None if setting in OWN_COMMENTS else comment,
                None if setting in OWN_COMMENTS else script.__annotations__.get(setting),
                re.findall(r"^# ([a-z]+)$", before, re.MULTILINE)[-1],
            )
            assert seen.setdefault(setting, facts) == facts, (name, setting)


CONTINUOUS = [name for name in ALL_SCRIPTS if "continuous" in name or name.endswith("_with_florence2.py")]
IN_ORDER = [name for name in ALL_SCRIPTS if "custom_video" in name or (name in CONTINUOUS and name != CAMERA_SCRIPT)]
TWO_WAYS = [TRACKING_SCRIPT, "grounded_sam2_tracking_demo_with_gd1.5.py"]


@pytest.mark.parametrize("name", [name for name in ALL_SCRIPTS if "tracking" in name or name == WINDOW_SCRIPT])
def test_scripts_that_follow_objects_take_a_memory_policy(
    load_script: Load, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    script = load_script(name)
    override_from_flags(vars(script), ["--memory-policy", "dam4sam"])
    assert script.MEMORY_POLICY == "dam4sam"
    calls = [node for node in ast.walk(ast.parse((REPOSITORY / name).read_text("utf-8"))) if isinstance(node, ast.Call)]
    (build,) = (call for call in calls if ast.unparse(call.func) == "build_sam2_video_predictor")
    assert {word.arg: ast.unparse(word.value) for word in build.keywords}["memory_policy"] == "MEMORY_POLICY"
    names = ["default", "robust", "samurai", "dam4sam"]
    comment = setting_comments((REPOSITORY / name).read_text("utf-8"))["MEMORY_POLICY"]
    if name in TWO_WAYS:  # those that read a video in any order, not as a stream
        names.append("sam2long")
        override_from_flags(vars(script), ["--memory-policy", "sam2long"])
        assert script.MEMORY_POLICY == "sam2long"
        assert comment == f"what SAM 2 remembers: {', '.join(names[:-1])} or sam2long"
    else:
        assert comment == f"which frames SAM 2 remembers: {', '.join(names[:-1])} or dam4sam"
        with pytest.raises(SystemExit):
            override_from_flags(vars(script), ["--memory-policy", "sam2long"])
        assert f"expected one of {', '.join(names)}, got 'sam2long'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        override_from_flags(vars(script), ["--memory-policy", "dam5sam"])
    assert f"expected one of {', '.join(names)}, got 'dam5sam'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ALL_SCRIPTS)
def test_scripts_take_what_makes_sam_2_faster(load_script: Load, name: str) -> None:
    """Each hands all it has to the builder: a size where there is a SAM 2, the others where it follows objects."""
    calls = [node for node in ast.walk(ast.parse((REPOSITORY / name).read_text("utf-8"))) if isinstance(node, ast.Call)]
    (build,) = (call for call in calls if ast.unparse(call.func) in ("build_sam2", "build_sam2_video_predictor"))
    given = {word.arg: ast.unparse(word.value) for word in build.keywords}
    follows = ast.unparse(build.func) == "build_sam2_video_predictor" and name != "grounded_sam2_app.py"
    faster = ["image_size", *(["track_every", "sparse_memories"] if follows else [])]
    assert [given[word] for word in faster] == [word.upper() for word in faster]
    script = load_script(name)
    override_from_flags(vars(script), [f"--{word.replace('_', '-')}=1" for word in faster])
    assert [getattr(script, word.upper()) for word in faster] == [1] * len(faster)


def settings_in(name: str) -> set[str]:
    return set(setting_comments((REPOSITORY / name).read_text(encoding="utf-8")))


def test_scripts_of_a_kind_have_the_same_settings() -> None:
    assert len(CONTINUOUS) == 5 and len(IN_ORDER) == 8
    for name in CONTINUOUS:
        common = {"DETECT_EVERY", "SCENE_CUT", "SURE_CONFIDENCE", "LOST_AFTER", "MAX_OBJECTS", "MAX_FRAMES"}
        common |= {"LOOKS", "LOOKS_THRESHOLD", "GALLERY"}
        assert settings_in(name) >= common | {"NMS_THRESHOLD", "SLICE_WH", "OVERLAP_RATIO", "DTYPE"}, name
    for name in [*IN_ORDER, *TWO_WAYS]:
        assert settings_in(name) >= {"MAX_FRAMES", "RESUME", "SAVE_EVERY"}, name
    of_camera = {"CAMERA", "LATENCY", "TARGET_FPS", "MAX_SECONDS", "MAX_DETECT_EVERY", "SHOW"}
    of_files = {"VIDEO_PATH", "RESUME", "SAVE_EVERY"}
    assert settings_in(CAMERA_SCRIPT) - of_camera == settings_in(CONTINUOUS_SCRIPT) - of_files
    assert settings_in(REVERSE_SCRIPT) == settings_in(CONTINUOUS_SCRIPT)
