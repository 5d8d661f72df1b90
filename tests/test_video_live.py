"""Live streams: latency policies, lost connections, damaged and resized frames, and closing whatever happens."""

from __future__ import annotations

import http.server
import io
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from grounded_sam2.images import RGBImage, letterboxed
from grounded_sam2.script import NoFrameError
from grounded_sam2.video import LiveStream, VideoFile, VideoWriter, live, open_frames
from grounded_sam2.video.capture import CapturedFrame, CorruptFrameError

SIZE = (96, 64)  # width, height
GREY_STEP = 5  # frame 7 is grey 35: compression changes it by less than half of this


def picture(frame_idx: int, size: tuple[int, int] = SIZE) -> RGBImage:
    """A frame that says its own index by its grey."""
    return np.full((size[1], size[0], 3), GREY_STEP * (frame_idx + 1), np.uint8)


def index_of(image: RGBImage) -> int:
    """What `picture` encoded, read in the middle."""
    height, width = image.shape[:2]
    return round(float(image[height // 2, width // 2].mean()) / GREY_STEP) - 1


def jpeg(frame_idx: int, size: tuple[int, int] = SIZE) -> bytes:
    return cv2.imencode(".jpg", picture(frame_idx, size))[1].tobytes()


# ---- captures that do as they are told ----


class FakeCapture:
    """Gives the frames of a list, each as soon as it is let; what is an exception in the list is raised."""

    fps: Fraction | None = Fraction(15)

    def __init__(self, frames: list[RGBImage | Exception | None], is_live: bool = True, let: int = 10**6) -> None:
        self.frames = list(frames)
        self.is_live = is_live
        self.is_closed = False
        self.may_read = threading.Semaphore(let)

    def let(self, count: int = 1) -> None:
        self.may_read.release(count)

    def read(self) -> CapturedFrame | None:
        self.may_read.acquire()
        frame = self.frames.pop(0) if self.frames else None
        if isinstance(frame, Exception):
            raise frame
        return None if frame is None else CapturedFrame(frame, 0.0)

    def close(self) -> None:
        self.is_closed = True


Serve = Callable[..., None]


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Let `LiveStream` open these captures one after another; an exception in their place is raised."""

    def serve(*outcomes: FakeCapture | Exception) -> None:
        waiting = list(outcomes)

        def open_capture(source: object, timeout_seconds: float) -> FakeCapture:
            outcome = waiting.pop(0) if waiting else ConnectionRefusedError("refused")
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        monkeypatch.setattr(live, "open_capture", open_capture)

    return serve


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def test_drop_gives_the_newest_frame_to_a_slow_consumer(captures: Serve) -> None:
    capture = FakeCapture([picture(frame_idx) for frame_idx in range(30)], let=1)
    captures(capture)
    with LiveStream("camera", reconnect_tries=0) as frames:
        iterator = iter(frames)
        assert index_of(next(iterator)) == 0
        for count, newest in ((7, 7), (1, 8), (20, 28)):
            capture.let(count)
            wait_until(lambda newest=newest: frames.num_captured == newest + 1)
            assert index_of(next(iterator)) == newest
        assert (frames.num_captured, frames.num_dropped) == (29, 29 - 4)
        assert frames.report() == "29 frames came from camera, dropped 25"
        capture.let()


def test_drop_ends_with_the_last_frame(captures: Serve) -> None:
    captures(FakeCapture([picture(frame_idx) for frame_idx in range(5)]))
    frames = LiveStream("camera", reconnect_tries=0)
    wait_until(lambda: frames.lost is not None)
    assert [index_of(image) for image in frames] == [4]


def test_queue_loses_nothing_and_stays_short(captures: Serve) -> None:
    captures(FakeCapture([picture(frame_idx) for frame_idx in range(40)]))
    frames = LiveStream("camera", latency="queue", queue_frames=4, reconnect_tries=0)
    seen, longest = [], 0
    for image in frames:
        time.sleep(0.005)
        longest = max(longest, len(frames._buffer))
        seen.append(index_of(image))
    assert seen == list(range(40)) and frames.num_dropped == 0
    assert 1 < longest <= 4


def test_a_queue_of_large_frames_is_shorter(captures: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "QUEUE_BYTES", 2 * picture(0).nbytes)
    captures(FakeCapture([picture(frame_idx) for frame_idx in range(9)]))
    with LiveStream("camera", latency="queue", queue_frames=4) as frames:
        wait_until(lambda: len(frames._buffer) >= 2)
        time.sleep(0.1)
        assert len(frames._buffer) == 2


def test_capture_times(captures: Serve) -> None:
    capture = FakeCapture([picture(frame_idx) for frame_idx in range(3)], let=2)
    captures(capture)
    before = time.monotonic()
    with LiveStream("camera", latency="queue") as frames:
        wait_until(lambda: frames.num_captured == 2)
        after = time.monotonic()
        time.sleep(0.1)
        iterator = iter(frames)
        for _ in range(2):
            next(iterator)
            assert before <= frames.captured_at <= after  # when it came, not when it was asked for
        capture.let()
        next(iterator)
        assert frames.captured_at > after and frames.seconds > 0.1


def test_corrupt_frames_are_left_out_and_counted(captures: Serve, caplog: pytest.LogCaptureFixture) -> None:
    bad = CorruptFrameError("bits fell over")
    captures(FakeCapture([bad, picture(0), picture(1), bad, bad, picture(2)]))
    with caplog.at_level(logging.WARNING):
        frames = LiveStream("camera", latency="queue", reconnect_tries=0)
        assert [index_of(image) for image in frames] == [0, 1, 2]
    assert frames.num_corrupt == 3
    assert caplog.text.count("a damaged frame is left out: bits fell over") == 1


def test_nothing_but_corrupt_frames_is_a_lost_connection(captures: Serve) -> None:
    class Noise(FakeCapture):
        def read(self) -> CapturedFrame | None:
            if not self.frames:
                time.sleep(0.01)
                raise CorruptFrameError("noise")
            return super().read()

    captures(Noise([picture(0)]), FakeCapture([picture(1)]))
    frames = LiveStream("camera", latency="queue", timeout_seconds=0.1, reconnect_tries=1, reconnect_delay=0)
    assert [index_of(image) for image in frames] == [0, 1]
    assert frames.num_reconnects == 1 and frames.num_corrupt > 1


def test_lost_and_found_again(captures: Serve, caplog: pytest.LogCaptureFixture) -> None:
    refused = ConnectionRefusedError("Connection refused")
    parts = [FakeCapture([picture(0), picture(1)]), FakeCapture([]), FakeCapture([picture(2), OSError("reset")])]
    captures(parts[0], refused, parts[1], parts[2], FakeCapture([picture(3)]), refused, refused, refused)
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(ConnectionError, match="camera was lost after 4 frames and did not come back in 3 tries: Conn"),
        LiveStream("camera", latency="queue", reconnect_tries=3, reconnect_delay=0.01) as frames,
    ):
        assert [index_of(image) for image in frames] == [0, 1, 2, 3]
        assert frames.num_reconnects == 2 and all(part.is_closed for part in parts)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "camera was lost: it ended; try 1 of 3 to get it back, in 0.0 s"
    assert lines[1] == "camera was lost: Connection refused; try 2 of 3 to get it back, in 0.0 s"
    assert lines[2] == "camera was lost: it ended; try 3 of 3 to get it back, in 0.0 s"
    assert lines[3:5] == ["camera is back", "camera was lost: reset; try 1 of 3 to get it back, in 0.0 s"]
    assert len(lines) == 10  # back, three tries in vain, given up


def test_delays_double_up_to_a_limit(captures: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    capture = FakeCapture([picture(0)], let=1)  # the reader waits for its second frame until it may fail
    captures(capture)
    monkeypatch.setattr(live, "LONGEST_DELAY", 3.0)
    frames = LiveStream("camera", reconnect_tries=4, reconnect_delay=1.0)
    delays: list[float] = []
    monkeypatch.setattr(frames._closing, "wait", lambda seconds: delays.append(seconds))
    capture.let()
    wait_until(lambda: frames.lost is not None)
    assert delays == [1, 2, 3, 3]
    frames.close()


def test_frames_of_other_sizes_are_framed_in_black(captures: Serve, caplog: pytest.LogCaptureFixture) -> None:
    sizes = [SIZE, SIZE, (48, 48), (48, 48), (192, 128), SIZE]
    captures(FakeCapture([picture(frame_idx, size) for frame_idx, size in enumerate(sizes)]))
    with caplog.at_level(logging.WARNING):
        frames = LiveStream("camera", latency="queue", reconnect_tries=0)
        images = list(frames)
    assert frames.size == SIZE and [image.shape for image in images] == [(64, 96, 3)] * 6
    assert [index_of(image) for image in images] == list(range(6))
    assert frames.num_size_changes == 3
    assert [record.getMessage() for record in caplog.records[:3]] == [
        "camera: its frames are 48x48 now, shown in 96x64",
        "camera: its frames are 192x128 now, shown in 96x64",
        "camera: its frames are 96x64 now, shown in 96x64",
    ]


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((96, 64), (0, 0, 96, 64)),
        ((48, 32), (0, 0, 96, 64)),
        ((30, 30), (16, 0, 80, 64)),
        ((200, 50), (0, 20, 96, 44)),
        ((1, 1), (16, 0, 80, 64)),
        ((5000, 1), (0, 31, 96, 32)),
    ],
)
def test_letterboxed(size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    expected = np.zeros((64, 96, 3), np.uint8)
    left, top, right, bottom = box
    expected[top:bottom, left:right] = (200, 30, 60)
    image = np.full((size[1], size[0], 3), (200, 30, 60), np.uint8)
    np.testing.assert_array_equal(letterboxed(image, SIZE), expected)


# ---- ending ----


def test_close_during_a_blocked_read_does_not_hang(captures: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "CLOSE_SECONDS", 0.2)
    capture = FakeCapture([picture(0), picture(1)], let=1)
    captures(capture)
    frames = LiveStream("camera")
    seen: list[int] = []
    consumer = threading.Thread(target=lambda: seen.extend(index_of(image) for image in frames))
    consumer.start()
    wait_until(lambda: seen == [0] or not frames._buffer)
    started_at = time.monotonic()
    frames.close()
    consumer.join(5)
    assert time.monotonic() - started_at < 3 and not consumer.is_alive()
    assert seen == [0] and frames._thread.is_alive() and not capture.is_closed
    capture.let()  # the driver comes back at last
    wait_until(lambda: not frames._thread.is_alive())
    assert capture.is_closed
    frames.close()


def test_stop_ends_the_frames_while_they_are_waited_for(captures: Serve) -> None:
    stop = threading.Event()
    captures(FakeCapture([picture(0)]))
    with LiveStream("camera", stop=stop, reconnect_delay=60) as frames:
        threading.Timer(0.2, stop.set).start()
        started_at = time.monotonic()
        assert [index_of(image) for image in frames] == [0]  # waiting to reconnect meanwhile
        assert time.monotonic() - started_at < 5
    assert frames.lost is None
    stop.clear()
    captures(FakeCapture([picture(0), picture(1)]))
    with LiveStream("camera", latency="queue", stop=stop) as frames:
        stop.set()
        assert [index_of(image) for image in frames] == [0]  # no recording is empty
    captures(FakeCapture([picture(0)], let=0))
    with pytest.raises(NoFrameError, match="camera: stopped before its first frame came"):
        LiveStream("camera", stop=stop)


def test_leaving_the_loop_releases_the_source(captures: Serve) -> None:
    capture = FakeCapture([picture(frame_idx) for frame_idx in range(40)])
    captures(capture)
    for image in LiveStream("camera", latency="queue", queue_frames=2):
        assert index_of(image) == 0
        break
    wait_until(lambda: capture.is_closed)


def test_frames_come_once(captures: Serve) -> None:
    captures(FakeCapture([picture(0)]))
    frames = LiveStream("camera", reconnect_tries=0)
    assert len(list(frames)) == 1 and frames.num_frames is None and not hasattr(frames, "__len__")
    with pytest.raises(RuntimeError, match="come only once"):
        iter(frames)


def test_what_goes_wrong_in_the_thread_is_raised_to_the_consumer(captures: Serve) -> None:
    captures(FakeCapture([picture(0), ZeroDivisionError("a bug")]))
    frames = LiveStream("camera", latency="queue")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(frames)


def test_no_first_frame(captures: Serve) -> None:
    captures(FakeCapture([]))
    with pytest.raises(ValueError, match="camera: expected at least one frame, got none: it ended"):
        LiveStream("camera")
    silent = FakeCapture([picture(0)], let=0)
    captures(silent)
    with pytest.raises(ValueError, match=r"camera: no frame came within 0\.15 s"):
        LiveStream("camera", timeout_seconds=0.05)
    silent.let()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latency": "newest"}, "expected a latency policy of drop or queue, got 'newest'"),
        ({"queue_frames": 0}, "expected queue_frames >= 1, .*got 0"),
        ({"timeout_seconds": 0}, "timeout_seconds > 0"),
        ({"reconnect_tries": -1}, "reconnect_tries >= 0"),
        ({"default_fps": 0}, "more than 0 frames per second"),
        ({"default_fps": float("inf")}, "more than 0 frames per second"),
        ({"default_fps": float("nan")}, "more than 0 frames per second"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LiveStream("nowhere", **settings)


# ---- cameras ----


class FakeVideoCapture:
    """Stands in for cv2.VideoCapture: camera 0 shows two BGR frames, a damaged one between them; there is no other."""

    num_released = 0

    def __init__(self, index: int) -> None:
        self.index = index
        self.frames = [np.full((64, 96, 3), (60, 30, 200), np.uint8), None, np.zeros((64, 96, 3), np.uint8)]

    def isOpened(self) -> bool:
        return self.index == 0

    def get(self, _: int) -> float:
        return 15.0

    def grab(self) -> bool:
        return len(self.frames) > 0

    def retrieve(self) -> tuple[bool, RGBImage | None]:
        frame = self.frames.pop(0)
        return frame is not None, frame

    def release(self) -> None:
        FakeVideoCapture.num_released += 1


@pytest.mark.parametrize("source", [0, "0"])
def test_camera(monkeypatch: pytest.MonkeyPatch, source: int | str) -> None:
    monkeypatch.setattr("cv2.VideoCapture", FakeVideoCapture)
    with LiveStream(source, latency="queue", reconnect_tries=0, default_fps=25) as camera:
        images = list(camera)
        assert camera.fps == 15 and camera.name == "camera 0" and camera.num_corrupt == 1
        assert [image[0, 0].tolist() for image in images] == [[200, 30, 60], [0, 0, 0]]
        camera.lost = None
    with open_frames(source) as camera:
        assert isinstance(camera, LiveStream) and camera.latency == "drop"
    with pytest.raises(ValueError, match="camera 7 cannot be opened: not there, not permitted, or in use"):
        open_frames(7)


def test_no_camera_is_one_error_and_no_noise(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="camera 63 cannot be opened"):
        LiveStream(63)
    assert capfd.readouterr().err == ""


@pytest.fixture
def realsense(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The part of pyrealsense2 that is used, with one device whose number is 123."""
    seen = SimpleNamespace(num_stopped=0, asked=[])

    class Config:
        serial_number = "123"

        def enable_device(self, serial_number: str) -> None:
            self.serial_number = serial_number

        def enable_stream(self, *arguments: object) -> None:
            seen.asked.append(arguments)

    class Frame:
        def get_data(self) -> RGBImage:
            return picture(3)

        def get_timestamp(self) -> float:
            return 1000.0

    class Pipeline:
        num_left = 2

        def start(self, config: Config) -> SimpleNamespace:
            if config.serial_number != "123":
                raise RuntimeError("No device connected")
            return SimpleNamespace(get_stream=lambda stream: SimpleNamespace(fps=lambda: 30))

        def wait_for_frames(self, timeout_ms: int) -> SimpleNamespace:
            assert timeout_ms == 1500
            if not self.num_left:
                raise RuntimeError("Frame didn't arrive within 1500")
            self.num_left -= 1
            return SimpleNamespace(get_color_frame=Frame)

        def stop(self) -> None:
            seen.num_stopped += 1

    module = ModuleType("pyrealsense2")
    module.__dict__.update(
        pipeline=Pipeline, config=Config, stream=SimpleNamespace(color="color"), format=SimpleNamespace(rgb8="rgb8")
    )
    monkeypatch.setitem(sys.modules, "pyrealsense2", module)
    return seen


@pytest.mark.parametrize("source", ["realsense", "realsense:123"])
def test_realsense(realsense: SimpleNamespace, source: str) -> None:
    frames = LiveStream(source, latency="queue", timeout_seconds=1.5, reconnect_tries=0)
    assert frames.fps == 30 and realsense.asked == [("color", "rgb8")]
    assert [index_of(image) for image in frames] == [3, 3]
    assert realsense.num_stopped == 1 and "Frame didn't arrive" in str(frames.lost)


def test_no_realsense(realsense: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="the RealSense 9 cannot be opened: No device connected"):
        LiveStream("realsense:9")
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(ValueError, match="a RealSense needs its package: pip install pyrealsense2"):
        open_frames("realsense")


# ---- real streams ----

Script = Callable[[Callable[[bytes], None]], None]  # sends one connection's bytes


class StreamServer:
    """Serves one script for each connection, and refuses connections after the last."""

    def __init__(self, scripts: list[Script], content_type: str) -> None:
        self.num_connections = 0
        self.ending = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                script = scripts[outer.num_connections]
                outer.num_connections += 1
                if outer.num_connections == len(scripts):
                    outer.server.socket.shutdown(socket.SHUT_RDWR)  # closing alone leaves it open while it is polled
                    outer.server.socket.close()
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.end_headers()
                try:
                    script(self.wfile.write)
                except OSError:
                    return  # the client has left

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/stream"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while not self.ending.is_set() and self.server.socket.fileno() >= 0:
            try:
                self.server.handle_request()
            except (OSError, ValueError):
                return  # its socket was closed


def motion_jpeg(*parts: bytes, pause: float = 0.005, then: Callable[[], object] = lambda: None) -> Script:
    """A script that sends pictures as network cameras do."""

    def script(send: Callable[[bytes], None]) -> None:
        for part in parts:
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
            send(head.encode() + part + b"\r\n")
            time.sleep(pause)
        then()

    return script


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Start a server of these scripts; gives its URL."""
    servers: list[StreamServer] = []

    def start(*scripts: Script, content_type: str = "multipart/x-mixed-replace; boundary=frame") -> str:
        servers.append(StreamServer(list(scripts), content_type))
        return servers[-1].url

    yield start
    for server in servers:
        server.ending.set()
        server.server.server_close()


PATIENCE = {"latency": "queue", "timeout_seconds": 10, "reconnect_tries": 2, "reconnect_delay": 0.05}


def test_a_network_stream_that_is_cut_comes_back(serve: Callable[..., str]) -> None:
    url = serve(motion_jpeg(*map(jpeg, range(12))), motion_jpeg(*map(jpeg, range(12, 20))))
    with (
        pytest.raises(ConnectionError, match=r"did not come back in 2 tries: .*Connection refused"),
        LiveStream(url, **PATIENCE) as frames,
    ):
        seen = [index_of(image) for image in frames]
        assert seen == list(range(20)) and frames.num_reconnects == 1 and frames.is_live


def test_a_network_stream_changes_size_and_has_damaged_frames(serve: Callable[..., str]) -> None:
    parts = [*map(jpeg, range(8)), jpeg(8)[:150], bytes(200), *(jpeg(i, (48, 48)) for i in range(10, 16)), jpeg(16)]
    frames = LiveStream(serve(motion_jpeg(*parts)), **{**PATIENCE, "reconnect_tries": 0})
    images = list(frames)
    assert [index_of(image) for image in images] == [*range(8), *range(10, 17)]
    assert {image.shape for image in images} == {(64, 96, 3)}
    assert (frames.num_corrupt, frames.num_size_changes) == (2, 2)


def test_a_network_stream_that_falls_silent_is_opened_again(serve: Callable[..., str]) -> None:
    is_over = threading.Event()
    url = serve(motion_jpeg(*map(jpeg, range(5)), then=is_over.wait), motion_jpeg(*map(jpeg, range(5, 9))))
    frames = LiveStream(url, **{**PATIENCE, "timeout_seconds": 1})
    seen = [index_of(image) for image in frames]
    is_over.set()
    assert seen == list(range(9)) and frames.num_reconnects == 1


def test_h264_cut_in_a_frame_and_gone_on_with_in_another_size(serve: Callable[..., str]) -> None:
    def coded(frame_idxs: range, size: tuple[int, int]) -> bytes:
        target = io.BytesIO()
        with av.open(target, "w", format="mpegts") as container:
            stream = container.add_stream("libx264", rate=25, options={"bf": "0", "tune": "zerolatency"})
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            for position, frame_idx in enumerate(frame_idxs):
                frame = av.VideoFrame.from_ndarray(picture(frame_idx, size), format="rgb24")
                frame.pts, frame.time_base = position, Fraction(1, 25)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return target.getvalue()

    def sent(content: bytes) -> Script:
        return lambda send: send(content)

    first = coded(range(20), SIZE)
    url = serve(sent(first[: len(first) * 2 // 3]), sent(coded(range(20, 40), (128, 128))), content_type="video/mp2t")
    frames = LiveStream(url, **PATIENCE)
    images = list(frames)
    seen = [index_of(image) for image in images]
    last_before_cut = max(index for index in seen if index < 20)
    assert 5 < last_before_cut < 19
    assert seen == [*range(last_before_cut + 1), *range(20, 40)]
    assert {image.shape for image in images} == {(64, 96, 3)} and images[-1][:, :15].max() == 0
    assert frames.num_reconnects == 1 and frames.num_size_changes == 1


def test_an_address_where_nothing_is(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        for scheme in ("http", "rtsp"):
            with pytest.raises(ValueError, match="Connection refused") as error:
                LiveStream(f"{scheme}://user:secret@127.0.0.1:{unused.getsockname()[1]}/stream")
            assert f"{scheme}://127.0.0.1" in str(error.value) and "secret" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"no such video, camera or stream: 'nowhere\.mp4'"):
        LiveStream("nowhere.mp4")
    (tmp_path / "notes.mp4").write_text("no video\n" * 40)
    with pytest.raises(ValueError, match=r"notes\.mp4 is not a video that can be read"):
        LiveStream(tmp_path / "notes.mp4")


def test_open_frames_of_urls(serve: Callable[..., str], tmp_path: Path) -> None:
    is_over = threading.Event()
    with open_frames(serve(motion_jpeg(*map(jpeg, range(3)), then=is_over.wait))) as frames:
        assert isinstance(frames, LiveStream) and frames.latency == "drop"
        is_over.set()
    with open_frames(f"file://{write_clip(tmp_path / 'a.mp4', 3)}") as frames:
        assert isinstance(frames, VideoFile) and len(frames) == 3


# ---- a file, played as if it were live ----


def write_clip(path: Path, num_frames: int, fps: int = 25) -> Path:
    with VideoWriter(path, fps) as writer:
        for frame_idx in range(num_frames):
            writer.write(picture(frame_idx))
    return path


def test_a_file_plays_at_its_own_rate_from_when_it_is_asked_for(tmp_path: Path) -> None:
    with LiveStream(write_clip(tmp_path / "a.mp4", 11, fps=20), latency="queue") as frames:
        assert not frames.is_live and frames.fps == 20
        time.sleep(0.3)
        assert frames.num_captured == 1
        started_at = time.monotonic()
        seen = []
        for image in frames:
            seen.append(index_of(image))
            assert frames.captured_at >= started_at
        assert seen == list(range(11))
        assert time.monotonic() - started_at >= 9 / 20  # from the second frame on
    assert frames.lost is None and frames.num_reconnects == 0


def test_a_slow_consumer_of_a_file_misses_frames(tmp_path: Path) -> None:
    frames = LiveStream(write_clip(tmp_path / "a.mp4", 51, fps=50))
    seen = []
    for image in frames:
        seen.append(index_of(image))
        time.sleep(0.1)
    assert seen[0] == 0 and seen[-1] == 50 and seen == sorted(set(seen))
    assert len(seen) + frames.num_dropped == frames.num_captured == 51
    assert 2 < len(seen) < 30


def test_a_truncated_file_ends_early(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 30, fps=100)
    with av.open(str(path)) as container:
        positions = [packet.pos for packet in container.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: positions[20] + 1])
    frames = LiveStream(path, latency="queue")
    seen = [index_of(image) for image in frames]
    assert 15 < len(seen) <= 21 and seen[:15] == list(range(15)) and seen == sorted(set(seen)) and frames.lost is None


def test_a_recording_plays_as_its_frames_came(tmp_path: Path, captures: Serve) -> None:
    capture = FakeCapture([picture(frame_idx) for frame_idx in range(4)], let=1)
    captures(capture)
    came_at, let_at, seen_at = [], [time.monotonic()], []
    frames = LiveStream("camera", latency="queue", reconnect_tries=0)
    with VideoWriter(tmp_path / "a.mp4", frames.fps, like=frames) as writer:
        for image, pause in zip(frames, (0.3, 0.0, 0.7, 0.0), strict=False):
            seen_at.append(time.monotonic())
            writer.write(image)
            came_at.append(frames.seconds)
            time.sleep(pause)
            let_at.append(time.monotonic())
            capture.let()
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx(came_at, abs=0.001) and times[0] == 0
    assert times[1] >= 0.3 and times[3] - times[2] >= 0.7
    for index in (1, 2, 3):  # it came after it was let and before it was seen, however busy the machine is
        assert let_at[index] - seen_at[0] - 0.001 <= times[index] <= seen_at[index] - let_at[0] + 0.001


def test_a_recording_of_a_file_that_waited_keeps_the_file_s_times(tmp_path: Path) -> None:
    frames = LiveStream(write_clip(tmp_path / "a.mp4", 6), latency="queue", queue_frames=1)
    with VideoWriter(tmp_path / "copy.mp4", frames.fps, like=frames) as writer:
        for image in frames:
            time.sleep(0.1)  # the file's rate is 25
            writer.write(image)
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16, 0.2])


@pytest.mark.parametrize("source", ["1e30", "9" * 30, "9" * 5000, "-1", "1e999", 10**30])
def test_cameras_that_are_none_are_one_line(source: str | int) -> None:
    with pytest.raises((ValueError, OSError), match=r"no camera|no such video|too long"):
        LiveStream(source)
