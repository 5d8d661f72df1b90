"""A SAM 2 model of random weights that is small enough for tests to build and run in milliseconds."""

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch

from sam2.config import SAM2Config
from sam2.modeling.sam2_base import SAM2Base

Model = TypeVar("Model", bound=SAM2Base)

TINY = SAM2Config(
    image_size=64,
    embed_dim=16,
    stages=(1, 1, 2, 1),
    global_att_blocks=(3,),
    window_spec=(4, 2, 4, 2),
    d_model=64,
    mem_dim=32,
    decoder_mlp_dim=64,
    memory_attention_layers=1,
    memory_attention_mlp_dim=64,
)


def make_tiny_model(
    dtype: torch.dtype = torch.float32,
    model_class: type[Model] = SAM2Base,  # type: ignore[assignment]
    **changes: object,
) -> Model:
    """`TINY` with changed fields, its weights moved away from their initial constants."""
    torch.manual_seed(0)
    model = model_class(replace(TINY, **changes)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.to(dtype)


def make_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random coarse colours, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
