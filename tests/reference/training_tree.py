"""A small SAM 2.1 in the form of upstream's training configurations: classes by name with their arguments."""

from typing import Any

SIDE = 64
PACKAGE = "sam2.modeling"


def positions(channels: int) -> dict[str, Any]:
    return {
        "_target_": f"{PACKAGE}.position_encoding.PositionEmbeddingSine",
        "num_pos_feats": channels,
        "normalize": True,
        "scale": None,
        "temperature": 10000,
    }


def rope(**more: Any) -> dict[str, Any]:
    return {
        "_target_": f"{PACKAGE}.sam.transformer.RoPEAttention",
        "rope_theta": 10000.0,
        "feat_sizes": [SIDE // 16, SIDE // 16],
        "embedding_dim": 256,
        "num_heads": 1,
        "downsample_rate": 1,
        "dropout": 0.0,
        **more,
    }


def tree() -> dict[str, Any]:
    """A small SAM 2.1 as upstream's training configurations describe it."""
    trunk = {
        "_target_": f"{PACKAGE}.backbones.hieradet.Hiera",
        "embed_dim": 16,
        "num_heads": 1,
        "drop_path_rate": 0.0,
        "stages": [1, 1, 2, 1],
        "global_att_blocks": [3],
        "window_pos_embed_bkg_spatial_size": [7, 7],
    }
    neck = {
        "_target_": f"{PACKAGE}.backbones.image_encoder.FpnNeck",
        "position_encoding": positions(256),
        "d_model": 256,
        "backbone_channel_list": [128, 64, 32, 16],
        "fpn_top_down_levels": [2, 3],
        "fpn_interp_model": "nearest",
    }
    layer = {
        "_target_": f"{PACKAGE}.memory_attention.MemoryAttentionLayer",
        "activation": "relu",
        "dim_feedforward": 64,
        "dropout": 0.0,
        "pos_enc_at_attn": False,
        "self_attention": rope(),
        "d_model": 256,
        "pos_enc_at_cross_attn_keys": True,
        "pos_enc_at_cross_attn_queries": False,
        "cross_attention": rope(rope_k_repeat=True, kv_in_dim=64),
    }
    block = {"_target_": f"{PACKAGE}.memory_encoder.CXBlock", "dim": 256, "kernel_size": 7, "padding": 3}
    flags = (
        "use_mask_input_as_output_without_sam", "directly_add_no_mem_embed", "no_obj_embed_spatial",
        "use_high_res_features_in_sam", "multimask_output_in_sam", "iou_prediction_use_sigmoid",
        "use_obj_ptrs_in_encoder", "proj_tpos_enc_in_obj_ptrs", "use_signed_tpos_enc_to_obj_ptrs",
        "only_obj_ptrs_in_the_past_for_eval", "pred_obj_scores", "pred_obj_scores_mlp", "fixed_no_obj_ptr",
        "multimask_output_for_tracking", "use_multimask_token_for_obj_ptr", "use_mlp_for_obj_ptr_proj",
    )  # fmt: skip
    return {
        "_target_": "training.model.sam2.SAM2Train",
        "image_encoder": {
            "_target_": f"{PACKAGE}.backbones.image_encoder.ImageEncoder",
            "scalp": 1,
            "trunk": trunk,
            "neck": neck,
        },
        "memory_attention": {
            "_target_": f"{PACKAGE}.memory_attention.MemoryAttention",
            "d_model": 256,
            "pos_enc_at_input": True,
            "layer": layer,
            "num_layers": 2,
        },
        "memory_encoder": {
            "_target_": f"{PACKAGE}.memory_encoder.MemoryEncoder",
            "out_dim": 64,
            "position_encoding": positions(64),
            "mask_downsampler": {
                "_target_": f"{PACKAGE}.memory_encoder.MaskDownSampler",
                "kernel_size": 3,
                "stride": 2,
                "padding": 1,
            },
            "fuser": {"_target_": f"{PACKAGE}.memory_encoder.Fuser", "layer": block, "num_layers": 2},
        },
        **dict.fromkeys(flags, True),
        "num_maskmem": 3,
        "image_size": SIDE,
        "sigmoid_scale_for_mem_enc": 20.0,
        "sigmoid_bias_for_mem_enc": -10.0,
        "multimask_min_pt_num": 0,
        "multimask_max_pt_num": 1,
        "prob_to_use_pt_input_for_eval": 1.0,
        "num_frames_to_correct_for_eval": 2,
        "num_init_cond_frames_for_eval": 1,
        "num_correction_pt_per_frame": 2,
        "prob_to_use_pt_input_for_train": 0.0,
    }
