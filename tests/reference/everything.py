"""Run the automatic mask generator of whichever `sam2` is importable; see `reference.run`.

    python -m reference.everything --work W     writes the reference's records to W/records.npz

Random weights put nearly the same box around every mask, so non-maximum suppression is off where records are to
be compared in number; `suppressed` has it on. They also reach the edges of every crop, where masks are dropped but
near the image's edges: `crops` is run on a small image.
"""

import argparse
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from reference.clip import read_frame, write_clip
from reference.run import CLIP_SIZE, build, calibrated_checkpoint

SMALL_IMAGE = slice(30), slice(36)
CONFIG, IMAGE_SIZE = "sam2.1_hiera_t", 128
LOOSE = {"points_per_side": 4, "pred_iou_thresh": 0.3, "stability_score_thresh": 0.3}
ALL = {**LOOSE, "box_nms_thresh": 1.0, "crop_nms_thresh": 1.0}
CASES: dict[str, dict[str, Any]] = {
    "plain": ALL,
    "suppressed": {**LOOSE, "box_nms_thresh": 0.9},
    "strict": {**ALL, "pred_iou_thresh": 0.6, "stability_score_thresh": 0.6, "stability_score_offset": 0.7},
    "crops": {**ALL, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2, "mask_threshold": 0.2},
    "refined": {**ALL, "use_m2m": True, "points_per_batch": 5},
    "cleaned": {**ALL, "min_mask_region_area": 25},
    "single": {**ALL, "multimask_output": False, "point_grids": [np.array([[0.2, 0.3], [0.5, 0.5], [0.9, 0.1]])],
               "points_per_side": None},
}  # fmt: skip


def components_on_cpu(masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Stands in for the reference's CUDA kernel: labels and areas of (N, 1, H, W) components, zeros elsewhere."""
    labels, areas = torch.zeros_like(masks, dtype=torch.int32), torch.zeros_like(masks, dtype=torch.int32)
    for i, mask in enumerate(masks.numpy().astype(np.uint8)):
        _, components, statistics, _ = cv2.connectedComponentsWithStats(mask[0], connectivity=8)
        of_component = statistics[:, cv2.CC_STAT_AREA]
        of_component[0] = 0
        labels[i, 0], areas[i, 0] = torch.from_numpy(components), torch.from_numpy(of_component[components])
    return labels, areas


def records_of(package: str, work: Path, config: str = CONFIG) -> dict[str, np.ndarray]:
    """CASE.KEY → what the generator of `package` ("reference" or "ours") makes of the clip and weights in `work`."""
    model = build(config, IMAGE_SIZE, work / "weights.pt", video=False, postprocessing=True)
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

    arrays: dict[str, np.ndarray] = {}
    for name, settings in CASES.items():
        generator = SAM2AutomaticMaskGenerator(model, **settings)
        if package == "reference":
            from sam2.utils import misc

            misc.get_connected_components = components_on_cpu
            generator.predictor._bb_feat_sizes = [(IMAGE_SIZE // stride,) * 2 for stride in (4, 8, 16)]
        image = read_frame(work / "clip", 0)
        records = generator.generate(image[SMALL_IMAGE] if name == "crops" else image)
        for key in records[0]:
            arrays[f"{name}.{key}"] = np.array([record[key] for record in records])
    return arrays


def main() -> None:
    """Make a clip and weights, run every case with the reference."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--config", default=CONFIG)
    arguments = parser.parse_args()
    work: Path = arguments.work
    write_clip(work / "clip", 10, CLIP_SIZE)
    calibrated_checkpoint(arguments.config, IMAGE_SIZE, work / "clip", work / "weights.pt")
    np.savez_compressed(work / "records.npz", **records_of("reference", work, arguments.config))


if __name__ == "__main__":
    main()
