"""One large file over HTTP: resumed, retried, checked, in place only when complete."""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from grounded_sam2.files import check_writable

__all__ = ["check_sha256", "download_url", "sha256_of"]

logger = logging.getLogger(__name__)

ATTEMPTS = 4  # in a row that bring no new byte
FIRST_PAUSE_S = 1.0  # doubled after each such attempt
TIMEOUT_S = 30.0  # without an answer or a byte
CHUNK_BYTES = 2**20
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def download_url(
    url: str, target: str | os.PathLike[str], sha256: str | None = None, progress: bool = True, attempts: int = ATTEMPTS
) -> Path:
    """Fetch one file; it appears at `target` only when complete and checked.

    Bytes go to `<target>.part`, and a later call goes on where this one was interrupted: with a Range request that
    is bound (If-Range) to the file's ETag or modification date, so that a file that changed meanwhile, or a server
    that knows no ranges, starts again from zero. Dropped connections, time-outs and passing server errors are
    retried with growing pauses for as long as bytes keep coming, `attempts` times without any.

    Args:
        url: http or https.
        target: file to write; missing folders are made; an older file is replaced.
        sha256: that the file must have, in hexadecimal.
        progress: show a progress bar on stderr.
        attempts: in a row without a new byte, before giving up.

    Returns:
        `target`.

    Raises:
        ValueError: size, sha256 or kind of the content are wrong; what was fetched is removed.
        ConnectionError: the server cannot be reached or keeps failing; `.part` stays for the next call.
        OSError: the server does not have the file, or `target` cannot be written.
    """
    target = check_writable(target)
    transfer = _Transfer(url, target)
    failures = 0
    while True:
        before = transfer.received
        try:
            transfer.fetch(progress)
            break
        except urllib.error.HTTPError as error:
            error.close()
            if error.code not in TRANSIENT_STATUS:
                raise OSError(
                    f"cannot download {target.name}: {url} answers {error.code} {error.reason}; "
                    "name another source with --mirror"
                ) from None
            problem: Exception = error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            problem = error
        failures = 0 if transfer.received > before else failures + 1
        if failures >= attempts:
            raise ConnectionError(_unreachable(url, target, transfer.received, problem)) from problem
        pause_s = FIRST_PAUSE_S * 2 ** max(0, failures - 1)
        logger.info("%s: %s; next attempt in %.0f s", url, problem, pause_s)
        time.sleep(pause_s)
    try:
        _check_kind(transfer.part, target.name)
        if sha256 is not None:
            check_sha256(transfer.part, sha256, cure="what was fetched is removed: try another source with --mirror")
    except ValueError:
        transfer.discard()
        raise
    transfer.finish()
    return target


def _unreachable(url: str, target: Path, received: int, problem: Exception) -> str:
    reason = getattr(problem, "reason", None) or problem
    if isinstance(problem, urllib.error.URLError) and not isinstance(problem, urllib.error.HTTPError):
        diagnosis = "cannot be reached; the network seems to be off"
    else:
        diagnosis = "keeps failing"
    kept = f" ({received} bytes are kept, the next call goes on from there)" if received else ""
    return (
        f"{target} is missing and {url} {diagnosis}: {reason}{kept}. Copy the file there from another machine, "
        "or name another source with --mirror"
    )


class _Transfer:
    """The state of one download: the `.part` file, and beside it what ties it to one version on the server."""

    def __init__(self, url: str, target: Path) -> None:
        self.url = url
        self.target = target
        self.part = target.with_name(target.name + ".part")
        self._state = target.with_name(target.name + ".part.json")

    @property
    def received(self) -> int:
        """Bytes on disk so far."""
        return self.part.stat().st_size if self.part.exists() else 0

    def discard(self) -> None:
        """Forget what was fetched."""
        self.part.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)

    def finish(self) -> None:
        """Put the complete file in place."""
        os.replace(self.part, self.target)
        self._state.unlink(missing_ok=True)

    def fetch(self, progress: bool) -> None:
        """Make one attempt to get what is still missing; an exception of urllib or http.client when it breaks off."""
        validator, total = self._read_state()
        if validator is None:
            self.discard()
        elif total is not None and self.received == total:
            return
        offset = self.received
        headers = {"Accept-Encoding": "identity", "User-Agent": "grounded-sam2"}
        if offset and validator is not None:
            headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
        try:
            response = urllib.request.urlopen(urllib.request.Request(self.url, headers=headers), timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is no beginning of the file that is there now
                self.discard()
                raise ConnectionError("the file changed on the server") from error
            raise
        with response:
            if response.status == 206 and _range_start(response) != offset:
                self.discard()
                raise ConnectionError(f"asked for bytes from {offset}, got {response.headers.get('Content-Range')}")
            if response.status != 206:
                offset = 0
            length = response.headers.get("Content-Length")
            total = offset + int(length) if length is not None else None
            self._write_state(response, total)
            self._append(response, offset, total, progress)
        if total is not None and self.received != total:
            raise ConnectionError(f"the connection broke off after {self.received} of {total} bytes")

    def _append(self, response: Any, offset: int, total: int | None, progress: bool) -> None:
        bar = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=self.target.name, disable=not progress)
        with bar, self.part.open("ab" if offset else "wb") as part:
            while chunk := response.read(CHUNK_BYTES):
                part.write(chunk)
                bar.update(len(chunk))

    def _read_state(self) -> tuple[str | None, int | None]:
        """(ETag or date to bind a Range request to, size); Nones where the part cannot be gone on with."""
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            return (state["validator"], state["total"]) if state["url"] == self.url else (None, None)
        except (OSError, ValueError, KeyError, TypeError):
            return None, None

    def _write_state(self, response: Any, total: int | None) -> None:
        etag = response.headers.get("ETag")
        is_strong = etag is not None and not etag.startswith("W/")
        validator = etag if is_strong else response.headers.get("Last-Modified")
        state = {"url": self.url, "validator": validator, "total": total}
        self._state.write_text(json.dumps(state), encoding="utf-8")


def _range_start(response: Any) -> int | None:
    """First byte of a partial answer, from "bytes 100-199/200"."""
    unit, _, span = (response.headers.get("Content-Range") or "").partition(" ")
    start = span.split("-", 1)[0]
    return int(start) if unit == "bytes" and start.isdigit() else None


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str, cure: str) -> None:
    """ValueError that names both and ends in `cure`, unless the file has the sha256 `expected` (hexadecimal)."""
    actual = sha256_of(path)
    if actual != expected.lower():
        raise ValueError(f"{path}: expected sha256 {expected.lower()}, got {actual}; {cure}")


def _check_kind(path: Path, name: str) -> None:
    """ValueError where a file named as PyTorch weights is none, such as the login page of a network."""
    if not name.endswith((".pt", ".pth")):
        return
    with path.open("rb") as file:
        head = file.read(16)
    is_legacy_pickle = head.startswith(b"\x80")
    if not is_legacy_pickle and not zipfile.is_zipfile(path):
        size = path.stat().st_size
        raise ValueError(f"{name}: expected PyTorch weights, got {size} bytes that start with {head!r}")
