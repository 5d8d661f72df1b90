"""Tiny random Grounding DINOs: transformers' model and ours on the same weights, and inputs for both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grounded_sam2.detectors.efficientnet_lite import EfficientNetLiteConfig
from grounding_dino.groundingdino.models.grounding_dino import DetectorOutput, GroundingDINO
from grounding_dino.groundingdino.text import TextInputs, text_inputs

CLS, SEP, STOP, QUESTION = 101, 102, 1012, 1029
SPECIAL_IDS = (CLS, SEP, STOP, QUESTION)
VOCABULARY = 1100

# Token ids of whole texts, as [CLS] phrase . phrase . [SEP].
PROMPTS = {
    "one word": [CLS, 7, STOP, SEP],
    "two phrases": [CLS, 7, 8, STOP, 1050, STOP, SEP],
    "many phrases": [CLS, 7, 8, 9, STOP, 1050, STOP, 33, 34, 35, 36, QUESTION, 40, STOP, 41, 42, STOP, SEP],
}

SWIN: dict[str, Any] = {"embed_dim": 16, "depths": [2, 2, 2, 1], "num_heads": [1, 2, 2, 4], "window_size": 4}
RESNET: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [8, 16, 24, 32],
    "depths": [1, 2, 1, 1],
    "layer_type": "basic",
}


def hugging_face_model(kind: str = "GroundingDino", backbone: str = "swin", seed: int = 0, **settings: Any) -> Any:
    """A random transformers model, in evaluation mode, in which no weight is left at its neutral start.

    Args:
        kind: "GroundingDino" or "MMGroundingDino".
        backbone: "swin", "resnet" or "efficientnet_lite".
        seed: of the weights.
        settings: of the model's config, in transformers' spelling.
    """
    import transformers

    torch.manual_seed(seed)
    if backbone == "swin":
        backbone_config = transformers.SwinConfig(image_size=64, out_indices=[2, 3, 4], **SWIN)
    elif backbone == "efficientnet_lite":
        backbone_config = EfficientNetLiteConfig(out_indices=[2, 3, 4])
    else:
        backbone_config = transformers.ResNetConfig(out_indices=[2, 3, 4], **RESNET)
    text_config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=40,
    )  # fmt: skip
    sizes = {
        "d_model": 64, "num_queries": 20, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 40, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_text_len": 32,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(
        backbone_config=backbone_config, text_config=text_config, disable_custom_kernels=True, **(sizes | settings)
    )
    model = getattr(transformers, f"{kind}ForObjectDetection")(config).eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point():
                tensor.add_(0.05 * torch.randn_like(tensor))
    return model


def random_images(*sizes: tuple[int, int], seed: int = 0) -> list[Tensor]:
    """Normalised images (3, height, width) float32."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, height, width, generator=generator) for height, width in sizes]


def texts(*input_ids: Sequence[int]) -> TextInputs:
    return text_inputs(input_ids, SPECIAL_IDS)


@torch.inference_mode()
def run(model: GroundingDINO, images: Sequence[Tensor], *input_ids: Sequence[int]) -> DetectorOutput:
    return model(images, texts(*input_ids))


@torch.inference_mode()
def run_hugging_face(model: Any, image: Tensor, input_ids: Sequence[int]) -> DetectorOutput:
    """What transformers makes of one image and one text; its logits are cut to the tokens that there are."""
    output = model(pixel_values=image[None].to(model.dtype), input_ids=torch.tensor([input_ids]))
    return DetectorOutput(output.logits[..., : len(input_ids)], output.pred_boxes)


def save(model: Any, folder: Path) -> Path:
    """Write a transformers model as its folder; returns the folder."""
    model.save_pretrained(folder)
    return folder


def difference(ours: DetectorOutput, reference: DetectorOutput) -> float:
    """The largest error of logits, relative to the largest logit, or of boxes."""
    logits = (ours.logits - reference.logits).abs().max() / reference.logits.abs().max()
    return max(float(logits), float((ours.boxes_cxcywh - reference.boxes_cxcywh).abs().max()))
