"""What tests of the studio's page share: a server with the bundled models, and a browser that looks at it."""

import json
import os
import secrets
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
STORE = "const store = (await import('/studio/static/main.js')).openStore();"
WAIT_SECONDS = 30.0  # for what takes well under a second on a machine that is not busy


class Server:
    """A studio on a port of its own, in a thread of this process."""

    def __init__(self, folder: Path, models: Any, port: int = 0) -> None:
        import uvicorn

        from studio import Limits, build_app

        self.models = models
        self.folder = folder
        limits = Limits(look_seconds=None, sessions_per_user=1000, sessions=1000)  # uploads are opened in this process
        app = build_app(models, folder, port=port, limits=limits)
        config = uvicorn.Config(app, port=port, log_level="error", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_until(lambda: self._server.started or not self._thread.is_alive())
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """The JSON that a request is answered with."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url(path), method=method, data=content, headers=headers)
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def upload(self, path: Path) -> str:
        """Send a file as the page does → what a session is made of."""
        edge = secrets.token_hex(8)
        head = f'--{edge}\r\nContent-Disposition: form-data; name="files"; filename="{path.name}"\r\n\r\n'
        content = head.encode() + path.read_bytes() + f"\r\n--{edge}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        request = urllib.request.Request(self.url("gradio_api/upload"), content, headers)
        with urllib.request.urlopen(request, timeout=WAIT_SECONDS) as answer:
            [uploaded] = json.loads(answer.read())
        return str(uploaded)

    def session(self, path: Path) -> str:
        """The token of a new session of a video."""
        source = {"upload": self.upload(path), "name": path.name}
        return str(self.ask("POST", "studio/sessions", source)["token"])

    def do(self, token: str, command: str, **args: object) -> Any:
        return self.ask("POST", f"studio/{token}/do/{command}", args)["result"]

    def state(self, token: str) -> Any:
        return self.ask("GET", f"studio/{token}/state")

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(WAIT_SECONDS)


class Tab:
    """The studio in a tab of a browser."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def get(self, expression: str) -> Any:
        """What an expression with `store` is."""
        return self.page.evaluate(f"async () => {{ {STORE} return ({expression}); }}")

    def until(self, expression: str) -> None:
        wait_until(lambda: self.get(f"Boolean({expression})"))

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a pixel of the video is in the window, by where one has zoomed to."""
        box = self.page.locator("#stage-canvas").bounding_box()
        width, height, zoom = self.get("[store.state.width, store.state.height, store.zoom]")
        if zoom is None:
            scale = min((box["width"] - 24) / width, (box["height"] - 24) / height)
            zoom = {"scale": scale, "x": width / 2, "y": height / 2}
        left, top = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        return left + (x - zoom["x"]) * zoom["scale"], top + (y - zoom["y"]) * zoom["scale"]


def bundled_models() -> Any:
    """The nano models that the repository has."""
    from grounded_sam2.detectors.huggingface import HuggingFaceDetector
    from sam2.build_sam import build_sam2_video_predictor
    from studio import Models

    predictor = build_sam2_video_predictor(None, str(REPOSITORY / "checkpoints/sam2.1_nano.pt"), device="cpu")
    weights = str(REPOSITORY / "gdino_checkpoints/nano")
    return Models(predictor, {"nano": lambda: HuggingFaceDetector(weights, device="cpu")})


def wait_until(is_so: Any) -> None:
    """Return as soon as `is_so()` is true; fail if that takes too long."""
    end = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def chromium_path() -> str | None:
    """The browser to test with: what STUDIO_CHROMIUM says, or one that is installed; None for playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("STUDIO_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; the test is skipped, and says so, where there is none."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="the page is tested with playwright: pip install playwright"
    )
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"the page is tested with chromium, which cannot be started: {str(error).splitlines()[0]}")
        try:
            yield browser
        finally:
            browser.close()
