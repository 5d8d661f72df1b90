"""The folder that a run writes to: its own while it runs; what is there of another source, or of the user, stays."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import weakref
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from grounded_sam2.files import Inputs, check_writable, lock, partial_of, writing_to
from sam2.shown import file_stem

__all__ = ["RECORD_NAME", "OutputFiles", "OwnedFolder", "hidden_id", "source_ids"]

logger = logging.getLogger(__name__)

RECORD_NAME = ".grounded_sam2.jsonl"
_ENDS_BYTES = 2**16  # of each end of a file, by which its content is known again
_locks: weakref.WeakValueDictionary[str, _Record] = weakref.WeakValueDictionary()


class OwnedFolder:
    """A folder of outputs, which belongs to this process for as long as the object lives or until `close`.

        owned = OwnedFolder("outputs/coco", annotations_path)
        path = owned.claim("coco.json")

    Other processes are refused the folder meanwhile: the system locks `.grounded_sam2.jsonl` in it, and lets go when
    the process dies, however it dies. That file also notes what the project has written there, before it is written,
    so that nothing else is ever replaced or removed. No output may be an input, by whatever path, link or case.

    Args:
        folder: is made if it is not there.
        inputs: files, or folders of files, that are read; whatever names none (a URL) is passed over.

    Raises:
        BlockingIOError: another process writes to the folder.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._inputs: Inputs | None = Inputs(*inputs)
        record_path = check_writable(self.folder / RECORD_NAME)
        self._record: _Record | None = _locks.get(str(record_path)) or _Record(record_path, self.folder)
        _locks[str(record_path)] = self._record
        self._claimed: set[str] = set()

    def is_free(self, name: str, source: Sequence[str] = ()) -> bool:
        """Whether an output may go by a name: nothing is there, or what was written about the same source.

        Args:
            name: of a file or a folder in this folder, with "/".
            source: see `source_ids`; () for what may be of any source.
        """
        path = self.folder / name
        if not os.path.lexists(path) or (path.is_dir() and not any(path.iterdir())):
            return True
        owner = self._open_record().owners.get(name)
        return owner is not None and (not source or not owner or bool({*owner} & {*source}))

    def claim(self, name: str, source: Sequence[str] = ()) -> Path:
        """Take a name for an output, which is noted.

        Returns:
            Its path.

        Raises:
            ValueError: an input or something else is there; see `is_free`.
        """
        path = self.folder / name
        Inputs.refuse(path)
        if not self.is_free(name, source):
            known = self._open_record().owners.get(name)
            whose = "was not written by this program" if known is None else "is about another source"
            raise ValueError(f"{path} is there already and {whose}: choose another output folder, or move it away")
        self._open_record().note(name, source)
        self._claimed.add(name)
        return path

    def knows(self, name: str) -> bool:
        """Whether an output of that name was noted."""
        return name in self._open_record().owners

    def adopt(self, name: str) -> None:
        """Note that a file was written by an earlier version, which kept no record."""
        if not self.knows(name):
            self._open_record().note(name, ())

    def remove_others(self) -> None:
        """Remove the files of earlier runs that were not claimed anew; files of others stay."""
        record = self._open_record()
        for name in [name for name in record.owners if name not in self._claimed]:
            (self.folder / name).unlink(missing_ok=True)
            record.note(name, None)

    def close(self) -> None:
        """Let the folder go. Closing twice is harmless."""
        self._record = self._inputs = None

    def _open_record(self) -> _Record:
        if self._record is None:
            raise RuntimeError(f"{self.folder} was closed: make a new OwnedFolder(...)")
        return self._record


class _Record:
    """The locked file that notes whose the outputs of a folder are.

    Attributes:
        owners: name → ids of the source; only of what the project wrote.
    """

    def __init__(self, path: Path, folder: Path) -> None:
        self.owners: dict[str, list[str]] = {}
        self._file = _locked(path, folder)
        self._path = path
        weakref.finalize(self, _release, self._file, path, self.owners, os.getpid())
        for line in self._file.read().splitlines():
            try:
                entry = json.loads(line)
                self._keep(str(entry["file"]), entry["source"])
            except (ValueError, KeyError, TypeError):  # a line that a crash has cut off
                continue
        if self._file.tell() and not self._ends_a_line():
            self._append(b"\n")

    def note(self, name: str, source: Sequence[str] | None) -> None:
        """Note whose a file is; None: nobody's any more."""
        if source is None or self.owners.get(name) != list(source):
            self._keep(name, source)
            entry = {"file": name, "source": None if source is None else list(source)}
            self._append(json.dumps(entry).encode("ascii") + b"\n")

    def _keep(self, name: str, source: Sequence[str] | None) -> None:
        if source is None:
            self.owners.pop(name, None)
        else:
            self.owners[name] = list(source)

    def _ends_a_line(self) -> bool:
        self._file.seek(-1, os.SEEK_END)
        return self._file.read(1) == b"\n"

    def _append(self, line: bytes) -> None:
        with writing_to(self._path):
            self._file.write(line)


def _locked(path: Path, folder: Path) -> BinaryIO:
    """The file of a path, opened to read and append, which no other process has locked."""
    while True:
        file: BinaryIO = path.open("a+b", buffering=0)
        try:
            lock(file, "start no second run into that folder")
        except BlockingIOError:
            raise BlockingIOError(
                f"another run writes to {folder} (it has locked {path}): wait until it ends, or choose another "
                "--output-dir"
            ) from None
        if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.seek(0)
            return file
        file.close()  # the run before has removed it just now


def _release(file: BinaryIO, path: Path, owners: Mapping[str, Sequence[str]], pid: int) -> None:
    """Close a record, which unlocks it; one of which no output is there goes."""
    names = (path.parent / name for name in owners)
    is_used = any(os.path.lexists(name) or os.path.lexists(partial_of(name)) for name in names)
    if not is_used and pid == os.getpid():
        try:
            path.unlink(missing_ok=True)
        except OSError:  # Windows removes no open file
            logger.debug("%s stays", path)
    file.close()


class OutputFiles:
    """The files about one source in a folder of outputs, called after it: `clip.mp4` and `clip.jsonl`.

        files = OutputFiles(OUTPUT_DIR, VIDEO_PATH)
        with SavedRun(files.path(".resume"), ...), TrackingOutputs(files, frames, ...) as outputs:

    Where such a file is about another source, or is not the project's, all have the next free name: `clip-2.mp4`. The
    same source has the same name again. The folder is this process's own while the object lives; see `OwnedFolder`.

    Args:
        folder: of the outputs.
        source: what they are about: a file, a folder, a URL or the number of a camera.
        suffixes: what the names end in, behind the stem of the source.
        stem: what they begin with; None: the stem of the source.

    Attributes:
        name: what the names begin with.
        paths: one for each suffix, ready to be written.

    Raises:
        ValueError: an output would be written over the source, or into the folder of frames that is read.
        OSError: see `OwnedFolder`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        source: str | os.PathLike[str],
        suffixes: Sequence[str] = (".mp4", ".jsonl"),
        stem: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        if Path(source).is_dir() and self.folder.is_dir() and os.path.samefile(source, self.folder):
            raise ValueError(f"{folder} is the folder of frames that is read: choose another --output-dir")
        self._owned = OwnedFolder(folder, source)
        self._source = source_ids(source)
        stem = stem or _stem_of(os.fspath(source))
        self.name = self._free_name(stem, suffixes)
        self.paths = [self.path(suffix) for suffix in suffixes]

    def _free_name(self, stem: str, suffixes: Sequence[str]) -> str:
        name, number = stem, 1
        while not all(self._is_free(f"{name}{suffix}") for suffix in suffixes):
            number += 1
            name = f"{stem}-{number}"
        return name

    def _is_free(self, name: str) -> bool:
        Inputs.refuse(self.folder / name)  # which is no reason to take another name
        return self._owned.is_free(name, self._source)

    def path(self, suffix: str) -> Path:
        """The path of a file that is called after the source.

        Raises:
            ValueError: something else is there.
            OSError: it cannot be written.
        """
        path = self._owned.claim(f"{self.name}{suffix}", self._source)
        check_writable(path)
        return path

    def folder_for(self, *names: str) -> Path:
        """Where outputs go whose names say no source: the folder, or one of the source's name when it has others'.

        Args:
            names: of files and folders.

        Raises:
            ValueError: they are in neither free.
            OSError: they cannot be written.
        """
        is_free = all(self._owned.is_free(name, self._source) for name in names)
        for name in names:
            self._owned.claim(name if is_free else f"{self.name}/{name}", self._source)
        return self.folder if is_free else self.folder / self.name


def source_ids(source: str | os.PathLike[str]) -> tuple[str, ...]:
    """By what a source is known again, where it is and what it holds: the same in either is the same source.

    Neither can be read: an address may hold a password.
    """
    path = Path(source)
    where = hidden_id(os.path.normcase(os.path.realpath(path)) if path.exists() else os.fspath(source))
    if path.is_dir():
        entries = sorted((entry.name, entry.stat().st_size) for entry in os.scandir(path) if entry.is_file())
        return where, hidden_id(repr(entries))
    if not path.is_file():
        return (where,)
    size = path.stat().st_size
    with path.open("rb") as file:
        checksum = zlib.crc32(file.read(_ENDS_BYTES))
        file.seek(max(0, size - _ENDS_BYTES))
        checksum = zlib.crc32(file.read(_ENDS_BYTES), checksum)
    return where, f"{size}-{checksum:08x}"


def hidden_id(text: str) -> str:
    """Tells a text from others and does not say what it is."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def _stem_of(source: str) -> str:
    """What outputs about a source are called; of an address neither its password nor its query."""
    if "://" in source:
        return file_stem(source)
    stem = Path(source).stem
    return stem if stem not in ("", "..") else Path(os.path.realpath(source)).name or "source"
