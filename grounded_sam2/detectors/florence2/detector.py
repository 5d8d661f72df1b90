"""Florence-2 as a detector, for any script that takes one."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import supervision as sv

from grounded_sam2.detectors.base import (
    DEFAULT_BOX_THRESHOLD,
    DEFAULT_TEXT_THRESHOLD,
    Aliases,
    Image,
    RawBoxes,
    Search,
    Threshold,
    as_image_list,
    check_threshold,
    check_top_k,
    merge_passes,
    read_search,
)
from grounded_sam2.detectors.florence2.answer import Answer
from grounded_sam2.detectors.florence2.model import Florence2
from grounded_sam2.detectors.florence2.tasks import OPEN_VOCABULARY, PHRASE_GROUNDING

_TASKS = {"open_vocabulary": OPEN_VOCABULARY, "phrase_grounding": PHRASE_GROUNDING}
_ARTICLES = ("a ", "an ", "the ")


class Florence2Detector:
    """A `Detector` over Florence-2, asked for one phrase at a time, so that each box is of a known phrase.

    The model has no threshold of its own and seldom answers that there is nothing; `box_threshold` judges by the
    confidence that `Florence2` works out. An image is encoded once, but the model writes one answer per phrase: time
    grows with the number of phrases.

    Args:
        florence2: the model; it may answer other questions too.
        task: "open_vocabulary" asks where a phrase is, "phrase_grounding" what the phrase refers to as the caption of
            the image. Of a phrase that is taken apart ("man" and "horse" in "man on a horse"), the boxes of the part
            that is the phrase count, else those of the first.
        nms_threshold: of two boxes that overlap by a higher IoU only the more confident is kept; None keeps all.
        class_agnostic_nms: let boxes of different phrases suppress each other too.

    Raises:
        ValueError: for another task, or an `nms_threshold` outside [0, 1].
    """

    def __init__(
        self,
        florence2: Florence2,
        *,
        task: Literal["open_vocabulary", "phrase_grounding"] = "open_vocabulary",
        nms_threshold: float | None = 0.7,
        class_agnostic_nms: bool = True,
    ) -> None:
        if task not in _TASKS:
            raise ValueError(f"expected a task of {', '.join(_TASKS)}, got {task!r}")
        if nms_threshold is not None:
            check_threshold("nms_threshold", nms_threshold)
        self.florence2 = florence2
        self.task = _TASKS[task]
        self.nms_threshold = nms_threshold
        self.class_agnostic_nms = class_agnostic_nms

    def detect(
        self,
        images: Image | Sequence[Image],
        text_prompt: str | Sequence[str],
        *,
        box_threshold: Threshold = DEFAULT_BOX_THRESHOLD,
        text_threshold: Threshold = DEFAULT_TEXT_THRESHOLD,
        aliases: Aliases | None = None,
        top_k: int | None = None,
    ) -> list[sv.Detections]:
        """Find the prompt's phrases; see `Detector.detect`.

        `text_threshold` is checked and otherwise has no effect, as the phrase of each box is known. Beyond the
        contract, `box_threshold` can be a mapping from phrases to thresholds, `aliases` are looked for too, and `top_k`
        keeps that many boxes of each phrase, as with `HuggingFaceDetector`.

        Raises:
            ValueError: also for a phrase that holds marks of the model's own, such as "<loc_5>".
        """
        search = read_search(text_prompt, box_threshold, text_threshold, aliases)
        image_list = as_image_list(images)
        check_top_k(top_k)
        detections = []
        for image, answers in zip(image_list, self.florence2.ask_all(image_list, self.task, search.texts), strict=True):
            size = (image.shape[1], image.shape[0])
            passes = [self._boxes(answer, number, search, size) for number, answer in enumerate(answers)]
            detections.append(merge_passes(passes, search, size, self.nms_threshold, self.class_agnostic_nms, top_k))
        return detections

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
        return RawBoxes(xyxy, answer.confidence[kept], np.full(len(xyxy), search.class_id[number]))


def _bare(label: str) -> str:
    """A label in lower case, without the article and the marks around it."""
    label = label.lower().strip(" .,")
    return next((label[len(article) :] for article in _ARTICLES if label.startswith(article)), label)
