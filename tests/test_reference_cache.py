"""The references' answers are computed when something they depend on changed, and only then."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from reference import cache

Answers = Callable[..., Path]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Sequence[str]]:
    """The commands that were run so far, each of which leaves a file."""
    commands: list[Sequence[str]] = []

    def run(command: Sequence[str], packages: Path, files: Mapping[str, bytes], work: Path) -> None:
        commands.append(command)
        (work / "answers").write_text(" ".join(command))
        assert "fail" not in command

    monkeypatch.setattr(cache, "_run", run)
    monkeypatch.setattr(cache, "HARNESS", tmp_path / "reference")
    monkeypatch.setattr(cache, "REFERENCES", tmp_path / "references")
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "run.py").write_text("one")
    install(tmp_path, "1.0")
    return commands


@pytest.fixture
def answers(tmp_path: Path) -> Answers:
    return lambda *arguments, **files: cache.answers_of("package", "run", arguments, files, tmp_path / "cache")


def install(folder: Path, version: str) -> None:
    metadata = folder / "references" / "package" / "oracle.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: oracle\nVersion: {version}\n")


def test_the_same_question_is_asked_once(answers: Answers, runs: list[Sequence[str]]) -> None:
    first, second = answers("--size", "8", text=b"a"), answers("--size", "8", text=b"a")
    assert first == second and (first / "answers").read_text() == "-m reference.run --size 8"
    assert len(runs) == 1


def test_what_a_process_has_imported_does_not_matter(
    answers: Answers, runs: list[Sequence[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = answers()
    monkeypatch.syspath_prepend(tmp_path / "references" / "package")  # as setuptools does with packages of its own
    assert answers() == first and len(runs) == 1


def test_whatever_changes_is_asked_anew(answers: Answers, runs: list[Sequence[str]], tmp_path: Path) -> None:
    folders = [answers("--size", "8", text=b"a"), answers("--size", "9", text=b"a"), answers("--size", "8", text=b"b")]
    (tmp_path / "reference" / "run.py").write_text("two")
    folders.append(answers("--size", "8", text=b"a"))
    install(tmp_path, "1.1")
    folders.append(answers("--size", "8", text=b"a"))
    assert len(set(folders)) == len(runs) == 5 and all((folder / "answers").is_file() for folder in folders)


def test_a_run_that_failed_leaves_no_answers(answers: Answers, runs: list[Sequence[str]], tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(AssertionError):
            answers("fail")
    assert len(runs) == 2 and not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_what_nobody_asks_for_is_forgotten(answers: Answers, runs: list[Sequence[str]], tmp_path: Path) -> None:
    old, used = answers("old"), answers("used")
    long_ago = time.time() - cache.KEPT_SECONDS - 60
    for folder in (old, used):
        os.utime(folder, (long_ago, long_ago))
    assert answers("used") == used and len(runs) == 2
    assert used.is_dir() and not old.exists()


def test_a_process_of_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It finds its files in the work folder, imports the package before this repository's, and is heard."""
    package = tmp_path / "references" / "package"
    (package / "sam2").mkdir(parents=True)
    (package / "sam2" / "__init__.py").write_text("print('the package')")
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference" / "run.py").write_text("import sam2\nprint(open('sub/text').read())")
    monkeypatch.setattr(cache, "HARNESS", tmp_path / "reference")
    monkeypatch.setattr(cache, "REFERENCES", tmp_path / "references")
    folder = cache.answers_of("package", "run", files={"sub/text": b"hello"}, cache=tmp_path / "cache")
    assert (folder / cache.PRINTED).read_text() == "the package\nhello\n"
    (tmp_path / "reference" / "run.py").write_text("raise SystemExit('no luck')")
    with pytest.raises(AssertionError, match="no luck"):
        cache.answers_of("package", "run", cache=tmp_path / "cache")


def test_a_folder_of_its_own_for_each_source(tmp_path: Path) -> None:
    source = tmp_path / "source"
    folders = []
    for text in ("one", "two", "one"):
        source.write_text(text)
        folders.append(cache.kept_folder("built", source, cache=tmp_path / "cache"))
    assert folders[0] == folders[2] != folders[1] and all(folder.is_dir() for folder in folders)
