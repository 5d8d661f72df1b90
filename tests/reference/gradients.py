"""Gradients of two objects tracked over three frames, and a trunk in training, of whichever `sam2` is importable.

    PYTHONPATH=.references/edgetam:tests python -m reference.gradients --config edgetam --image-size 128 --work W

writes the reference's to `W/gradients.npz`, beside the weights and the clip that both packages read.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from reference.clip import read_frame, write_clip
from reference.run import CLIP_SIZE, build, calibrated_checkpoint
from reference.stages import Arrays, normalise

FRAMES, OBJECTS = 3, 2
KEPT = 4096  # values of each gradient, evenly spread


def gradients_of(config: str, image_size: int, work: Path) -> Arrays:
    """`grad.PARAMETER`, `loss`, and what a trunk that is in training puts out and remembers, `trained.…`."""
    model = build(config, image_size, work / "weights.pt", video=True, postprocessing=False)
    pixels = torch.cat([normalise(read_frame(work / "square", frame)) for frame in range(FRAMES)])
    encoded = model.forward_image(pixels)
    arrays: Arrays = {}
    for name, loss in (("image", image_loss(encoded)), ("tracking", tracking_loss(model, encoded))):
        loss.backward()
        arrays[f"loss.{name}"] = loss.detach().numpy()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            values = parameter.grad.flatten()
            arrays[f"grad.{name}"] = values[:: -(-len(values) // KEPT)].numpy().copy()
    trunk = model.image_encoder.trunk.train()
    with torch.no_grad():
        for level, features in enumerate(trunk(pixels)):
            arrays[f"trained.level.{level}"] = features.numpy()
    for name, buffer in trunk.named_buffers():
        arrays[f"trained.{name}"] = buffer.float().numpy().copy()
    return arrays


def image_loss(encoded: Any) -> torch.Tensor:
    """Of what the image encoder says of some frames, all of it."""
    loss = torch.zeros(())
    for level in encoded["backbone_fpn"]:
        loss = loss + (level * torch.linspace(0, 9, level.numel()).sin().view_as(level)).mean()
    return loss


def tracking_loss(model: Any, encoded: Any) -> torch.Tensor:
    """Of masks, presence and pointers of objects that are clicked on the first frame and tracked.

    It does not reach the trunk: random weights of everything behind it make its gradients chaotic.
    """
    _, features, where, sizes = model._prepare_backbone_features(encoded)
    features = [level.detach() for level in features]
    side = model.image_size
    points = torch.tensor([[[0.3, 0.4]], [[0.7, 0.6]]]) * side
    clicks = {"point_coords": points, "point_labels": torch.ones(OBJECTS, 1, dtype=torch.int32)}
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    loss = torch.zeros(())
    for frame in range(FRAMES):
        rows = torch.full((OBJECTS,), frame)
        out = model.track_step(
            frame_idx=frame,
            is_init_cond_frame=frame == 0,
            current_vision_feats=[level[:, rows] for level in features],
            current_vision_pos_embeds=[level[:, rows] for level in where],
            feat_sizes=sizes,
            point_inputs=clicks if frame == 0 else None,
            mask_inputs=None,
            output_dict=outputs,
            num_frames=FRAMES,
        )
        outputs["cond_frame_outputs" if frame == 0 else "non_cond_frame_outputs"][frame] = out
        if frame == 0:
            continue
        loss = loss + out["pred_masks"].sigmoid().mean() + out["obj_ptr"].square().mean()
        loss = loss + out["object_score_logits"].sigmoid().mean()
    return loss


def main() -> None:
    """Make clips and weights, run the reference."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    parser.add_argument("--image-size", type=int, required=True)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    work: Path = arguments.work
    write_clip(work / "clip", FRAMES, CLIP_SIZE)
    write_clip(work / "square", FRAMES, (arguments.image_size,) * 2)
    calibrated_checkpoint(arguments.config, arguments.image_size, work / "clip", work / "weights.pt")
    np.savez(work / "gradients.npz", **gradients_of(arguments.config, arguments.image_size, work))


if __name__ == "__main__":
    main()
