"""Find and follow everything a prompt names while objects come and go: one id per object for its whole life."""

from dataclasses import asdict
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import supervision as sv
import torch

from grounded_sam2.detectors.base import Detector, Image
from grounded_sam2.prompts import Prompt, TextPrompt, read_prompt
from grounded_sam2.track.events import IdentityEvent
from grounded_sam2.track.keeper import IdentityKeeper
from grounded_sam2.track.object_track import Track, TrackState
from grounded_sam2.track.rules import IdentityRules
from grounded_sam2.track.tracking import make_tracked_detections, masks_of, no_objects
from sam2.sam2_video_predictor import SAM2VideoPredictor

_THUMBNAIL = (32, 32)  # pixels, on which two frames are compared


class ContinuousTracker:
    """Follows objects through a stream of frames, of which it keeps none.

        tracker = ContinuousTracker(detector, predictor, "person. dog. not a toy dog.")
        for frame in frames:
            objects = tracker.step(frame)

    Every `detect_every` frames, at scene cuts, and when the prompt has changed, the detector looks for objects; SAM 2
    follows them in between. New objects join the running session, which is never reset.

    Attributes:
        keeper: the objects and what happened to them, see `grounded_sam2.track.keeper`.
        phrases: every phrase that was ever asked for; an object's `class_id` is its index here, which for the first
            prompt's phrases is that in the prompt.
        frame_idx: 0-based index of the last frame, -1 before the first.
    """

    def __init__(
        self,
        detector: Detector,
        predictor: SAM2VideoPredictor,
        text_prompt: TextPrompt,
        *,
        detect_every: int = 10,
        box_threshold: float = 0.35,
        text_threshold: float = 0.25,
        scene_cut: float | None = 0.2,
        rules: IdentityRules | None = None,
    ) -> None:
        """
        Args:
            detector: finds the prompt's phrases in an image.
            predictor: follows the objects.
            text_prompt: see `grounded_sam2.prompts`.
            detect_every: frames from one round of detection to the next, at least 1; may be changed between steps.
            box_threshold: see `Detector.detect`.
            text_threshold: see `Detector.detect`.
            scene_cut: mean change of grey, in [0, 1], between two frames that makes a cut; None: no cuts are looked
                for.
            rules: when two sightings are one object; None: the defaults.

        Raises:
            ValueError: a prompt that names nothing wanted, or `detect_every` below 1.
        """
        if detect_every < 1:
            raise ValueError(f"expected detect_every of at least 1, got {detect_every}")
        self.detector = detector
        self.predictor = predictor
        self.detect_every = detect_every
        self.box_threshold = box_threshold
        self.text_threshold = text_threshold
        self.scene_cut = scene_cut
        self.keeper = IdentityKeeper(rules or IdentityRules())
        self.phrases: list[str] = []
        self.frame_idx = -1
        self._detection_idx = -1  # the frame that the detector looked at last
        self._state = predictor.init_stream()
        self._thumbnail: npt.NDArray[np.float32] | None = None
        self.set_prompt(text_prompt)

    def set_prompt(self, text_prompt: TextPrompt) -> None:
        """Look for other phrases from the next frame on; objects that are followed live on.

        Raises:
            ValueError: the prompt names nothing that is wanted, or cannot be read.
        """
        self._prompt = read_prompt(text_prompt)
        self.phrases += [phrase for phrase in self._prompt.phrases if phrase not in self.phrases]
        self._prompt_is_new = True

    def take_events(self) -> list[IdentityEvent]:
        """What happened to the objects since the last call."""
        return self.keeper.take_events()

    def save(self) -> dict[str, Any]:
        """All that the next `step` builds on, as tensors and plain values; see `restore`.

        It holds the followed objects' memories, what is known of lost ones, and no frame, so it stays as small as the
        tracker does. To be called between two steps.
        """
        return {
            "stream": self.predictor.save_stream(self._state),
            "keeper": self.keeper.to_dict(),
            "thumbnail": None if self._thumbnail is None else torch.from_numpy(self._thumbnail),
            "prompt": asdict(self._prompt),
            "prompt_is_new": self._prompt_is_new,
            "phrases": self.phrases,
            "detect_every": self.detect_every,
            "frame_idx": self.frame_idx,
            "detection_idx": self._detection_idx,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Go on behind the frame on which a tracker with the same models, thresholds and rules was saved."""
        self._state = self.predictor.load_stream(saved["stream"])
        self.keeper.restore(saved["keeper"])
        self._thumbnail = None if saved["thumbnail"] is None else saved["thumbnail"].cpu().numpy()
        self._prompt = Prompt(**saved["prompt"])
        self._prompt_is_new = saved["prompt_is_new"]
        self.phrases = saved["phrases"]
        self.detect_every = saved["detect_every"]
        self.frame_idx = saved["frame_idx"]
        self._detection_idx = saved["detection_idx"]

    def step(self, image: Image) -> sv.Detections:
        """Take in the next frame.

        Args:
            image: (H, W, 3) uint8 RGB, of the same size as the frames before.

        Returns:
            The confirmed objects that are seen on it: `mask` (N, H, W), `xyxy` (N, 4) float32 around it, `tracker_id`,
            `class_id`, `confidence` of the object's last detection, `data` with `class_name`, `mask_score` and
            `object_score`.

        Raises:
            ValueError: not an RGB uint8 image, or of another size.
        """
        is_cut = self._take_thumbnail(image)
        self.frame_idx = self.predictor.append_frame(self._state, image)
        doubtful = self._follow(is_cut)
        is_due = self.frame_idx - self._detection_idx >= self.detect_every
        if is_due or is_cut or self._prompt_is_new:
            self._prompt_is_new = False
            self._detection_idx = self.frame_idx
            self._detect(image)
        objects = self._objects_on(image.shape[:2])
        self.predictor.forget_frame(self._state, self.frame_idx, [i for i in doubtful if i in self._state.objects])
        return objects

    def _take_thumbnail(self, image: Image) -> bool:
        """Keep the frame's thumbnail in place of the last one; True when they differ like two scenes."""
        if self.scene_cut is None:
            return False
        grey = cv2.cvtColor(cv2.resize(image, _THUMBNAIL, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        former, self._thumbnail = self._thumbnail, grey.astype(np.float32) / 255
        return former is not None and float(np.abs(self._thumbnail - former).mean()) > self.scene_cut

    def _follow(self, is_cut: bool) -> list[int]:
        """Step SAM 2 onto the newest frame; returns the objects whose mask there is not to be remembered."""
        obj_ids, mask_logits = self.predictor.step(self._state)
        masks = masks_of(mask_logits)
        scores = self.predictor.frame_scores(self._state, self.frame_idx)
        pointers = self.predictor.object_pointers(self._state, self.frame_idx)
        descriptors = np.array([pointers[obj_id].float().cpu().numpy() for obj_id in obj_ids])
        object_scores = np.array([scores[obj_id][1] for obj_id in obj_ids])
        sight = self.keeper.see(self.frame_idx, obj_ids, masks, object_scores, descriptors, is_cut)
        for obj_id in sight.removed:
            self.predictor.remove_object(self._state, obj_id, need_output=False)
        return [obj_id for obj_id in obj_ids if obj_id not in sight.remembered]

    def _detect(self, image: Image) -> None:
        """Look for the prompt's phrases on the newest frame, and give SAM 2 what is new, back, or drifted."""
        detections = self._wanted_detections(image)
        mask_logits, _, pointers = self.predictor.segment_boxes(self._state, self.frame_idx, detections.xyxy)
        masks = masks_of(mask_logits)
        kept = np.flatnonzero(masks.any(axis=(1, 2)))
        detections = cast(sv.Detections, detections[kept])
        detections.mask = masks[kept]
        found = self.keeper.match(self.frame_idx, detections, pointers.float().cpu().numpy()[kept])
        for obj_id in found.removed:
            self.predictor.remove_object(self._state, obj_id, need_output=False)
        for index in found.prompt:
            obj_id = int(found.obj_ids[index])
            if obj_id in self._state.objects:
                self.predictor.correct_object(self._state, self.frame_idx, obj_id, detections.mask[index])
            else:
                box = detections.xyxy[index]
                self.predictor.add_new_points_or_box(self._state, self.frame_idx, obj_id, box=box)

    def _wanted_detections(self, image: Image) -> sv.Detections:
        """What the detector finds, with indices in `phrases` as `class_id`."""
        [detections] = self.detector.detect(
            image, self._prompt, box_threshold=self.box_threshold, text_threshold=self.text_threshold
        )
        class_id = cast(npt.NDArray[np.int64], detections.class_id)
        registered = [self.phrases.index(self._prompt.phrases[index]) for index in class_id]
        detections.class_id = np.array(registered, dtype=np.int64)
        return detections

    def _objects_on(self, size: tuple[int, int]) -> sv.Detections:
        """The objects to show on the newest frame, of (height, width) pixels."""
        seen: list[Track] = [
            track
            for track in self.keeper.followed()
            if track.state is TrackState.ACTIVE and track.last_seen_frame_idx == self.frame_idx
        ]
        if not seen:
            return no_objects((size[1], size[0]))
        return make_tracked_detections(
            [track.obj_id for track in seen],
            np.stack([cast(npt.NDArray[np.bool_], track.mask) for track in seen]),
            self.predictor.frame_scores(self._state, self.frame_idx),
            confidence=[track.confidence for track in seen],
            class_id=[track.class_id for track in seen],
            class_name=[self.phrases[track.class_id] for track in seen],
        )
