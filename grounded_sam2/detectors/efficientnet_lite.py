"""The trunk of the bundled nano detector as transformers wants a backbone, which has none of its kind.

Importing this module is what lets transformers read `gdino_checkpoints/nano`.
"""

from typing import Any

import torch
from transformers import AutoBackbone, AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput

from trunks.efficientnet_lite import STEM_CHANNELS, EfficientNetLite


class EfficientNetLiteConfig(BackboneConfigMixin, PretrainedConfig):
    """What `config.json` says of the backbone: its type, and which of its stages are read."""

    model_type = "efficientnet_lite"

    def __post_init__(self, **kwargs: Any) -> None:
        self.stage_names = ["stem"] + [f"stage{level + 1}" for level in range(len(EfficientNetLite.level_channels))]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)


class EfficientNetLiteBackbone(BackboneMixin, PreTrainedModel):
    """`EfficientNetLite` behind transformers' interface."""

    config_class = EfficientNetLiteConfig
    main_input_name = "pixel_values"

    def __init__(self, config: EfficientNetLiteConfig) -> None:
        super().__init__(config)
        self.num_features = [STEM_CHANNELS, *EfficientNetLite.level_channels]
        self.trunk = EfficientNetLite([index - 1 for index in config.out_indices])  # 0 is the stem
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **_options: Any) -> BackboneOutput:
        """(B, 3, H, W) normalised → the stages that are read, finest first."""
        return BackboneOutput(feature_maps=tuple(self.trunk(pixel_values)))


AutoConfig.register("efficientnet_lite", EfficientNetLiteConfig, exist_ok=True)
AutoBackbone.register(EfficientNetLiteConfig, EfficientNetLiteBackbone, exist_ok=True)
