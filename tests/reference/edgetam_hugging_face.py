"""transformers' EdgeTAM as a second reference, in a process that has timm, which it builds the trunk with.

    PYTHONPATH=.references/edgetam:tests python -m reference.edgetam_hugging_face 128
    PYTHONPATH=.references/edgetam:tests python -m reference.edgetam_hugging_face 128 weights.pt names.json

The first prints the shapes of its tensors by name as JSON. The second writes the folder `model` with official weights,
whose names `names.json` maps to transformers', and what the model says of a clip: `answers.npz`.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import EdgeTamVideoConfig, EdgeTamVideoModel, EdgeTamVisionConfig, TimmWrapperConfig
from transformers.models.edgetam_video.modeling_edgetam_video import EdgeTamVideoInferenceSession

from reference.clip import SHAPES, box_of, centre_of, read_frame, shape_mask, write_clip
from reference.hugging_face_session import masks_of_boxes
from reference.run import edgetam_sizes
from reference.stages import Arrays, normalise

NUM_FRAMES = 10
PROMPTS = {"box": ["box"], "point": ["point"], "both": ["box", "point"]}


def model_of(image_size: int) -> Any:
    """An `EdgeTamVideoModel` with the sizes that `edgetam_sizes` gives EdgeTAM, random weights."""
    sizes = dict(setting.lstrip("+").removeprefix("model.").split("=") for setting in edgetam_sizes(image_size))
    tokens = {kind: int(sizes[f"spatial_perceiver.num_{kind}"]) for kind in ("latents", "latents_2d")}
    grid = round(tokens["latents_2d"] ** 0.5)
    arguments = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    vision = EdgeTamVisionConfig(
        backbone_config=TimmWrapperConfig(architecture="repvit_m1", model_args=arguments),
        backbone_feature_sizes=[[image_size // stride] * 2 for stride in (4, 8, 16)],
    )
    config = EdgeTamVideoConfig(
        vision_config=vision,
        prompt_encoder_config={"image_size": image_size},
        image_size=image_size,
        enable_occlusion_spatial_embedding=False,
        enable_temporal_pos_encoding_for_object_pointers=False,
        memory_attention_rope_feat_sizes=[image_size // 16] * 2,
        memory_attention_rope_k_sizes=[grid, grid],
        perceiver_resampler_num_latents=tokens["latents"],
        perceiver_resampler_num_latents_2d=tokens["latents_2d"],
    )
    return EdgeTamVideoModel(config).eval()


def load_official(model: Any, weights: dict[str, torch.Tensor], names: dict[str, list[str]]) -> None:
    """Fill a model with official weights; `names`: official name → its own, one or several of equal shape."""
    own = model.state_dict()
    for official, parts in names.items():
        if "point_embeddings" in official:  # four tensors there, the rows of one here
            own[parts[0]][int(official.split(".")[2])] = weights[official][0]
            continue
        pieces = weights[official].chunk(len(parts)) if len(parts) > 1 else [weights[official]]
        for name, piece in zip(parts, pieces, strict=True):
            own[name].copy_(piece)
    filled = {name for parts in names.values() for name in parts}
    for name in own.keys() - filled:  # the point frequencies are held twice and saved once
        own[name].copy_(weights["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"])


@torch.inference_mode()
def masks_of_clip(
    work: Path, image_size: int, frame_size: tuple[int, int], boxes: np.ndarray
) -> Iterator[torch.Tensor]:
    """Track objects through the JPEG files of `work/clip`, with `work/edgetam.pt` by `work/names.json`.

    Args:
        work: see above.
        image_size: side of the model's input.
        frame_size: (width, height) of the frames.
        boxes: (N, 4) xyxy in pixels of the first frame.

    Yields:
        (N, 1, height, width) logits of every frame.
    """
    model = model_of(image_size)
    weights = torch.load(work / "edgetam.pt", weights_only=True)["model"]
    load_official(model, weights, json.loads((work / "names.json").read_text()))
    files = sorted((work / "clip").iterdir())
    square = [np.asarray(Image.open(file).resize((image_size, image_size))) for file in files]
    width, height = frame_size
    session = EdgeTamVideoInferenceSession(torch.cat(list(map(normalise, square))), height, width, dtype=torch.float32)
    yield from masks_of_boxes(model, session, len(files), image_size, frame_size, boxes)


@torch.inference_mode()
def answers_of_model(model: Any, clip: Path, size: int) -> Arrays:
    """`embedding.LEVEL`, and `CASE.FRAME` low-resolution mask logits of the objects that PROMPTS names."""
    video = torch.cat([normalise(read_frame(clip, frame)) for frame in range(NUM_FRAMES)])
    arrays = {f"embedding.{i}": level.numpy() for i, level in enumerate(model.get_image_embeddings(video[:1]))}
    for case, kinds in PROMPTS.items():
        session = EdgeTamVideoInferenceSession(video, size, size, dtype=torch.float32)
        for obj_id, kind in enumerate(kinds, start=1):
            coords, labels = prompt_of(kind, obj_id - 1, size)
            inputs = {
                "point_coords": torch.from_numpy(coords).float()[None, None],
                "point_labels": torch.from_numpy(labels).int()[None, None],
            }
            session.add_point_inputs(session.obj_id_to_idx(obj_id), 0, inputs)
            session.obj_with_new_inputs.append(obj_id)
        for frame in range(NUM_FRAMES):
            arrays[f"{case}.{frame:02d}"] = model(session, frame_idx=frame).pred_masks.numpy().copy()
    return arrays


def prompt_of(kind: str, shape_idx: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, 2) in pixels and labels (P,) of a shape on the first frame; a box is its two corners."""
    mask = shape_mask(SHAPES[shape_idx], 0, (size, size))
    if kind == "box":
        return box_of(mask).reshape(2, 2), np.array([2, 3])
    return centre_of(mask)[None], np.array([1])


def main(image_size: int, *files: str) -> None:
    torch.manual_seed(0)
    model = model_of(image_size)
    if not files:
        print(json.dumps({name: list(tensor.shape) for name, tensor in model.state_dict().items()}))
        return
    weights, names = (Path(file) for file in files)
    load_official(model, torch.load(weights, weights_only=True)["model"], json.loads(names.read_text()))
    model.save_pretrained("model")
    write_clip(Path("clip"), NUM_FRAMES, (image_size, image_size))
    np.savez("answers.npz", **answers_of_model(model, Path("clip"), image_size))


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
