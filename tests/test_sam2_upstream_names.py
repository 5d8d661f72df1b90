"""Scripts written for facebookresearch/sam2, by what they reach for: each idiom as other projects have it."""

import importlib
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from reference.cache import REFERENCES, answers_of
from reference.training_tree import SIDE, tree
from tiny_sam2 import make_image, make_tiny_model

from sam2.build_sam import build_sam2, build_sam2_video_predictor
from sam2.config import CONFIG_FILES, find_config, load_config
from sam2.modeling.hiera import Hiera
from sam2.modeling.position_encoding import PositionEmbeddingSine
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import get_next_point, sample_box_points, select_closest_cond_frames
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor, SAM2VideoPredictorVOS

NOT_IN_UPSTREAM = ("sam2.1-nano", "edgetam")
MODULES = {
    "sam2.utils.misc": "mask_to_box fill_holes_in_mask_scores get_connected_components concat_points load_video_frames",
    "sam2.utils.transforms": "SAM2Transforms",
    "sam2.utils.amg": "MaskData batch_iterator rle_to_mask mask_to_rle_pytorch calculate_stability_score uncrop_masks",
    "sam2.modeling.backbones.hieradet": "Hiera MultiScaleBlock",
    "sam2.modeling.backbones.image_encoder": "ImageEncoder FpnNeck",
    "sam2.modeling.backbones.utils": "PatchEmbed window_partition window_unpartition",
    "sam2.modeling.sam.mask_decoder": "MaskDecoder",
    "sam2.modeling.sam.prompt_encoder": "PromptEncoder",
    "sam2.modeling.sam.transformer": "Attention RoPEAttention TwoWayTransformer",
    "sam2.modeling.sam2_utils": "MLP LayerNorm2d DropPath get_activation_fn get_clones get_1d_sine_pe",
    "sam2.modeling.memory_attention": "MemoryAttention MemoryAttentionLayer",
    "sam2.modeling.memory_encoder": "MemoryEncoder MaskDownSampler Fuser CXBlock",
    "sam2.modeling.position_encoding": "PositionEmbeddingSine PositionEmbeddingRandom",
}


def built(node: Any) -> Any:
    """What hydra's `instantiate` makes of a tree."""
    if isinstance(node, Mapping):
        made = {key: built(value) for key, value in node.items() if key != "_target_"}
        if "_target_" not in node:
            return made
        module, _, name = node["_target_"].rpartition(".")
        return getattr(importlib.import_module(module), name)(**made)
    return [built(value) for value in node] if isinstance(node, list) else node


@pytest.fixture(scope="module")
def model() -> SAM2Base:
    return make_tiny_model()


@pytest.fixture(scope="module")
def from_tree() -> SAM2Base:
    torch.manual_seed(0)
    description = {key: value for key, value in tree().items() if "_for_" not in key and "_pt_per_" not in key}
    return built(
        {**description, "_target_": "sam2.modeling.sam2_base.SAM2Base", "only_obj_ptrs_in_the_past_for_eval": True}
    )


@pytest.mark.parametrize(("module", "names"), MODULES.items())
def test_modules_have_their_names(module: str, names: str) -> None:
    assert all(hasattr(importlib.import_module(module), name) for name in names.split())


# ---- fine-tuning ----


@pytest.mark.parametrize("with_box", [False, True])
def test_fine_tuning_reaches_decoder_and_prompt_encoder(with_box: bool) -> None:
    model = make_tiny_model()
    predictor = SAM2ImagePredictor(model)
    predictor.model.sam_mask_decoder.train(True)
    predictor.model.sam_prompt_encoder.train(True)
    predictor.set_image(make_image(40, 50))
    points, labels = np.array([[[20, 10]], [[30, 25]]]), np.ones([2, 1])
    box = np.array([[5, 5, 30, 30], [10, 10, 40, 35]]) if with_box else None
    mask_input, coords, labels, box = predictor._prep_prompts(
        points, labels, box=box, mask_logits=None, normalize_coords=True
    )
    assert mask_input is None
    sparse, dense = predictor.model.sam_prompt_encoder(points=(coords, labels), boxes=box, masks=None)
    assert sparse.shape[1] == (3 if with_box else 2)
    high_res = [level[-1].unsqueeze(0) for level in predictor._features["high_res_feats"]]
    masks, ious, _, _ = predictor.model.sam_mask_decoder(
        image_embeddings=predictor._features["image_embed"][-1].unsqueeze(0),
        image_pe=predictor.model.sam_prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
        repeat_image=coords.shape[0] > 1,
        high_res_features=high_res,
    )
    full = predictor._transforms.postprocess_masks(masks, predictor._orig_hw[-1])
    assert full.shape == (2, 3, 40, 50) and ious.shape == (2, 3)
    full.sigmoid().mean().backward()
    for part in (model.sam_mask_decoder.mask_tokens, model.sam_prompt_encoder.point_embeddings[1]):
        assert part.weight.grad is not None and part.weight.grad.abs().sum() > 0


def test_the_pieces_give_what_predict_gives(model: SAM2Base) -> None:
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(make_image(40, 50))
    box = np.array([5, 5, 30, 30])
    _, _, expected = predictor.predict(box=box, multimask_output=False)
    _, _, _, corners = predictor._prep_prompts(None, None, box, None, True)
    labels = torch.tensor([[2, 3]])
    with torch.no_grad():
        sparse, dense = model.sam_prompt_encoder(points=(corners, labels), boxes=None, masks=None)
        masks, *_ = model.sam_mask_decoder(
            predictor._features["image_embed"], model.sam_prompt_encoder.get_dense_pe(), sparse, dense, False, False,
            predictor._features["high_res_feats"],
        )  # fmt: skip
    np.testing.assert_array_equal(masks[0].clamp(-32, 32).numpy(), expected)


def test_embeddings_are_taken_out_and_put_back(model: SAM2Base) -> None:
    """As roboflow's inference keeps them for later requests, and micro-sam builds them from arrays."""
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(make_image(40, 50))
    expected = predictor.predict(box=np.array([5, 5, 30, 30]), multimask_output=False)[0]
    kept = predictor._features
    plain = {"image_embed": kept["image_embed"].clone(), "high_res_feats": [x.clone() for x in kept["high_res_feats"]]}
    for features in (kept, plain):
        predictor.set_image(make_image(30, 20, seed=1))
        predictor._is_image_set, predictor._is_batch = True, False
        predictor._features, predictor._orig_hw = features, [(40, 50)]
        found = predictor.predict(box=np.array([5, 5, 30, 30]), multimask_output=False)[0]
        np.testing.assert_array_equal(found, expected)
    assert predictor._bb_feat_sizes == [(16, 16), (8, 8), (4, 4)]
    predictor.reset_predictor()
    assert not predictor._is_image_set


# ---- the model ----


def test_backbone_features_as_exporters_read_them(model: SAM2Base) -> None:
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        out = model.forward_image(images)
        raw = model.image_encoder(images)
        _, feats, where, sizes = model._prepare_backbone_features(out)
        torch.testing.assert_close(model.sam_mask_decoder.conv_s0(raw["backbone_fpn"][0]), out["backbone_fpn"][0])
    assert sizes == [(16, 16), (8, 8), (4, 4)] and feats[-1].shape == where[-1].shape == (16, 2, 64)
    torch.testing.assert_close(out["vision_features"].flatten(2).permute(2, 0, 1), feats[-1])
    assert [x.shape for x in raw["vision_pos_enc"]] == [x.shape for x in raw["backbone_fpn"]]
    torch.testing.assert_close(PositionEmbeddingSine(64)(feats[0].new_zeros(2, 1, 4, 4)), raw["vision_pos_enc"][2])


def test_settings_are_attributes(model: SAM2Base) -> None:
    predictor = make_tiny_model(model_class=SAM2VideoPredictor, fill_hole_area=8)
    assert (predictor.fill_hole_area, predictor.hidden_dim, predictor.mem_dim, predictor.num_maskmem) == (8, 64, 32, 7)
    assert (predictor.num_feature_levels, predictor.backbone_stride, predictor.sam_image_embedding_size) == (3, 16, 4)
    predictor.fill_hole_area, predictor.non_overlap_masks = 0, True
    assert predictor.config.fill_hole_area == 0 and predictor.memory_policy.config.non_overlap_masks
    masks = torch.tensor([[3.0, -1.0], [1.0, 2.0]]).reshape(2, 1, 1, 2)
    assert model._apply_non_overlapping_constraints(masks).flatten().tolist() == [3, -10, -10, 2]


def test_parts_that_are_not_used_can_be_deleted() -> None:
    """As SAM2-UNet keeps the trunk alone and wraps its blocks."""
    model = make_tiny_model(proj_tpos_enc_in_obj_ptrs=False)
    for name in ("sam_mask_decoder", "sam_prompt_encoder", "memory_encoder", "memory_attention", "mask_downsample"):
        delattr(model, name)
    del model.obj_ptr_tpos_proj, model.obj_ptr_proj, model.image_encoder.neck
    trunk = model.image_encoder.trunk
    assert isinstance(trunk, Hiera) and [block.attn.qkv.in_features for block in trunk.blocks] == [16, 16, 32, 64, 64]
    trunk.blocks = torch.nn.Sequential(*trunk.blocks)
    assert len(trunk(torch.randn(1, 3, 64, 64))) == 4


def test_training_steps_through_a_clip(from_tree: SAM2Base) -> None:
    """Upstream's classes by upstream's arguments; a mask on the first frame, the second tracked, gradients for all."""
    from_tree.train()
    _, feats, where, sizes = from_tree._prepare_backbone_features(
        from_tree.forward_image(torch.randn(2, 3, SIDE, SIDE))
    )
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    truth = torch.zeros(2, 1, SIDE, SIDE)
    truth[:, :, 10:30, 10:30] = 1
    for frame, kind in enumerate(outputs):
        both = torch.tensor([frame, frame])
        outputs[kind][frame] = from_tree.track_step(
            frame_idx=frame,
            is_init_cond_frame=frame == 0,
            current_vision_feats=[x[:, both] for x in feats],
            current_vision_pos_embeds=[x[:, both] for x in where],
            feat_sizes=sizes,
            point_inputs=None,
            mask_inputs=truth if frame == 0 else None,
            output_dict=outputs,
            num_frames=2,
        )
    tracked = outputs["non_cond_frame_outputs"][1]
    assert tracked["pred_masks"].shape == (2, 1, 16, 16) and tracked["pred_masks_high_res"].shape == (2, 1, SIDE, SIDE)
    assert tracked["maskmem_features"].shape == tracked["maskmem_pos_enc"][0].shape == (2, 64, 4, 4)
    assert tracked["obj_ptr"].shape == (2, 256)
    tracked["pred_masks"].mean().backward()
    for name in (
        "memory_attention.layers.1.linear1",
        "memory_encoder.out_proj",
        "image_encoder.trunk.blocks.0.attn.qkv",
    ):
        assert from_tree.get_submodule(name).weight.grad.abs().sum() > 0
    trunk = from_tree.image_encoder.trunk
    assert trunk.get_num_layers() == 5 and trunk.get_layer_id("image_encoder.trunk.blocks.3.norm1.weight") == 4


def test_a_wiring_that_no_model_has_is_refused() -> None:
    from sam2.modeling.backbones.hieradet import Hiera as ByUpstreamsArguments

    with pytest.raises(ValueError, match=r"Hiera: only q_pool=3 is supported, got q_pool=2"):
        ByUpstreamsArguments(q_pool=2)
    with pytest.raises(ValueError, match="unknown SAM 2 setting 'num_maskmems'"):
        SAM2Base(num_maskmems=7)


@pytest.mark.slow
@pytest.mark.skipif(not (REFERENCES / "sam2").is_dir(), reason="needs the reference package: make references")
def test_upstreams_training_model_gives_the_same(tmp_path: Path) -> None:
    """Masks, memories, loss and every gradient; and the model that hydra composes has upstream's parameters."""
    work = answers_of("sam2", "training", ["weights.pt", "reference.npz"])
    folders = (REPOSITORY, REPOSITORY / "tests", REFERENCES / "sam2")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [sys.executable, "-W", "ignore", "-m", "reference.training", str(work / "weights.pt"), "ours.npz"]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    expected, ours = np.load(work / "reference.npz"), np.load(tmp_path / "ours.npz")
    assert set(expected.files) == set(ours.files) and (expected["parameters"] == ours["parameters"]).all()
    for name in expected.files:
        if name != "parameters" and not name.endswith("k_proj.bias"):  # a bias of keys changes nothing
            np.testing.assert_allclose(ours[name], expected[name], rtol=1e-4, atol=1e-4, err_msg=name)


# ---- configurations and builders ----


@pytest.mark.parametrize(
    "name",
    [
        "configs/sam2.1/sam2.1_hiera_l.yaml",
        "configs/sam2.1/sam2.1_hiera_l",
        "/configs/sam2.1/sam2.1_hiera_l.yaml",
        "sam2.1_hiera_l.yaml",
        "sam2.1_hiera_l",
        "sam2.1-large",
    ],
)
def test_names_of_configs(name: str) -> None:
    assert find_config(name).name == "sam2.1_hiera_l.yaml"


def test_overrides_as_hydra_has_them() -> None:
    overrides = ["++model.backbone_stride=16", "~model.no_obj_embed_spatial", "+model.fill_hole_area=3"]
    config = load_config("sam2.1-tiny", [*overrides, "model._target_=sam2.sam2_video_predictor.SAM2VideoPredictorVOS"])
    assert config.no_obj_embed_spatial is False and config.fill_hole_area == 3
    with pytest.raises(ValueError, match=r"backbone_stride=8 is not supported, only 16"):
        load_config("sam2.1-tiny", ["++model.backbone_stride=8"])


@pytest.mark.parametrize("file", [file for name, file in CONFIG_FILES.items() if name not in NOT_IN_UPSTREAM])
@pytest.mark.skipif(not (REFERENCES / "sam2").is_dir(), reason="needs the reference package: make references")
def test_upstreams_own_files_say_the_same(file: str) -> None:
    assert load_config(REFERENCES / "sam2/sam2" / file) == load_config(file)


def test_builders_pass_over_what_they_do_not_know(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda part: compiled.append(part))
    config = tmp_path / "tiny.yaml"
    config.write_text("image_size: 64\nembed_dim: 16\nstages: [1, 1, 1, 1]\nglobal_att_blocks: [2]\nd_model: 64\n")
    with pytest.warns(UserWarning, match="change nothing: load_image_encoder"):
        build_sam2(str(config), device="cpu", load_image_encoder=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        target = "++model._target_=sam2.sam2_video_predictor.SAM2VideoPredictorVOS"
        predictor = build_sam2_video_predictor(str(config), device="cpu", hydra_overrides_extra=[target])
    assert type(predictor) is SAM2VideoPredictorVOS and len(compiled) == 6


# ---- points for training ----


def test_points_are_taken_from_errors() -> None:
    truth = torch.zeros(3, 1, 20, 30, dtype=torch.bool)
    truth[0, 0, 5:10, 5:15] = True
    truth[1, 0, 5:10, 5:15] = True
    found = torch.zeros_like(truth)
    found[1, 0, 5:10, 5:15] = True  # right
    found[2, 0, 2:9, 2:9] = True  # nothing is there
    for method in ("uniform", "center"):
        points, labels = get_next_point(truth, found, method)
        assert points.shape == (3, 1, 2) and labels[:, 0].tolist() == [1, 0, 0]
        x, y = points[0, 0].long().tolist()
        assert truth[0, 0, y, x]
    assert get_next_point(truth[:1], None, "center")[0][0, 0, 1] == 7
    assert points[2, 0].tolist() == [5, 5]
    corners, labels = sample_box_points(truth[:1], noise=0)
    assert corners[0].tolist() == [[5, 5], [14, 9]] and labels.tolist() == [[2, 3]]
    corners, _ = sample_box_points(truth[:1].expand(50, -1, -1, -1))
    assert ((corners - torch.tensor([[5, 5], [14, 9]])).abs() <= torch.tensor([0.9, 0.4]) + 1e-6).all()


def test_closest_conditioning_frames() -> None:
    chosen, others = select_closest_cond_frames(10, {0: "a", 4: "b", 9: "c", 30: "d"}, 3)
    assert sorted(chosen) == [4, 9, 30] and list(others) == [0]


def test_masks_under_the_names_of_the_generator() -> None:
    from sam2.utils import amg, misc

    mask = np.zeros((12, 16), bool)
    mask[2:8, 2:8] = True
    mask[4, 4] = False
    mask[10, 14] = True
    filled, changed = amg.remove_small_regions(mask, 3, "holes")
    assert changed and filled[4, 4] and filled[10, 14]
    alone, changed = amg.remove_small_regions(mask, 3, "islands")
    assert changed and not alone[10, 14] and not alone[4, 4] and mask[10, 14]
    assert amg.batched_mask_to_box(torch.from_numpy(alone)).tolist() == [2, 2, 7, 7]
    rle = amg.mask_to_rle_pytorch(torch.from_numpy(mask)[None])[0]
    assert (amg.rle_to_mask(rle) == mask).all() and amg.area_from_rle(rle) == mask.sum()
    labels, areas = misc.get_connected_components(torch.from_numpy(mask)[None, None])
    assert labels.max() == 2 and areas[0, 0, 10, 14] == 1 and areas[0, 0, 2, 2] == 35 and areas[0, 0, 0, 0] == 0
    boxes, layers = amg.generate_crop_boxes((60, 80), 1, 0.3)
    assert boxes[0] == [0, 0, 80, 60] and layers == [0, 1, 1, 1, 1]
    rows = amg.MaskData(boxes=torch.arange(3), names=["a", "b", "c"])
    rows.filter(torch.tensor([True, False, True]))
    rows.cat(amg.MaskData(boxes=torch.tensor([7]), names=["d"]))
    assert rows["names"] == ["a", "c", "d"] and rows["boxes"].tolist() == [0, 2, 7]
    assert [len(part[0]) for part in amg.batch_iterator(2, [1, 2, 3])] == [2, 1]
    assert amg.box_xyxy_to_xywh(torch.tensor([2, 3, 10, 20])).tolist() == [2, 3, 8, 17]
