"""Which object is which: one id for an object's whole life.

Pure NumPy and SciPy. A tracking loop tells an `IdentityKeeper` what SAM 2 sees on every frame (`see`) and what the
detector finds on some (`match`), and does to the SAM 2 session what the answers say: add, prompt again, remove, or
leave a frame out of an object's memory.

    keeper = IdentityKeeper()
    for frame_idx, frame in enumerate(frames):
        sight = keeper.see(frame_idx, obj_ids, masks, object_scores)     # obj_ids that SAM 2 follows
        ...                                                # show sight.shown, remove sight.removed from the session
        if frame_idx % detect_every == 0:
            found = keeper.match(frame_idx, detections, detection_descriptors)
            ...                                            # prompt found.prompt, remove found.removed
        for pair in keeper.sort_out(frame_idx):
            ...                                            # give SAM 2 their masks, which they have exchanged
    keeper.events                                          # what happened to whom, when and why
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import supervision as sv

from grounded_sam2.masks import Masks, corners_of, mask_overlaps
from grounded_sam2.track.association import (
    Association,
    begin_association,
    check_lengths,
    find_astray,
    match_by_looks,
    match_by_overlap,
    match_by_place,
)
from grounded_sam2.track.crossings import Crossings
from grounded_sam2.track.events import EventKind, IdentityEvent
from grounded_sam2.track.object_track import FOLLOWED, Descriptors, Track, TrackState
from grounded_sam2.track.rules import IdentityRules

__all__ = ["Found", "IdentityKeeper", "Sight"]


@dataclass(frozen=True)
class Sight:
    """What `IdentityKeeper.see` concludes from one frame; all are object ids.

    Attributes:
        shown: confirmed objects with a mask on this frame.
        remembered: objects whose mask of this frame may enter their memory.
        removed: objects to take out of the SAM 2 session.
    """

    shown: list[int]
    remembered: list[int]
    removed: list[int]


@dataclass(frozen=True)
class Found:
    """What `IdentityKeeper.match` concludes from one round of detection.

    Attributes:
        obj_ids: (N,) int64, the object of each detection; 0 for a detection that is ignored.
        prompt: detections, by position, whose object SAM 2 is to be prompted with: new objects, objects found again
            and objects that have drifted.
        removed: objects to take out of the SAM 2 session before the prompts; those that are prompted as well start
            anew in it.
    """

    obj_ids: npt.NDArray[np.int64]
    prompt: list[int]
    removed: list[int]


@dataclass
class IdentityKeeper:
    """Keeps the ids of all objects of one video.

    Attributes:
        rules: when two sightings are one object.
        tracks: objects by id, those that ended left out.
        events: everything that happened since `take_events` was last called.
        next_obj_id: the id that the next new object gets.
        crossings: objects that are in each other's way.
    """

    rules: IdentityRules = field(default_factory=IdentityRules)
    tracks: dict[int, Track] = field(default_factory=dict)
    events: list[IdentityEvent] = field(default_factory=list)
    next_obj_id: int = 1
    crossings: Crossings = field(default_factory=Crossings)
    _overlapping_rounds: dict[tuple[int, int], int] = field(default_factory=dict)

    def take_events(self) -> list[IdentityEvent]:
        """The events so far, which are then forgotten here: a stream writes them out and its memory stays flat."""
        events, self.events = self.events, []
        return events

    def to_dict(self) -> dict[str, Any]:
        """Everything but the rules, as plain values; the inverse of `restore`."""
        return {
            "tracks": [track.to_dict() for track in self.tracks.values()],
            "events": [asdict(event) for event in self.events],
            "next_obj_id": self.next_obj_id,
            "crossings": self.crossings.to_dict(),
            "overlapping_rounds": dict(self._overlapping_rounds),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Inverse of `to_dict`, under the same rules."""
        tracks = [Track.from_dict(track, self.rules) for track in saved["tracks"]]
        self.tracks = {track.obj_id: track for track in tracks}
        self.events = [IdentityEvent(**event) for event in saved["events"]]
        self.next_obj_id = saved["next_obj_id"]
        self.crossings.restore(saved["crossings"])
        self._overlapping_rounds = dict(saved["overlapping_rounds"])

    def followed(self) -> list[Track]:
        """Objects that SAM 2 follows."""
        return [track for track in self.tracks.values() if track.state in FOLLOWED]

    def see(
        self,
        frame_idx: int,
        obj_ids: Sequence[int],
        masks: Masks,
        object_scores: npt.NDArray[np.floating],
        is_cut: bool = False,
    ) -> Sight:
        """Take in what SAM 2 sees on a frame.

        Args:
            frame_idx: 0-based; frames come in order, some may be left out.
            obj_ids: N ids of followed objects.
            masks: (N, H, W) bool in the same order; empty where an object is not seen.
            object_scores: (N,) SAM 2's presence logits.
            is_cut: whether another scene begins with this frame; what SAM 2 sees of the objects of the scene before is
                then in doubt until a detection agrees.

        Raises:
            ValueError: an id that is not followed, or arrays whose lengths differ.
        """
        check_lengths(len(obj_ids), masks=masks, object_scores=object_scores)
        for obj_id in obj_ids:
            if obj_id not in self.tracks or self.tracks[obj_id].state not in FOLLOWED:
                raise ValueError(f"object {obj_id} is not followed; followed: {[t.obj_id for t in self.followed()]}")
        if is_cut:
            self.crossings = Crossings()
        remembered, removed = [], []
        areas = [int(mask.sum()) for mask in masks]
        visible = [row for row, area in enumerate(areas) if area and object_scores[row] > self.rules.min_object_score]
        standing = [masks[row] for row in visible if self.tracks[obj_ids[row]].in_sight]  # as on the frame before
        for row, obj_id in enumerate(obj_ids):
            track, area = self.tracks[obj_id], areas[row]
            is_visible = row in visible and (track.mask is not None or not self._is_taken(masks[row], standing))
            is_strange = (is_cut and not track.is_given) or track.is_long_hidden(frame_idx, self.rules)
            track.in_doubt = track.in_doubt or is_strange
            if is_visible and not track.in_doubt:
                if track.state is TrackState.OCCLUDED:
                    hidden = frame_idx - track.last_seen_frame_idx
                    self._enter(track, TrackState.ACTIVE, frame_idx, "found again", f"after {hidden} frames by SAM 2")
                    track.is_guess = not track.is_given
                track.mask, track.place, track.last_seen_frame_idx = masks[row], None, frame_idx
                if track.learn_area(area, self.rules):
                    remembered.append(obj_id)
            elif self._miss(track, frame_idx, "another scene" if is_cut else f"object score {object_scores[row]:.1f}"):
                removed.append(obj_id)
            elif is_visible:
                track.mask = masks[row]
        if is_cut:  # wherever they were, it was in another scene
            for track in self.tracks.values():
                track.place = None
        self._forget(frame_idx)
        shown = [
            obj_id for obj_id in obj_ids if obj_id in self.tracks and self.tracks[obj_id].state is TrackState.ACTIVE
        ]
        return Sight(shown, remembered, removed)

    def match(self, frame_idx: int, detections: sv.Detections, descriptors: Descriptors | None = None) -> Found:
        """Take in what the detector found on a frame that `see` has been told about.

        Args:
            frame_idx: 0-based.
            detections: N ≥ 0, with `mask` (N, H, W) bool, `class_id` and `confidence`.
            descriptors: (N, C) what the detections look like, or None.

        Raises:
            ValueError: detections without masks, classes or confidences, or with another number of descriptors.
        """
        seen = [track for track in self.followed() if track.mask is not None]
        association = begin_association(frame_idx, detections, descriptors, seen)
        self._find_seen(association)
        removed = self._find_former(association)
        is_part = association.parts(self.rules)
        removed += self._find_unseen(association, is_part)
        self._bear_new(association, is_part)

        obj_ids = association.obj_ids
        self._learn_looks(association)
        self._tell_apart(obj_ids, association.mutual_ious < self.rules.iou_threshold)
        ended = self._confirm(frame_idx, {int(obj_id) for obj_id in obj_ids if obj_id})
        ended += self._merge(frame_idx) + self._let_go(frame_idx)
        gone = np.isin(obj_ids, ended)
        obj_ids[gone] = 0
        return Found(obj_ids, sorted(index for index in association.prompt if not gone[index]), removed + ended)

    def sort_out(self, frame_idx: int) -> list[tuple[int, int]]:
        """Put right the objects that came out of a crossing changed over; to be called at the end of every frame.

        Returns:
            Pairs of object ids, each of which now has the mask that the other one had on the frame.
        """
        pairs = self.crossings.see(frame_idx, self.followed(), self.rules)
        for pair in pairs:
            one, other = (self.tracks[obj_id] for obj_id in pair)
            one.exchange_sight(other)
            for track, with_whom in ((one, other), (other, one)):
                reason = f"with object {with_whom.obj_id}: their ways crossed, and each goes on as it came"
                self._log(frame_idx, track.obj_id, "exchanged", reason)
        return pairs

    def recall(self, obj_id: int, class_id: int, looks: Descriptors) -> None:
        """Know an object from an earlier video, before the first frame: it is lost, and found again by its looks alone.

        Args:
            obj_id: that it had, and has again when it is found.
            class_id: its name, which no detection changes.
            looks: (K, C) unit float32; see `Track.looks`.

        Raises:
            ValueError: an id that is there already.
        """
        if obj_id in self.tracks:
            raise ValueError(f"there is an object {obj_id} already")
        rounds: deque[bool] = deque(maxlen=self.rules.confirm_window)
        track = Track(obj_id, TrackState.LOST, {class_id: 1.0}, 1.0, -1, -1, rounds)
        track.looks, track.is_rough, track.is_known = looks, False, True
        self.tracks[obj_id] = track
        self.next_obj_id = max(self.next_obj_id, obj_id + 1)

    # ---- what a person shows ----

    def add(self, frame_idx: int, class_id: int, mask: Masks, descriptor: Descriptors | None = None) -> Track:
        """Make an object that a person shows on a frame that `see` has been told about; see `Track.is_given`.

        Args:
            frame_idx: 0-based.
            class_id: what the person calls it.
            mask: (H, W) bool with at least one pixel.
            descriptor: (C,) what it looks like there, or None.

        Raises:
            ValueError: `max_objects` are followed already.
        """
        self.check_room()
        beside = [track for track in self.followed() if track.in_sight]
        track = self._bear(frame_idx, class_id, 1.0, "shown by a person")
        track.is_given = True
        track.show(mask, frame_idx)
        if descriptor is not None:
            track.learn_look(descriptor, is_clear=True, rules=self.rules)
        self._enter(track, TrackState.ACTIVE, frame_idx, "confirmed", "shown by a person")
        ious = mask_overlaps([mask], [other.mask for other in beside if other.mask is not None])[0][0]
        for other, iou in zip(beside, ious, strict=True):
            if iou < self.rules.iou_threshold:
                track.apart.add(other.obj_id)
                other.apart.add(track.obj_id)
        return track

    def check_room(self) -> None:
        """ValueError where `max_objects` are followed already."""
        if not self._has_room():
            raise ValueError(f"{self.rules.max_objects} objects are followed already, the most that may be")

    def _has_room(self) -> bool:
        return self.rules.max_objects is None or len(self.followed()) < self.rules.max_objects

    def accept(self, frame_idx: int, obj_id: int, class_id: int) -> None:
        """Confirm an object because a person has shown it too, and named it; see `Track.is_given`."""
        track = self.tracks[obj_id]
        track.class_votes, track.confidence, track.is_given = {class_id: 1.0}, 1.0, True
        self._enter(track, TrackState.ACTIVE, frame_idx, "confirmed", "shown by a person")

    def find_same(self, mask: Masks) -> int | None:
        """The object in sight that a mask (H, W) is of, by an IoU of at least `merge_iou`; None: of no known one."""
        seen = [track for track in self.followed() if track.in_sight]
        ious = mask_overlaps([mask], [track.mask for track in seen if track.mask is not None])[0][0]
        best = int(ious.argmax()) if seen else 0
        return seen[best].obj_id if seen and ious[best] >= self.rules.merge_iou else None

    def remove(self, frame_idx: int, obj_id: int) -> None:
        """End an object because a person says so; ValueError where it is not followed."""
        if obj_id not in self.tracks or self.tracks[obj_id].state not in FOLLOWED:
            raise ValueError(f"object {obj_id} is not followed; followed: {[t.obj_id for t in self.followed()]}")
        self._enter(self.tracks[obj_id], TrackState.ENDED, frame_idx, "ended", "by a person")

    # ---- a round of detection ----

    def _find_seen(self, association: Association) -> None:
        """Give detections to objects that SAM 2 sees, by where they are, and where two are in each other's way by how
        they came."""
        pairs = match_by_overlap(association, self.rules)
        columns = {association.seen[column].obj_id: column for _, column in pairs}
        found = {
            association.seen[column].obj_id: np.array(corners_of(association.masks[index]), dtype=np.float64)
            for index, column in pairs
        }
        takes = self.crossings.sort_found(association.frame_idx, found, self.rules)
        owners = {columns[other]: columns[obj_id] for obj_id, other in takes.items()}
        for index, column in ((index, owners.get(column, column)) for index, column in pairs):
            track, mask = association.seen[column], association.masks[index]
            track.vote(int(association.class_ids[index]), float(association.confidences[index]))
            track.astray_rounds, track.is_guess = 0, False
            is_elsewhere = association.ious[index, column] < self.rules.reprompt_iou
            has_drifted = is_elsewhere and not track.in_doubt and not track.is_given
            association.settle(index, track, needs_prompt=track.in_doubt or has_drifted)
            if track.in_doubt:
                self._return(track, mask, association.frame_idx, "SAM 2 and the detector")
            elif has_drifted:
                track.mask = mask

    def _find_former(self, association: Association) -> list[int]:
        """Take new objects for older ones that they turn out to be once they are seen whole for the first time.

        Who comes back is at first seen in part only, at the border of the frame or from behind something, and may not
        be known by that.

        Returns:
            The new objects, which are ended.
        """
        if association.descriptors is None:
            return []
        rows = [
            index
            for index in map(int, np.flatnonzero(association.clear_views(self.rules) & (association.obj_ids > 0)))
            if self.tracks[int(association.obj_ids[index])].is_rough
        ]
        gone = [track for track in self.tracks.values() if not track.in_sight and not track.is_rough]
        ended = []
        for index, column in match_by_looks(association, rows, gone, self.rules):
            new, former = self.tracks[int(association.obj_ids[index])], gone[column]
            if former.last_seen_frame_idx < new.first_frame_idx and former.obj_id not in new.apart and not new.is_given:
                self._log(association.frame_idx, new.obj_id, "merged", f"into object {former.obj_id}, by its looks")
                del self.tracks[new.obj_id]
                ended.append(new.obj_id)
                association.settle(index, former, needs_prompt=True)
                former.vote(int(association.class_ids[index]), float(association.confidences[index]))
                self._return(former, association.masks[index], association.frame_idx, "its looks")
        return ended

    def _find_unseen(self, association: Association, is_part: npt.NDArray[np.bool_]) -> list[int]:
        """Give detections to objects that are not surely in sight, by place or looks.

        Who is where one of them is found is astray, and not surely in sight either.

        Returns:
            Objects that SAM 2 followed elsewhere.
        """
        removed: list[int] = []
        while True:
            free = association.free(is_part, self.rules)
            astray = find_astray(association, self.rules)
            astray_ids = {track.obj_id for track in astray}
            tracks = list(self.tracks.values()) if self._has_room() else self.followed()
            unsure = [track for track in tracks if not track.in_sight or track.is_guess or track.obj_id in astray_ids]
            pairs = match_by_place(association, free, unsure, self.rules)
            pairs = pairs or match_by_looks(association, free, unsure, self.rules)
            if not pairs:
                break
            for index, column in pairs:
                track = unsure[column]
                if track.state not in FOLLOWED and not self._has_room():
                    continue
                association.settle(index, track, needs_prompt=True)
                track.vote(int(association.class_ids[index]), float(association.confidences[index]))
                if track.in_sight:
                    removed.append(track.obj_id)
                self._return(track, association.masks[index], association.frame_idx, "the detector")
        for track in self.followed():
            track.astray_rounds = track.astray_rounds + 1 if track.obj_id in astray_ids else 0
        return removed

    def _bear_new(self, association: Association, is_part: npt.NDArray[np.bool_]) -> None:
        """Make new objects of the other detections, the most confident first."""
        free = association.free(is_part, self.rules)
        for index in sorted(free, key=lambda index: -association.confidences[index]):
            if association.is_double(index, self.rules):
                continue
            if not self._has_room():
                break
            confidence = float(association.confidences[index])
            reason = f"detected with confidence {confidence:.2f}"
            track = self._bear(association.frame_idx, int(association.class_ids[index]), confidence, reason)
            track.show(association.masks[index], association.frame_idx)
            association.settle(index, track, needs_prompt=True)

    def _learn_looks(self, association: Association) -> None:
        """Remember what objects look like where SAM 2 and the detector agree on them and nothing is in the way."""
        if association.descriptors is None:
            return
        is_clear = association.clear_views(self.rules)
        for index in map(int, np.flatnonzero(association.obj_ids)):
            track = self.tracks[int(association.obj_ids[index])]
            track.learn_look(
                association.descriptors[index], bool(is_clear[index]) and track.jumped_frames == 0, self.rules
            )

    # ---- objects' lives ----

    def _log(self, frame_idx: int, obj_id: int, kind: EventKind, reason: str) -> None:
        self.events.append(IdentityEvent(frame_idx, obj_id, kind, reason))

    def _enter(self, track: Track, state: TrackState, frame_idx: int, kind: EventKind, reason: str) -> None:
        track.state = state
        self._log(frame_idx, track.obj_id, kind, reason)
        if state is TrackState.ENDED:
            del self.tracks[track.obj_id]

    def _bear(self, frame_idx: int, class_id: int, confidence: float, reason: str) -> Track:
        rounds: deque[bool] = deque(maxlen=self.rules.confirm_window)
        track = Track(
            self.next_obj_id, TrackState.TENTATIVE, {class_id: confidence}, confidence, frame_idx, frame_idx, rounds
        )
        self.tracks[track.obj_id] = track
        self.next_obj_id += 1
        self._log(frame_idx, track.obj_id, "born", reason)
        return track

    def _return(self, track: Track, mask: Masks, frame_idx: int, finder: str) -> None:
        """Bring an object that was out of sight, in doubt or astray to where it has been found."""
        if track.in_sight:
            reason = f"by {finder}, elsewhere than SAM 2 followed it"
        elif track.is_from_before:
            reason = f"from an earlier video by {finder}"
        else:
            reason = f"after {frame_idx - track.last_seen_frame_idx} frames by {finder}"
        track.show(mask, frame_idx)
        if track.state is not TrackState.TENTATIVE:
            self._enter(track, TrackState.ACTIVE, frame_idx, "found again", reason)

    def _is_taken(self, mask: Masks, standing: Sequence[Masks]) -> bool:
        """Whether another object is where a hidden one seems to come back."""
        return bool((mask_overlaps([mask], standing)[0] >= self.rules.astray_iou).any())

    def _miss(self, track: Track, frame_idx: int, reason: str) -> bool:
        """Note that an object is not seen; True when SAM 2 is to let go of it."""
        track.hide()
        if track.state is TrackState.ACTIVE:
            self._enter(track, TrackState.OCCLUDED, frame_idx, "occluded", reason)
        hidden = frame_idx - track.last_seen_frame_idx
        if hidden < self.rules.lost_after or track.is_given:
            return False
        if track.state is TrackState.TENTATIVE:
            self._enter(track, TrackState.ENDED, frame_idx, "ended", f"unconfirmed and unseen for {hidden} frames")
        else:
            self._enter(track, TrackState.LOST, frame_idx, "lost", f"unseen for {hidden} frames")
        return True

    def _forget(self, frame_idx: int) -> None:
        """End lost objects that are too old, or too many."""
        lost = [track for track in self.tracks.values() if track.state is TrackState.LOST]
        lost.sort(key=lambda track: -track.last_seen_frame_idx)
        for position, track in enumerate(lost):
            hidden = frame_idx - track.last_seen_frame_idx
            if position >= self.rules.max_lost:
                reason = f"more than {self.rules.max_lost} objects are lost"
            elif self.rules.forget_after is not None and hidden >= self.rules.forget_after:
                reason = f"unseen for {hidden} frames"
            else:
                continue
            self._enter(track, TrackState.ENDED, frame_idx, "ended", reason)

    def _confirm(self, frame_idx: int, found_ids: set[int]) -> list[int]:
        """Close a round of detection; returns the new objects that it ends."""
        rules, ended = self.rules, []
        for track in self.followed():
            track.rounds.append(track.obj_id in found_ids)
            if track.state is not TrackState.TENTATIVE:
                continue
            hits, chances = sum(track.rounds), rules.confirm_window - len(track.rounds)
            if track.confidence >= rules.sure_confidence and track.obj_id in found_ids:
                self._enter(track, TrackState.ACTIVE, frame_idx, "confirmed", f"confidence {track.confidence:.2f}")
            elif hits >= rules.confirm_hits:
                reason = f"{hits} of {len(track.rounds)} rounds of detection"
                self._enter(track, TrackState.ACTIVE, frame_idx, "confirmed", reason)
            elif hits + chances < rules.confirm_hits:
                ended.append(track.obj_id)
                reason = f"unconfirmed: {hits} of {len(track.rounds)} rounds of detection"
                self._enter(track, TrackState.ENDED, frame_idx, "ended", reason)
        return ended

    def _tell_apart(self, obj_ids: npt.NDArray[np.int64], beside: npt.NDArray[np.bool_]) -> None:
        """Remember which objects were found side by side, as (N, N) `beside` has it of their detections."""
        for index in np.flatnonzero(obj_ids):
            track = self.tracks[int(obj_ids[index])]
            track.apart = (track.apart & self.tracks.keys()) | (set(obj_ids[beside[index]].tolist()) - {0})

    def _merge(self, frame_idx: int) -> list[int]:
        """End objects that have been on an older one of their phrase for some rounds; returns them.

        Objects that were once found side by side are two, wherever SAM 2 sees them now, and so are two that a person
        has shown. One that a person has shown is the one that stays.
        """
        seen = sorted((track for track in self.followed() if track.in_sight), key=lambda track: track.obj_id)
        masks = [track.mask for track in seen if track.mask is not None]
        class_ids = np.array([track.class_id for track in seen])
        overlapping = (mask_overlaps(masks, masks)[0] >= self.rules.merge_iou) & (class_ids[:, None] == class_ids[None])
        former, self._overlapping_rounds = self._overlapping_rounds, {}
        merged: list[int] = []
        for older, newer in zip(*np.nonzero(np.triu(overlapping, 1)), strict=True):
            if seen[newer].obj_id in seen[older].apart or (seen[older].is_given and seen[newer].is_given):
                continue
            stays, goes = (newer, older) if seen[newer].is_given else (older, newer)
            pair = seen[stays].obj_id, seen[goes].obj_id
            rounds = former.get(pair, 0) + 1
            if rounds < self.rules.merge_rounds:
                self._overlapping_rounds[pair] = rounds
            elif not {*pair} & {*merged}:
                merged.append(pair[1])
                self._log(frame_idx, pair[1], "merged", f"into object {pair[0]}, seen in one place {rounds} times")
                del self.tracks[pair[1]]
        return merged

    def _let_go(self, frame_idx: int) -> list[int]:
        """Lose objects that have been astray for some rounds, and end those that were never confirmed; returns them."""
        astray = [track for track in self.followed() if track.astray_rounds >= self.rules.merge_rounds]
        for track in astray:
            track.mask, track.astray_rounds = None, 0
            if track.state is TrackState.TENTATIVE:
                self._enter(
                    track, TrackState.ENDED, frame_idx, "ended", "unconfirmed, and its mask is on another object"
                )
            else:
                self._enter(track, TrackState.LOST, frame_idx, "lost", "its mask is on another object")
        return [track.obj_id for track in astray]
