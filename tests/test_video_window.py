"""The window: what it says where there is none, and how a show ends."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from grounded_sam2.video import Window

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
        for name in ("namedWindow", "resizeWindow", "imshow", "waitKey", "getWindowProperty", "destroyWindow"):
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
