"""RTSP, as surveillance cameras speak it: RTP packets within the control connection, lost and found again."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest

from grounded_sam2.video import LiveStream

FPS = 25
SIZE = (96, 64)
SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track0\r\n"
)


def rtp_packets(frame_idxs: range) -> list[bytes]:
    """RTP packets of H.264 frames, each grey 5 times its index."""
    packets: list[bytes] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.01)

        def receive() -> None:
            try:
                while True:
                    packets.append(receiver.recv(2000))
            except TimeoutError:
                return

        address = f"rtp://127.0.0.1:{receiver.getsockname()[1]}?pkt_size=1200"
        with av.open(address, "w", format="rtp") as container:
            options = {"tune": "zerolatency", "g": "5", "x264-params": "repeat-headers=1"}
            stream = container.add_stream("libx264", rate=FPS, options=options)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for position, frame_idx in enumerate(frame_idxs):
                image = np.full((SIZE[1], SIZE[0], 3), 5 * frame_idx, np.uint8)
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = position, Fraction(1, FPS)
                container.mux(stream.encode(frame))
                receive()
            container.mux(stream.encode())
            receive()
    return packets


class Camera(socketserver.ThreadingTCPServer):
    """Serves each list of packets to one viewer and hangs up; then nobody gets in."""

    daemon_threads = True

    def __init__(self, parts: list[list[bytes]]) -> None:
        self.parts = parts
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Viewer)
        threading.Thread(target=self.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()


class Viewer(socketserver.StreamRequestHandler):
    server: Camera

    def handle(self) -> None:
        while line := self.rfile.readline().decode():
            headers = {}
            while (header := self.rfile.readline().decode().strip()) != "":
                key, _, value = header.partition(":")
                headers[key.lower()] = value.strip()
            method = line.split()[0]
            self.server.asked.append(method)
            if method == "OPTIONS":
                self.answer(headers, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE" and not self.server.parts:
                return
            elif method == "DESCRIBE":
                self.answer(headers, "Content-Type: application/sdp", body=SDP)
            elif method == "SETUP":
                assert "TCP" in headers["transport"]
                self.answer(headers, f"Transport: {headers['transport']}", "Session: 1")
            elif method == "PLAY":
                self.answer(headers, "Session: 1")
                for packet in self.server.parts.pop(0):
                    self.wfile.write(b"$\x00" + len(packet).to_bytes(2, "big") + packet)
                    time.sleep(0.005)
                return

    def answer(self, headers: dict[str, str], *lines: str, body: str = "") -> None:
        head = ["RTSP/1.0 200 OK", f"CSeq: {headers['cseq']}", f"Content-Length: {len(body)}", *lines]
        self.wfile.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())


@pytest.fixture
def camera() -> Iterator[Camera]:
    with Camera([rtp_packets(range(1, 21)), rtp_packets(range(21, 41))]) as server:
        yield server
        server.shutdown()


def test_rtsp_is_read_over_tcp_and_gone_on_with_after_it_was_cut(camera: Camera) -> None:
    url = f"rtsp://admin:secret@127.0.0.1:{camera.server_address[1]}/stream"
    frames = LiveStream(url, latency="queue", reconnect_tries=1, reconnect_delay=0.05, timeout_seconds=15)
    seen = [round(float(image.mean()) / 5) for image in frames]
    # one connection may end within its last frame, whose end is only known from the next
    assert seen in ([*range(1, 21), *range(21, 41)], [*range(1, 20), *range(21, 40)])
    assert frames.is_live and frames.size == SIZE and frames.fps == FPS
    assert frames.num_reconnects == 1 and frames.lost is not None
    assert "127.0.0.1" in str(frames.lost) and "secret" not in str(frames.lost)
