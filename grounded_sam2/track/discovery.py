"""What finds the objects that `ContinuousTracker` follows: text today; anything that gives boxes plugs in here."""

import re
from collections.abc import Sequence
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2.detectors.base import DEFAULT_BOX_THRESHOLD, DEFAULT_TEXT_THRESHOLD, Detector, Image
from grounded_sam2.prompts import parse_prompt

__all__ = ["Discovery", "TextDiscovery"]

_NEGATION = re.compile(r"^not (?:an? |the )?")
_UNWANTED_IOU = 0.7  # of a box and a more confident one of an unwanted phrase, from which it is taken for that


@runtime_checkable
class Discovery(Protocol):
    """Looks for objects on the frames that it is shown, which are some of a video's or stream's.

    What it finds may be followed already: which detection is which object, and which is a new one, the tracker decides.

    Attributes:
        phrases: what objects can be called. A detection's `class_id` is its index here, so that phrases may be added
            while tracking goes on, at the end, but none may be moved or taken out.
    """

    phrases: list[str]

    def find(self, image: Image, frame_idx: int) -> sv.Detections:
        """Look for objects on a frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            frame_idx: 0-based; higher with each call.

        Returns:
            `xyxy` (N, 4) float32 in pixels of `image`, `confidence` (N,) and `class_id` (N,), the most confident first;
            N = 0 has the same fields. Masks are not read: the model that follows the objects makes them.
        """

    def set_prompt(self, text_prompt: str | Sequence[str]) -> None:
        """Look for something else from now on.

        Raises:
            ValueError: not a prompt that this source can look for. One that needs no prompt takes the empty one only.
        """

    def save(self) -> dict[str, Any]:
        """All that `find` builds on but the model, as tensors and plain values; {} where nothing changes."""

    def restore(self, saved: dict[str, Any]) -> None:
        """Become what `save` saw."""


class TextDiscovery:
    """Looks for what a text prompt names.

    Args:
        detector: finds phrases in an image.
        text_prompt: phrases; one that begins with "not" names what is not wanted: a box that is more surely that is
            dropped.
        box_threshold: see `Detector.detect`.
        text_threshold: see `Detector.detect`.

    Attributes:
        phrases: every wanted phrase that was ever asked for, those of the first prompt first.

    Raises:
        ValueError: the prompt names nothing that is wanted.
    """

    def __init__(
        self,
        detector: Detector,
        text_prompt: str | Sequence[str],
        box_threshold: float = DEFAULT_BOX_THRESHOLD,
        text_threshold: float = DEFAULT_TEXT_THRESHOLD,
    ) -> None:
        self.detector = detector
        self.box_threshold = box_threshold
        self.text_threshold = text_threshold
        self.phrases: list[str] = []
        self.set_prompt(text_prompt)

    def set_prompt(self, text_prompt: str | Sequence[str]) -> None:
        """Look for other phrases from now on.

        Raises:
            ValueError: the prompt names nothing that is wanted.
        """
        asked = parse_prompt(text_prompt)
        wanted = [phrase for phrase in asked if not _NEGATION.match(phrase)]
        if not wanted:
            raise ValueError(f"expected at least one phrase that does not begin with 'not', got {text_prompt!r}")
        self._wanted = wanted
        self._unwanted = [_NEGATION.sub("", phrase) for phrase in asked if phrase not in wanted]
        self.phrases += [phrase for phrase in wanted if phrase not in self.phrases]

    def find(self, image: Image, frame_idx: int) -> sv.Detections:
        """See `Discovery.find`; the frame's index does not matter."""
        return self._wanted_detections(image)

    def _wanted_detections(self, image: Image) -> sv.Detections:
        thresholds = {"box_threshold": self.box_threshold, "text_threshold": self.text_threshold}
        [detections] = self.detector.detect(image, [*self._wanted, *self._unwanted], **thresholds)
        assert detections.class_id is not None and detections.confidence is not None
        is_wanted = detections.class_id < len(self._wanted)
        wanted = cast(sv.Detections, detections[is_wanted])
        unwanted = cast(sv.Detections, detections[~is_wanted])
        assert wanted.class_id is not None and wanted.confidence is not None and unwanted.confidence is not None
        if len(wanted) and len(unwanted):
            overlap = sv.box_iou_batch(wanted.xyxy, unwanted.xyxy) >= _UNWANTED_IOU  # (N, M)
            surer = unwanted.confidence[None] > wanted.confidence[:, None]
            wanted = cast(sv.Detections, wanted[np.flatnonzero(~(overlap & surer).any(axis=1))])
        registered = [
            self.phrases.index(self._wanted[class_id]) for class_id in cast(npt.NDArray[np.int64], wanted.class_id)
        ]
        wanted.class_id = np.array(registered, dtype=np.int64)
        return wanted

    def save(self) -> dict[str, Any]:
        """The phrases, as plain values."""
        return {"wanted": self._wanted, "unwanted": self._unwanted, "phrases": self.phrases}

    def restore(self, saved: dict[str, Any]) -> None:
        """Become what `save` saw."""
        self._wanted, self._unwanted = saved["wanted"], saved["unwanted"]
        self.phrases = saved["phrases"]
