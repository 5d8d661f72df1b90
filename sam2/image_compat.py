"""What other programs read and write of facebookresearch/sam2's image predictor beside its public methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sam2.modeling.core import ImageFeatures
from sam2.modeling.sam2_base import SAM2Base


class UpstreamAttributes:
    """Upstream's attributes for `SAM2ImagePredictor`, which inherits them; embeddings can be taken out and put back.

    features, size = predictor._features, predictor._orig_hw  # features["image_embed"], ["high_res_feats"]
    ...
    predictor._features, predictor._orig_hw, predictor._is_image_set = features, size, True
    """

    model: SAM2Base
    image_features: ImageFeatures | None
    _orig_hw: list[tuple[int, int]]

    @property
    def _features(self) -> ImageFeatures | None:
        return self.image_features

    @_features.setter
    def _features(self, features: Mapping[str, Any] | None) -> None:
        if features is not None and not isinstance(features, ImageFeatures):
            features = ImageFeatures(features["image_embed"], list(features.get("high_res_feats") or ()))
        self.image_features = features

    @property
    def _is_image_set(self) -> bool:
        return self._features is not None

    @_is_image_set.setter
    def _is_image_set(self, is_set: bool) -> None:
        if not is_set:
            self._features = None

    @property
    def _bb_feat_sizes(self) -> list[tuple[int, int]]:
        """Height and width of the features at strides 4, 8 and 16."""
        return [(self.model.image_size // stride,) * 2 for stride in (4, 8, 16)]

    def _prep_prompts(
        self: Any,
        point_coords: Any,
        point_labels: Any,
        box: Any,
        mask_logits: Any,
        normalize_coords: bool,
        img_idx: int = -1,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        """Prompts on an image that is set, see `SAM2ImagePredictor.predict`, in the frame of the model's input.

        Returns:
            (N, 1, 4h, 4w) mask logits, (N, P, 2) points, (N, P) labels and (N, 2, 2) corners of boxes, or None.
        """
        prompts = self._prepare(point_coords, point_labels, box, mask_logits, normalize_coords, self._orig_hw[img_idx])
        return prompts.mask_logits, prompts.point_coords, prompts.point_labels, prompts.boxes
