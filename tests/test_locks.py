"""One process at a time, where the file system can tell; where it cannot, work goes on."""

import errno
import os
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from grounded_sam2 import locks


def test_the_second_waits_for_the_first(tmp_path: Path) -> None:
    path, order = tmp_path / "x.lock", []
    waits = threading.Event()

    def second() -> None:
        with locks.locked(path, waits.set):
            order.append("second")

    with locks.locked(path):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert not path.exists()


def test_a_file_system_that_knows_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(file: BinaryIO, flags: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with locks.locked(tmp_path / "x.lock", lambda: pytest.fail("nobody holds it")):
        pass
    assert "cannot be locked" in caplog.text
