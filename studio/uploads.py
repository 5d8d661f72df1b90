"""The files that were uploaded: Gradio puts them in a folder, a session copies them, and after a while they go."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

__all__ = ["Uploads"]

KEPT_SECONDS = 900.0  # two people may upload the same file: it is one file for Gradio, and neither may miss it


class Uploads:
    """Args: folder: Gradio's, and nobody else's; is made."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()

    def find(self, path: object) -> Path:
        """A file that was uploaded, by the path that the upload answered; ValueError for any other path."""
        if not isinstance(path, str) or "\0" in path:
            raise ValueError('expected {"upload": path}, as the upload answered, or {"sample": name}')
        given = Path(path)
        try:
            is_ours = given.resolve().is_relative_to(self.folder) and given.is_file() and not given.is_symlink()
        except OSError:  # a name that no file can have
            is_ours = False
        if not is_ours:
            raise ValueError("There is no such uploaded file: upload it again.")
        return given.resolve()

    def sweep(self) -> None:
        """Remove what was uploaded a while ago."""
        oldest = time.time() - KEPT_SECONDS
        for path in sorted(self.folder.rglob("*"), reverse=True):  # files before the folders that they are in
            with contextlib.suppress(OSError):
                if path.is_dir():
                    if path.stat().st_mtime < oldest:
                        path.rmdir()
                elif path.lstat().st_mtime < oldest:
                    path.unlink()
