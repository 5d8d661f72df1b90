"""The stages of the model one by one, so that a difference is found where it arises.

The reference run makes the inputs of every stage and keeps them beside its outputs; the other run is fed the very same
inputs. Names of arrays: `in.…` and `out.…`.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]

NUM_OBJECTS = 2
NUM_MEMORY_FRAMES = 3
POINTER_TIMES = (0.0, 1.0, 2.0, 5.0)  # frames between pointer and now
FURTHEST_POINTER = 15.0
PIXEL_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
PIXEL_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def normalise(image: NDArray[np.uint8]) -> torch.Tensor:
    """(S, S, 3) uint8 RGB → (1, 3, S, S) float32 as the model reads it."""
    pixels = (image.astype(np.float32) / 255 - PIXEL_MEAN) / PIXEL_STD
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def prompts(image_size: int) -> dict[str, tuple[list[list[float]], list[int], bool]]:
    """Prompts for the mask decoder: coordinates in pixels of the model's input, labels, multimask."""
    side = float(image_size)
    box = [[0.2 * side, 0.15 * side], [0.6 * side, 0.7 * side]]
    return {
        "point": ([[0.3 * side, 0.4 * side]], [1], True),
        "point_single": ([[0.7 * side, 0.5 * side]], [1], False),
        "clicks": ([[0.3 * side, 0.4 * side], [0.8 * side, 0.8 * side], [0.1 * side, 0.9 * side]], [1, 0, 1], False),
        "box": (box, [2, 3], False),
        "padded": ([*box, [0.0, 0.0]], [2, 3, -1], False),
        "nothing": ([[0.0, 0.0]], [-1], True),
    }


@torch.inference_mode()
def reference_stages(model: Any, pixels: torch.Tensor) -> Arrays:
    """Run every stage of the reference model and keep inputs and outputs.

    Args:
        model: The reference package's `SAM2Base`.
        pixels: (1, 3, S, S) normalised image.
    """
    arrays: Arrays = {"in.pixels": _numpy(pixels)}
    for level, features in enumerate(model.image_encoder.trunk(pixels)):
        arrays[f"out.trunk.{level}"] = _numpy(features)
    encoded = model.forward_image(pixels)
    high_res, vision = encoded["backbone_fpn"][:-1], encoded["backbone_fpn"][-1]
    arrays["out.vision"] = _numpy(vision)
    for level, features in enumerate(high_res):
        arrays[f"out.high_res.{level}"] = _numpy(features)

    embedding = vision + model.no_mem_embed.permute(1, 2, 0)[..., None]
    for name, (coords, labels, multimask) in prompts(model.image_size).items():
        point_inputs = {
            "point_coords": torch.tensor([coords]),
            "point_labels": torch.tensor([labels], dtype=torch.int32),
        }
        heads = model._forward_sam_heads(embedding, point_inputs, None, high_res, multimask)
        arrays.update(_head_arrays(f"heads.{name}", heads[0], heads[2], heads[3], heads[5], heads[6]))
    mask_prompt = heads[3]
    arrays["in.mask_prompt"] = _numpy(mask_prompt)
    heads = model._forward_sam_heads(embedding, None, mask_prompt, high_res, False)
    arrays.update(_head_arrays("heads.mask_prompt", heads[0], heads[2], heads[3], heads[5], heads[6]))

    generator = torch.Generator().manual_seed(5)
    side = model.image_size
    full_masks = 6 * torch.randn(NUM_OBJECTS, 1, side // 32, side // 32, generator=generator)
    full_masks = torch.nn.functional.interpolate(full_masks, size=(side, side), mode="bilinear", align_corners=False)
    scores = torch.tensor([[2.0], [-2.0]])
    features = vision.flatten(2).permute(2, 0, 1).expand(-1, NUM_OBJECTS, -1)
    sizes = [tuple(vision.shape[-2:])]
    arrays["in.full_masks"], arrays["in.scores"] = _numpy(full_masks), _numpy(scores)
    for prompted in (False, True):
        memory, memory_pe = model._encode_new_memory([features], sizes, full_masks, scores, prompted)
        arrays[f"out.memory.{'prompted' if prompted else 'tracked'}"] = _numpy(_channels_first(memory))
    if getattr(model, "spatial_perceiver", None) is not None:
        whole, where = model.memory_encoder(vision, full_masks, skip_mask_sigmoid=True).values()
        tokens, places = model.spatial_perceiver(whole, where[0])
        arrays["in.whole_memory"] = _numpy(whole)
        arrays["out.perceived"], arrays["out.places"] = _numpy(_channels_first(tokens)), _numpy(places[:1])

    spatial = torch.stack([memory.roll(3 * age, dims=-1) for age in range(NUM_MEMORY_FRAMES)], dim=1)
    pointers = torch.randn(NUM_OBJECTS, len(POINTER_TIMES), vision.shape[1], generator=generator)
    kept = torch.stack([_channels_first(memory) for memory in spatial.unbind(1)], dim=1)
    arrays["in.spatial"], arrays["in.pointers"] = _numpy(kept), _numpy(pointers)
    frame_idx = 5
    tracked = {frame_idx - age: age for age in range(1, NUM_MEMORY_FRAMES)}
    entry_of = {frame_idx - int(time): i for i, time in enumerate(POINTER_TIMES)}
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    for past_idx in (0, *tracked):
        outputs["cond_frame_outputs" if past_idx == 0 else "non_cond_frame_outputs"][past_idx] = {
            "maskmem_features": spatial[:, tracked.get(past_idx, 0)],
            "maskmem_pos_enc": memory_pe,
            "obj_ptr": pointers[:, entry_of[past_idx]],
        }
    vision_pe = encoded["vision_pos_enc"][-1].flatten(2).permute(2, 0, 1).expand(-1, NUM_OBJECTS, -1)
    conditioned = model._prepare_memory_conditioned_features(
        frame_idx=frame_idx,
        is_init_cond_frame=False,
        current_vision_feats=[features],
        current_vision_pos_embeds=[vision_pe],
        feat_sizes=sizes,
        output_dict=outputs,
        num_frames=int(FURTHEST_POINTER) + 1,
    )
    arrays["out.conditioned"] = _numpy(conditioned)
    return arrays


@torch.inference_mode()
def our_stages(model: Any, inputs: Arrays) -> Arrays:
    """Run every stage of this repository's model on the inputs the reference run kept.

    Args:
        model: A `sam2.modeling.sam2_base.SAM2Base`.
        inputs: What `reference_stages` returned; the `out.…` arrays serve as the inputs of later stages.
    """
    kept = {name: torch.from_numpy(array) for name, array in inputs.items()}
    arrays: Arrays = {}
    for level, features in enumerate(model.image_encoder.trunk(kept["in.pixels"])):
        arrays[f"out.trunk.{level}"] = _numpy(features)
    encoded = model.forward_image(kept["in.pixels"])
    arrays["out.vision"] = _numpy(encoded.vision)
    for level, features in enumerate(encoded.high_res):
        arrays[f"out.high_res.{level}"] = _numpy(features)

    vision = kept["out.vision"]
    high_res = [kept["out.high_res.0"], kept["out.high_res.1"]]
    embedding = model.add_no_memory(vision)
    for name, (coords, labels, multimask) in prompts(model.image_size).items():
        points = (torch.tensor([coords]), torch.tensor([labels], dtype=torch.int32))
        heads = model.sam_heads(embedding, high_res, points, None, multimask)
        arrays.update(_head_arrays(f"heads.{name}", *_fields(heads)))
    heads = model.sam_heads(embedding, high_res, None, kept["in.mask_prompt"], False)
    arrays.update(_head_arrays("heads.mask_prompt", *_fields(heads)))

    for prompted in (False, True):
        memory = model.encode_memory(vision, kept["in.full_masks"], kept["in.scores"], prompted)
        arrays[f"out.memory.{'prompted' if prompted else 'tracked'}"] = _numpy(memory)
    if "in.whole_memory" in kept:
        tokens = model.spatial_perceiver(kept["in.whole_memory"])
        places = model.spatial_perceiver.position_encoding(tokens.shape[1:], tokens.device, tokens.dtype)
        arrays["out.perceived"], arrays["out.places"] = _numpy(tokens), _numpy(places)

    ages = torch.arange(NUM_MEMORY_FRAMES).expand(NUM_OBJECTS, -1)
    # on frame 5 the conditioning frame is frame 0; pointers are kept for it and for frames 4 and 3
    used = [POINTER_TIMES.index(time) for time in (5.0, 1.0, 2.0)]
    times = torch.tensor([POINTER_TIMES[i] for i in used]).expand(NUM_OBJECTS, -1) / FURTHEST_POINTER
    memory = model.assemble_memory(kept["in.spatial"], ages, kept["in.pointers"][:, used], times)
    arrays["out.conditioned"] = _numpy(model.condition_on_memory(model.attend_to_frame(vision), *memory))
    return arrays


def _channels_first(memory: torch.Tensor) -> torch.Tensor:
    """EdgeTAM's reference has memories of tokens (N, L, C); ours are (N, C, ...) as all memories are."""
    return memory.transpose(1, 2) if memory.dim() == 3 else memory


def _head_arrays(prefix: str, *tensors: torch.Tensor) -> Arrays:
    kinds = ("multimasks", "ious", "low_res", "obj_ptr", "object_score")
    return {f"out.{prefix}.{kind}": _numpy(tensor) for kind, tensor in zip(kinds, tensors, strict=True)}


def _fields(heads: Any) -> tuple[torch.Tensor, ...]:
    return heads.low_res_multimasks, heads.ious, heads.low_res_masks, heads.obj_ptr, heads.object_score_logits


def _numpy(tensor: torch.Tensor) -> NDArray[Any]:
    return tensor.float().cpu().numpy().copy()
