"""What the README says can be done can be done: its commands, its code, its links."""

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from grounded_sam2.flags import override_from_flags
from grounded_sam2.weights.download import find_checkpoint

REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
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
def test_command(command: str, load_script: Callable[[str], ModuleType]) -> None:
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


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "python"])
def test_python_block_runs(block: str) -> None:
    ended = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert ended.returncode == 0, ended.stderr


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", README)
    assert targets
    missing = [target for target in targets if not (REPOSITORY / target).exists()]
    assert missing == []


def test_every_script_is_in_the_table() -> None:
    for path in REPOSITORY.glob("grounded_sam2_*.py"):
        assert f"| [{path.name}]({path.name}) |" in README
