"""The safetensors path: a folder written by transformers, tracked here and by transformers' `Sam2VideoModel`.

transformers decodes a mask prompt's object pointer from three candidates where facebookresearch/sam2 takes the single
mask, so mask prompts are compared with the latter only (`test_sam2_parity.py`).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from reference.clip import SHAPES, box_of, centre_of, shape_mask, write_clip
from reference.compare import relative_error
from reference.hugging_face import hugging_face_model
from reference.random_weights import calibrate_heads, random_state_dict
from reference.scenarios import VideoRecorder, prompt_everything

from sam2.build_sam import build_sam2_video_predictor
from sam2.config import SAM2Config
from sam2.sam2_video_predictor import SAM2VideoPredictor

TOLERANCE = 1e-4
NUM_FRAMES = 18  # more than the 16 pointers that memory attention reads
CLIP_SIZE = (120, 88)  # width, height
CONFIG = SAM2Config(
    image_size=96,
    embed_dim=16,
    stages=(1, 2, 3, 1),
    global_att_blocks=(4,),
    window_spec=(8, 4, 4, 2),
    d_model=128,
    mem_dim=64,
    decoder_mlp_dim=128,
    memory_attention_layers=2,
    memory_attention_mlp_dim=128,
)
FAMILIES = {
    "2.1": CONFIG,
    "2.0": replace(
        CONFIG,
        no_obj_embed_spatial=False,
        proj_tpos_enc_in_obj_ptrs=False,
        add_tpos_enc_to_obj_ptrs=False,
        use_signed_tpos_enc_to_obj_ptrs=False,
    ),
}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    write_clip(folder, NUM_FRAMES, CLIP_SIZE)
    return folder


@pytest.fixture(scope="module", params=FAMILIES)
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, clip: Path
) -> tuple[SAM2VideoPredictor, Any]:
    """Our predictor, built from nothing but the folder, and the model that wrote the folder."""
    config = FAMILIES[request.param]
    source = SAM2VideoPredictor(config).eval()
    source.load_state_dict(random_state_dict({name: tensor.shape for name, tensor in source.state_dict().items()}))
    calibrate_heads(source.sam_mask_decoder, lambda: prompt_everything(VideoRecorder(source, clip, CLIP_SIZE)))
    folder = tmp_path_factory.mktemp("folder")
    hf_model = hugging_face_model(config, source.state_dict(), tmp_path_factory.mktemp("numbers"))
    hf_model.save_pretrained(folder)
    ours = build_sam2_video_predictor(
        None, folder, device="cpu", hydra_overrides_extra=["++model.fill_hole_area=0"], apply_postprocessing=True
    )
    return ours, hf_model


def prompts_of(kind: str, shape_idx: int, frame_idx: int = 0) -> tuple[np.ndarray | None, np.ndarray | None, Any]:
    """Box (4,), points (P, 2) and labels (P,) in pixels of the clip, None where unused."""
    mask = shape_mask(SHAPES[shape_idx], frame_idx, CLIP_SIZE)
    if kind == "box":
        return box_of(mask), None, None
    other = shape_mask(SHAPES[(shape_idx + 1) % len(SHAPES)], frame_idx, CLIP_SIZE)
    points = np.stack([centre_of(mask), centre_of(other)])[: 1 if kind == "point" else 2]
    return None, points, np.array([1, 0])[: len(points)]


def test_image_embedding(models: tuple[SAM2VideoPredictor, Any], clip: Path) -> None:
    ours, hf_model = models
    pixels = ours.init_state(clip)["images"][0][None]
    with torch.inference_mode():
        features = ours.forward_image(pixels)
        found = [*features.high_res, ours.add_no_memory(features.vision)]
        expected = hf_model.get_image_embeddings(pixels)
    for level, reference in zip(found, expected, strict=True):
        assert relative_error(level.numpy(), reference.numpy()) <= TOLERANCE


@pytest.mark.parametrize("kinds", [["box"], ["point"], ["clicks"], ["box", "point", "clicks"]], ids="-".join)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_clip(models: tuple[SAM2VideoPredictor, Any], clip: Path, kinds: list[str], reverse: bool) -> None:
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    ours, hf_model = models
    state = ours.init_state(clip)
    video = torch.stack([state["images"][frame_idx] for frame_idx in range(NUM_FRAMES)])
    width, height = CLIP_SIZE
    session = Sam2VideoInferenceSession(video, height, width, dtype=torch.float32)
    start = NUM_FRAMES - 1 if reverse else 0
    for shape_idx, kind in enumerate(kinds):
        box, points, labels = prompts_of(kind, shape_idx, start)
        ours.add_new_points_or_box(state, start, shape_idx + 1, points=points, labels=labels, box=box)
        coords, point_labels = (box.reshape(2, 2), np.array([2, 3])) if box is not None else (points, labels)
        coords = torch.from_numpy(coords).float() / torch.tensor(CLIP_SIZE) * ours.image_size
        inputs = {"point_coords": coords[None, None], "point_labels": torch.from_numpy(point_labels).int()[None, None]}
        session.add_point_inputs(session.obj_id_to_idx(shape_idx + 1), start, inputs)
        session.obj_with_new_inputs.append(shape_idx + 1)
    tracked = list(ours.propagate_in_video(state, start_frame_idx=start, reverse=reverse))
    assert len(tracked) == NUM_FRAMES
    for frame_idx, obj_ids, masks in tracked:
        low_res = hf_model(session, frame_idx=frame_idx, reverse=reverse).pred_masks
        expected = F.interpolate(low_res.float(), size=(height, width), mode="bilinear", align_corners=False)
        assert obj_ids == session.obj_ids
        assert relative_error(masks.numpy(), expected.numpy()) <= TOLERANCE, f"frame {frame_idx}"


def test_image_model_alone_is_refused(tmp_path: Path) -> None:
    """`Sam2Model` folders lack the memory; the error says so."""
    from reference.hugging_face import hugging_face_config
    from transformers import Sam2Config, Sam2Model

    video = hugging_face_config(CONFIG)
    image = Sam2Config(
        vision_config=video.vision_config,
        prompt_encoder_config=video.prompt_encoder_config.to_dict(),
        mask_decoder_config=video.mask_decoder_config.to_dict(),
    )
    Sam2Model(image).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the image model of SAM 2 alone"):
        build_sam2_video_predictor(None, tmp_path, device="cpu")
