"""The windows: what they say where there is none, how a show ends, and what people do in them."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from grounded_sam2.video import InteractiveWindow, Window
from grounded_sam2.video.window import Click, Drag, Key, Pointer, key_name

IMAGE = np.full((48, 64, 3), (200, 30, 60), np.uint8)


class Screen:
    """Stands in for OpenCV's windows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, keys: str = "") -> None:
        self.keys = list(keys)
        self.is_visible = False
        self.is_qt = False
        self.size: tuple[int, int] | None = None
        self.shown: list[np.ndarray] = []
        monkeypatch.setenv("DISPLAY", ":0")
        self.codes: list[int] = []
        self.waited: list[int] = []
        names = ["namedWindow", "resizeWindow", "imshow", "waitKey", "getWindowProperty", "destroyWindow"]
        for name in [*names, "waitKeyEx", "setMouseCallback"]:
            monkeypatch.setattr(cv2, name, getattr(self, name))

    def namedWindow(self, title: str, flags: int) -> None:
        self.is_visible = True

    def resizeWindow(self, title: str, width: int, height: int) -> None:
        self.size = (width, height)

    def imshow(self, title: str, image_bgr: np.ndarray) -> None:
        self.is_visible = True  # as OpenCV does, which makes a window that was closed anew
        self.shown.append(image_bgr)

    def waitKey(self, milliseconds: int) -> int:
        assert milliseconds == 1
        return ord(self.keys.pop(0)) if self.keys else -1

    def waitKeyEx(self, milliseconds: int) -> int:
        self.waited.append(milliseconds)
        return self.codes.pop(0) if self.codes else -1

    def setMouseCallback(self, title: str, on_mouse: Callable[..., None]) -> None:
        assert self.is_visible
        self.on_mouse = on_mouse

    def getWindowProperty(self, title: str, which: int) -> float:
        assert which == cv2.WND_PROP_VISIBLE
        if not self.is_visible and self.is_qt:
            raise cv2.error("NULL guiReceiver (please create a window)")
        return 1.0 if self.is_visible else -1.0

    def destroyWindow(self, title: str) -> None:
        if not self.is_visible:
            raise cv2.error("NULL window")
        self.is_visible = False


def test_frames_are_shown_in_their_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch)
    with Window("frames") as window:
        assert window.show(IMAGE) and window.show(IMAGE)
        assert screen.size == (64, 48) and len(screen.shown) == 2
        assert screen.shown[0][0, 0].tolist() == [60, 30, 200]
        with pytest.raises(ValueError, match=r"expected RGB uint8 \(H, W, 3\)"):
            window.show(IMAGE[..., 0])
    assert not screen.is_visible


@pytest.mark.parametrize("key", ["q", "Q", "\x1b"])
def test_a_key_ends_the_show(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    Screen(monkeypatch, keys="x" + key)
    with Window("frames") as window:
        assert window.show(IMAGE)
        assert not window.show(IMAGE)


@pytest.mark.parametrize("is_qt", [True, False])
def test_closing_the_window_ends_the_show(monkeypatch: pytest.MonkeyPatch, is_qt: bool) -> None:
    screen = Screen(monkeypatch)
    screen.is_qt = is_qt
    with Window("frames") as window:
        assert window.show(IMAGE)
        screen.is_visible = False
        assert not window.show(IMAGE)
        assert len(screen.shown) == 1 and not screen.is_visible


def test_an_opencv_without_windows_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_built(*_: object) -> None:
        raise cv2.error("The function is not implemented. Rebuild the library with Windows, GTK+ 2.x or Cocoa support.")

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(cv2, "namedWindow", not_built)
    with pytest.raises(ValueError, match=r"this OpenCV has none; .*pip install .*opencv-python$") as error:
        Window("frames")
    assert "\n" not in str(error.value)


def test_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ValueError, match="this session has no display"):
        Window("frames")


# ---- what people do in it ----

DOWN, UP, MOVE, RIGHT = cv2.EVENT_LBUTTONDOWN, cv2.EVENT_LBUTTONUP, cv2.EVENT_MOUSEMOVE, cv2.EVENT_RBUTTONDOWN
LEFT_HELD = cv2.EVENT_FLAG_LBUTTON


def test_clicks() -> None:
    pointer = Pointer()
    assert pointer.take_events() == []
    pointer.on_mouse(MOVE, 1, 1, 0)
    pointer.on_mouse(RIGHT, 5, 6, 0)
    pointer.on_mouse(DOWN, 7, 8, LEFT_HELD | cv2.EVENT_FLAG_CTRLKEY)
    pointer.on_mouse(MOVE, 40, 40, LEFT_HELD)
    pointer.on_mouse(UP, 40, 40, 0)  # of a click with ctrl nothing is drawn
    pointer.on_mouse(DOWN, 9, 10, LEFT_HELD)
    pointer.on_mouse(MOVE, 11, 9, LEFT_HELD)  # the hand shakes
    assert pointer.box is None
    pointer.on_mouse(UP, 11, 9, 0)
    clicks = [Click(5, 6, is_right=True), Click(7, 8, with_ctrl=True), Click(9, 10)]
    assert pointer.take_events() == clicks and pointer.take_events() == []


def test_a_box_is_drawn_from_any_corner() -> None:
    pointer = Pointer()
    pointer.on_mouse(DOWN, 30, 8, LEFT_HELD)
    pointer.on_mouse(MOVE, 20, 20, LEFT_HELD)
    assert pointer.box == (20, 8, 30, 20) and pointer.is_down
    pointer.on_mouse(UP, 10, 24, 0)
    assert pointer.box is None and not pointer.is_down and pointer.take_events() == [Drag((10, 8, 30, 24))]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (ord("u"), "u"), (ord("U"), "u"), (ord("?"), "?"), (ord(","), ","), (32, "space"), (27, "escape"),
        (65361, "left"), (65363, "right"), (2424832, "left"), (2555904, "right"), (63234, "left"), (63235, "right"),
        (0x100000 | ord("b"), "b"), (0x110000 | 65361, "left"), (65507, None), (65505, None), (13, None), (233, None),
    ],
)  # fmt: skip
def test_names_of_keys(code: int, name: str | None) -> None:
    assert key_name(code) == name


def test_events_of_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(monkeypatch)
    with InteractiveWindow("clip") as window:
        assert window.events(0.0) == []
        window.put(IMAGE)
        screen.codes = [ord("x"), 65507, 65363]
        screen.on_mouse(RIGHT, 5, 6, 0)
        assert window.events(0.02) == [Click(5, 6, is_right=True), Key("x"), Key("right")]
        assert screen.waited[1:] == [20, 1, 1, 1] and window.events(0.0) == []
        screen.is_visible = False
        assert window.events(0.0) == [Key("q")]
        window.put(IMAGE)
        assert len(screen.shown) == 1
