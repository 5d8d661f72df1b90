"""What the policies share that read selected frames, however long ago, instead of the last few."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from sam2.memory_policy import MemoryPolicy
from sam2.video_state import FrameOutput, FrameTime, ObjectState


class SelectedFrames(MemoryPolicy):
    """A subclass says which of the frames tracked so far are worth reading; of the others only pointers stay a while.

    What is read of a frame does not depend on frames that are forgotten, so memory has a bound, and a stream reads what
    the same video does offline.
    """

    @abstractmethod
    def worth_reading(self, tracked: Mapping[int, FrameOutput], time: FrameTime) -> list[int]:
        """Of the frames tracked before `time`, those whose spatial memories may be read on it, the newest first.

        A frame left out on some frame must be left out on all that are tracked after it.
        """

    def spatial_memories(self, obj: ObjectState, time: FrameTime) -> list[tuple[int, FrameOutput]]:
        selected, unselected = self.conditioning_frames(obj, time.frame_idx)
        tracked = unselected | obj.non_cond
        newest = [tracked[t] for t in self.worth_reading(tracked, time)[: self.config.num_maskmem - 1]]
        in_places = list(enumerate(newest, start=1))
        return [(0, output) for output in selected.values()] + in_places[::-1]

    def forget(self, obj: ObjectState, time: FrameTime, may_restart: bool) -> None:
        read = set(self.worth_reading(obj.non_cond, _after(time.frame_idx, time)))
        anchors, near = [time.frame_idx], 0
        if may_restart:  # or frames near by may be corrected, which reads the memories before them
            anchors, near = [time.frame_idx, *obj.cond], self.config.num_maskmem - 1
            for anchor in anchors:
                for reverse in (False, True):
                    read.update(self.worth_reading(obj.non_cond, _after(anchor, time, reverse)))
        for t in [t for t in obj.non_cond if t not in read]:
            distance = min(abs(t - anchor) for anchor in anchors)
            if distance >= max(self.config.max_obj_ptrs_in_encoder, near + 1):
                del obj.non_cond[t]
            elif distance > near:
                obj.non_cond[t].maskmem = None


def passed(tracked: Mapping[int, FrameOutput], time: FrameTime) -> list[int]:
    """The frames that tracking in this direction has passed, the newest first."""
    return sorted((t for t in tracked if time.elapsed_since(t) > 0), key=time.elapsed_since)


def latest_state(obj: ObjectState, time: FrameTime) -> dict[str, Any]:
    """What a policy left on the frame that tracking passed last; nothing where there is none."""
    output = obj.latest_before(time)
    return {} if output is None else output.policy_state


def _after(frame_idx: int, time: FrameTime, reverse: bool | None = None) -> FrameTime:
    """The frame that tracking comes to after another."""
    reverse = time.reverse if reverse is None else reverse
    return FrameTime(frame_idx - 1 if reverse else frame_idx + 1, reverse, time.num_frames)
