"""What the README says can be done can be done: its commands, its code, its links."""

import importlib.util
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from grounded_sam2.flags import override_from_flags, setting_comments
from grounded_sam2.video import VideoWriter, open_frames
from grounded_sam2.weights.download import find_checkpoint

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
PYTHON_BLOCKS = [block for language, block in BLOCKS if language == "python"]
COMMANDS = [
    line
    for language, block in BLOCKS
    if language == "bash"
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


def test_readme_shows_the_result_first() -> None:
    first_screen = "\n".join(README.splitlines()[:15])
    assert re.search(r"!\[.+\]\(assets/.+\)", first_screen)
    assert "make demo" in first_screen


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_understood(command: str, load_script: Callable[[str], ModuleType]) -> None:
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        assert re.search(rf"^{words[1]}:", makefile, flags=re.MULTILINE)
        return
    assert words[0] == "python"
    if words[1] == "-m":
        assert importlib.util.find_spec(words[2]) is not None
        if words[2] == "grounded_sam2.download":
            find_checkpoint(words[3])
        return
    script = load_script(words[1])
    override_from_flags(vars(script), words[2:])


# What needs something that is not here, and who tests it instead.
NOT_RUN = {
    "make build-image": "needs Docker",
    "make run": "needs Docker",
    "make test": "would run this test again",
    "make lint": "would run before this test",
    "python -m grounded_sam2.download": "needs the network; test_download.py runs it against a server of its own",
    "python grounded_sam2_gd1.5_demo.py": "needs a token of the cloud; test_dds_scripts.py runs it against a stand-in",
    "python grounded_sam2_tracking_demo_with_continuous_id_gd1.5.py": "the same",
    "python grounded_sam2_tracking_camera_with_continuous_id.py --camera rtsp:": "needs a camera and a display",
}
RUN = [command for command in COMMANDS if not command.startswith(tuple(NOT_RUN))]
NANO_SAM2, NANO_GDINO = "checkpoints/sam2.1_hiera_nano.pt", "gdino_checkpoints/nano"
TRACKED = "outputs/grounded_sam2_tracking_demo_with_continuous_id/parade.jsonl"
NUM_FRAMES = 3
# What stands in for words of the commands: bundled footage and weights, and what the tests make.
STAND_INS = {
    "my.jpg": "assets/scene.jpg",
    "photos/**/*.jpg": "assets/album/60[01].jpg",
    "60": f"{NUM_FRAMES - 1}",  # the start frame
    "checkpoints/sam2.1_hiera_large.pt": NANO_SAM2,
    "gdino_checkpoints/grounding-dino-tiny": NANO_GDINO,
    "gdino_checkpoints/groundingdino_swint_ogc.pth": NANO_GDINO,
}
SHORT_CLIP = ("my.mp4", "assets/parade.mp4", "0")  # "0" is a camera
SHORTENED = {"video-path": "{clip}", "max-frames": f"{NUM_FRAMES}", "florence2-model-id": "{florence2}"}

Start = Callable[[str, Path], None]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("readme") / "parade.mp4"
    frames = open_frames(REPOSITORY / "assets/parade.mp4")
    with VideoWriter(path, frames.fps) as writer:
        for frame_idx in range(NUM_FRAMES):
            writer.write(frames[frame_idx])
    return path


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, clip: Path, tiny_florence2: Path) -> Start:
    """Run a command of the README on small footage and small models; its outputs go to a folder."""
    monkeypatch.chdir(REPOSITORY)
    made = {"clip": clip, "florence2": tiny_florence2}
    stand_ins = STAND_INS | dict.fromkeys(SHORT_CLIP, str(clip))
    stand_ins["gdino_checkpoints/Florence-2-large"] = str(tiny_florence2)

    def start(command: str, output_dir: Path) -> None:
        words = shlex.split(command, comments=True)
        stand_ins[TRACKED] = str(output_dir / "parade.jsonl")
        flags = [stand_ins.get(word, word) for word in words[3 if words[1] == "-m" else 2 :]]
        if words[1] == "-m":
            monkeypatch.setattr("sys.argv", [words[2], *flags])
            runpy.run_module(words[2], run_name="__main__")
            return
        settings = setting_comments((REPOSITORY / words[1]).read_text(encoding="utf-8"))
        for name, value in (SHORTENED | {"output-dir": f"{output_dir}"}).items():
            has_flag = any(flag.replace("_", "-") == f"--{name}" for flag in flags)
            if name.upper().replace("-", "_") in settings and not has_flag:
                flags += [f"--{name}", value.format(**made)]
        monkeypatch.setattr("sys.argv", [words[1], *flags])
        runpy.run_path(words[1], run_name="__main__")

    return start


def test_what_is_not_run_is_in_the_readme() -> None:
    assert [command for command in NOT_RUN if not any(shown.startswith(command) for shown in COMMANDS)] == []


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in RUN])
def test_command_is_not_run(command: str) -> None:
    pytest.skip(next(reason for start, reason in NOT_RUN.items() if command.startswith(start)))


@pytest.mark.parametrize("command", RUN)
def test_command_runs(command: str, start: Start, tmp_path: Path) -> None:
    if command.startswith("make demo"):
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        (recipe,) = re.findall(r"^demo:.*\n((?:\t.+\n)+)", makefile, flags=re.MULTILINE)
        commands = re.findall(r"^\t\$\(PY\) (.+)", recipe, flags=re.MULTILINE)
        assert len(commands) == 2
        commands = [f"python {each}".replace("--start-frame-idx 30", "--start-frame-idx 60") for each in commands]
    elif TRACKED in command:
        commands = [f"python {Path(TRACKED).parent.name.removeprefix('outputs/')}.py", command]
    else:
        commands = [command]
    for each in commands:
        start(each, tmp_path)
    assert list(tmp_path.iterdir())
    assert not list(tmp_path.rglob("*partial*"))  # all of it is complete


@pytest.fixture(scope="session")
def block_errors() -> list[str]:
    """What each Python block ends with when it is run, nothing when all is well; in one process of their own."""
    program = """
import json, sys, traceback
errors = []
for block in json.loads(sys.argv[1]):
    try:
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
        errors.append("")
    except BaseException:
        errors.append(traceback.format_exc())
print(json.dumps(errors))
"""
    command = [sys.executable, "-c", program, json.dumps(PYTHON_BLOCKS)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("position", range(len(PYTHON_BLOCKS)))
def test_python_block_runs(block_errors: list[str], position: int) -> None:
    assert block_errors[position] == ""


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    missing = [target for target in targets if not (REPOSITORY / target).exists()]
    assert missing == []


def test_every_script_is_in_the_table() -> None:
    scripts = sorted(path.name for path in REPOSITORY.glob("grounded_sam2_*.py"))
    assert scripts == sorted(re.findall(r"^\| \[(\S+)\]\(\1\) \|", README, flags=re.MULTILINE))
