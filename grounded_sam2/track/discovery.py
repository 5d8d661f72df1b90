"""What finds the objects that `ContinuousTracker` follows: text today; anything that gives boxes plugs in here."""

from dataclasses import asdict
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2.detectors.base import (
    DEFAULT_BOX_THRESHOLD,
    DEFAULT_TEXT_THRESHOLD,
    Detector,
    Image,
    Threshold,
    make_detections,
)
from grounded_sam2.prompts import Prompt, TextPrompt, read_prompt

__all__ = ["Discovery", "TextDiscovery"]


@runtime_checkable
class Discovery(Protocol):
    """Looks for objects on the frames that it is shown, which are some of a video's or stream's.

    What it finds may be followed already: which detection is which object, and which is a new one, the tracker decides.

    Attributes:
        phrases: what objects can be called. A detection's `class_id` is its index here, so that phrases may be added
            while tracking goes on, at the end, but none may be moved or taken out. The tracker adds the names of
            objects that a person shows it.
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

    def set_prompt(self, text_prompt: TextPrompt) -> None:
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
        text_prompt: see `grounded_sam2.prompts`; None: nothing is looked for until `set_prompt`.
        box_threshold: see `Detector.detect`.
        text_threshold: see `Detector.detect`.

    Attributes:
        prompt: what is looked for now; None: nothing.
        phrases: every wanted phrase that was ever asked for, those of the first prompt first.

    Raises:
        ValueError: the prompt names nothing that is wanted, or cannot be read.
    """

    def __init__(
        self,
        detector: Detector,
        text_prompt: TextPrompt | None,
        box_threshold: Threshold = DEFAULT_BOX_THRESHOLD,
        text_threshold: Threshold = DEFAULT_TEXT_THRESHOLD,
    ) -> None:
        self.detector = detector
        self.box_threshold = box_threshold
        self.text_threshold = text_threshold
        self.prompt: Prompt | None = None
        self.phrases: list[str] = []
        if text_prompt is not None:
            self.set_prompt(text_prompt)

    def set_prompt(self, text_prompt: TextPrompt) -> None:
        """Look for other phrases from now on.

        Raises:
            ValueError: the prompt names nothing that is wanted, or cannot be read.
        """
        self.prompt = read_prompt(text_prompt)
        self.phrases += [phrase for phrase in self.prompt.phrases if phrase not in self.phrases]

    def find(self, image: Image, frame_idx: int) -> sv.Detections:
        """See `Discovery.find`; the frame's index does not matter."""
        if self.prompt is None:
            return make_detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), [], image.shape[1::-1])
        [detections] = self.detector.detect(
            image, self.prompt, box_threshold=self.box_threshold, text_threshold=self.text_threshold
        )
        class_id = cast(npt.NDArray[np.int64], detections.class_id)
        registered = [self.phrases.index(self.prompt.phrases[index]) for index in class_id]
        detections.class_id = np.array(registered, dtype=np.int64)
        return detections

    def save(self) -> dict[str, Any]:
        """The prompt and the phrases, as plain values."""
        return {"prompt": None if self.prompt is None else asdict(self.prompt), "phrases": self.phrases}

    def restore(self, saved: dict[str, Any]) -> None:
        """Become what `save` saw."""
        self.prompt = None if saved["prompt"] is None else Prompt(**saved["prompt"])
        self.phrases = saved["phrases"]
