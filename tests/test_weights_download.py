"""The downloader against a server on loopback that behaves, and one that does not."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
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
        self.headers: list[dict[str, str]] = []
        self.hold: threading.Event | None = None  # answers wait for it

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        server.headers.append(dict(self.headers))
        if server.hold is not None:
            server.hold.wait(10)
        mischief = server.mischief.pop(0) if server.mischief else ""
        if mischief.isdigit():
            self.send_error(int(mischief))
            return
        if mischief == "redirect":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{server.server_port}/elsewhere.pt")
            self.end_headers()
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
            self.send_header("ETag", '"two"' if mischief == "another version" else server.etag)
        if mischief == "another size":
            body += b"more"
        if mischief != "no length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):  # whoever asked has gone
            if mischief == "drip":
                for position in range(1000):
                    self.wfile.write(body[position : position + 1])
                    time.sleep(0.005)
            self.wfile.write(body[: len(body) // 2] if mischief == "drop" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(transfer, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(transfer, "CHUNK_BYTES", 10_000)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # the hub asked here is on loopback
    for name, checkpoint in CHECKPOINTS.items():  # what is served here is something else
        monkeypatch.setitem(CHECKPOINTS, name, replace(checkpoint, sha256=None))
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
    edgetam = CHECKPOINTS["edgetam"]
    assert edgetam.source == "https://github.com/facebookresearch/EdgeTAM/raw/main/checkpoints/edgetam.pt"
    assert (edgetam.folder, edgetam.file_name, find_checkpoint("edgetam.pt")) == ("checkpoints", "edgetam.pt", edgetam)
    assert len(CHECKPOINTS) == 18
    with pytest.raises(ValueError, match=r"unknown checkpoint 'sam2\.1-lage': expected one of sam2\.1-large"):
        find_checkpoint("sam2.1-lage")


def test_sums_are_those_that_are_published() -> None:
    official = [name for name in CHECKPOINTS if name.startswith(("sam2", "groundingdino-"))]
    sums = [CHECKPOINTS[name].sha256 for name in official]
    assert len(official) == 10 == len(set(sums)) and all(len(bytes.fromhex(sum_ or "")) == 32 for sum_ in sums)


def test_another_file_under_a_known_name_is_refused(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHECKPOINTS, "sam2.1-tiny", download_module._known_checkpoints()["sam2.1-tiny"])
    with pytest.raises(ValueError, match="expected sha256 7402e0d8"):
        fetch(server, tmp_path)
    assert names_in(tmp_path) == []


# ---- servers that are not what they should be ----


def test_two_at_once_fetch_once(tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    server.hold = threading.Event()
    threads = [threading.Thread(target=fetch, args=(server, tmp_path), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        if caplog.text.count("another process fetches") == 2:
            break
        time.sleep(0.01)
    server.hold.set()
    for thread in threads:
        thread.join(10)
    assert len(server.asked) == 1
    assert names_in(tmp_path) == [FILE_NAME]
    assert (tmp_path / FILE_NAME).read_bytes() == server.content


@pytest.mark.parametrize("mischief", ["another version", "another size"])
def test_a_part_of_another_version_is_not_gone_on_with(tmp_path: Path, server: Server, mischief: str) -> None:
    server.mischief = ["drop", mischief]
    fetch(server, tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == server.content
    assert [part for _, part in server.asked][-1] is None


@pytest.mark.parametrize("name", ["tokenizer.json", "model.safetensors", "model.pt", "model.pth"])
def test_a_login_page_is_installed_under_no_name(tmp_path: Path, server: Server, name: str) -> None:
    server.mischief = ["login page"]
    with pytest.raises(ValueError, match=rf"{name}: expected .* got \d+ bytes that start with b'<!DOCTYPE"):
        download_url(f"{server.url}/{name}", tmp_path / name, progress=False)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    "mirror",
    ["mirror.example/sam", "ftp://mirror.example", "http://", "http:///a", "http://h:port", "http://[::1", "file:///etc",
     "http://a b", "http://h\n", "//h", "http://user:PW@"],
)  # fmt: skip
@pytest.mark.parametrize("name", ["sam2.1-tiny", "grounding-dino-tiny"])
def test_mirrors_that_are_none(tmp_path: Path, server: Server, mirror: str, name: str) -> None:
    with pytest.raises(ValueError, match="expected an address such as https://") as caught:
        download(name, tmp_path, mirror=mirror, progress=False)
    assert "PW" not in str(caught.value)


@pytest.mark.parametrize("name", ["a/..", "../a", "a/b/c", "/a", "a/", ".a/b", "a/.b", "a\n/b"])
def test_names_of_repositories_that_are_none(name: str) -> None:
    with pytest.raises(ValueError, match="unknown checkpoint"):
        find_checkpoint(name)


def test_a_mirror_behind_a_password(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_SECRET")
    mirror = server.url.replace("//", "//user:p%40SSWORD@")
    download("sam2.1-tiny", tmp_path, mirror=mirror, progress=False)
    assert server.headers[0]["Authorization"] == "Basic " + base64.b64encode(b"user:p@SSWORD").decode()
    server.mischief = ["404"]
    assert main(["sam2.1-small", "--mirror", mirror, "--folder", str(tmp_path)]) == 2
    server.mischief = ["drop"] + ["500"] * 4
    assert main(["sam2.1-small", "--mirror", mirror, "--folder", str(tmp_path)]) == 2
    assert main(["grounding-dino-tiny", "--mirror", mirror, "--folder", str(tmp_path)]) == 2
    written = capsys.readouterr().err + "".join(path.read_text() for path in tmp_path.glob("*.json"))
    assert "SSWORD" not in written and "user" not in written and written.count("127.0.0.1") >= 3
    assert not any("SECRET" in str(headers) for headers in server.headers)


def test_a_password_does_not_follow_a_redirection(tmp_path: Path, server: Server) -> None:
    server.mischief = ["redirect"]
    download("sam2.1-tiny", tmp_path, mirror=server.url.replace("//", "//user:pw@"), progress=False)
    assert "Authorization" in server.headers[0] and "Authorization" not in server.headers[1]


def test_a_server_that_drips_is_given_up(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "SLOWEST", (0.05, 10_000))
    server.mischief = ["drip"]
    with pytest.raises(ConnectionError, match=r"only \d+ bytes came in 0\.05 s"):
        fetch(server, tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize("mischief", ["", "no length"])
def test_a_file_without_end_is_given_up(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, mischief: str
) -> None:
    monkeypatch.setattr(transfer, "MOST_BYTES", 50_000)
    server.mischief = [mischief]
    with pytest.raises(ValueError, match="expected at most 50000 bytes, the server has"):
        fetch(server, tmp_path)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("state", ["{", "[" * 10**5, '{"validator": 3}', '{"total": 1e400}', "\x00", "3"])
def test_a_poisoned_state_counts_as_none(tmp_path: Path, server: Server, state: str) -> None:
    (tmp_path / f"{FILE_NAME}.part").write_bytes(b"x" * 1000)
    (tmp_path / f"{FILE_NAME}.part.json").write_text(state)
    fetch(server, tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == server.content


def test_a_reader_that_has_read_enough() -> None:
    command = f"{sys.executable} -m grounded_sam2.download --list | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and ended.stderr == ""


# ---- repositories ----


def test_repository_becomes_a_folder(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def snapshot(
        repository: str, local_dir: Path, endpoint: str | None, allow_patterns: list[str], token: bool | None
    ) -> None:
        calls.append((repository, endpoint, token))
        local_dir.mkdir(parents=True, exist_ok=True)
        (local_dir / "config.json").write_text("{}")
        if repository != "someone/empty":
            (local_dir / "model.safetensors").write_bytes(b"")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    for _ in range(2):
        path = download("IDEA-Research/grounding-dino-tiny", tmp_path, mirror="http://hub.example")
        assert path == tmp_path / "grounding-dino-tiny"
    assert calls == [("IDEA-Research/grounding-dino-tiny", "http://hub.example", False)]
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
