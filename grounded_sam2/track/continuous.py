"""Find and follow objects while they come and go: one id per object for its whole life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2.detectors.base import DEFAULT_BOX_THRESHOLD, DEFAULT_TEXT_THRESHOLD, Detector, Image, Threshold
from grounded_sam2.object_prompts import ObjectPrompt
from grounded_sam2.prompts import TextPrompt
from grounded_sam2.track.discovery import Discovery, TextDiscovery
from grounded_sam2.track.events import IdentityEvent
from grounded_sam2.track.follower import Follower, Scores, Seen, as_follower
from grounded_sam2.track.gallery import Gallery
from grounded_sam2.track.keeper import IdentityKeeper
from grounded_sam2.track.looks import COLOURS, Descriptor
from grounded_sam2.track.object_track import Track, TrackState
from grounded_sam2.track.rules import IdentityRules
from grounded_sam2.track.tracking import make_tracked_detections, no_objects

if TYPE_CHECKING:
    from sam2.sam2_video_predictor import SAM2VideoPredictor

_THUMBNAIL = (32, 32)  # pixels, on which two frames are compared


class ContinuousTracker:
    """Follows objects through a stream of frames, of which it keeps none.

        tracker = ContinuousTracker(detector, predictor, "person. dog. not a toy dog.")
        for frame in frames:
            objects = tracker.step(frame)

    Every `detect_every` frames, at scene cuts, and when the prompt has changed, the detector, or another `Discovery`,
    looks for objects; SAM 2, or another `Follower`, follows them in between. New objects join the running stream, which
    is never reset.

    Attributes:
        discovery: what looks for objects.
        descriptor: what tells objects by their looks, or None.
        keeper: the objects and what happened to them, see `grounded_sam2.track.keeper`.
        detect_every: frames from one look to the next; may be changed between steps.
        scene_cut: as given.
        frame_idx: 0-based index of the last frame, -1 before the first.
    """

    def __init__(
        self,
        detector: Detector | Discovery,
        predictor: Follower | SAM2VideoPredictor,
        text_prompt: TextPrompt | None = "",
        *,
        given: Sequence[ObjectPrompt] = (),
        detect_every: int = 10,
        box_threshold: Threshold | None = None,
        text_threshold: Threshold | None = None,
        scene_cut: float | None = 0.2,
        rules: IdentityRules | None = None,
        descriptor: Descriptor | None = COLOURS,
        gallery: Gallery | None = None,
    ) -> None:
        """
        Args:
            detector: finds the prompt's phrases in an image; or a source of objects of any kind.
            predictor: follows the objects; see `grounded_sam2.track.follower.as_follower`.
            text_prompt: see `grounded_sam2.prompts`; where none is given, a `Discovery` keeps the one it has. None: a
                detector looks for nothing until `set_prompt`.
            given: objects that a person shows on the first frame; see `add`.
            detect_every: frames from one look for objects to the next, at least 1.
            box_threshold: see `Detector.detect`; None: 0.35.
            text_threshold: see `Detector.detect`; None: 0.25.
            scene_cut: mean change of grey, in [0, 1], between two frames that makes a cut; None: no cuts are looked
                for.
            rules: when two sightings are one object; None: the defaults.
            descriptor: tells by their looks the objects that come back; None: only place and phrase tell.
            gallery: objects of earlier videos, which have their ids again when they are seen; described by the same
                descriptor.

        Raises:
            ValueError: a prompt that cannot be read or names nothing wanted, `detect_every` below 1, or thresholds for
                a `Discovery`, which has its own.
        """
        if detect_every < 1:
            raise ValueError(f"expected detect_every of at least 1, got {detect_every}")
        self.discovery = _as_discovery(detector, text_prompt, box_threshold, text_threshold)
        self.detect_every = detect_every
        self.scene_cut = scene_cut
        self.descriptor = descriptor
        self.keeper = IdentityKeeper(_with_thresholds(rules or IdentityRules(), descriptor))
        self.frame_idx = -1
        self._prompt_is_new = True
        self._detection_idx = -1  # the frame that was last looked at for objects
        self._follower = as_follower(predictor)
        self._stream = self._follower.open_stream()
        self._image: Image | None = None  # the newest frame; none after `restore`
        self._thumbnail: npt.NDArray[np.float32] | None = None
        self._scores: dict[int, Scores] = {}  # of the objects on the newest frame
        self._given = list(given)
        for prompt in self._given:
            self._class_of(prompt.name)
        if gallery is not None:
            gallery.recall(self.keeper, self._class_of)

    @property
    def phrases(self) -> list[str]:
        """Every phrase that was ever asked for; an object's `class_id` is its index here, which for the first prompt's
        phrases is that in the prompt."""
        return self.discovery.phrases

    def set_prompt(self, text_prompt: TextPrompt) -> None:
        """Look for other phrases from the next frame on; objects that are followed live on.

        Raises:
            ValueError: the prompt names nothing that is wanted, cannot be read, or the source of objects takes none.
        """
        self.discovery.set_prompt(text_prompt)
        self._prompt_is_new = True

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the frames in pixels; (0, 0) before the first."""
        return self._stream.size

    @property
    def objects(self) -> sv.Detections:
        """What the last `step` returned, with the objects that were added since and without those removed."""
        return self._objects_on(self._stream.size[::-1], self._scores)

    def add(self, prompt: ObjectPrompt) -> int:
        """Follow an object that a person shows on the newest frame, from that frame on and to the end.

        It is confirmed at once and keeps the name that the person gives it; see `Track.is_given`.

        Returns:
            Its id; where nearly the same mask is of an object in sight already, that one's, and nothing changes, but
            that one which is not shown yet is from now on, as the person names it.

        Raises:
            RuntimeError: there is no frame yet.
            ValueError: nothing is seen there, a mask of another size, or `max_objects` are followed already.
        """
        if self.frame_idx < 0:
            raise RuntimeError("there is no frame to add an object on: call step(...) first")
        self.keeper.check_room()
        obj_id = self.keeper.next_obj_id
        seen = self._stream.add(
            self.frame_idx, obj_id, box=prompt.box, points=prompt.points, labels=prompt.labels, mask=prompt.mask
        )
        mask = seen.masks[0]
        known = self.keeper.find_same(mask)
        if known is not None or not mask.any():
            self._stream.remove(obj_id)
        if not mask.any():
            raise ValueError(f"nothing is seen of {prompt} on frame {self.frame_idx}")
        if known is not None:
            if self.keeper.tracks[known].state is TrackState.TENTATIVE:
                self.keeper.accept(self.frame_idx, known, self._class_of(prompt.name))
            return known
        looks = None if self._image is None or self.descriptor is None else self.descriptor.describe(self._image, seen)
        look = None if looks is None else looks[0]
        self.keeper.add(self.frame_idx, self._class_of(prompt.name), mask, look)
        self._scores.update(seen.scores())
        return obj_id

    def remove(self, obj_id: int) -> None:
        """Follow an object no longer, because a person says so; ValueError where it is not followed."""
        self.keeper.remove(self.frame_idx, obj_id)
        self._stream.remove(obj_id)

    def _class_of(self, name: str) -> int:
        """The class id of a name, which is a new phrase where no phrase is that."""
        if name not in self.phrases:
            self.discovery.phrases.append(name)
        return self.phrases.index(name)

    def take_events(self) -> list[IdentityEvent]:
        """What happened to the objects since the last call."""
        return self.keeper.take_events()

    def save(self) -> dict[str, Any]:
        """All that the next `step` builds on, as tensors and plain values; see `restore`.

        It holds the followed objects' memories, what is known of lost ones, and no frame, so it stays as small as the
        tracker does. To be called between two steps.
        """
        return {
            "stream": self._stream.save(),
            "keeper": self.keeper.to_dict(),
            "discovery": self.discovery.save(),
            "thumbnail": None if self._thumbnail is None else self._thumbnail.tolist(),
            "prompt_is_new": self._prompt_is_new,
            "detect_every": self.detect_every,
            "frame_idx": self.frame_idx,
            "detection_idx": self._detection_idx,
            "scores": dict(self._scores),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on behind the frame on which a tracker with the same models, thresholds and rules was saved."""
        self._stream = self._follower.load_stream(saved["stream"])
        self.keeper.restore(saved["keeper"])
        self.discovery.restore(saved["discovery"])
        self._thumbnail = None if saved["thumbnail"] is None else np.array(saved["thumbnail"], dtype=np.float32)
        self._prompt_is_new = saved["prompt_is_new"]
        self.detect_every = saved["detect_every"]
        self.frame_idx = saved["frame_idx"]
        self._detection_idx = saved["detection_idx"]
        self._scores = dict(saved.get("scores", {}))  # which earlier versions did not save

    def step(self, image: Image) -> sv.Detections:
        """Take in the next frame.

        Args:
            image: (H, W, 3) uint8 RGB, of the same size as the frames before.

        Returns:
            The confirmed objects that are seen on it: `mask` (N, H, W), `xyxy` (N, 4) float32 around it, `tracker_id`,
            `class_id`, `confidence` of the object's last detection, `data` with `class_name`, `object_score` and, from
            a follower that predicts it, `mask_score`.

        Raises:
            ValueError: not an RGB uint8 image, or of another size; or, on the first frame, as `add` of a given object.
        """
        self.frame_idx = self._stream.append(image)
        is_cut = self._take_thumbnail(image)
        self._image = image
        seen = self._stream.step()
        self._scores = seen.scores()
        doubtful = self._take_in(seen, is_cut)
        if self.frame_idx == 0:
            for prompt in self._given:
                self.add(prompt)
        is_due = self.frame_idx - self._detection_idx >= self.detect_every
        if is_due or is_cut or self._prompt_is_new:
            self._prompt_is_new = False
            self._detection_idx = self.frame_idx
            self._scores.update(self._detect(image))
        self._stream.forget(self.frame_idx, [obj_id for obj_id in doubtful if obj_id in self._stream.obj_ids])
        for one, other in self.keeper.sort_out(self.frame_idx):
            self._stream.exchange(one, other)
            self._scores[one], self._scores[other] = self._scores[other], self._scores[one]
        return self.objects

    def _take_thumbnail(self, image: Image) -> bool:
        """Keep the frame's thumbnail in place of the last one; True when they differ like two scenes."""
        if self.scene_cut is None:
            return False
        grey = cv2.cvtColor(cv2.resize(image, _THUMBNAIL, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        former, self._thumbnail = self._thumbnail, grey.astype(np.float32) / 255
        return former is not None and float(np.abs(self._thumbnail - former).mean()) > self.scene_cut

    def _take_in(self, seen: Seen, is_cut: bool) -> list[int]:
        """Tell the keeper what is seen on the newest frame; returns the objects whose mask is not to be remembered."""
        sight = self.keeper.see(self.frame_idx, seen.obj_ids, seen.masks, seen.object_scores, is_cut)
        for obj_id in sight.removed:
            self._stream.remove(obj_id)
        return [obj_id for obj_id in seen.obj_ids if obj_id not in sight.remembered]

    def _detect(self, image: Image) -> dict[int, Scores]:
        """Look for objects on the newest frame, and give the follower what is new, back, or drifted.

        Returns:
            The scores of the objects that it was given.
        """
        detections = self.discovery.find(image, self.frame_idx)
        proposed = self._stream.propose(self.frame_idx, detections.xyxy)
        kept = np.flatnonzero(proposed.masks.any(axis=(1, 2)))
        detections, proposed = cast(sv.Detections, detections[kept]), proposed.only(kept)
        detections.mask = proposed.masks
        looks = None if self.descriptor is None else self.descriptor.describe(image, proposed)
        found = self.keeper.match(self.frame_idx, detections, looks)
        for obj_id in found.removed:
            self._stream.remove(obj_id)
        scores: dict[int, Scores] = {}
        for index in found.prompt:
            obj_id = int(found.obj_ids[index])
            if obj_id in self._stream.obj_ids:
                seen = self._stream.correct(self.frame_idx, obj_id, detections.mask[index])
            else:
                seen = self._stream.add(self.frame_idx, obj_id, box=detections.xyxy[index])
            scores.update(seen.scores())
        return scores

    def _objects_on(self, size: tuple[int, int], scores: dict[int, Scores]) -> sv.Detections:
        """The objects to show on the newest frame, of (height, width) pixels."""
        shown: list[Track] = [
            track
            for track in self.keeper.followed()
            if track.state is TrackState.ACTIVE and track.last_seen_frame_idx == self.frame_idx
        ]
        if not shown:
            return no_objects((size[1], size[0]))
        return make_tracked_detections(
            [track.obj_id for track in shown],
            np.stack([cast(npt.NDArray[np.bool_], track.mask) for track in shown]),
            scores,
            confidence=[track.confidence for track in shown],
            class_id=[track.class_id for track in shown],
            class_name=[self.phrases[track.class_id] for track in shown],
        )


def _with_thresholds(rules: IdentityRules, descriptor: Descriptor | None) -> IdentityRules:
    """Rules with the descriptor's thresholds where they have none of their own."""
    if descriptor is None:
        return rules
    threshold, margin = rules.similarity_threshold, rules.similarity_margin
    return replace(
        rules,
        similarity_threshold=descriptor.threshold if threshold is None else threshold,
        similarity_margin=descriptor.margin if margin is None else margin,
    )


def _as_discovery(
    detector: Detector | Discovery,
    text_prompt: TextPrompt | None,
    box_threshold: Threshold | None,
    text_threshold: Threshold | None,
) -> Discovery:
    """A discovery as it is, with the prompt if there is one, and a detector as a search for the prompt."""
    if not isinstance(detector, Discovery):
        return TextDiscovery(
            detector,
            text_prompt,
            DEFAULT_BOX_THRESHOLD if box_threshold is None else box_threshold,
            DEFAULT_TEXT_THRESHOLD if text_threshold is None else text_threshold,
        )
    if box_threshold is not None or text_threshold is not None:
        raise ValueError(f"thresholds belong to a detector: {type(detector).__name__} has its own, if any")
    if text_prompt:
        detector.set_prompt(text_prompt)
    return detector
