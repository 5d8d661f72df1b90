"""What a person at a session is shown beside the objects: which one is selected, and lines of text."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from grounded_sam2.images import RGBImage
from grounded_sam2.masks import Masks

__all__ = ["with_lines", "with_selection"]

WHITE, BLACK, PAPER = (255, 255, 255), (0, 0, 0), (32, 32, 32)
MIN_LINE_HEIGHT = 16  # pixels


def with_selection(
    image: RGBImage, mask: Masks | None, box: tuple[float, float, float, float] | None = None
) -> RGBImage:
    """A copy of an image (H, W, 3) with a mask (H, W) outlined in white, and a box xyxy; each may be None."""
    drawn = image.copy()
    if mask is not None:
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, outlines, -1, BLACK, 4)
        cv2.drawContours(drawn, outlines, -1, WHITE, 2)
    if box is not None:
        left, top, right, bottom = (round(side) for side in box)
        cv2.rectangle(drawn, (left, top), (right, bottom), BLACK, 3)
        cv2.rectangle(drawn, (left, top), (right, bottom), WHITE, 1)
    return drawn


def with_lines(image: RGBImage, lines: Sequence[str]) -> RGBImage:
    """An image (H, W, 3) with lines of text below it, each as large as fits: (H + N S, W, 3) for N lines."""
    height, width = image.shape[:2]
    return np.concatenate([image, *(_line(text, width, max(MIN_LINE_HEIGHT, height // 20)) for text in lines)])


def _line(text: str, width: int, height: int) -> RGBImage:
    """White text on a dark strip (height, width, 3)."""
    strip = np.full((height, width, 3), PAPER, np.uint8)
    (text_width, text_height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = min(0.7 * height / max(text_height + below, 1), (width - 8) / max(text_width, 1))
    baseline = round((height + scale * (text_height - below)) / 2)
    cv2.putText(strip, text, (4, baseline), cv2.FONT_HERSHEY_SIMPLEX, scale, WHITE, 1, cv2.LINE_AA)
    return strip
