"""EdgeTAM's own parts and its place among the predictors, on a small random model; parity: `test_edgetam_parity.py`."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_sam2_video_predictor import BOXES, HEIGHT, WIDTH, prompt
from tiny_sam2 import make_image, make_tiny_model
from torch import Tensor, nn

from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.build_sam import build_sam2, build_sam2_video_predictor
from sam2.config import load_config
from sam2.modeling.perceiver import SpatialPerceiver
from sam2.modeling.position_encoding import rope_rotations
from sam2.modeling.repvit import ChannelMixer, ConvNorm, RepViT, TokenMixer
from sam2.sam2_camera_predictor import SAM2CameraPredictor
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor
from sam2.weights import config_for, config_of, describe, find_weights

CHANGES = {
    "backbone": "repvit",
    "memory_compressor": "perceiver",
    "perceiver_latents": 6,
    "perceiver_latents_2d": 4,
    "memory_attention_layers": 2,
    "proj_tpos_enc_in_obj_ptrs": False,
    "add_tpos_enc_to_obj_ptrs": False,
    "no_obj_embed_spatial": False,
}


def make_edgetam(model_class: type[SAM2VideoPredictor] = SAM2VideoPredictor, **changes: object) -> SAM2VideoPredictor:
    """Random weights and batch statistics, with object scores above zero so that masks are alive."""
    model = make_tiny_model(model_class=model_class, **{**CHANGES, **changes})
    with torch.no_grad():
        spread_statistics(model)
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias += 3.0
    return model


def spread_statistics(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(std=0.3)  # type: ignore[union-attr]
            part.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr, operator]


@pytest.fixture(scope="module")
def predictor() -> SAM2VideoPredictor:
    return make_edgetam()


@pytest.fixture(scope="module")
def exact_predictor() -> SAM2VideoPredictor:
    """For comparisons between batches of different sizes, see `test_sam2_video_predictor.py`."""
    return make_edgetam().double()


@pytest.fixture(scope="module")
def clip() -> list[np.ndarray]:
    background = make_image(HEIGHT, WIDTH)
    return [np.roll(background, 2 * i, axis=1) for i in range(8)]


def batch_normalised(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


# ---- one convolution for several ----


def branches(mixer: TokenMixer, x: Tensor) -> Tensor:
    """What a token mixer is made of, each part run as it stands."""
    return batch_normalised(mixer.conv.bn, mixer.conv.c(x)) + batch_normalised(mixer.conv1.bn, mixer.conv1.c(x)) + x


@pytest.mark.parametrize("with_gradients", [False, True])
def test_branches_are_one_convolution(with_gradients: bool) -> None:
    torch.manual_seed(0)
    mixer = TokenMixer(6).double().eval()
    spread_statistics(mixer)
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    with torch.set_grad_enabled(with_gradients):
        torch.testing.assert_close(mixer(x), branches(mixer, x), rtol=1e-12, atol=1e-12)


def test_a_convolution_follows_its_parameters() -> None:
    """Whatever changes them: a step of training, new statistics, a loaded file, another precision."""
    torch.manual_seed(0)
    mixer, x = TokenMixer(4).eval(), torch.randn(2, 4, 6, 6)

    def check(tolerance: float = 1e-5) -> None:
        with torch.no_grad():
            torch.testing.assert_close(mixer(x), branches(mixer, x), rtol=tolerance, atol=tolerance)

    check()
    first = mixer.folded()
    with torch.inference_mode():
        assert mixer.folded() is not first  # kept for plain inference only from here on
        assert mixer.folded() is mixer.folded()
    with torch.no_grad():
        mixer.conv1.c.weight += 1
    check()
    mixer.train()(x)
    mixer.eval()
    check()
    mixer.load_state_dict({name: 2 * value for name, value in mixer.state_dict().items()})
    check()
    mixer.conv.bn.weight.data = torch.full((4,), 3.0)
    check()
    x = x.bfloat16()
    mixer.bfloat16()
    check(tolerance=5e-2)
    assert mixer.folded()[0].dtype == torch.bfloat16
    x = x.float()
    mixer.float()
    check()
    x = x.double()
    copy.deepcopy(mixer).double()(x)
    mixer.double()
    check(tolerance=1e-12)


def test_the_state_dict_is_the_checkpoint_s(predictor: SAM2VideoPredictor) -> None:
    """Running a model adds nothing to what is saved of it, and changes nothing."""
    before = {name: value.clone() for name, value in predictor.state_dict().items()}
    predictor.forward_image(torch.randn(1, 3, 64, 64))
    assert before.keys() == predictor.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in predictor.state_dict().items())
    assert "image_encoder.trunk.body.stages_1.blocks.0.token_mixer.conv1.bn.num_batches_tracked" in before


def test_training_normalises_by_the_batch() -> None:
    torch.manual_seed(0)
    layer, x = ConvNorm(3, 5, kernel_size=3, stride=2).train(), torch.randn(4, 3, 8, 8)
    y = layer(x)
    assert y.shape == (4, 5, 4, 4)
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(5), rtol=0, atol=1e-5)
    assert layer.bn.running_mean is not None and layer.bn.running_mean.abs().max() > 0


@pytest.mark.parametrize("side", [3, 70])  # less than a block of rows, and several
def test_a_channel_mixer_in_blocks(side: int) -> None:
    torch.manual_seed(0)
    mixer, x = ChannelMixer(4).eval(), torch.randn(1, 4, side, side).contiguous(memory_format=torch.channels_last)
    spread_statistics(mixer)
    expected = mixer(x)
    with torch.no_grad():
        torch.testing.assert_close(mixer(x), expected)


def test_any_layout_of_an_image_gives_the_same_levels() -> None:
    torch.manual_seed(0)
    trunk, images = RepViT(16, (1, 2, 2, 1)).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        levels = trunk(images)
        again = trunk(images.contiguous(memory_format=torch.channels_last))
    assert [tuple(level.shape) for level in levels] == [(2, 16 * 2**i, 16 // 2**i, 16 // 2**i) for i in range(4)]
    assert all(torch.equal(level, other) for level, other in zip(levels, again, strict=True))


# ---- the perceiver ----


def test_tokens_without_a_place_come_first() -> None:
    perceiver = SpatialPerceiver(8, num_latents=5, num_latents_2d=4, num_layers=1, side=6)
    device = torch.device("cpu")
    places = perceiver.position_encoding((8, 9), device, torch.float32)
    turns = perceiver.rotations(16, 10000.0, device)
    assert places.shape == (1, 9, 8) and not places[:, :5].any() and places[:, 5:].any()
    assert turns.shape == (9, 8) and torch.equal(turns[:5], torch.ones(5, 8, dtype=turns.dtype))
    assert torch.equal(turns[5:], rope_rotations(16, 2, 2, 10000.0, device))


@torch.no_grad()
def test_a_window_s_token_sees_its_window_alone() -> None:
    torch.manual_seed(0)
    perceiver = SpatialPerceiver(8, num_latents=3, num_latents_2d=4, num_layers=2, side=6)
    memory = torch.randn(2, 8, 6, 6)
    changed = memory.clone()
    changed[:, :, :3, 3:] += 1  # the second of 2×2 windows
    before, after = perceiver(memory), perceiver(changed)
    assert before.shape == (2, 8, 7)
    is_changed = (before != after).any(dim=1)
    assert is_changed.tolist() == [[True] * 3 + [False, True, False, False]] * 2
    torch.testing.assert_close(perceiver(memory[1:]), before[1:])


@pytest.mark.parametrize(("latents", "latents_2d"), [(0, 4), (4, 0), (4, 3), (4, 9), (4, -4)])
def test_a_grid_that_does_not_fit_is_refused(latents: int, latents_2d: int) -> None:
    with pytest.raises(ValueError, match="expected at least one latent, and a square number of latents_2d"):
        make_edgetam(perceiver_latents=latents, perceiver_latents_2d=latents_2d)


def test_an_image_size_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="an image_size that is a multiple of 256"):
        build_sam2("edgetam", device="cpu", hydra_overrides_extra=["image_size=640"])


# ---- the predictors ----


def tracked(predictor: SAM2VideoPredictor, clip: list[np.ndarray], *obj_ids: int) -> list[Tensor]:
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, *obj_ids)
    return [masks for _, _, masks in predictor.propagate_in_video(state)]


def test_stream_clip_and_camera_agree(predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    """A stream that is saved in its middle, a clip, and the camera predictor."""
    offline = tracked(predictor, clip, 1, 2)
    assert (offline[5] > 0).any() and (offline[5] < 0).any() and not torch.equal(offline[3], offline[5])
    state = predictor.init_stream()
    camera = make_edgetam(SAM2CameraPredictor)
    assert isinstance(camera, SAM2CameraPredictor)
    for t, image in enumerate(clip):
        predictor.append_frame(state, image)
        if t == 0:
            prompt(predictor, state, 0, 1, 2)
            camera.load_first_frame(image)
            for obj_id in (1, 2):
                camera.add_new_prompt(frame_idx=0, obj_id=obj_id, bbox=np.array(BOXES[obj_id], np.float32))
        else:
            assert torch.equal(camera.track(image)[1], offline[t])
        assert torch.equal(predictor.step(state)[1], offline[t])
        if t == 4:
            state = predictor.load_stream(predictor.save_stream(state))
    output = state.objects[1].non_cond[5]
    assert output.maskmem is not None and output.maskmem.shape == (1, 32, 10)
    assert output["maskmem_pos_enc"] is None


def test_objects_in_one_batch_are_each_on_their_own(
    exact_predictor: SAM2VideoPredictor, clip: list[np.ndarray]
) -> None:
    together = tracked(exact_predictor, clip[:5], 1, 2, 3)
    for position, obj_id in enumerate((1, 2, 3)):
        for masks, alone in zip(together, tracked(exact_predictor, clip[:5], obj_id), strict=True):
            torch.testing.assert_close(masks[position], alone[0], rtol=1e-4, atol=1e-4)


def test_objects_join_are_corrected_and_leave(exact_predictor: SAM2VideoPredictor, clip: list[np.ndarray]) -> None:
    predictor = exact_predictor
    state = predictor.init_state(clip)
    prompt(predictor, state, 0, 1)
    list(predictor.propagate_in_video(state, max_frame_num_to_track=4))
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 20:60] = True
    predictor.add_new_mask(state, 3, 2, mask)
    predictor.add_new_points_or_box(state, 3, 1, points=[[20, 20]], labels=[1])
    first = {t: masks for t, _, masks in predictor.propagate_in_video(state, start_frame_idx=3)}
    assert all(masks.shape[0] == 2 for masks in first.values())
    assert ((first[3][1, 0] > 0).numpy() == mask).mean() > 0.9
    predictor.remove_object(state, 1)
    left = {t: (ids, masks) for t, ids, masks in predictor.propagate_in_video(state, start_frame_idx=3)}
    assert all(ids == [2] and masks.shape[0] == 1 for ids, masks in left.values())
    torch.testing.assert_close(left[6][1][0], first[6][1], rtol=1e-4, atol=1e-4)
    backwards = [t for t, _, _ in predictor.propagate_in_video(state, start_frame_idx=3, reverse=True)]
    assert backwards == [3, 2, 1, 0]


def test_images_and_everything_in_them(predictor: SAM2VideoPredictor) -> None:
    image = make_image(60, 90)
    images = SAM2ImagePredictor(predictor)
    images.set_image(image)
    masks, ious, _ = images.predict(box=np.array([10, 10, 60, 50]), multimask_output=True)
    assert masks.shape == (3, 60, 90) and ious.shape == (3,)
    settings = {"points_per_side": 3, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
    assert len(SAM2AutomaticMaskGenerator(predictor, **settings).generate(image)) > 0  # type: ignore[arg-type]


def test_half_precision_is_close(clip: list[np.ndarray]) -> None:
    exact = make_edgetam()
    half = make_edgetam().bfloat16()
    pixels = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        expected, found = exact.forward_image(pixels).vision, half.forward_image(pixels).vision
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()
    assert len(tracked(half, clip[:3], 1)) == 3


# ---- files ----


def test_found_by_name_and_by_its_weights(tmp_path: Path) -> None:
    config = load_config("edgetam")
    assert load_config("configs/edgetam.yaml") == load_config("edgetam.yaml") == config
    model = build_sam2("configs/edgetam.yaml", device="cpu")
    torch.save({"model": model.state_dict()}, tmp_path / "edgetam.pt")
    assert config_of(model.state_dict()) == config
    assert describe(model.state_dict()) == "EdgeTAM, trunk 48 wide with stages (2, 2, 14, 2) weights"
    read = build_sam2_video_predictor(None, tmp_path / "edgetam.pt", device="cpu")
    assert torch.equal(read.no_mem_embed, model.no_mem_embed) and read.config.fill_hole_area == 8
    with pytest.raises(FileNotFoundError, match=r"python -m grounded_sam2\.download edgetam"):
        find_weights(tmp_path / "elsewhere" / "edgetam.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"vision_config": {"backbone_config": {"architecture": "repvit_m3"}}},
            "the trunk 'repvit_m1', found 'repvit_m3'",
        ),
        ({"vision_config": None}, "the trunk 'repvit_m1', found None"),
        ({"perceiver_resampler_num_attention_heads": 4}, "perceiver_resampler_num_attention_heads 1, found 4"),
    ],
)
def test_folders_with_parts_that_are_not_here(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    config = {
        "model_type": "edgetam_video",
        "vision_config": {"backbone_config": {"model_type": "timm_wrapper", "architecture": "repvit_m1"}},
    }
    (tmp_path / "config.json").write_text(json.dumps(config | {"enable_occlusion_spatial_embedding": False}))
    assert config_for(tmp_path) == load_config("edgetam")
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ValueError, match=message):
        config_for(tmp_path)
