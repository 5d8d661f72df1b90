"""One large file over HTTP: resumed, retried, checked, in place only when complete."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from grounded_sam2 import plain_json
from grounded_sam2.files import check_writable
from grounded_sam2.locks import locked
from sam2.shown import shown, source_name

__all__ = ["check_address", "check_sha256", "download_url", "sha256_of"]

logger = logging.getLogger(__name__)

ATTEMPTS = 4  # in a row that bring no new byte
FIRST_PAUSE_S = 1.0  # doubled after each such attempt
TIMEOUT_S = 30.0  # without an answer or a byte
CHUNK_BYTES = 2**20
MOST_BYTES = 50 * 2**30  # of a file; no checkpoint comes near
CURE = "name another source with --mirror"
SLOWEST = (60.0, 64 * 2**10)  # in so many seconds at least so many bytes: less is no download that ends
TRANSIENT_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


def download_url(
    url: str,
    target: str | os.PathLike[str],
    sha256: str | None = None,
    progress: bool = True,
    attempts: int = ATTEMPTS,
    cure: str = CURE,
) -> Path:
    """Fetch one file; it appears at `target` only when complete and checked.

    Bytes go to `<target>.part`, and a later call goes on where this one was interrupted: with a Range request that
    is bound (If-Range) to the file's ETag or modification date, so that a file that changed meanwhile, or a server
    that knows no ranges, starts again from zero. Dropped connections, time-outs and passing server errors are
    retried with growing pauses for as long as bytes keep coming, `attempts` times without any. Where another process
    fetches the same file, this one waits for it.

    Args:
        url: http or https; "https://user:password@host/…" logs in, at that host only.
        target: file to write; missing folders are made; an older file is replaced.
        sha256: that the file must have, in hexadecimal.
        progress: show a progress bar on stderr.
        attempts: in a row without a new byte, before giving up.
        cure: what the user is told to do where the server does not have the file or cannot be reached.

    Returns:
        `target`.

    Raises:
        ValueError: no such address; or size, sha256 or kind of the content are wrong, and what was fetched is removed.
        ConnectionError: the server cannot be reached, keeps failing, or sends next to nothing; `.part` stays for the
            next call.
        OSError: the server does not have the file, or `target` cannot be written.
    """
    check_address(url)
    target = check_writable(target)
    waits: list[str] = []

    def wait() -> None:
        waits.append(str(target))
        logger.warning("another process fetches %s: waiting for it", target)

    with locked(target.with_name(f".{target.name}.lock"), wait):
        if not (waits and target.is_file()):  # else it has just been fetched
            _fetch(_Transfer(url, target), progress, attempts, cure)
            _install(_Transfer(url, target), sha256)
    return target


def check_address(url: str) -> None:
    """Raise a ValueError unless `url` is a web address."""
    try:
        parts = urllib.parse.urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # of a port or an IPv6 address that is none
        is_address = False
    if not is_address or any(character.isspace() or not character.isprintable() for character in url):
        raise ValueError(f"expected an address such as https://mirror.example/sam, got {source_name(url)!r}")


def _fetch(transfer: _Transfer, progress: bool, attempts: int, cure: str) -> None:
    """Make the part of a transfer complete."""
    url, target = source_name(transfer.url), transfer.target
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
                    f"cannot download {target.name}: {url} answers {error.code} {shown(error.reason)}; {cure}"
                ) from None
            problem: Exception = error
        except _TooSlowError as error:
            raise ConnectionError(_unreachable(url, target, transfer.received, error, cure)) from None
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            problem = error
        failures = 0 if transfer.received > before else failures + 1
        if failures >= attempts:
            raise ConnectionError(_unreachable(url, target, transfer.received, problem, cure)) from None
        pause_s = FIRST_PAUSE_S * 2 ** max(0, failures - 1)
        logger.info("%s: %s; next attempt in %.0f s", url, shown(problem), pause_s)
        time.sleep(pause_s)


def _install(transfer: _Transfer, sha256: str | None) -> None:
    """Check what was fetched and put it in place."""
    try:
        _check_kind(transfer.part, transfer.target.name)
        if sha256 is not None:
            check_sha256(transfer.part, sha256, cure="what was fetched is removed: try another source with --mirror")
    except ValueError:
        transfer.discard()
        raise
    transfer.finish()


class _TooSlowError(Exception):
    """Bytes come, but so few that there would be no end."""


def _unreachable(url: str, target: Path, received: int, problem: Exception, cure: str) -> str:
    reason = shown(getattr(problem, "reason", None) or problem)
    if isinstance(problem, urllib.error.URLError) and not isinstance(problem, urllib.error.HTTPError):
        diagnosis = "cannot be reached; the network seems to be off"
    else:
        diagnosis = "keeps failing"
    kept = f" ({received} bytes are kept, the next call goes on from there)" if received else ""
    return (
        f"{target} is missing and {url} {diagnosis}: {reason}{kept}. Copy the file there from another machine, "
        f"or {cure}"
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
        request = _request(self.url)
        if offset and validator is not None:
            request.add_header("Range", f"bytes={offset}-")
            request.add_header("If-Range", validator)
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # the part is no beginning of the file that is there now
                self.discard()
                raise ConnectionError("the file changed on the server") from error
            raise
        with response:
            if response.status == 206 and _range_start(response) != offset:
                self.discard()
                raise ConnectionError(f"asked for bytes from {offset}, got {response.headers.get('Content-Range')}")
            former_total = total
            if response.status != 206:
                offset, former_total = 0, None
            length = _content_length(response)
            total = offset + length if length is not None else None
            if response.status == 206 and not (_is_version(response, validator) and former_total in (None, total)):
                self.discard()
                raise ConnectionError("the file changed on the server")
            self._check_size(total or 0)
            self._write_state(response, total)
            self._append(response, offset, total, progress)
        if total is not None and self.received != total:
            raise ConnectionError(f"the connection broke off after {self.received} of {total} bytes")

    def _check_size(self, num_bytes: int) -> None:
        if num_bytes > MOST_BYTES:
            self.discard()
            raise ValueError(f"{self.target.name}: expected at most {MOST_BYTES} bytes, the server has {num_bytes}")

    def _append(self, response: Any, offset: int, total: int | None, progress: bool) -> None:
        bar = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=self.target.name, disable=not progress)
        with bar, self.part.open("ab" if offset else "wb") as part:
            seconds, least_bytes = SLOWEST
            since, came = time.monotonic(), 0
            received = offset
            while chunk := response.read1(CHUNK_BYTES):  # whatever is there: a slow server must not hold us here
                part.write(chunk)
                bar.update(len(chunk))
                came, received = came + len(chunk), received + len(chunk)
                self._check_size(received)
                if time.monotonic() - since > seconds:
                    if came < least_bytes:
                        raise _TooSlowError(f"only {came} bytes came in {seconds:g} s")
                    since, came = time.monotonic(), 0

    def _read_state(self) -> tuple[str | None, int | None]:
        """(ETag or date to bind a Range request to, size); Nones where the part cannot be gone on with."""
        try:
            state = plain_json.loads(self._state.read_text(encoding="utf-8"))
            validator, total = state["validator"], state["total"]
            is_ours = state["url"] == source_name(self.url) and isinstance(validator, str) and validator.isprintable()
            is_size = total is None or plain_json.check_whole(total, "total", largest=MOST_BYTES) >= 0
            return (validator, total) if is_ours and is_size else (None, None)
        except (OSError, ValueError, KeyError, TypeError):
            return None, None

    def _write_state(self, response: Any, total: int | None) -> None:
        etag = response.headers.get("ETag")
        is_strong = etag is not None and not etag.startswith("W/")
        validator = etag if is_strong else response.headers.get("Last-Modified")
        state = {"url": source_name(self.url), "validator": validator, "total": total}
        self._state.write_text(json.dumps(state), encoding="utf-8")


def _request(url: str) -> urllib.request.Request:
    """What asks for a file; a user and a password in the address become a header, which no redirection carries on."""
    parts = urllib.parse.urlsplit(url)
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    request = urllib.request.Request(address, headers={"Accept-Encoding": "identity", "User-Agent": "grounded-sam2"})
    if parts.username is not None:
        login = ":".join(urllib.parse.unquote(part or "") for part in (parts.username, parts.password))
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(login.encode()).decode()}")
    return request


def _is_version(response: Any, validator: str | None) -> bool:
    """Whether a partial answer is of the version that was asked for, as far as it says which one it is of."""
    stated = [response.headers.get(name) for name in ("ETag", "Last-Modified")]
    return not any(stated) or validator in stated


def _content_length(response: Any) -> int | None:
    length = response.headers.get("Content-Length") or ""
    return int(length) if length.isdecimal() and len(length) < 20 else None


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
    """ValueError where a file is not of the kind that its name says, such as the login page of a network."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(16)
    found = f"got {size} bytes that start with {head!r}"
    if name.endswith((".pt", ".pth")):
        is_legacy_pickle = head.startswith(b"\x80")
        if not is_legacy_pickle and not zipfile.is_zipfile(path):
            raise ValueError(f"{name}: expected PyTorch weights, {found}")
    elif name.endswith(".safetensors"):
        if not 0 < int.from_bytes(head[:8], "little") < size or head[8:9] != b"{":
            raise ValueError(f"{name}: expected safetensors weights, {found}")
    elif name.endswith(".json"):
        try:
            plain_json.loads(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{name}: expected JSON, {found}") from error
