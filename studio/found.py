"""What was found on a frame and waits to be accepted; masks are kept encoded, as there may be hundreds of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import supervision as sv

from grounded_sam2.masks import boxes_around, decode_rle, encode_rle
from studio.describe import Json, score_json

__all__ = ["Found"]


@dataclass(frozen=True)
class Found:
    """N ≥ 0 finds.

    Attributes:
        frame_idx: 0-based frame that they are on.
        detections: with `data["class_name"]`, without masks.
        rles: their masks, run-length encoded.
    """

    frame_idx: int
    detections: sv.Detections
    rles: list[dict[str, Any]]

    @classmethod
    def of(cls, frame_idx: int, detections: sv.Detections) -> Found:
        """Finds whose masks are not encoded yet."""
        rles = [] if detections.mask is None else encode_rle(np.asarray(detections.mask, bool))
        return cls(frame_idx, replace(detections, mask=None), rles)

    def items(self) -> list[Json]:
        """What the page shows of each."""
        found = self.detections
        scores, known = found.data.get("mask_score"), found.data.get("known_as")
        return [
            {
                "key": row,
                "label": str(found.data["class_name"][row]),
                "confidence": 1.0 if found.confidence is None else score_json(found.confidence[row]),
                "box": [round(float(side), 1) for side in found.xyxy[row]],
                "counts": rle["counts"],
                "score": None if scores is None else score_json(scores[row]),
                "known_as": 0 if known is None else int(known[row]),
            }
            for row, rle in enumerate(self.rles)
        ]

    def chosen(self, keys: list[int]) -> sv.Detections:
        """Some of them, with their masks; ValueError for a key that there is not."""
        rows = self._rows(keys)
        if not rows:
            return sv.Detections.empty()
        found: Any = self.detections[rows]
        return replace(found, mask=decode_rle([self.rles[row] for row in rows]))

    def united(self, groups: list[list[int]], class_name: str) -> sv.Detections:
        """The finds of each group as one, of a class.

        Raises:
            ValueError: no group, a group without a find, or a key that there is not.
        """
        rows = [self._rows(group) for group in groups]
        if not rows or not all(rows):
            raise ValueError("groups: expected at least one piece in each of at least one group")
        masks = np.array([decode_rle([self.rles[row] for row in group]).any(axis=0) for group in rows])
        return sv.Detections(boxes_around(masks), mask=masks, data={"class_name": np.array([class_name] * len(masks))})

    def _rows(self, keys: list[int]) -> list[int]:
        if any(not 0 <= key < len(self.rles) for key in keys):
            raise ValueError(f"expected keys from 0 to {len(self.rles) - 1}, got {keys}")
        return list(dict.fromkeys(keys))
