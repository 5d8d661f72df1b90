"""What an object looks like, as numbers by which it is known again: its colours, or what a model makes of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from grounded_sam2.images import RGBImage
from grounded_sam2.masks import corners_of
from grounded_sam2.owned import source_ids
from grounded_sam2.track.object_track import Descriptors
from grounded_sam2.track.rules import COLOURS_MARGIN, COLOURS_THRESHOLD
from grounded_sam2.track.seen import Proposed, Seen

__all__ = ["COLOURS", "Colours", "Descriptor", "Pointers", "make_descriptor"]

_BINS = (12, 6, 4)  # of hue, saturation and brightness


class Descriptor(Protocol):
    """Describes what objects look like; two descriptions are compared by their cosine.

    Attributes:
        name: by what a `Gallery` knows that its looks can be compared with these: the method, and which weights.
        threshold: the least cosine, in [-1, 1], of two sightings that can be of one object.
        margin: how much more an object must look like a sighting than every other object in question does.
    """

    @property
    def name(self) -> str: ...

    @property
    def threshold(self) -> float: ...

    @property
    def margin(self) -> float: ...

    def describe(self, image: RGBImage, seen: Seen | Proposed) -> Descriptors | None:
        """Describe N objects on a frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            seen: of N masks of that frame, none of them empty; N = 0 is fine.

        Returns:
            (N, C), of any length; None where it cannot tell.
        """


@dataclass(frozen=True)
class Colours:
    """The histogram of hue, saturation and brightness inside the mask, by square roots (the cosine is Bhattacharyya's).

    It needs no weights, so that its threshold holds for every model, and it is blind to whatever is not colour.
    """

    threshold: float = COLOURS_THRESHOLD
    margin: float = COLOURS_MARGIN

    @property
    def name(self) -> str:
        return "colours " + "x".join(map(str, _BINS))

    def describe(self, image: RGBImage, seen: Seen | Proposed) -> Descriptors:
        """See `Descriptor.describe`; C = 288."""
        looks = np.zeros((len(seen.masks), np.prod(_BINS)), np.float32)
        for look, mask in zip(looks, seen.masks, strict=True):
            left, top, right, bottom = corners_of(mask)
            pixels = cv2.cvtColor(np.ascontiguousarray(image[top:bottom, left:right]), cv2.COLOR_RGB2HSV)
            inside = np.ascontiguousarray(mask[top:bottom, left:right]).astype(np.uint8)
            counts = cv2.calcHist([pixels], [0, 1, 2], inside, list(_BINS), [0, 180, 0, 256, 0, 256])
            look[:] = np.sqrt(counts.ravel() / max(int(inside.sum()), 1))
        return looks


@dataclass(frozen=True)
class Pointers:
    """What the follower itself knows of each object: SAM 2's object pointers.

    Attributes:
        weights: tells the follower's weights from others.
    """

    weights: str = ""
    threshold: float = 0.6
    margin: float = 0.05

    @property
    def name(self) -> str:
        return f"pointers {self.weights}".rstrip()

    def describe(self, image: RGBImage, seen: Seen | Proposed) -> Descriptors | None:
        """See `Descriptor.describe`; None from a follower that has none."""
        return seen.descriptors


COLOURS = Colours()


def make_descriptor(looks: str | None, checkpoint: str | os.PathLike[str], device: str = "auto") -> Descriptor | None:
    """The descriptor that a script's LOOKS names.

    Args:
        looks: "colours"; "pointers"; or a folder of DINOv2, DINOv3 or SigLIP, see `PatchFeatures`; None: none.
        checkpoint: of the follower whose pointers they are.
        device: where a model of images runs; see `grounded_sam2.runtime.choose_device`.

    Raises:
        ValueError: nothing of that name, a folder of something else, or no such device for it.
        FileNotFoundError: a folder that is not complete.
    """
    if looks is None:
        return None
    if looks == "colours":
        return COLOURS
    if looks == "pointers":
        return Pointers(weights=source_ids(checkpoint)[-1])
    if not Path(looks).is_dir():
        raise ValueError(f"expected looks by colours, pointers, none, or a folder of DINOv3 or SigLIP, got {looks!r}")
    from grounded_sam2.runtime import choose_device  # the others need neither torch nor transformers
    from grounded_sam2.track.patch_looks import PatchFeatures

    return PatchFeatures(looks, choose_device(device))
