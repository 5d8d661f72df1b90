"""Draw detections: masks, boxes and labels, in one colour for each object."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import supervision as sv

from grounded_sam2.images import RGBImage, check_image

__all__ = ["annotate", "label_texts"]

MIN_TEXT_SCALE = 0.4

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
    label_annotator = sv.LabelAnnotator(
        palette,
        color_lookup,
        text_scale=text_scale,
        text_thickness=max(1, round(text_scale * 1.5)),
        text_padding=max(2, round(text_scale * 10)),
        smart_position=True,
    )

    scene_bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)  # supervision paints its colours in OpenCV's order
    if detections.mask is not None:
        scene_bgr = sv.MaskAnnotator(palette, color_lookup=color_lookup).annotate(scene_bgr, detections)
    scene_bgr = sv.BoxAnnotator(palette, thickness, color_lookup).annotate(scene_bgr, detections)
    scene_bgr = label_annotator.annotate(scene_bgr, detections, labels=label_texts(detections))
    return cv2.cvtColor(scene_bgr, cv2.COLOR_BGR2RGB)
