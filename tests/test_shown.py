"""What reaches terminals, logs and file names of what strangers wrote: one line, nothing to obey, no secrets."""

import logging
import sys
import time
from pathlib import Path

import pytest

from grounded_sam2.export import read_json, write_json
from grounded_sam2.script import run, script_errors
from grounded_sam2.video import VideoFile
from sam2.shown import file_stem, shown, source_name, visible, without_secrets

SOURCES = {
    # source: (what messages call it, what files about it are called)
    "clip.mp4": ("clip.mp4", "clip"),
    "my clips/a@b.mp4": ("my clips/a@b.mp4", "a@b"),
    "rtsp://admin:PW@cam/live": ("rtsp://cam/live", "live"),
    "rtsp://PW@cam/live": ("rtsp://cam/live", "live"),
    "rtsp://u:P@PW/w@cam:554/x": ("rtsp://cam:554/x", "x"),
    "http://host/live?token=PW.mp4": ("http://host/live?token=***", "live"),
    "http://host/v.mp4?X-Amz-Signature=PW&channel=2": ("http://host/v.mp4?X-Amz-Signature=***&channel=2", "v"),
    "http://host/v.mp4?k=PW": ("http://host/v.mp4?k=***", "v"),
    "rtsp://h/user=a&password=PW&channel=1.sdp": (
        "rtsp://h/user=a&password=***&channel=1.sdp",
        "user_a_password_channel_1",
    ),
    "https://host/@user/v.mp4": ("https://host/@user/v.mp4", "v"),
    "http://[::1]:80/a@b": ("http://[::1]:80/a@b", "a_b"),
    "http://u:PW@host": ("http://host", "host"),
    "http://u:PW@/": ("http:///", "stream"),
}


@pytest.mark.parametrize(("source", "name", "stem"), [(source, *names) for source, names in SOURCES.items()])
def test_no_name_of_a_source_has_a_secret(source: str, name: str, stem: str) -> None:
    assert source_name(source) == name
    assert file_stem(source) == stem
    assert "PW" not in without_secrets(f"cannot open {source}: no route") or "?k=" in source


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\r\nc\u2028d", "a b c d"),
        ("\x1b]0;title\x07red\x1b[31m", r"\x1b]0;title\x07red\x1b[31m"),
        ("\x9b31m", r"\x9b31m"),
        ("invoice\u202egpj.exe", r"invoice\u202egpj.exe"),
        ("not UTF-8 \udcff", r"not UTF-8 \udcff"),
        ("猫 straße 👩\u200d🚀 می\u200cخواهم", "猫 straße 👩\u200d🚀 می\u200cخواهم"),
        (ValueError("http://u:PW@h/x is gone"), "http://h/x is gone"),
    ],
)
def test_any_text_is_one_harmless_line(text: object, expected: str) -> None:
    assert shown(text) == expected


@pytest.mark.parametrize("text", ["x" * 10**6, "a://" * 10**5, "http://" + "pass" * 40_000, "http://h/" + "a=" * 10**5])
def test_long_texts_take_no_long_time(text: str) -> None:
    """Their time grows with their length; with its square it would be minutes."""
    began = time.process_time()
    assert len(shown(text)) > 0
    source_name(text)
    file_stem(text)
    assert time.process_time() - began < 30


def test_what_a_script_prints_and_logs_is_cleaned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def main() -> None:
        print("found 1: \x1b[2Jdog\nwrote /etc/passwd")
        logging.getLogger("grounded_sam2").warning("left out what the cloud calls %s", "\x1b[2Jcat\n")
        raise ValueError("no such file: \x1b[2J\nhttp://u:PW@host/")

    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(sys, "argv", ["script.py"])
    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 2
    written = capsys.readouterr()
    assert written.out == "found 1: \\x1b[2Jdog wrote /etc/passwd\n"
    assert written.err.splitlines() == [
        r"left out what the cloud calls \x1b[2Jcat",
        r"script.py: no such file: \x1b[2J http://host/",
    ]


@pytest.mark.parametrize(
    "problem",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("can't start new thread"),
    ],
)
def test_no_memory_is_one_line(problem: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, script_errors("script.py"):
        raise problem
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("script.py: out of memory; use a smaller model or smaller images")


def test_other_runtime_errors_keep_their_traceback() -> None:
    with pytest.raises(RuntimeError, match="a bug"), script_errors("script.py"):
        raise RuntimeError("a bug")


def test_a_video_behind_a_password_is_named_without_it() -> None:
    with pytest.raises(ValueError, match=r"^http://127\.0\.0\.1:9/v\.mp4 is not a video") as caught:
        VideoFile("http://user:PW@127.0.0.1:9/v.mp4")
    assert "PW" not in str(caught.value)


def test_files_hold_no_password(tmp_path: Path) -> None:
    import supervision as sv

    write_json(tmp_path / "a.json", "http://user:PW@host/a.jpg", sv.Detections.empty(), (4, 4))
    assert read_json(tmp_path / "a.json").image_path == "http://host/a.jpg"


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("Rex", "Rex"),
        (" two\r\n lines\t", "two lines"),
        ("\u202e\u2066gpj\u2069.exe\u200f", "gpj.exe"),  # turns what follows it
        ("a\0b\x1b[31m", "ab[31m"),
        ("\udcff\ud83d", ""),
        ("שלום", "שלום"),
        ("\U0001f469\u200d\U0001f467 \u0915\u094d\u200d\u0937", "\U0001f469\u200d\U0001f467 \u0915\u094d\u200d\u0937"),
    ],
)
def test_of_a_name_that_somebody_gave_the_seen_is_kept(name: str, seen: str) -> None:
    assert visible(name) == seen
