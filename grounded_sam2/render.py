"""Draw detections: masks, boxes and labels, in one colour for each object."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache, lru_cache

import cv2
import numpy as np
import supervision as sv
from PIL import ImageFont

from grounded_sam2.images import RGBImage, check_image

__all__ = ["annotate", "in_corner", "label_texts", "spotlight"]

logger = logging.getLogger(__name__)

MIN_TEXT_SCALE = 0.4
PIXELS_PER_TEXT_SCALE = 30  # of a font as large as OpenCV's at a text scale of 1
# OpenCV 4 draws ASCII only; for other labels the first of these fonts is taken that is there and has every character.
FONTS = ["DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial Unicode.ttf", "NotoSansCJK-Regular.ttc"] + [
    "wqy-microhei.ttc", "DroidSansFallbackFull.ttf", "msyh.ttc", "YuGothM.ttc", "malgun.ttf", "PingFang.ttc",
    "Hiragino Sans GB.ttc",
]  # fmt: skip

# Neighbours in the list differ in hue, so that objects 1, 2, 3 are told apart; all dark enough for white text.
PALETTE = sv.ColorPalette.from_hex(
    ["#2563eb", "#ea580c", "#16a34a", "#c026d3", "#0891b2", "#dc2626"]
    + ["#7c3aed", "#65a30d", "#db2777", "#0d9488", "#b45309", "#4f46e5"]
)


def label_texts(detections: sv.Detections) -> list[str]:
    """What each detection's label says, "#3 red apple 0.87", leaving out what is not known."""
    texts = []
    class_names = detections.data.get("class_name")
    for position in range(len(detections)):
        parts = []
        if detections.tracker_id is not None:
            parts.append(f"#{int(detections.tracker_id[position])}")
        if class_names is not None:
            parts.append(str(class_names[position]))
        if detections.confidence is not None and not np.isnan(detections.confidence[position]):
            parts.append(f"{detections.confidence[position]:.2f}")
        texts.append(" ".join(parts))
    return texts


def annotate(image: RGBImage, detections: sv.Detections, colors: Sequence[str] | None = None) -> RGBImage:
    """Draw masks, boxes and labels on a copy of an image.

    An object keeps its colour through a video: colours follow `tracker_id` where there is one, otherwise the class.
    Lines and text grow with the image.

    Args:
        image: `(H, W, 3)` uint8 RGB; not changed.
        detections: N ≥ 0 with boxes in pixels of `image`; masks `(N, H, W)` bool where there are any.
        colors: N colours "#rrggbb", in the order of the detections, instead of those of the palette.

    Returns:
        `(H, W, 3)` uint8 RGB; equal to `image` for N = 0.

    Raises:
        ValueError: `image` is not RGB uint8, masks have another size, or there are more or fewer colours.
    """
    check_image(image, "image")
    if len(detections) == 0:
        return image.copy()
    height, width = image.shape[:2]
    if detections.mask is not None and detections.mask.shape != (len(detections), height, width):
        raise ValueError(f"masks: expected {(len(detections), height, width)}, got {detections.mask.shape}")
    if colors is not None and len(colors) != len(detections):
        raise ValueError(f"colors: expected {len(detections)}, got {len(colors)}")

    palette = PALETTE if colors is None else sv.ColorPalette.from_hex(list(colors))
    if colors is not None:
        color_lookup = sv.ColorLookup.INDEX
    elif detections.tracker_id is not None:
        color_lookup = sv.ColorLookup.TRACK
    elif detections.class_id is not None:
        color_lookup = sv.ColorLookup.CLASS
    else:
        color_lookup = sv.ColorLookup.INDEX
    thickness = sv.calculate_optimal_line_thickness((width, height))
    text_scale = max(MIN_TEXT_SCALE, sv.calculate_optimal_text_scale((width, height)))
    labels = [label.encode("utf-8", "backslashreplace").decode("utf-8") for label in label_texts(detections)]
    padding = max(2, round(text_scale * 10))
    label_annotator: sv.LabelAnnotator | sv.RichLabelAnnotator = sv.LabelAnnotator(
        palette,
        color_lookup,
        text_scale=text_scale,
        text_thickness=max(1, round(text_scale * 1.5)),
        text_padding=padding,
        smart_position=True,
    )
    if not _opencv_draws("".join(labels)):
        font = _font_for(frozenset(character for label in labels for character in label if not character.isascii()))
        if font is None:
            labels = [label.encode("ascii", "backslashreplace").decode("ascii") for label in labels]
        else:
            size = round(PIXELS_PER_TEXT_SCALE * text_scale)
            label_annotator = sv.RichLabelAnnotator(
                palette, color_lookup, font_path=font, font_size=size, text_padding=padding, smart_position=True
            )

    scene_bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # supervision paints its colours in OpenCV's order
    if detections.mask is not None:
        scene_bgr = sv.MaskAnnotator(palette, color_lookup=color_lookup).annotate(scene_bgr, detections)
    scene_bgr = sv.BoxAnnotator(palette, thickness, color_lookup).annotate(scene_bgr, detections)
    scene_bgr = label_annotator.annotate(scene_bgr, detections, labels=labels)
    return cv2.cvtColor(scene_bgr, cv2.COLOR_BGR2RGB)


def in_corner(image: RGBImage, text: str) -> RGBImage:
    """A copy of an image (H, W, 3) with a line of ASCII text in its upper left corner, white on black; "" is none."""
    drawn = image.copy()
    if text:
        scale = max(MIN_TEXT_SCALE, sv.calculate_optimal_text_scale((image.shape[1], image.shape[0])))
        (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
        margin = height // 2
        cv2.rectangle(drawn, (0, 0), (width + 2 * margin, height + below + margin), (0, 0, 0), cv2.FILLED)
        where = (margin, margin + height)
        cv2.putText(drawn, text, where, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn


def spotlight(image: RGBImage, detections: sv.Detections, brightness: float = 0.0) -> RGBImage:
    """An image with everything dimmed that is on no mask.

    Args:
        image: `(H, W, 3)` uint8 RGB; not changed.
        detections: N ≥ 0 with masks `(N, H, W)` bool; N = 0 leaves nothing bright.
        brightness: of the rest, in [0, 1]: 0 is black, 1 as it was.

    Raises:
        ValueError: `image` is not RGB uint8, or masks are missing or have another size.
    """
    check_image(image, "image")
    dimmed = (image * np.float32(brightness)).astype(np.uint8)
    if len(detections) == 0:
        return dimmed
    if detections.mask is None or detections.mask.shape[1:] != image.shape[:2]:
        expected = (len(detections), *image.shape[:2])
        raise ValueError(
            f"masks: expected {expected}, got {None if detections.mask is None else detections.mask.shape}"
        )
    is_lit = np.asarray(np.any(np.asarray(detections.mask), axis=0))
    return np.where(is_lit[..., None], image, dimmed)


def _opencv_draws(text: str) -> bool:
    """Whether this OpenCV has all characters; from version 5 on it brings fonts for most writings."""
    return text.isascii() or int(cv2.__version__.split(".")[0]) >= 5


@lru_cache(maxsize=256)
def _font_for(characters: frozenset[str]) -> str | None:
    """The file name of a font of the system that has some characters; None, which is logged, where none is found."""
    for font in FONTS:
        if characters <= _characters_among(font, characters):
            return font
    wanted = "".join(sorted(characters))
    logger.warning("no font of this system has %s: labels show escapes; OpenCV 5 or newer brings fonts", wanted)
    return None


def _characters_among(font: str, characters: frozenset[str]) -> set[str]:
    """Those that a font has; a font draws the same box for all that it lacks."""
    loaded = _loaded(font)
    if loaded is None:
        return set()
    lacking = loaded.getmask("\U0010fffe")
    box = (lacking.size, bytes(lacking))
    drawn = {character: loaded.getmask(character) for character in characters}
    return {character for character, mask in drawn.items() if character.isspace() or (mask.size, bytes(mask)) != box}


@cache
def _loaded(font: str) -> ImageFont.FreeTypeFont | None:
    try:
        return ImageFont.truetype(font, 24)
    except OSError:
        return None
