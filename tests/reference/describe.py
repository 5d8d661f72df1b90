"""Print, as JSON, what the reference package builds from configs: shapes of the parameters, settings, trunk blocks.

PYTHONPATH=.references/sam2:tests python -m reference.describe sam2.1_hiera_t sam2_hiera_l
"""

import json
import sys
from typing import Any

import torch

from reference.run import build

# Settings of a `SAM2VideoPredictor` that `SAM2Config` holds under the same name.
SETTINGS = (
    "add_all_frames_to_correct_as_cond",
    "add_tpos_enc_to_obj_ptrs",
    "binarize_mask_from_pts_for_mem_enc",
    "clear_non_cond_mem_around_input",
    "directly_add_no_mem_embed",
    "fixed_no_obj_ptr",
    "image_size",
    "iou_prediction_use_sigmoid",
    "max_cond_frames_in_attn",
    "max_obj_ptrs_in_encoder",
    "memory_temporal_stride_for_eval",
    "multimask_max_pt_num",
    "multimask_min_pt_num",
    "multimask_output_for_tracking",
    "multimask_output_in_sam",
    "non_overlap_masks",
    "non_overlap_masks_for_mem_enc",
    "num_maskmem",
    "only_obj_ptrs_in_the_past_for_eval",
    "pred_obj_scores",
    "pred_obj_scores_mlp",
    "proj_tpos_enc_in_obj_ptrs",
    "sigmoid_bias_for_mem_enc",
    "sigmoid_scale_for_mem_enc",
    "soft_no_obj_ptr",
    "use_high_res_features_in_sam",
    "use_mask_input_as_output_without_sam",
    "use_mlp_for_obj_ptr_proj",
    "use_multimask_token_for_obj_ptr",
    "use_obj_ptrs_in_encoder",
    "use_signed_tpos_enc_to_obj_ptrs",
)


def describe(config: str) -> dict[str, Any]:
    """What the reference package builds from one config, at full size, post-processing off."""
    model = build(config, 1024, None, video=True, postprocessing=False)
    return {
        "shapes": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
        "settings": {name: getattr(model, name) for name in SETTINGS},
        "blocks": [[block.attn.num_heads, block.window_size] for block in model.image_encoder.trunk.blocks],
    }


def main() -> None:
    """Describe the configs named on the command line."""
    for layer in (torch.nn.Linear, torch.nn.Conv2d):
        layer.reset_parameters = lambda self: None  # values do not matter here
    print(json.dumps({config: describe(config) for config in sys.argv[1:]}))


if __name__ == "__main__":
    main()
