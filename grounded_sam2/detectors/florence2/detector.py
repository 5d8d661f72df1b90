"""Florence-2 as a detector, for any script that takes one."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from grounded_sam2.detectors.base import Image, PhraseDetector, RawBoxes, Search
from grounded_sam2.detectors.florence2.answer import Answer, mask_of_polygons
from grounded_sam2.detectors.florence2.model import Florence2
from grounded_sam2.detectors.florence2.tasks import OPEN_VOCABULARY, PHRASE_GROUNDING

_TASKS = {"open_vocabulary": OPEN_VOCABULARY, "phrase_grounding": PHRASE_GROUNDING}
_ARTICLES = ("a ", "an ", "the ")


class Florence2Detector(PhraseDetector):
    """A `Detector` over Florence-2, asked for one phrase at a time, so that each box is of a known phrase.

    The model has no threshold of its own and seldom answers that there is nothing; `box_threshold` judges by the
    confidence that `Florence2` works out. `text_threshold` is checked and otherwise has no effect, as the phrase of
    each box is known. An image is encoded once, but the model writes one answer per phrase: time grows with the number
    of phrases. A phrase that holds marks of the model's own, such as "<loc_5>", is a ValueError.

    Args:
        florence2: the model; it may answer other questions too.
        task: "open_vocabulary" asks where a phrase is, "phrase_grounding" what the phrase refers to as the caption of
            the image. Of a phrase that is taken apart ("man" and "horse" in "man on a horse"), the boxes of the part
            that is the phrase count, else those of the first.
        masks: give detections `mask` (N, H, W) bool: what is inside the outline that an open-vocabulary answer may
            give, without pixels where it gives a box (`grounded_sam2.segment.segment_missing` finds those).
        nms_threshold: of two boxes that overlap by a higher IoU only the more confident is kept; None keeps all.
        class_agnostic_nms: let boxes of different phrases suppress each other too.

    Raises:
        ValueError: for another task, masks of a task that has none, or an `nms_threshold` outside [0, 1].
    """

    def __init__(
        self,
        florence2: Florence2,
        *,
        task: Literal["open_vocabulary", "phrase_grounding"] = "open_vocabulary",
        masks: bool = False,
        nms_threshold: float | None = 0.7,
        class_agnostic_nms: bool = True,
    ) -> None:
        if task not in _TASKS:
            raise ValueError(f"expected a task of {', '.join(_TASKS)}, got {task!r}")
        if masks and task != "open_vocabulary":
            raise ValueError(f"{task} finds boxes only; masks come from open_vocabulary, or from SAM 2")
        super().__init__(nms_threshold, class_agnostic_nms)
        self.florence2 = florence2
        self.task = _TASKS[task]
        self.masks = masks

    def find(self, images: Sequence[Image], search: Search) -> list[RawBoxes]:
        """The boxes of a search's texts; see `PhraseDetector.find`."""
        return [
            RawBoxes.joined(
                [self._boxes(answer, number, search, image.shape[1::-1]) for number, answer in enumerate(answers)]
            )
            for image, answers in zip(images, self.florence2.ask_all(images, self.task, search.texts), strict=True)
        ]

    def _boxes(self, answer: Answer, number: int, search: Search, image_size: tuple[int, int]) -> RawBoxes:
        """The boxes of the text that was asked for that reach its threshold."""
        labels = [_bare(region.label) for region in answer.regions]
        chosen = _bare(search.texts[number])
        if self.task is PHRASE_GROUNDING and chosen not in labels:
            chosen = labels[0] if labels else ""
        kept = answer.confidence >= search.box_threshold[number]
        if self.task is PHRASE_GROUNDING:
            kept &= np.array([label == chosen for label in labels], dtype=bool)
        fractions = np.array([region.box for region in answer.regions], np.float32).reshape(-1, 4)
        xyxy = fractions[kept] * np.array(image_size * 2, np.float32)
        masks = None
        if self.masks:
            masks = np.zeros((len(xyxy), *image_size[::-1]), dtype=bool)
            for mask, index in zip(masks, np.flatnonzero(kept), strict=True):
                mask[:] = mask_of_polygons(answer.regions[index].polygons, image_size)
        return RawBoxes(xyxy, answer.confidence[kept], np.full(len(xyxy), search.class_id[number]), masks)


def _bare(label: str) -> str:
    """A label in lower case, without the article and the marks around it."""
    label = label.lower().strip(" .,")
    return next((label[len(article) :] for article in _ARTICLES if label.startswith(article)), label)
