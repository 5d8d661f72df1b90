"""Settings of a script become typed flags; wrong values end with one line and status 2."""

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from grounded_sam2.flags import override_from_flags, setting_comments, settings_of

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
        ([], "SAVE", True),  # and not None, which argparse takes from the flag --no-save
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


# ---- a file of settings ----


def set_by(namespace: dict[str, Any], tmp_path: Path, toml: str, *flags: str) -> dict[str, Any]:
    """The settings after a file and flags."""
    (tmp_path / "my.toml").write_text(toml, encoding="utf-8")
    override_from_flags(namespace, ["--settings", str(tmp_path / "my.toml"), *flags])
    return namespace


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ('text_prompt = "größe."', "TEXT_PROMPT", "größe."),
        ('TEXT_PROMPT = "cat."', "TEXT_PROMPT", "cat."),
        ("threshold = 1", "THRESHOLD", 1.0),
        ("threshold = 0.25", "THRESHOLD", 0.25),
        ("count = -4", "COUNT", -4),
        ('kind = "point"', "KIND", "point"),
        ("save = false", "SAVE", False),
        ("size = [640, 360]", "SIZE", (640, 360)),
        ('size = "640,360"', "SIZE", (640, 360)),
        ('size = "none"', "SIZE", None),
        ('names = ["a, b", "c"]', "NAMES", ["a, b", "c"]),
        ('frame = "none"', "FRAME", None),
        ('out = "here"', "OUT", Path("here")),
        ("device = 1", "DEVICE", "1"),
        ("sam2_checkpoint = 'large.pt'", "COUNT", 3),  # that only other scripts have
        ("step = 7", "COUNT", 3),  # likewise, by its former name
    ],
)
def test_a_file_sets_typed_values(namespace: dict[str, Any], tmp_path: Path, line: str, name: str, value: Any) -> None:
    set_by(namespace, tmp_path, line)
    assert namespace[name] == value and type(namespace[name]) is type(value)


def test_flags_win_over_the_table_of_the_script_and_that_over_the_rest(
    namespace: dict[str, Any], tmp_path: Path
) -> None:
    toml = """
        count = 5
        threshold = 0.5
        frame = 6
        [sheep]
        count = 7
        threshold = 0.7
        ["grounded_sam2_gd1.5_demo"]
        count = 9
        max_requests = 9
    """
    with pytest.raises(SystemExit):
        set_by(dict(namespace), tmp_path, toml)  # that script has no COUNT
    set_by(namespace, tmp_path, toml.replace("count = 9", ""), "--count", "8")
    assert (namespace["COUNT"], namespace["THRESHOLD"], namespace["FRAME"]) == (8, 0.7, 6)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ("colour = 1\ncount = 2\nshape = 3", "my.toml has colour, shape, which no script has"),
        ("count = 'two'", "my.toml: COUNT: expected a whole number, got 'two'"),
        ("count = true", "my.toml: COUNT: expected a whole number, got 'true'"),
        ("count = [1, 2]", "my.toml: COUNT: expected one value, got 2"),
        ("kind = 'mask'", "my.toml: KIND: expected one of box, point, got 'mask'"),
        ("size = [1, 2, 3]", "my.toml: SIZE: expected 2 values, got 3"),
        ("size = [1, 'b']", "my.toml: SIZE: expected a whole number, got 'b'"),
        ("count = 1\nCOUNT = 2", "my.toml sets COUNT twice"),
        ("[sheep]\ncolour = 1", "my.toml, [sheep] has colour, which that script does not have"),
        ("[goat]\ncount = 1", "my.toml: there is no script goat.py for [goat] (a name with dots is quoted)"),
        ("[grounded_sam2_gd1.5_demo]\nmax_requests = 1", "there is no script grounded_sam2_gd1.py"),
        ("count = ", "my.toml is not a TOML file"),
    ],
)
def test_a_bad_file_is_one_line_and_status_2(
    namespace: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], toml: str, says: str
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        set_by(namespace, tmp_path, toml)
    assert exit_info.value.code == 2
    message = capsys.readouterr().err
    assert says in message and message.startswith("sheep.py: ") and message.count("\n") == 1
    assert namespace["COUNT"] == 3


@pytest.mark.parametrize(("flags", "says"), [(["nowhere.toml"], "nowhere.toml"), ([], "expected one argument")])
def test_no_file_of_settings(
    namespace: dict[str, Any], capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        override_from_flags(namespace, ["--settings", *flags])
    assert exit_info.value.code == 2 and says in capsys.readouterr().err


def test_python_3_10_is_told_what_to_install(
    namespace: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.version_info", (3, 10, 4))
    monkeypatch.setitem(sys.modules, "tomli", None)
    with pytest.raises(SystemExit):
        set_by(namespace, tmp_path, "count = 1")
    assert "pip install tomli" in capsys.readouterr().err


def test_help_has_the_headings_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sheep.py"
    path.write_text("# input\nIMAGE = 'a.jpg'  # a file\n\n# output\nOUT = 'out'  # models\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        override_from_flags({"__name__": "sheep", "__file__": str(path), "IMAGE": "a.jpg", "OUT": "out"}, ["--help"])
    shown = capsys.readouterr().out
    places = [shown.rindex(text) for text in ("--settings FILE", "\ninput:", "--image STR", "\noutput:", "--out STR")]
    assert places == sorted(places) and "\nmodels:" not in shown


def test_settings_are_those_that_results_depend_on(tmp_path: Path) -> None:
    path = tmp_path / "sheep.py"
    path.write_text(
        "from pathlib import Path\nfrom string import ascii_letters as LETTERS\n"
        "DETECT_EVERY = 10\nSIZE = (2, 3)\nMODEL = Path('m')\nOUTPUT_DIR = Path('out')\nRESUME = True\n"
        "API_TOKEN = 's3cret'\nCAMERA = 'rtsp://me:s3cret@host'\nTEXT_PROMPT = 'dog.'\n",
        encoding="utf-8",
    )
    namespace: dict[str, Any] = {"__file__": str(path)}
    exec(path.read_text(encoding="utf-8"), namespace)
    assert settings_of(namespace) == {"DETECT_EVERY": 10, "SIZE": (2, 3), "MODEL": "m", "TEXT_PROMPT": "dog."}
    assert settings_of(namespace, without=["TEXT_PROMPT", "SIZE"]) == {"DETECT_EVERY": 10, "MODEL": "m"}


@pytest.mark.parametrize("word", ["nan", "NaN", "-nan"])
def test_no_number_is_nan(namespace: dict[str, Any], capsys: pytest.CaptureFixture[str], word: str) -> None:
    with pytest.raises(SystemExit) as ended:
        override_from_flags(namespace, [f"--threshold={word}"])
    assert ended.value.code == 2 and f"expected a number, got '{word}'" in capsys.readouterr().err


def test_a_path_in_the_home_folder(namespace: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a flag of which the shell leaves it as it is, from a file, and from the script itself."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # on Windows
    namespace["DEVICE"] = "~/from the script"
    (tmp_path / "my.toml").write_text('text_prompt = "~/from a file"', encoding="utf-8")
    override_from_flags(namespace, ["--out=~/o", "--settings=~/my.toml"])
    assert namespace["OUT"] == tmp_path / "o"
    assert namespace["DEVICE"] == f"{tmp_path}/from the script"
    assert namespace["TEXT_PROMPT"] == f"{tmp_path}/from a file"


def test_a_pipe_of_settings_is_not_waited_for(
    namespace: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(SystemExit) as ended:
        override_from_flags(namespace, ["--settings", str(tmp_path / "pipe.toml")])
    assert ended.value.code == 2 and "pipe.toml is not a TOML file" in capsys.readouterr().err
