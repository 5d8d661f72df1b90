"""The script of the page with the bundled models, and how its server listens."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio")

import uvicorn
from starlette.testclient import TestClient
from studio_parts import ADDRESS, QUICK, Page, make_models

from grounded_sam2.masks import decode_rle
from studio import build_app, serve

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _at_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def mask_of(cell: dict[str, Any], size: tuple[int, int] = (360, 640)) -> np.ndarray:
    return decode_rle([{"size": list(size), "counts": cell["counts"]}])[0]


def test_the_script_serves_the_bundled_models(
    load_script: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []
    script = load_script("grounded_sam2_app.py")
    script.OUTPUT_DIR, script.PORT, script.FLORENCE2 = tmp_path, 7861, str(tmp_path / "no-model")
    monkeypatch.setattr(script, "serve", lambda app, *args, **options: served.append((app, args, options)))
    script.main()
    [(app, args, options)] = served
    assert args == ("127.0.0.1", 7861) and options == {"open_browser": True}

    with TestClient(app, ADDRESS) as client:
        made = client.post("/studio/sessions", json={"sample": "parade"}).json()
        assert made["state"]["detectors"] == ["nano", "florence2"]
        page = Page(client, made["token"])
        page.do("set_search", text_prompt="owl. motorcycle.")
        found = page.result("find", frame=0)
        labels = [item["label"] for item in found["items"]]
        assert "owl" in labels
        owl = found["items"][labels.index("owl")]
        page.do("accept", find=found["find"], keys=[owl["key"]])

        # a click in the middle of the owl answers with much the same mask
        (left, top, right, bottom) = owl["box"]
        middle = [[(left + right) / 2, (top + bottom) / 2]]
        clicked, accepted = (mask_of(each) for each in (page.result("preview", frame=0, points=middle), owl))
        assert (clicked & accepted).sum() > 0.7 * (clicked | accepted).sum()

        assert page.job("propagate", last=3)["state"] == "done"
        cells = page.masks(0, 3)
        assert all(cells[t][1]["area"] > 0.5 * cells[0][1]["area"] for t in range(4))

        pieces = page.result("everything", frame=0)
        masks = [mask_of(item) for item in pieces["items"]]
        assert max((mask & accepted).sum() / (mask | accepted).sum() for mask in masks) > 0.7
        assert page.result("accept_pieces", find=pieces["find"], groups=[[0, 1]], class_name="part") == {"ids": [2]}
        status, said = page.refused("find", frame=0, detector="florence2")
        assert status == 500 and "no-model" in said


def test_where_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any) -> None:
    app = build_app(make_models(), tmp_path, limits=QUICK)
    opened: list[str] = []
    places: list[Any] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("threading.Timer", lambda _, open_it, args: type("Now", (), {"start": lambda: open_it(*args)}))

    def run(self: uvicorn.Server, sockets: list[socket.socket]) -> None:
        places.extend(sockets)

    monkeypatch.setattr(uvicorn.Server, "run", run)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve(app, "127.0.0.1", port)
    assert places[0].getsockname() == ("127.0.0.1", port)
    assert capsys.readouterr().out == f"Studio is at http://127.0.0.1:{port} (Ctrl-C ends it)\n"
    assert opened == [f"http://127.0.0.1:{port}"] and not caplog.records
    places.pop().close()

    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    serve(app, "127.0.0.1", port)  # no browser would have a window
    assert len(opened) == 1 or sys.platform in ("win32", "darwin")
    places.pop().close()

    serve(app, "0.0.0.0", port, open_browser=False)
    assert places[0].getsockname() == ("0.0.0.0", port)
    [record] = caplog.records
    assert "everybody who reaches" in record.getMessage() and "set AUTH" in record.getMessage()
    places.pop().close()


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    app = build_app(make_models(), tmp_path, limits=QUICK)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1, port {port}: .*; set HOST or PORT"):
            serve(app, "127.0.0.1", port, open_browser=False)
    with pytest.raises(OSError, match=r"cannot listen on no\.such\.host\.invalid"):
        serve(app, "no.such.host.invalid", 7860, open_browser=False)
