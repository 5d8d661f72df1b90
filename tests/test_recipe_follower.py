"""Recipe: another video model. This one takes boxes for masks, and repeats each object's last mask on every frame."""

import numpy as np

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.follower import Follower, Proposed, Seen


class Still(Follower):  # the model and a stream in one; a real one has a class for each
    def __init__(self):
        self.frame_idx, self.size, self.masks = -1, (0, 0), {}

    def open_stream(self, num_frames=None):
        return Still()

    @property
    def obj_ids(self):
        return list(self.masks)

    def append(self, image):
        self.frame_idx, self.size = self.frame_idx + 1, (image.shape[1], image.shape[0])
        return self.frame_idx

    def step(self):
        masks = np.array(list(self.masks.values()), bool).reshape(-1, *self.size[::-1])
        return Seen(self.obj_ids, masks, np.ones(len(masks)))  # it judges neither masks nor looks

    def propose(self, frame_idx, boxes):
        masks = np.zeros((len(boxes), *self.size[::-1]), bool)
        for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
            mask[top:bottom, left:right] = True
        return Proposed(masks)

    def add(self, frame_idx, obj_id, *, box=None, mask=None):
        self.masks[obj_id] = self.propose(frame_idx, box[None]).masks[0] if mask is None else mask
        return Seen([obj_id], self.masks[obj_id][None], np.ones(1))

    def correct(self, frame_idx, obj_id, mask):
        return self.add(frame_idx, obj_id, mask=mask)

    def exchange(self, obj_id, other_id):
        self.masks[obj_id], self.masks[other_id] = self.masks[other_id], self.masks[obj_id]

    def forget(self, frame_idx, obj_ids):
        """It remembers masks, not frames."""

    def remove(self, obj_id):
        self.masks.pop(obj_id, None)


class OneBox:
    def detect(self, images, text_prompt, **thresholds):
        phrases = parse_prompt(text_prompt)
        return [make_detections(np.array([[4, 6, 20, 16]]), np.array([0.9]), np.array([0]), phrases, (40, 30))]


def test_an_object_that_is_repeated_keeps_its_id() -> None:
    tracker = ContinuousTracker(OneBox(), Still(), "dog", detect_every=3)
    seen = [tracker.step(np.zeros((30, 40, 3), np.uint8)) for _ in range(7)]
    assert all(each.tracker_id.tolist() == [1] and each.xyxy.tolist() == [[4, 6, 20, 16]] for each in seen)
