"""Settings of a script become typed flags; wrong values end with one line and status 2."""

import textwrap
from pathlib import Path
from typing import Any

import pytest

from grounded_sam2.flags import override_from_flags, setting_comments

SCRIPT = '''
"""Count sheep.

    python sheep.py --text-prompt "sheep."
"""
from pathlib import Path
from typing import Literal

# ---- settings ----
TEXT_PROMPT = "dog. red apple."   # phrases, each ended by "."
THRESHOLD = 0.35                  # 100% sure is 1.0
COUNT: int = 3
KIND: Literal["box", "point"] = "box"  # how objects are prompted
SAVE = True
SIZE: tuple[int, int] | None = None    # width and height
NAMES: list[str] = ["a"]
FRAME: int | None = 5
OUT = Path("outputs")
DEVICE: str | int = "cpu"
LONG = (
    "two lines"  # its comment
)
lower = 1
'''


@pytest.fixture
def namespace(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "sheep.py"
    path.write_text(textwrap.dedent(SCRIPT).lstrip(), encoding="utf-8")
    scope: dict[str, Any] = {"__name__": "sheep", "__file__": str(path)}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), scope)
    return scope


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        ([], "TEXT_PROMPT", "dog. red apple."),
        (["--text-prompt", "cat."], "TEXT_PROMPT", "cat."),
        (["--text_prompt", "cat."], "TEXT_PROMPT", "cat."),
        (["--text-prompt=-x"], "TEXT_PROMPT", "-x"),
        (["--threshold", "1"], "THRESHOLD", 1.0),
        (["--count", "-4"], "COUNT", -4),
        (["--kind", "point"], "KIND", "point"),
        (["--save", "false"], "SAVE", False),
        (["--no-save"], "SAVE", False),
        (["--save"], "SAVE", True),
        (["--size", "640", "360"], "SIZE", (640, 360)),
        (["--size", "640,360"], "SIZE", (640, 360)),
        (["--size", "none"], "SIZE", None),
        (["--names", "a", "b"], "NAMES", ["a", "b"]),
        (["--frame", "none"], "FRAME", None),
        (["--frame", "0"], "FRAME", 0),
        (["--out", "here"], "OUT", Path("here")),
        (["--device", "1"], "DEVICE", "1"),
        (["--long", "none"], "LONG", "none"),
    ],
)
def test_flag_sets_typed_value(namespace: dict[str, Any], flags: list[str], name: str, value: Any) -> None:
    override_from_flags(namespace, flags)
    assert namespace[name] == value
    assert type(namespace[name]) is type(value)


@pytest.mark.parametrize("flag", ["--detect-every", "--detect_every", "--step"])
def test_a_renamed_setting_is_known_by_its_former_name(tmp_path: Path, flag: str) -> None:
    path = tmp_path / "sheep.py"
    path.write_text("DETECT_EVERY = 10\n", encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "sheep", "__file__": str(path), "DETECT_EVERY": 10}
    override_from_flags(namespace, [flag, "7"])
    assert namespace["DETECT_EVERY"] == 7


def test_a_former_name_that_is_a_setting_is_that_setting(tmp_path: Path) -> None:
    path = tmp_path / "sheep.py"
    path.write_text("STEP = 1\nDETECT_EVERY = 10\n", encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "sheep", "__file__": str(path), "STEP": 1, "DETECT_EVERY": 10}
    override_from_flags(namespace, ["--step", "7"])
    assert (namespace["STEP"], namespace["DETECT_EVERY"]) == (7, 10)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--count", "two"], "expected a whole number, got 'two'"),
        (["--threshold", "high"], "expected a number, got 'high'"),
        (["--kind", "mask"], "expected one of box, point, got 'mask'"),
        (["--save", "maybe"], "expected true or false"),
        (["--size", "1"], "expected 2 values, got 1"),
        (["--size", "1,b"], "expected a whole number, got 'b'"),
        (["--unknown", "1"], "--unknown"),
        (["--text", "cat"], "--text"),
        (["stray"], "stray"),
    ],
)
def test_bad_flag_is_one_line_and_status_2(
    namespace: dict[str, Any], capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        override_from_flags(namespace, flags)
    assert exit_info.value.code == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.startswith("sheep.py: ")
    assert message.count("\n") == 1


def test_help_shows_docstring_settings_comments_and_defaults(
    namespace: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        override_from_flags(namespace, ["--help"])
    assert exit_info.value.code == 0
    shown = capsys.readouterr().out
    for expected in ("Count sheep.", "--text-prompt", 'phrases, each ended by "."', "100% sure", "box|point", "0.35"):
        assert expected in shown


def test_help_does_not_print_a_token(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cloud.py"
    path.write_text('API_TOKEN: str | None = "s3cret"  # of the service\nTOKENS = 8\n', encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "cloud", "__file__": str(path)}
    exec(path.read_text(encoding="utf-8"), namespace)
    with pytest.raises(SystemExit):
        override_from_flags(namespace, ["--help"])
    shown = capsys.readouterr().out
    assert "--api-token" in shown and "of the service" in shown and "default: 8" in shown
    assert "s3cret" not in shown


def test_comments_follow_the_file() -> None:
    comments = setting_comments(SCRIPT)
    assert list(comments) == [
        "TEXT_PROMPT", "THRESHOLD", "COUNT", "KIND", "SAVE", "SIZE", "NAMES", "FRAME", "OUT", "DEVICE", "LONG",
    ]  # fmt: skip
    assert comments["COUNT"] == ""
    assert comments["LONG"] == "its comment"


def test_unsupported_setting_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_text("TABLE = {1: 2}\n", encoding="utf-8")
    with pytest.raises(TypeError, match="dict"):
        override_from_flags({"__name__": "odd", "__file__": str(path), "TABLE": {1: 2}}, [])
