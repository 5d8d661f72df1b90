"""SAM 2 as transformers and ultralytics have it, tracking the clip of sam2_speed.py; ultralytics, which is AGPL-3.0, is
there to be compared with and in a folder of its own (`make peers`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch


@torch.inference_mode()
def track_with_transformers(
    config: str, work: Path, image_size: int, frame_size: tuple[int, int], boxes: np.ndarray
) -> Iterator[torch.Tensor]:
    """Track objects through the JPEG files of `work/clip` with the official weights in `work/<config>.pt`.

    Args:
        config: such as "sam2.1_hiera_t"; the files are in `work`.
        image_size: side of the model's input.
        frame_size: (width, height) of the frames.
        boxes: (N, 4) xyxy in pixels of the first frame.

    Yields:
        (N, 1, height, width) logits of every frame.
    """
    from reference.hugging_face import hugging_face_model
    from reference.hugging_face_session import masks_of_boxes
    from reference.run import build
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    ours = build(config, image_size, work / f"{config}.pt", video=True, postprocessing=False)
    (work / "numbers").mkdir(exist_ok=True)
    model = hugging_face_model(ours.config, ours.state_dict(), work / "numbers")
    state = ours.init_state(str(work / "clip"))
    video = torch.stack([state["images"][frame_idx] for frame_idx in range(state.num_frames)])
    del ours
    width, height = frame_size
    session = Sam2VideoInferenceSession(video, height, width, dtype=torch.float32)
    yield from masks_of_boxes(model, session, len(video), image_size, frame_size, boxes)


def track_with_ultralytics(config: str, work: Path, image_size: int, boxes: np.ndarray) -> Iterator[Any]:
    """The same through `work/clip.mp4`; yields its results, frame by frame."""
    os.environ["YOLO_CONFIG_DIR"] = str(work)
    from ultralytics.models.sam import SAM2VideoPredictor

    weights = work / f"sam2.1_{config.rpartition('_')[2].replace('b+', 'b')}.pt"  # it goes by the name of the file
    if not weights.exists():
        os.link(work / f"{config}.pt", weights)
    settings = {"model": str(weights), "imgsz": image_size, "task": "segment", "mode": "predict", "conf": 0.0}
    predictor = SAM2VideoPredictor(overrides={**settings, "save": False, "verbose": False, "device": "cpu"})
    yield from predictor(source=str(work / "clip.mp4"), bboxes=boxes.tolist(), stream=True)
