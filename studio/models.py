"""The models that all sessions share: one segments and follows, detectors are built when first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import supervision as sv

from grounded_sam2.detectors.base import Detector
from grounded_sam2.images import RGBImage
from grounded_sam2.track.follower import Follower, as_follower
from studio.turns import Turns

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

__all__ = ["Models"]

POINTS_PER_SIDE = 16  # of the grid that "everything" asks at; twice as many take four times as long
PIECE = "piece"


class Models:
    """What the sessions of a server share; whoever uses it has a turn.

    Args:
        model: segments and follows.
        detectors: name → what makes it; the first one is asked where nobody says which.
        note: what the page tells its users about the models; None: nothing.

    Attributes:
        follower: the model as a `Follower`.
        turns: on the model and the detectors; see `Turns`.
    """

    def __init__(
        self,
        model: Follower | SAM2VideoPredictor,
        detectors: Mapping[str, Callable[[], Detector]],
        note: str | None = None,
    ) -> None:
        self.follower = as_follower(model)
        self.turns = Turns()
        self.note = note
        self._builders = dict(detectors)
        self._detectors: dict[str, Detector] = {}
        self._generator: Any = None

    @property
    def detector_names(self) -> list[str]:
        return list(self._builders)

    def check_detector(self, name: str | None) -> str:
        """The name of a detector, the first one's for None; ValueError for a name that there is not."""
        if name is None and self._builders:
            return next(iter(self._builders))
        if name not in self._builders:
            raise ValueError(f"expected a detector of {', '.join(self._builders) or 'none'}, got {name!r}")
        return name

    def detector(self, name: str | None = None) -> Detector:
        """A detector, built when it is asked for first; ValueError as `check_detector`, or what building it raises."""
        name = self.check_detector(name)
        if name not in self._detectors:
            self._detectors[name] = self._builders[name]()
        return self._detectors[name]

    def everything(self, image: RGBImage) -> tuple[sv.Detections, list[dict[str, Any]]]:
        """All that is on an image (H, W, 3) RGB, the surest first.

        Returns:
            N ≥ 0 pieces with `confidence`, and `data` with `class_name` and `mask_score`; and their masks, run-length
            encoded.

        Raises:
            ValueError: the model is of a kind that cannot do that.
        """
        if self._generator is None:
            predictor = getattr(self.follower, "predictor", None)
            if predictor is None:
                raise ValueError("this model cannot segment everything on a frame: add objects by clicks or by text")
            from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator

            # The nano model is too modest about its masks for the generator's usual thresholds.
            self._generator = SAM2AutomaticMaskGenerator(
                predictor, POINTS_PER_SIDE, pred_iou_thresh=0.6, stability_score_thresh=0.8, output_mode="coco_rle"
            )
        pieces = sorted(self._generator.generate(image), key=lambda piece: -piece["predicted_iou"])
        left_top = np.array([piece["bbox"][:2] for piece in pieces], np.float32).reshape(-1, 2)
        sides = np.array([piece["bbox"][2:] for piece in pieces], np.float32).reshape(-1, 2)
        scores = np.array([piece["predicted_iou"] for piece in pieces], np.float32)
        named: dict[str, Any] = {"class_name": np.array([PIECE] * len(pieces), str), "mask_score": scores}
        xyxy = np.hstack([left_top, left_top + sides])
        return sv.Detections(xyxy, confidence=np.minimum(scores, 1), data=named), [
            {**piece["segmentation"], "size": list(image.shape[:2])} for piece in pieces
        ]
