"""Boxes followed by one of transformers' video models, SAM 2's or EdgeTAM's: their sessions are alike."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def masks_of_boxes(
    model: Any, session: Any, num_frames: int, image_size: int, frame_size: tuple[int, int], boxes: np.ndarray
) -> Iterator[torch.Tensor]:
    """Track objects through a session in which there are none yet.

    Args:
        model: a `Sam2VideoModel` or `EdgeTamVideoModel`.
        session: of its own kind, with the frames.
        num_frames: how many these are.
        image_size: side of the model's input.
        frame_size: (width, height) of the frames.
        boxes: (N, 4) xyxy in pixels of the first frame.

    Yields:
        (N, 1, height, width) logits of every frame.
    """
    width, height = frame_size
    corners = torch.from_numpy(boxes).view(-1, 2, 2) / torch.tensor(frame_size) * image_size
    for obj_id, box in enumerate(corners, start=1):
        inputs = {"point_coords": box[None, None], "point_labels": torch.tensor([[[2, 3]]], dtype=torch.int32)}
        session.add_point_inputs(session.obj_id_to_idx(obj_id), 0, inputs)
        session.obj_with_new_inputs.append(obj_id)
    for frame in range(num_frames):
        masks = model(session, frame_idx=frame).pred_masks
        yield torch.nn.functional.interpolate(masks, size=(height, width), mode="bilinear", align_corners=False)
