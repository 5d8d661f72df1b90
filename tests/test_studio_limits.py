"""Who may do what on the server, how much of it, and what becomes of files that mean harm."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import struct
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("gradio")

from clips import make_video
from PIL import Image
from session_parts import box_mask
from starlette.testclient import TestClient
from studio_parts import ADDRESS, QUICK, counts_of, make_models, new_page, serving, upload, zipped_frames

from studio import Limits, read_auth

pytestmark = pytest.mark.usefixtures("quick_disk")

CASES = Path(__file__).resolve().parent.parent.parent / "shared" / "cases"
MIB = 2**20
SMALL = replace(QUICK, upload_bytes=2 * MIB, frames=20, side=512)
AUTH = [("ann", "her password"), ("bob", "his")]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with serving(tmp_path_factory.mktemp("limits"), limits=SMALL) as client:
        yield client


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server that only users may use."""
    with serving(tmp_path_factory.mktemp("closed"), auth=AUTH) as client:
        yield client


def visitor(client: TestClient, user: str | None = None) -> TestClient:
    """Another browser at the same server, logged in as a user."""
    other = TestClient(client.app, ADDRESS)
    if user is not None:
        answer = other.post("/login", data={"username": user, "password": dict(AUTH)[user]})
        assert answer.status_code == 200, answer.text
    return other


def sentence(answer: Any) -> str:
    """What an answer says went wrong."""
    assert list(answer.json()) == ["error"], answer.text
    said = str(answer.json()["error"])
    assert said and "\n" not in said and len(said) < 600
    return said


# ---- who ----


def test_without_a_login_nothing_of_the_studio_answers(closed: TestClient) -> None:
    stranger = visitor(closed)
    page = new_page(visitor(closed, "ann"))
    for method, path in [
        ("GET", "/studio/samples"), ("GET", "/studio/static/main.js"), ("GET", f"{page.address}/state"),
        ("GET", f"{page.address}/frames/0"), ("GET", f"{page.address}/masks?first=0"), ("DELETE", page.address),
        ("GET", f"{page.address}/events"), ("POST", "/studio/sessions"), ("POST", f"{page.address}/do/undo"),
        ("POST", f"{page.address}/jobs"), ("GET", f"{page.address}/files/x"), ("GET", "/studio/nothing"),
    ]:  # fmt: skip
        answer = stranger.request(method, path, json={} if method == "POST" else None)
        assert (answer.status_code, sentence(answer)) == (401, "Log in first: load the page again."), path
    assert stranger.post("/gradio_api/upload", files={"files": ("a.zip", b"x")}).status_code == 401
    assert stranger.post("/login", data={"username": "ann", "password": "no"}).status_code == 400
    assert stranger.get("/studio/samples").status_code == 401


def test_a_session_belongs_to_the_user_who_made_it(closed: TestClient) -> None:
    ann, bob = visitor(closed, "ann"), visitor(closed, "bob")
    page = new_page(ann)
    page.do("add", frame=0, counts=counts_of(box_mask(0, 0, 9, 9)))
    job = page.job("result", result="mot")
    for method, path in [
        ("GET", "state"), ("GET", "frames/0"), ("GET", "masks?first=0"), ("GET", "timeline"), ("GET", "doubts"),
        ("GET", "events"), ("POST", "do/undo"), ("POST", "jobs"), ("DELETE", f"jobs/{job['id']}"),
        ("GET", f"files/{job['id']}"), ("DELETE", ""),
    ]:  # fmt: skip
        answer = bob.request(method, f"{page.address}/{path}".rstrip("/"), json={} if method == "POST" else None)
        assert (answer.status_code, sentence(answer)) == (404, "There is no such session."), path
    assert len(page.get("state")["objects"]) == 1
    assert new_page(bob).get("state")["objects"] == []


def test_a_login_ends_with_the_logout(closed: TestClient) -> None:
    ann = visitor(closed, "ann")
    assert ann.get("/studio/samples").status_code == 200
    ann.get("/logout")
    assert ann.get("/studio/samples").status_code == 401


def test_who_may_log_in_is_read() -> None:
    assert read_auth(None) is None
    assert read_auth("ann:her password, bob:a:b") == [("ann", "her password"), ("bob", "a:b")]
    for text in ("ann", ":x", "ann:", "ann:x,,", "ann:x, ann:y"):
        with pytest.raises(ValueError, match="AUTH: expected") as caught:
            read_auth(text)
        assert "x" not in str(caught.value).replace("expected", "")


# ---- from where ----


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://elsewhere.example"},
        {"Origin": "null"}, {"Origin": "http://localhost:81"},
        {"Origin": "http://[::1"},
    ],
)  # fmt: skip
def test_pages_of_other_servers_change_nothing(client: TestClient, headers: dict[str, str]) -> None:
    page = new_page(client)
    for method, path in (("POST", f"{page.address}/do/undo"), ("DELETE", page.address), ("POST", "/studio/sessions")):
        answer = client.request(method, path, headers=headers, json={} if method == "POST" else None)
        assert answer.status_code == 403 and "another server" in sentence(answer)
    answer = client.post("/gradio_api/upload", files={"files": ("a.zip", b"x")}, headers=headers)
    assert answer.status_code == 403
    page.get("state")


def test_the_own_page_and_programs_change_things(client: TestClient) -> None:
    page = new_page(client)
    for headers in ({"Sec-Fetch-Site": "same-origin", "Origin": "https://proxy"}, {"Origin": ADDRESS}, {}):
        assert client.post(f"{page.address}/do/undo", headers=headers, json={}).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_forms_change_nothing(client: TestClient, kind: str) -> None:
    page = new_page(client)
    answer = client.post(f"{page.address}/do/undo", content=b"{}", headers={"Content-Type": kind})
    assert answer.status_code == 415 and "application/json" in sentence(answer)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "10.0.0.1", "localhost.evil.example", "[::1", ""]
)
def test_a_name_that_another_server_gave_this_one_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/studio/samples", headers={"Host": host})
    assert answer.status_code == 403 and "http://localhost" in sentence(answer)
    assert client.get("/", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1:7860", "[::1]:7860", "127.0.0.2"])
def test_this_machine_s_own_names_are_fine(client: TestClient, host: str) -> None:
    assert client.get("/studio/samples", headers={"Host": host}).status_code == 200


def test_every_answer_is_marked(client: TestClient) -> None:
    page = new_page(client)
    for path in ("/", "/studio/samples", "/studio/static/main.js", f"{page.address}/frames/0", "/studio/nothing"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]


def test_the_page_asks_nobody_else(client: TestClient) -> None:
    html = client.get("/").text
    loaded = [part.split('"')[0] for mark in ('src="', 'href="') for part in html.split(mark)[1:]]
    assert loaded and not [each for each in loaded if "://" in each]
    theme = client.get("/theme.css").text
    assert "fonts.googleapis" not in theme and "url(http" not in theme
    assert '"analytics_enabled":false' in html.replace(" ", "")


@pytest.mark.parametrize(
    "path",
    [
        "/studio/static/../app.py", "/studio/static/%2e%2e/app.py", "/studio/static/..%2fapp.py",
        "/studio/static/%2e%2e%2f%2e%2e%2fREADME.md", "/studio/static//etc/passwd", "/studio/static/..\\app.py",
    ],
)  # fmt: skip
def test_only_the_page_s_own_files_are_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code in (400, 404) and "import" not in answer.text and "root:" not in answer.text


@pytest.mark.parametrize("token", ["..", "%2e%2e", "a" * 32, ".uploads", "x" * 5000, "%00" * 24, "~root" * 6])
def test_what_is_no_token_leads_nowhere(client: TestClient, token: str) -> None:
    for path in (f"/studio/{token}/state", f"/studio/{token}/frames/0"):
        answer = client.get(path)
        assert answer.status_code in (404, 403) and "root:" not in answer.text


def test_only_files_that_were_uploaded_are_taken(client: TestClient, tmp_path: Path) -> None:
    folder = client.app.state.studio.uploads.folder  # type: ignore[attr-defined]
    secret = tmp_path / "secret.zip"
    secret.write_bytes(zipped_frames())
    (folder / "link.zip").symlink_to(secret)
    page = new_page(client)
    own = next((folder.parent / page.token).rglob("*.png"))
    for path in (
        str(secret), f"{folder}/../../{secret.name}", f"{folder}/link.zip", "/etc/passwd", str(folder), "", "a\0b",
        str(own), f"{folder}/{'x' * 5000}", 7, None, ["a"],
    ):  # fmt: skip
        answer = client.post("/studio/sessions", json={"upload": path, "name": "a.zip"})
        assert answer.status_code == 400 and str(folder) not in sentence(answer), path
    (folder / "link.zip").unlink()


def test_uploads_go_after_a_while(client: TestClient) -> None:
    uploads = client.app.state.studio.uploads  # type: ignore[attr-defined]
    old, new = Path(upload(client, b"old", "old.zip")), Path(upload(client, b"new", "new.zip"))
    for path in (old, old.parent):
        os.utime(path, (0, 0))
    uploads.sweep()
    assert not old.exists() and new.exists()


# ---- how much ----


def test_too_many_sessions(tmp_path: Path) -> None:
    with serving(tmp_path, limits=replace(QUICK, sessions_per_user=2, sessions=3), auth=AUTH) as client:
        ann, bob = visitor(client, "ann"), visitor(client, "bob")
        pages = [new_page(ann) for _ in range(2)]
        answer = ann.post("/studio/sessions", json={"sample": "parade"})
        assert answer.status_code == 413 and "You have 2 sessions, at most 2 are kept" in sentence(answer)
        new_page(bob)
        answer = bob.post("/studio/sessions", json={"sample": "parade"})
        assert answer.status_code == 413 and "at most 3 sessions" in sentence(answer)
        assert ann.delete(pages[0].address).status_code == 200
        new_page(bob)


def test_too_much_disk(tmp_path: Path) -> None:
    with serving(tmp_path) as client:
        made = new_page(client)
        client.app.state.studio.rooms.limits = replace(QUICK, disk_bytes=100)  # type: ignore[attr-defined]
        answer = client.post("/studio/sessions", json={"sample": "parade"})
        assert answer.status_code == 413 and "remove some first" in sentence(answer)
        answer = client.post("/gradio_api/upload", files={"files": ("a.zip", b"x")})
        assert answer.status_code == 413 and "remove some first" in sentence(answer)
        made.do("add", frame=0, counts=counts_of(box_mask(4, 4, 12, 12)))
        for job in ({"kind": "result", "result": "mot"}, {"kind": "propagate"}):
            answer = client.post(f"{made.address}/jobs", json=job)
            assert answer.status_code == 413 and "remove some first" in sentence(answer)
        made.do("remove", id=1)


def test_too_large_an_upload(client: TestClient) -> None:
    answer = client.post("/gradio_api/upload", files={"files": ("a.mp4", b"x" * (3 * MIB))})
    assert (answer.status_code, sentence(answer)) == (413, "The file has 3 MiB, at most 2 MiB are taken.")

    def unannounced() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.mp4"\r\n\r\n'
        for _ in range(3):
            yield b"x" * MIB
        yield b"\r\n--x--\r\n"

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = client.post("/gradio_api/upload", content=unannounced(), headers=headers)
    assert answer.status_code == 413 and "maximum allowed size" in answer.text


def test_too_long_or_too_large_a_video(client: TestClient, tmp_path: Path) -> None:
    long = make_video(tmp_path / "long.mp4", num_frames=21)
    wide = make_video(tmp_path / "wide.mp4", num_frames=2, size=(514, 64))
    for path, message in ((long, "has 21 frames, expected at most 20"), (wide, "514x64 pixels, expected at most 512")):
        given = upload(client, path.read_bytes(), path.name)
        answer = client.post("/studio/sessions", json={"upload": given, "name": path.name})
        assert answer.status_code == 400 and message in sentence(answer)


def test_too_many_requests_at_a_time_and_too_slow_an_answer(tmp_path: Path) -> None:
    with serving(tmp_path, limits=replace(QUICK, waiting_requests=2, request_seconds=0.5)) as client:
        page = new_page(client)
        models = client.app.state.studio.rooms.models  # type: ignore[attr-defined]
        answers: list[tuple[int, str]] = []

        def click() -> None:
            answers.append(page.refused("preview", frame=0, points=[[9, 9]]))

        with models.turns.turn("somebody else"):
            waiting = [threading.Thread(target=click) for _ in range(2)]
            for thread in waiting:
                thread.start()
            ends = time.monotonic() + 5
            while len(models.turns._waiting) < 2:
                assert time.monotonic() < ends
                time.sleep(0.005)
            assert page.refused("undo") == (
                503, "Too many requests of this session wait already: wait for their answers.",
            )  # fmt: skip
            for thread in waiting:
                thread.join(10)
        assert [status for status, _ in answers] == [503, 503] and "try again" in answers[0][1]
        assert page.result("preview", frame=0, points=[[9, 9]])["score"] == 0.9


def test_a_request_that_takes_longer_says_so_and_is_done_all_the_same(tmp_path: Path) -> None:
    class Slow:
        def detect(self, *args: Any, **options: Any) -> Any:
            time.sleep(0.6)
            raise ValueError("too late for anybody")

    with serving(tmp_path, make_models(slow=Slow), limits=replace(QUICK, request_seconds=0.3)) as client:
        page = new_page(client)
        page.do("set_search", text_prompt="dog.")
        status, said = page.refused("find", frame=0)
        assert status == 503 and said.startswith("This takes longer than 0.3 seconds")
        time.sleep(0.5)
        page.get("state")


def test_a_slow_reader_loses_progress_and_no_state() -> None:
    import asyncio

    from studio.events import MOST_PROGRESS, Subscriber

    async def read() -> list[dict[str, Any]]:
        subscriber = Subscriber(asyncio.get_running_loop())
        for t in range(MOST_PROGRESS + 50):
            subscriber.put({"event": "progress", "frame": t, "job": {"id": "a"}})
        for t in range(1000):
            subscriber.put({"event": "state", "state": {"version": t}, "touched": [[1, t, t]]})
            subscriber.put({"event": "job", "job": {"id": "a", "done": t}})
        read = []
        async for line in subscriber.lines():
            read.append(json.loads(line.removeprefix("data: ")))
            if len(read) == MOST_PROGRESS + 2:
                subscriber.end()
                return read
        return read

    told = asyncio.run(read())
    assert [event["frame"] for event in told if event["event"] == "progress"] == list(range(50, MOST_PROGRESS + 50))
    assert told[-2] == {"event": "state", "state": {"version": 999}, "touched": [[1, 0, 999]]}
    assert told[-1] == {"event": "job", "job": {"id": "a", "done": 999}}


# ---- files that mean harm ----


def png(size: tuple[int, int] = (8, 6), color: int = 0) -> bytes:
    packed = io.BytesIO()
    Image.new("RGB", size, (color, color, color)).save(packed, "PNG")
    return packed.getvalue()


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return packed.getvalue()


def link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry, target.encode()


def locked(content: bytes) -> bytes:
    """A zip whose entries say that they are encrypted."""
    flags = content.index(b"PK\1\2") + 8
    return content[:flags] + b"\1\0" + content[flags + 2 :]


def claiming(content: bytes, num_bytes: int) -> bytes:
    """A zip whose list says another unpacked size."""
    place = content.index(b"PK\1\2") + 24
    return content[:place] + struct.pack("<I", num_bytes) + content[place + 4 :]


def png_claiming(width: int, height: int) -> bytes:
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def gif_claiming(width: int, height: int) -> bytes:
    return (
        b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
        + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02D\x01\x00;"
    )  # fmt: skip


def bmp_claiming(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def sound(tmp_path: Path) -> bytes:
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return path.read_bytes()


def packed_tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("1.png"))
    return packed.getvalue()


def hostile_files(tmp_path: Path) -> dict[str, bytes]:
    """Name → content of files, none of which may become a session."""
    image, video = png(), make_video(tmp_path / "good.mp4", num_frames=5).read_bytes()
    entry = ("1.png", image)
    return {
        # zips
        "bomb.zip": zipped(("1.png", bytes(1900 * 1024)), ("2.png", bytes(1900 * 1024))),
        "ratio.zip": zipped(("1.png", bytes(MIB))),
        "up.zip": zipped(("../1.png", image)),
        "root.zip": zipped(("/etc/1.png", image)),
        "windows.zip": zipped(("..\\1.png", image)),
        "drive.zip": zipped(("C:1.png", image)),
        "link.zip": zipped(link("1.png", "/etc/passwd")),
        "locked.zip": locked(zipped(entry)),
        "folders.zip": zipped(("a/1.png", image), ("b/2.png", image)),
        "twice.zip": zipped(("1.png", image), ("1.PNG", image)),
        "empty.zip": zipped(),
        "text.zip": zipped(("readme.txt", b"hello")),
        "cut.zip": zipped(entry)[:40],
        "cut2.zip": zipped(entry)[:-10],
        "lying.zip": claiming(zipped(("1.png", bytes(3 * MIB))), 10),
        "sizes.zip": zipped(entry, ("2.png", png((9, 9)))),
        "damaged.zip": zipped(("1.png", image[:30])),
        "page.zip": zipped(("1.png", b"<html><script>alert(1)</script></html>")),
        "zip.zip": zipped(("1.zip", zipped(entry))),
        "huge.zip": zipped(("1.png", png_claiming(60000, 60000))),
        "film.mp4": zipped(("../1.png", image)),  # a zip by another name
        # lists of other files, which a decoder would open
        "list.m3u8": b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
        "list.mp4": b"\xef\xbb\xbf  #EXTM3U\n/etc/passwd\n",
        "list.txt": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "list.mpd": b'<?xml version="1.0"?><MPD><BaseURL>file:///etc/</BaseURL></MPD>',
        "list.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        "list.smil": b'<smil><body><video src="/etc/passwd"/></body></smil>',
        "list.pls": b"[playlist]\nFile1=/etc/passwd\n",
        # no video, whatever the name says
        "empty.mp4": b"",
        "text.mp4": b"not a video at all\n" * 50,
        "page.mp4": b"<!doctype html><html><body>hello</body></html>",
        "program.mp4": b"\x7fELF" + bytes(200),
        "shell.avi": b"#!/bin/sh\nrm -rf /\n",
        "noise.mkv": np.random.default_rng(0).bytes(5000),
        "sound.wav": sound(tmp_path),
        "archive.tar.gz": packed_tar(),
        "packed.gz": gzip.compress(bytes(MIB)),
        "document.pdf": b"%PDF-1.7\n" + bytes(500),
        "picture.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        "program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
        # headers that lie
        "head.mp4": video[:64],
        "cut.mp4": video[: len(video) // 3],
        "huge.png": png_claiming(60000, 60000),
        "wide.png": png_claiming(16000, 16),
        "hollow.png": png_claiming(500, 500),
        "huge.gif": gif_claiming(65535, 65535),
        "huge.bmp": bmp_claiming(100000, 100000),
        "cut.jpg": b"\xff\xd8\xff\xe0" + bytes(20),
        "wide.mp4": make_video(tmp_path / "wide.mp4", num_frames=2, size=(1024, 64)).read_bytes(),
    }


def test_files_that_mean_harm_are_each_refused_with_one_sentence(client: TestClient, tmp_path: Path) -> None:
    files = hostile_files(tmp_path)
    assert len(files) >= 50
    folder = client.app.state.studio.rooms.folder  # type: ignore[attr-defined]
    before = sorted(path.name for path in folder.iterdir())
    said = {}
    for name, content in files.items():
        answer = client.post("/studio/sessions", json={"upload": upload(client, content, name), "name": name})
        assert answer.status_code == 400, (name, answer.text)
        said[name] = sentence(answer)
        assert str(tmp_path) not in said[name] and str(folder) not in said[name] and ".uploads" not in said[name], said
    print(*said.values(), sep="\n")
    assert sorted(path.name for path in folder.iterdir()) == before
    assert not list(folder.glob("*/.*"))


@pytest.mark.parametrize("name", ["huge.gif", "huge.png", "noise.mkv"])
def test_they_are_opened_elsewhere_first(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the limits as they are by default, nothing of them is decoded in the server."""
    limits = Limits()
    assert limits.source_of_strangers.look_seconds == 60 and limits.source.look_seconds is None
    with serving(tmp_path / "server", limits=limits) as client:
        monkeypatch.setattr("grounded_sam2.session.source.open_indexed_frames", None)
        path = upload(client, hostile_files(tmp_path)[name], name)
        answer = client.post("/studio/sessions", json={"upload": path, "name": name})
        assert answer.status_code == 400 and name in sentence(answer)


@pytest.mark.skipif(not CASES.is_dir(), reason="the collection of damaged files is not here")
@pytest.mark.parametrize(
    "path", sorted(CASES.glob("*.bin")) + sorted(CASES.glob("wide*.png")), ids=lambda path: path.name
)
def test_damaged_files_that_were_met(client: TestClient, path: Path) -> None:
    given = upload(client, path.read_bytes(), path.name)
    answer = client.post("/studio/sessions", json={"upload": given, "name": path.name})
    assert answer.status_code == 400 and sentence(answer)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/clip.zip", "clip.zip"), ("C:\\films\\clip.zip", "clip.zip"), ("<b>clip</b>.zip", "b>.zip"),
        ("x" * 5000 + ".zip", "x" * 200), ("", None), ("\u202eclip.zip\n", "clip.zip"),
    ],
)  # fmt: skip
def test_names_of_files_are_names_only(client: TestClient, name: str, shown: str | None) -> None:
    page = new_page(client, name=name)
    assert shown is None or page.get("state")["name"] == shown
    page.do("add", frame=0, counts=counts_of(box_mask(0, 0, 9, 9)))
    job = page.job("result", result="mot")
    assert job["state"] == "done" and not set(job["file"]) & set('/\\<>\n"')


def test_a_harmless_zip_is_taken(client: TestClient) -> None:
    assert new_page(client, zipped(("clip/1.png", png()), ("clip/2.png", png()))).get("state")["num_frames"] == 2


def test_what_programs_are_refused_does_not_fill_the_log(
    client: TestClient, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    answer = client.post("/gradio_api/run/state", json={"data": ["a" * 32]})
    assert answer.json()["error"] == "There is no such session."
    assert "Traceback" not in capfd.readouterr().err + caplog.text


def test_gradio_gives_no_file_of_a_session_away(client: TestClient) -> None:
    page = new_page(client)
    folder = client.app.state.studio.rooms.folder / page.token  # type: ignore[attr-defined]
    for path in (folder / "owner.json", folder / "session" / "session.json", Path(__file__), Path("/etc/passwd")):
        assert path.exists()
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_a_session_that_is_removed_while_another_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is listed, and before its owner is read, it is gone."""
    with serving(tmp_path) as client:
        listed, is_file = Path.iterdir, Path.is_file

        def iterdir(folder: Path) -> Iterator[Path]:
            yield from listed(folder)
            yield folder / "gone-since-it-was-listed"

        monkeypatch.setattr(Path, "iterdir", iterdir)
        monkeypatch.setattr(Path, "is_file", lambda path: path.name == "owner.json" or is_file(path))
        new_page(client)
