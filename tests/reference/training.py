"""Run upstream's training model, built by upstream's names from one small tree, on whichever `sam2` is importable.

    PYTHONPATH=.references/sam2:tests python -m reference.training weights.pt reference.npz
    PYTHONPATH=.:tests:.references/sam2 python -m reference.training weights.pt ours.npz

The current folder must not be the repository. The first run makes the weights. What evaluation gives, and the loss and
gradients of one step, are written.
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from hydra import compose
from hydra.utils import instantiate

REFERENCE = Path(__file__).resolve().parents[2] / ".references/sam2"
upstream_training = ModuleType("training")  # this repository has a folder of that name
upstream_training.__path__ = [str(REFERENCE / "training")]
sys.modules["training"] = upstream_training
sys.modules.setdefault("tensordict", SimpleNamespace(tensorclass=lambda made: made))  # type: ignore[arg-type]

from training.model.sam2 import SAM2Train  # noqa: E402

import sam2  # noqa: E402, F401 - it tells hydra where its configurations are
from reference.training_tree import SIDE, tree  # noqa: E402

FRAMES, OBJECTS = 4, 2


def clip() -> Any:
    """Frames and true masks of moving squares, as upstream's loader batches them."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(FRAMES, 3, SIDE, SIDE, generator=generator)
    masks = torch.zeros(FRAMES, OBJECTS, SIDE, SIDE, dtype=torch.bool)
    for frame in range(FRAMES):
        masks[frame, 0, 8:24, 8 + 4 * frame : 24 + 4 * frame] = True
        masks[frame, 1, 40:50, 30:60] = True
    index = torch.arange(FRAMES)[:, None].expand(FRAMES, OBJECTS)
    return SimpleNamespace(flat_img_batch=images, masks=masks, num_frames=FRAMES, flat_obj_to_img_idx=index)


def main() -> None:
    weights, output = map(Path, sys.argv[1:])
    torch.manual_seed(0)
    model = instantiate(tree(), _recursive_=True)
    assert isinstance(model, SAM2Train)
    if not weights.exists():
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        torch.save(model.state_dict(), weights)
    model.load_state_dict(torch.load(weights, weights_only=True), strict=True)
    arrays: dict[str, np.ndarray] = {}
    composed = compose(config_name="configs/sam2.1/sam2.1_hiera_t.yaml")  # as lang-segment-anything builds its model
    names = instantiate(composed.model, _recursive_=True).state_dict()
    arrays["parameters"] = np.array(sorted(f"{name} {tuple(value.shape)}" for name, value in names.items()))
    model.eval()
    with torch.no_grad():
        outputs = model(clip())
    for frame, out in enumerate(outputs):
        for key in ("pred_masks", "multistep_pred_masks_high_res", "maskmem_features"):
            arrays[f"eval.{frame}.{key}"] = out[key].float().numpy()
    model.train()
    outputs = model(clip())
    loss = sum(out["pred_masks"].square().mean() + out["multistep_pred_ious"][0].mean() for out in outputs)
    loss.backward()
    arrays["loss"] = loss.detach().numpy()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            arrays[f"grad.{name}"] = parameter.grad.norm().numpy()
    np.savez(output, **arrays)


if __name__ == "__main__":
    main()
