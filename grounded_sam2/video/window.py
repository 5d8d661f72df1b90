"""A window that shows frames as they are made."""

from __future__ import annotations

import os
import sys
from types import TracebackType

import cv2

from grounded_sam2.images import RGBImage, check_image

__all__ = ["Window"]

_INSTALL = "pip uninstall -y opencv-python-headless, then pip install --force-reinstall --no-deps opencv-python"
_ENDING_KEYS = frozenset({ord("q"), ord("Q"), 27})  # 27: Esc


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
        check_image(image, "frame to show")
        if self._has_shown and not self._is_there():
            return False
        if not self._has_shown:
            cv2.resizeWindow(self.title, image.shape[1], image.shape[0])
            self._has_shown = True
        cv2.imshow(self.title, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return cv2.waitKey(1) & 0xFF not in _ENDING_KEYS

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
