"""DAM4SAM's memory (Videnovic et al., 2024): frames that tell an object from what looks like it are kept for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch

from sam2.memory_policies.selected import SelectedFrames, latest_state, passed
from sam2.modeling.core import SamOutput
from sam2.video_state import FrameOutput, FrameTime, ObjectState

MAX_ANCHORS = 4  # conditioning frames that are read, of 7 memories
STRIDE = 5  # frames from one recent memory to the next
LEAST_QUALITY = 0.8  # predicted, of an anchor's mask
AREA_RANGE = (0.8, 1.2)  # of an anchor's mask, as shares of the usual area
NUM_AREAS = 10  # whose median is the usual one
AREA_SPAN = 300  # frames after which an area is forgotten
LEAST_GAP = 5  # frames between two anchors are more than these
LARGEST_BOX_IOU = 0.7  # of the chosen mask's box, and that which takes in a distractor


class Dam4Sam(SelectedFrames):
    """Anchors beside the prompts, and recent memories some frames apart; frames without the object are no memory.

    A frame becomes an anchor when its mask is sure and of the usual size, and a distractor is near it: a candidate that
    was not chosen reaches out of the chosen mask. A model that decodes one mask for tracked frames has no anchors.

    Anchors are read as conditioning frames are, without a place in time: with the prompts at most `MAX_ANCHORS`, those
    nearest in time, the first prompt always. They stay tracked frames: the next pass over one tracks it anew.

    In a frame's `policy_state`: `is_empty`: without the object; `is_anchor`; `areas`: frame and pixels of the last
    masks; `last_anchor`: the frame of the last anchor or prompt.
    """

    def remember_all(
        self,
        objects: Sequence[ObjectState],
        outputs: Sequence[FrameOutput],
        decoded: Sequence[SamOutput],
        time: FrameTime,
    ) -> list[bool]:
        pixels = torch.stack([(masks.low_res_masks > 0).sum() for masks in decoded]).tolist()
        for obj, output, masks, area in zip(objects, outputs, decoded, pixels, strict=True):
            state = latest_state(obj, time)
            areas = self._note_area(state, output, area, time)
            last_anchor = state.get("last_anchor", time.frame_idx)
            is_due = time.elapsed_since(last_anchor) > LEAST_GAP
            is_anchor = is_due and self._is_usual(output, areas) and has_distractor(masks)
            output.policy_state["is_anchor"] = is_anchor
            output.policy_state["last_anchor"] = time.frame_idx if is_anchor else last_anchor
        return [not output.policy_state["is_empty"] for output in outputs]

    def remember(
        self, obj: ObjectState, output: FrameOutput, decoded: SamOutput, time: FrameTime, is_prompted: bool
    ) -> bool:
        """Of a prompt's answer; see `remember_all` for tracked frames."""
        self._note_area(latest_state(obj, time), output, int((decoded.low_res_masks > 0).sum()), time)
        output.policy_state |= {"is_anchor": False, "last_anchor": time.frame_idx}
        return True

    @staticmethod
    def _note_area(state: dict[str, Any], output: FrameOutput, area: int, time: FrameTime) -> list[tuple[int, int]]:
        """Put the area of an object's mask, and those before it, into its output, and return them."""
        recent = [noted for noted in state.get("areas", []) if time.elapsed_since(noted[0]) < AREA_SPAN]
        recent = [*recent, (time.frame_idx, area)][-NUM_AREAS:] if area else recent
        output.policy_state |= {"areas": recent, "is_empty": area == 0}
        return recent

    @staticmethod
    def _is_usual(output: FrameOutput, areas: list[tuple[int, int]]) -> bool:
        """Whether a mask that was just noted is there, sure and of the usual size."""
        if output.policy_state["is_empty"] or output.mask_score.item() <= LEAST_QUALITY:
            return False
        share = areas[-1][1] / median(area for _, area in areas)
        return AREA_RANGE[0] <= share <= AREA_RANGE[1]

    def worth_reading(self, tracked: Mapping[int, FrameOutput], time: FrameTime) -> list[int]:
        anchors = self._anchors(tracked, time)[: self._most_anchors - 1]
        # while a frame is read as an anchor, an older one takes its place among the recent ones
        recent = self._recent(tracked, time)[: self.config.num_maskmem + len(anchors)]
        return sorted({*recent, *anchors}, key=time.elapsed_since)

    @property
    def _most_anchors(self) -> int:
        """With the prompts, of a model that may read fewer memories than 7."""
        return max(1, MAX_ANCHORS * self.config.num_maskmem // 7)

    def _recent(self, tracked: Mapping[int, FrameOutput], time: FrameTime) -> list[int]:
        """The newest frame with the object, and before it those on the grid of the stride."""
        seen = [t for t in passed(tracked, time) if not tracked[t].policy_state.get("is_empty", False)]
        return [t for t in seen if t == seen[0] or t % STRIDE == 0]

    @staticmethod
    def _anchors(tracked: Mapping[int, FrameOutput], time: FrameTime) -> list[int]:
        return [t for t in passed(tracked, time) if tracked[t].policy_state.get("is_anchor", False)]

    def _split(self, obj: ObjectState, time: FrameTime) -> tuple[dict[int, FrameOutput], dict[int, FrameOutput]]:
        """Prompts and anchors that are read as conditioning frames, and the other frames tracked so far."""
        first = next(iter(obj.cond), None)
        others = [*(t for t in obj.cond if t != first), *self._anchors(obj.non_cond, time)]
        nearest = sorted(others, key=lambda t: abs(t - time.frame_idx))[: self._most_anchors - 1]
        chosen = nearest if first is None else [first, *nearest]
        known = obj.non_cond | obj.cond
        return {t: known[t] for t in chosen}, {t: output for t, output in known.items() if t not in chosen}

    def spatial_memories(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        selected, others = self._split(obj, time)
        recent = [t for t in self._recent(selected | others, time) if t in others]
        rest = self.config.num_maskmem - len(selected)
        in_places = [(place, others[t]) for place, t in enumerate(recent[:rest], start=1)]
        return [(0, output) for output in selected.values()] + in_places[::-1]

    def pointers(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        selected, others = self._split(obj, time)
        with_object = {t: output for t, output in others.items() if not output.policy_state.get("is_empty", False)}
        return super().pointers(ObjectState(cond=selected, non_cond=with_object), time)


def has_distractor(decoded: SamOutput) -> bool:
    """Whether a candidate that was not chosen for an object reaches far out of the one that was.

    Of each the largest part outside the chosen mask is boxed together with it. With a distractor near, one of these
    boxes has little in common with the box of the chosen mask alone.

    Args:
        decoded: of one object, whose chosen mask is not empty.
    """
    masks = (decoded.low_res_multimasks[0] > 0).cpu().numpy()
    chosen = int(decoded.chosen)
    box = _box(masks[chosen])
    ious = [
        _area(box) / _area(_box(masks[chosen] | _largest_part(mask & ~masks[chosen])))
        for i, mask in enumerate(masks)
        if i != chosen
    ]
    return min(ious, default=1.0) <= LARGEST_BOX_IOU


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest 8-connected component of a mask (H, W) bool; nothing of an empty one."""
    _, components, statistics, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    return components == 1 + areas.argmax() if len(areas) else mask


def _box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Left, top, width and height of a mask (H, W) bool."""
    return cv2.boundingRect(mask.astype(np.uint8))  # type: ignore[return-value]


def _area(box: tuple[int, int, int, int]) -> int:
    return box[2] * box[3]
