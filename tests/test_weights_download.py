"""The downloader against a server on loopback that behaves, and one that does not."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from grounded_sam2.weights import download as download_module
from grounded_sam2.weights import transfer
from grounded_sam2.weights.download import CHECKPOINTS, download, find_checkpoint, main
from grounded_sam2.weights.transfer import download_url, sha256_of

ROOT = Path(__file__).parents[1]
FILE_NAME = "sam2.1_hiera_tiny.pt"


def weights(seed: int = 0) -> bytes:
    """300 kB in the container format of PyTorch files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", np.random.default_rng(seed).bytes(300_000))
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `content` under any path; each entry of `mischief` spoils one request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = weights()
        self.etag: str | None = '"one"'
        self.mischief: list[str] = []
        self.asked: list[tuple[str, str | None]] = []  # path and Range of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        mischief = server.mischief.pop(0) if server.mischief else ""
        if mischief.isdigit():
            self.send_error(int(mischief))
            return
        body, status, content_range = server.content, 200, None
        is_current = self.headers.get("If-Range") in (None, server.etag)
        if "Range" in self.headers and is_current and mischief != "ignore range":
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if mischief == "wrong range":
                start += 7
            content_range = f"bytes {start}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        if mischief == "login page":
            body = b"<!DOCTYPE html><title>Please log in</title>"
        self.send_response(status)
        if content_range:
            self.send_header("Content-Range", content_range)
        if server.etag:
            self.send_header("ETag", server.etag)
        if mischief != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if mischief == "drop" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 10_000)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # the hub asked here is on loopback
    for variable in (download_module.MIRROR_VARIABLE, *download_module.OFFLINE_VARIABLES):
        monkeypatch.delenv(variable, raising=False)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(server: Server, folder: Path, **options) -> Path:
    return download("sam2.1-tiny", folder, mirror=server.url, progress=False, **options)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("mischief", "num_requests"),
    [
        ([], 1),
        (["drop"], 2),
        (["drop", "drop", "drop", "drop", "drop", "drop"], 7),
        (["500"], 2),
        (["503", "429", "500"], 4),
        (["drop", "ignore range"], 2),
        (["drop", "wrong range"], 3),
        (["drop", "502", "drop"], 4),
        (["drop", "416"], 3),
        (["no length"], 1),
    ],
)
def test_the_file_arrives_whole(tmp_path: Path, server: Server, mischief: list[str], num_requests: int) -> None:
    server.mischief = list(mischief)
    path = fetch(server, tmp_path / "new", sha256=hashlib.sha256(server.content).hexdigest())
    assert path == tmp_path / "new" / FILE_NAME
    assert path.read_bytes() == server.content
    assert names_in(path.parent) == [FILE_NAME]
    assert len(server.asked) == num_requests
    assert {asked for asked, _ in server.asked} == {f"/{FILE_NAME}"}


def test_a_second_call_goes_on_where_the_first_was_cut(tmp_path: Path, server: Server) -> None:
    server.mischief = ["drop", *["500"] * 4]
    with pytest.raises(ConnectionError, match=r"keeps failing.*bytes are kept"):
        fetch(server, tmp_path)
    half = len(server.content) // 2
    assert (tmp_path / f"{FILE_NAME}.part").stat().st_size == half
    assert not (tmp_path / FILE_NAME).exists()
    fetch(server, tmp_path)
    assert server.asked[-1] == (f"/{FILE_NAME}", f"bytes={half}-")
    assert (tmp_path / FILE_NAME).read_bytes() == server.content


@pytest.mark.parametrize("etag", ['"two"', None, 'W/"weak"'])
def test_a_file_that_changed_or_cannot_be_told_starts_again(tmp_path: Path, server: Server, etag: str | None) -> None:
    if etag != '"two"':
        server.etag = etag
    server.mischief = ["drop", *["500"] * 4]
    with pytest.raises(ConnectionError):
        fetch(server, tmp_path)
    server.content, server.etag = weights(seed=1), etag
    assert fetch(server, tmp_path).read_bytes() == server.content


def test_a_part_of_another_source_is_not_used(tmp_path: Path, server: Server) -> None:
    server.mischief = ["drop", *["500"] * 4]
    with pytest.raises(ConnectionError):
        fetch(server, tmp_path)
    download("sam2.1-tiny", tmp_path, mirror=f"{server.url}/other/", progress=False)
    assert server.asked[-1] == (f"/other/{FILE_NAME}", None)


def test_a_complete_part_needs_no_request(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(transfer._Transfer, "finish", killed)
        fetch(server, tmp_path)
    assert fetch(server, tmp_path).read_bytes() == server.content
    assert len(server.asked) == 1


def test_a_file_that_is_there_is_not_fetched(tmp_path: Path, server: Server) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"mine")
    assert fetch(server, tmp_path) == tmp_path / FILE_NAME
    assert server.asked == []
    with pytest.raises(ValueError, match=r"expected sha256 00, got .*; move .* away and download again"):
        fetch(server, tmp_path, sha256="00")
    assert (tmp_path / FILE_NAME).read_bytes() == b"mine"


@pytest.mark.parametrize(("status", "num_requests"), [("404", 1), ("403", 1)])
def test_what_is_not_there_is_not_retried(tmp_path: Path, server: Server, status: str, num_requests: int) -> None:
    server.mischief = [status]
    with pytest.raises(OSError, match=f"answers {status}.*--mirror"):
        fetch(server, tmp_path)
    assert len(server.asked) == num_requests
    assert names_in(tmp_path) == []


def test_wrong_content_is_removed(tmp_path: Path, server: Server) -> None:
    with pytest.raises(ValueError, match=r"expected sha256 00ff, got [0-9a-f]{64}"):
        fetch(server, tmp_path, sha256="00FF")
    server.mischief = ["login page"]
    with pytest.raises(ValueError, match="expected PyTorch weights, got 43 bytes that start with b'<!DOCTYPE"):
        fetch(server, tmp_path)
    server.content = server.content[:-100]  # complete by its length, but not as an archive
    with pytest.raises(ValueError, match="expected PyTorch weights"):
        fetch(server, tmp_path)
    assert names_in(tmp_path) == []


def test_the_network_is_off(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=rf"{FILE_NAME} is missing and .* the network seems to be off: .*refused"):
        fetch(server, tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("sam2.1-tiny", "grounding-dino-tiny"):
        with pytest.raises(ConnectionError, match=f"is missing and HF_HUB_OFFLINE says.*copy {name} there"):
            download(name, tmp_path)
    assert names_in(tmp_path) == []


def test_mirror_from_the_environment(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDED_SAM2_MIRROR", f"{server.url}/models/")
    download("sam2.1-tiny", tmp_path, progress=False)
    assert server.asked == [(f"/models/{FILE_NAME}", None)]


def test_any_file_and_no_way_to_write_it(tmp_path: Path, server: Server) -> None:
    path = download_url(f"{server.url}/a.bin", tmp_path / "a.bin", progress=False)
    assert sha256_of(path) == hashlib.sha256(server.content).hexdigest()
    with pytest.raises(OSError, match=r"cannot write .*a\.bin"):
        download_url(f"{server.url}/a.bin", path / "a.bin", progress=False)


def test_registry() -> None:
    base = "https://dl.fbaipublicfiles.com/segment_anything_2"
    assert CHECKPOINTS["sam2-base-plus"].source == f"{base}/072824/sam2_hiera_base_plus.pt"
    assert CHECKPOINTS["sam2.1-large"].source == f"{base}/092824/sam2.1_hiera_large.pt"
    assert find_checkpoint("groundingdino_swint_ogc.pth") is CHECKPOINTS["groundingdino-swint"]
    assert find_checkpoint("someone/some-detector").is_repository
    assert CHECKPOINTS["bert-tokenizer"].folder == CHECKPOINTS["groundingdino-swint"].folder  # where it is looked for
    assert CHECKPOINTS["bert-tokenizer"].file_name == "tokenizer.json"
    assert CHECKPOINTS["florence-2-large"].source == "florence-community/Florence-2-large"
    assert len(CHECKPOINTS) == 17
    with pytest.raises(ValueError, match=r"unknown checkpoint 'sam2\.1-lage': expected one of sam2\.1-large"):
        find_checkpoint("sam2.1-lage")


# ---- repositories ----


def test_repository_becomes_a_folder(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def snapshot(repository: str, local_dir: Path, endpoint: str | None, allow_patterns: list[str]) -> None:
        calls.append((repository, endpoint))
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / "config.json").write_text("{}")
        if repository != "someone/empty":
            (local_dir / "model.safetensors").write_bytes(b"")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    for _ in range(2):
        path = download("IDEA-Research/grounding-dino-tiny", tmp_path, mirror="http://hub.example")
        assert path == tmp_path / "grounding-dino-tiny"
    assert calls == [("IDEA-Research/grounding-dino-tiny", "http://hub.example")]
    with pytest.raises(ValueError, match="holds no config"):
        download("someone/empty", tmp_path)


def test_repository_without_network(tmp_path: Path, server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(ConnectionError, match=r"grounding-dino-tiny is missing and .* the network seems to be off"):
        download("grounding-dino-tiny", tmp_path, mirror=server.url)


def test_repository_that_is_not_there(tmp_path: Path, server: Server) -> None:
    server.mischief = ["404"] * 8
    with pytest.raises(OSError, match=r"cannot download IDEA-Research/grounding-dino-tiny.*404") as caught:
        download("grounding-dino-tiny", tmp_path, mirror=server.url)
    assert "\n" not in str(caught.value)


# ---- command line ----


def test_command_line(tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    folder = ["--folder", str(tmp_path)]
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert [name for name in CHECKPOINTS if name not in listed] == []
    assert main(["sam2.1-tiny", "--check", *folder]) == 2
    printed = capsys.readouterr()
    assert "sam2.1-tiny: missing" in printed.out
    assert f"run: python -m grounded_sam2.download sam2.1-tiny --folder {tmp_path}" in printed.err
    assert main(["sam2.1-tiny", "--mirror", server.url, *folder]) == 0
    assert hashlib.sha256(server.content).hexdigest() in capsys.readouterr().out
    assert main(["sam2.1-tiny", "--check", *folder]) == 0
    assert main(["sam2.1-tiny", "--sha256", "00", *folder]) == 2
    assert main(["no-such-model"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    for wrong in ([], ["sam2-tiny", "sam2-small", "--sha256", "00"]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2


@pytest.mark.parametrize(
    ("script", "num_files"), [("checkpoints/download_ckpts.sh", 4), ("gdino_checkpoints/download_ckpts.sh", 3)]
)
def test_shell_scripts(script: str, num_files: int) -> None:
    if sys.platform == "win32":
        pytest.skip("a shell script")
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["sh", str(ROOT / script), "--check", "--folder", "no-such-folder"]
    ended = subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 2, ended.stderr
    assert ended.stdout.count("missing, expected no-such-folder") == num_files


@pytest.mark.parametrize(
    ("script", "name", "file_name"),
    [
        ("checkpoints/download_ckpts.sh", "sam2.1-tiny", FILE_NAME),
        ("gdino_checkpoints/download_ckpts.sh", "groundingdino-swint", "groundingdino_swint_ogc.pth"),
    ],
)
def test_shell_scripts_resume_and_check(tmp_path: Path, server: Server, script: str, name: str, file_name: str) -> None:
    if sys.platform == "win32":
        pytest.skip("a shell script")
    server.mischief = ["drop"]
    command = ["sh", str(ROOT / script), name, "--mirror", server.url, "--folder", str(tmp_path), "--quiet"]
    for sha256, status in ((hashlib.sha256(server.content).hexdigest(), 0), ("00", 2)):
        environment = {**os.environ, "PYTHON": sys.executable}
        ended = subprocess.run(
            [*command, "--sha256", sha256], cwd="/", env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == status, ended.stderr
    assert (tmp_path / file_name).read_bytes() == server.content
    assert server.asked == [(f"/{file_name}", None), (f"/{file_name}", f"bytes={len(server.content) // 2}-")]
