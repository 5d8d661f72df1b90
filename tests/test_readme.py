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
from clips import bundled_clip

from grounded_sam2.flags import override_from_flags, setting_comments
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
    "make app": "serves until it is ended; test_studio_script.py runs the script",
    "python grounded_sam2_app.py": "serves until it is ended; test_studio_script.py runs it",
    "make test": "would run this test again",
    "make lint": "would run before this test",
    "python -m grounded_sam2.download": "needs the network; test_download.py runs it against a server of its own",
    "python grounded_sam2_gd1.5_demo.py": "needs a token; test_dds_scripts.py runs it against a stand-in",
    "python grounded_sam2_tracking_demo_with_continuous_id_gd1.5.py": "needs a token; test_dds_scripts.py runs it too",
    "python grounded_sam2_tracking_camera_with_continuous_id.py --camera rtsp:": "needs a camera and a display",
}
RUN = [command for command in COMMANDS if not command.startswith(tuple(NOT_RUN))]
NUM_FRAMES = 3
# Bundled footage and weights in place of a user's own; the last word for a flag counts.
SMALL: dict[str, object] = {
    "IMAGE_PATH": "assets/scene.jpg",
    "IMAGES": "assets/album/60[01].jpg",
    "START_FRAME_IDX": NUM_FRAMES - 1,
    "MAX_FRAMES": NUM_FRAMES,
    "SAM2_CHECKPOINT": "checkpoints/sam2.1_nano.pt",
    "GDINO_MODEL_ID": "gdino_checkpoints/nano",
    "GDINO_CHECKPOINT": "gdino_checkpoints/nano",
}
OF_A_RUN = tuple(f"python -m grounded_sam2.{name} " for name in ("export_formats", "effects", "score"))
CONTINUOUS_SCRIPT = "grounded_sam2_tracking_demo_with_continuous_id.py"

Start = Callable[[str, Path], None]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled_clip(tmp_path_factory.mktemp("readme") / "parade.mp4", NUM_FRAMES)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, clip: Path, tiny_florence2: Path) -> Start:
    """Run a command of the README, a script on small footage with small models and outputs in a folder."""
    monkeypatch.chdir(REPOSITORY)

    def start(command: str, output_dir: Path) -> None:
        _, *words = shlex.split(command, comments=True)
        if words[0] == "-m":
            monkeypatch.setattr("sys.argv", words[1:])
            runpy.run_module(words[1], run_name="__main__")
            return
        made = {"VIDEO_PATH": clip, "CAMERA": clip, "FLORENCE2_MODEL_ID": tiny_florence2, "OUTPUT_DIR": output_dir}
        for setting in setting_comments((REPOSITORY / words[0]).read_text(encoding="utf-8")):
            if setting in SMALL | made:
                words += [f"--{setting.lower()}", str((SMALL | made)[setting])]
        monkeypatch.setattr("sys.argv", words)
        runpy.run_path(words[0], run_name="__main__")

    return start


def test_what_is_not_run_is_in_the_readme() -> None:
    assert [command for command in NOT_RUN if not any(shown.startswith(command) for shown in COMMANDS)] == []


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in RUN])
def test_command_is_not_run(command: str) -> None:
    pytest.skip(next(reason for start, reason in NOT_RUN.items() if command.startswith(start)))


@pytest.mark.parametrize("command", RUN)
def test_command_runs(command: str, start: Start, tmp_path: Path) -> None:
    commands = [command]
    if command.startswith("make demo"):
        makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
        (recipe,) = re.findall(r"^demo:.*\n((?:\t.+\n)+)", makefile, flags=re.MULTILINE)
        commands = re.findall(r"^\t(\$\(PY\) .+)", recipe, flags=re.MULTILINE)
        assert len(commands) == 2
    elif command.startswith(OF_A_RUN):  # of what a tracking script wrote
        commands = [f"python {CONTINUOUS_SCRIPT}", re.sub(r"\S+\.jsonl", str(tmp_path / "parade.jsonl"), command)]
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
