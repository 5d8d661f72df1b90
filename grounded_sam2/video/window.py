"""A window that shows frames as they are made, and one that also tells what people do in it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import TypeAlias

import cv2

from grounded_sam2.images import RGBImage, check_image

__all__ = ["Click", "Drag", "Event", "InteractiveWindow", "Key", "Pointer", "Window", "key_name"]

_INSTALL = "pip uninstall -y opencv-python-headless, then pip install --force-reinstall --no-deps opencv-python"
_ENDING_KEYS = frozenset({ord("q"), ord("Q"), 27})  # 27: Esc
# what OpenCV calls keys that are no characters: on X11, on Windows, on macOS
_NAMED_KEYS = {
    27: "escape", 32: "space",
    65361: "left", 65363: "right", 2424832: "left", 2555904: "right", 63234: "left", 63235: "right",
}  # fmt: skip
_LEAST_SIDE = 4  # of a drawn box, in pixels of the frame; a hand that shakes on a click draws none


@dataclass(frozen=True)
class Key:
    """A key was pressed: a character, letters in lower case, or "space", "escape", "left", "right".

    Closing the window counts as "q".
    """

    name: str


@dataclass(frozen=True)
class Click:
    """A mouse button was pressed and let go at a place (x, y) of the frame, in pixels."""

    x: float
    y: float
    is_right: bool = False
    with_ctrl: bool = False


@dataclass(frozen=True)
class Drag:
    """A box (4,) xyxy was drawn with the left button, in pixels of the frame."""

    xyxy: tuple[float, float, float, float]


Event: TypeAlias = Key | Click | Drag


class Window:
    """Show frames; closing it, or pressing q or Esc in it, ends the show.

        with Window("camera 0") as window:
            for image in frames:
                if not window.show(image):
                    break

    Args:
        title: of the window.

    Raises:
        ValueError: there is no display, or the OpenCV that is installed has no windows; says what to install.
    """

    def __init__(self, title: str) -> None:
        # Qt, which the windowed OpenCV brings, ends the whole process where there is no display.
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise ValueError("a window cannot be shown: this session has no display (DISPLAY is not set)")
        self.title = title
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise ValueError(f"a window cannot be shown: this OpenCV has none; {_INSTALL}") from error
        self._has_shown = False

    def show(self, image: RGBImage) -> bool:
        """Put a frame on the window.

        Args:
            image: RGB uint8 `(H, W, 3)`.

        Returns:
            False once the user has ended the show; then the frame is not shown.

        Raises:
            ValueError: not an RGB uint8 image.
        """
        return self._put(image) and cv2.waitKey(1) & 0xFF not in _ENDING_KEYS

    def _put(self, image: RGBImage) -> bool:
        """Put a frame on the window, unless the user has closed it; returns whether it is there."""
        check_image(image, "frame to show")
        if self._has_shown and not self._is_there():
            return False
        if not self._has_shown:
            cv2.resizeWindow(self.title, image.shape[1], image.shape[0])
            self._has_shown = True
        cv2.imshow(self.title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return True

    def close(self) -> None:
        """Take the window away. Closing twice, or after the user did, is harmless."""
        if self._is_there():
            cv2.destroyWindow(self.title)

    def _is_there(self) -> bool:
        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # Qt's, once the last window is closed
            return False

    def __enter__(self) -> Window:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Pointer:
    """Makes clicks and boxes of what the mouse does.

    Attributes:
        box: (4,) xyxy that is being drawn; None: none is.
    """

    def __init__(self) -> None:
        self.box: tuple[float, float, float, float] | None = None
        self._events: list[Event] = []
        self._pressed: tuple[int, int] | None = None

    @property
    def is_down(self) -> bool:
        """Whether the left button is pressed: a click or a box is on its way."""
        return self._pressed is not None

    def on_mouse(self, event: int, x: int, y: int, flags: int, _: object = None) -> None:
        """Take one event of OpenCV's, for `cv2.setMouseCallback`."""
        if event == cv2.EVENT_RBUTTONDOWN:
            self._events.append(Click(x, y, is_right=True))
        elif event == cv2.EVENT_LBUTTONDOWN and flags & cv2.EVENT_FLAG_CTRLKEY:
            self._events.append(Click(x, y, with_ctrl=True))
        elif event == cv2.EVENT_LBUTTONDOWN:
            self._pressed = (x, y)
        elif event == cv2.EVENT_MOUSEMOVE and self._pressed is not None:
            self.box = self._box_to(x, y)
        elif event == cv2.EVENT_LBUTTONUP and self._pressed is not None:
            box = self._box_to(x, y)
            self._events.append(Click(*self._pressed) if box is None else Drag(box))
            self._pressed = self.box = None

    def take_events(self) -> list[Event]:
        """What happened since it was asked last."""
        taken, self._events = self._events, []
        return taken

    def _box_to(self, x: int, y: int) -> tuple[float, float, float, float] | None:
        assert self._pressed is not None
        (left, right), (top, bottom) = (sorted(pair) for pair in zip(self._pressed, (x, y), strict=True))
        is_box = min(right - left, bottom - top) >= _LEAST_SIDE
        return (left, top, right, bottom) if is_box else None


class InteractiveWindow(Window):
    """A window in which people click, draw boxes and press keys.

        with InteractiveWindow("clip.mp4") as window:
            while True:
                window.put(image)
                for event in window.events(0.02):
                    ...

    Arguments and errors are those of `Window`.

    Attributes:
        pointer: the mouse.
    """

    def __init__(self, title: str) -> None:
        super().__init__(title)
        self.pointer = Pointer()
        cv2.setMouseCallback(self.title, self.pointer.on_mouse)

    def put(self, image: RGBImage) -> None:
        """Put a frame on the window; ValueError for what is no RGB uint8 image."""
        self._put(image)

    def events(self, seconds: float) -> list[Event]:
        """Wait a moment, and tell what happened in the window since it was asked last."""
        happened: list[Event] = []
        code = cv2.waitKeyEx(max(1, round(1000 * seconds)))
        while code != -1:
            if (name := key_name(code)) is not None:
                happened.append(Key(name))
            code = cv2.waitKeyEx(1)
        happened = [*self.pointer.take_events(), *happened]
        return happened if self._is_there() or not self._has_shown else [*happened, Key("q")]


def key_name(code: int) -> str | None:
    """What `Key` calls a key of `cv2.waitKeyEx`; None for one that is no character and has no name here."""
    symbol = code if code in _NAMED_KEYS else code & 0xFFFF  # above: which of Shift, NumLock, … are on
    if symbol in _NAMED_KEYS:
        return _NAMED_KEYS[symbol]
    return chr(symbol).lower() if 32 < symbol < 127 else None
