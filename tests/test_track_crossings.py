"""Objects of one phrase that cross: each goes on as it came, whatever SAM 2 made of them meanwhile."""

from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
import supervision as sv
from fake_follower import FakeFollower, picture

from grounded_sam2.detectors.base import make_detections
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.keeper import IdentityKeeper
from grounded_sam2.track.object_track import TrackState
from grounded_sam2.track.rules import IdentityRules

SIZE = (40, 120)  # height, width in pixels
Way = Callable[[int], float]  # from a frame to the left edge of a square of 10 pixels

NUM_FRAMES = 40
RIGHTWARDS: Way = lambda frame: 5 + 2.5 * frame  # noqa: E731
LEFTWARDS: Way = lambda frame: 100 - 2.5 * frame  # noqa: E731
MET = range(17, 22)  # frames on which the squares, a tenth larger at each side, overlap: |95 - 5 t| < 12


def square(left: float, top: int = 10) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + 10, round(left) : round(left) + 10] = True
    return mask


def follow(
    ways: list[Way],
    seen_as: Callable[[int], list[int]],
    rules: IdentityRules | None = None,
    class_ids: tuple[int, int] = (0, 0),
    tops: tuple[int, int] = (10, 14),
    num_frames: int = NUM_FRAMES,
    restart_at: int | None = None,
) -> tuple[IdentityKeeper, list[dict[int, int]]]:
    """Two objects on their ways, and what SAM 2 takes each id for: the number of the way, -1 where it sees nothing.

    Returns:
        The keeper, and for each frame the way on which each id is after it.
    """
    keeper = IdentityKeeper(rules or IdentityRules())
    start = np.stack([square(way(0), top) for way, top in zip(ways, tops, strict=True)])
    keeper.match(
        0,
        sv.Detections(
            xyxy=sv.mask_to_xyxy(start).astype(np.float32),
            mask=start,
            class_id=np.array(class_ids),
            confidence=np.array([0.9, 0.9], np.float32),
        ),
    )
    following = {1: 0, 2: 1}  # what SAM 2 would follow under each id
    told = []
    for frame in range(num_frames):
        if frame == restart_at:
            saved = keeper.to_dict()
            keeper = IdentityKeeper(keeper.rules)
            keeper.restore(saved)
        order = seen_as(frame)
        masks = {
            obj_id: np.zeros(SIZE, bool) if order[row] < 0 else square(ways[order[row]](frame), tops[order[row]])
            for obj_id, row in following.items()
        }
        keeper.see(
            frame, [1, 2], np.stack([masks[1], masks[2]]), np.array([5.0 if masks[i].any() else -5.0 for i in (1, 2)])
        )
        for one, other in keeper.sort_out(frame):
            following[one], following[other] = following[other], following[one]
            assert (keeper.tracks[one].mask == masks[other]).all() and (keeper.tracks[other].mask == masks[one]).all()
        told.append({obj_id: order[row] for obj_id, row in following.items()})
    return keeper, told


def changed_over(frame: int) -> list[int]:
    """From the middle of the crossing on each id is on the other object."""
    return [0, 1] if frame < 19 else [1, 0]


def test_who_comes_out_changed_over_is_put_right() -> None:
    keeper, told = follow([RIGHTWARDS, LEFTWARDS], changed_over)
    assert told[18] == {1: 0, 2: 1}
    assert all(each == {1: 1, 2: 0} for each in told[19 : MET.stop])  # nobody can tell yet
    assert all(each == {1: 0, 2: 1} for each in told[MET.stop :])
    events = [(event.frame_idx, event.obj_id) for event in keeper.events if event.kind == "exchanged"]
    assert events == [(MET.stop, 1), (MET.stop, 2)]
    assert "object 2" in keeper.events[-2].reason


def test_who_comes_out_right_is_left_alone() -> None:
    keeper, told = follow([RIGHTWARDS, LEFTWARDS], lambda frame: [0, 1])
    assert all(each == {1: 0, 2: 1} for each in told)
    assert not [event for event in keeper.events if event.kind == "exchanged"]


def test_who_is_hidden_meanwhile_too() -> None:
    """One of them is not seen from the middle on, and comes back under the wrong id."""
    _, told = follow([RIGHTWARDS, LEFTWARDS], lambda frame: [0, 1] if frame < 19 else [-1, 0] if frame < 24 else [1, 0])
    assert told[-1] == {1: 0, 2: 1}


def test_a_camera_that_moves_changes_nothing() -> None:
    ways: list[Way] = [
        lambda frame: RIGHTWARDS(frame) - 4 * np.sin(frame),
        lambda frame: LEFTWARDS(frame) - 4 * np.sin(frame),
    ]
    _, told = follow(ways, changed_over)
    assert told[-1] == {1: 0, 2: 1}


@pytest.mark.parametrize(
    ("rules", "class_ids"),
    [(IdentityRules(crossing_frames=0), (0, 0)), (IdentityRules(crossing_frames=2), (0, 0)), (None, (0, 1))],
    ids=["off", "longer than that together", "two phrases"],
)
def test_where_ways_do_not_decide(rules: IdentityRules | None, class_ids: tuple[int, int]) -> None:
    _, told = follow([RIGHTWARDS, LEFTWARDS], changed_over, rules, class_ids)
    assert told[-1] == {1: 1, 2: 0}


def test_who_stands_still_together_and_goes_back_slowly_is_left_alone() -> None:
    """By then one would expect them to be far past each other, and they are not: SAM 2 is believed."""

    def back(way: Way) -> Way:
        return lambda frame: way(min(frame, 18)) + (way(0) - way(1)) * max(0, frame - 40)

    keeper, told = follow([back(RIGHTWARDS), back(LEFTWARDS)], lambda frame: [0, 1], num_frames=60)
    assert all(each == {1: 0, 2: 1} for each in told)
    assert not keeper.crossings.meetings  # they did part


def test_objects_whose_ways_are_too_short_to_be_known() -> None:
    _, told = follow(
        [lambda frame: RIGHTWARDS(frame + 15), lambda frame: LEFTWARDS(frame + 15)],
        lambda frame: [0, 1] if frame < 4 else [1, 0],
        num_frames=20,
    )
    assert told[-1] == {1: 1, 2: 0}


def test_it_goes_on_where_it_was_saved() -> None:
    for frame in (10, MET.start + 1, MET.stop):
        assert follow([RIGHTWARDS, LEFTWARDS], changed_over, restart_at=frame)[1][-1] == {1: 0, 2: 1}


def test_what_a_person_has_shown_stays_where_it_is() -> None:
    keeper = IdentityKeeper()
    for left in (RIGHTWARDS(0), LEFTWARDS(0)):
        keeper.add(0, 0, square(left))
    for frame in range(NUM_FRAMES):
        order = changed_over(frame)
        masks = np.stack([square((RIGHTWARDS, LEFTWARDS)[row](frame)) for row in order])
        keeper.see(frame, [1, 2], masks, np.array([5.0, 5.0]))
        assert keeper.sort_out(frame) == []


class Confused(FakeFollower):
    """A follower that changes its two objects over on one frame."""

    def open_stream(self, num_frames: int | None = None):  # type: ignore[no-untyped-def]
        stream = super().open_stream(num_frames)
        step = stream.step

        def confused():  # type: ignore[no-untyped-def]
            if len(stream.frames) == 20:
                stream.colours[1], stream.colours[2] = stream.colours[2], stream.colours[1]
            return step()

        stream.step = confused
        return stream


class Squares:
    """Finds both on the first frame."""

    def detect(self, image, text_prompt, **options):  # type: ignore[no-untyped-def]
        boxes = np.array([[5, 10, 15, 20], [100, 14, 110, 24]], np.float32)
        return [make_detections(boxes, np.full(2, 0.9), np.zeros(2, np.int64), ["dog"], (120, 40))]


def test_the_tracker_puts_the_follower_right() -> None:
    tracker = ContinuousTracker(Squares(), Confused(), "dog", detect_every=1000, scene_cut=None, descriptor=None)
    colours = []
    for frame in range(NUM_FRAMES):
        left, other = round(RIGHTWARDS(frame)), round(LEFTWARDS(frame))
        image = picture({100: (left, 10, left + 10, 20), 200: (other, 14, other + 10, 24)}, (120, 40))
        objects = tracker.step(image)
        colours.append(
            {int(i): int(image[mask][0, 0]) for i, mask in zip(objects.tracker_id, objects.mask, strict=True)}
        )
    assert colours[0] == colours[-1] == {1: 100, 2: 200}
    assert colours[19] == colours[20] == {1: 200, 2: 100}
    assert [event.kind for event in tracker.take_events()].count("exchanged") == 2


def detected(keeper: IdentityKeeper, frame: int, ways: list[Way], tops: tuple[int, int] = (10, 14)) -> list[int]:
    """A round of detection that finds both; the id under which each way was found."""
    masks = np.stack([square(way(frame), top) for way, top in zip(ways, tops, strict=True)])
    found = keeper.match(
        frame,
        sv.Detections(
            xyxy=sv.mask_to_xyxy(masks).astype(np.float32),
            mask=masks,
            class_id=np.array([0, 0]),
            confidence=np.array([0.9, 0.9], np.float32),
        ),
    )
    return found.obj_ids.tolist()


def sees_what_it_is_given(
    keeper: IdentityKeeper, ways: list[Way], change_at: int, num_frames: int, detect_every: int = 1
) -> list[list[int]]:
    """SAM 2 that goes on with the object it was given last under each id, and takes them for each other once."""
    following = {1: 0, 2: 1}
    told = [detected(keeper, 0, ways)]
    for frame in range(1, num_frames):
        if frame == change_at:
            following = {1: following[2], 2: following[1]}
        masks = np.stack([square(ways[following[obj_id]](frame), (10, 14)[following[obj_id]]) for obj_id in (1, 2)])
        keeper.see(frame, [1, 2], masks, np.array([5.0, 5.0]))
        if frame % detect_every == 0:
            told.append(detected(keeper, frame, ways))
            following = {obj_id: told[-1].index(obj_id) for obj_id in (1, 2)}
        for one, other in keeper.sort_out(frame):
            following[one], following[other] = following[other], following[one]
    return told


def test_detections_in_a_crossing_go_to_who_came_that_way() -> None:
    """SAM 2 changes two objects over while they touch; at the next look each is where it was going."""
    told = sees_what_it_is_given(IdentityKeeper(), [RIGHTWARDS, LEFTWARDS], change_at=21, num_frames=NUM_FRAMES)
    assert told == [[1, 2]] * NUM_FRAMES


def test_who_turns_back_in_sight_of_the_detector_keeps_its_id() -> None:
    """Each comes, stays beside the other and goes back; without a look between, that cannot be told from a crossing."""
    ways: list[Way] = [
        lambda frame: 42 - 2.5 * max(0, abs(frame - 20) - 3),
        lambda frame: 53 + 2.5 * max(0, abs(frame - 20) - 3),
    ]
    told = sees_what_it_is_given(IdentityKeeper(), ways, change_at=-1, num_frames=NUM_FRAMES)
    assert told == [[1, 2]] * NUM_FRAMES
    blind = sees_what_it_is_given(IdentityKeeper(), ways, change_at=-1, num_frames=NUM_FRAMES, detect_every=30)
    assert blind == [[1, 2], [2, 1]]


def test_who_appears_beside_another_has_no_way_yet() -> None:
    """One is followed for a while; then another is found for the first time in its way."""
    ways: list[Way] = [lambda frame: 40, lambda frame: 51]
    keeper = IdentityKeeper()
    alone = square(40)[None]
    keeper.match(
        0, make_detections(sv.mask_to_xyxy(alone), np.array([0.9]), np.array([0]), ["cat"], SIZE[::-1], masks=alone)
    )
    for frame in range(6):
        keeper.see(frame, [1], alone, np.array([5.0]))
        keeper.sort_out(frame)
    assert detected(keeper, 6, ways, tops=(10, 10)) == [1, 2]
    both = np.stack([square(40), square(51)])
    for frame in range(7, 10):
        keeper.see(frame, [1, 2], both, np.array([5.0, 5.0]))
        keeper.sort_out(frame)
        assert detected(keeper, frame, ways, tops=(10, 10)) == [1, 2]
    assert (1, 2) in keeper.crossings.meetings


def detected_in_a_row(keeper: IdentityKeeper, frame: int, lefts: list[float]) -> list[int]:
    masks = np.stack([square(left) for left in lefts])
    names = ["dog"] * len(lefts)
    found = make_detections(
        sv.mask_to_xyxy(masks), np.full(len(lefts), 0.9), np.zeros(len(lefts), int), names, SIZE[::-1], masks=masks
    )
    return keeper.match(frame, found).obj_ids.tolist()


def test_of_three_abreast_the_outer_two_get_their_own_detections() -> None:
    """They come together until they touch; then SAM 2 takes the outer ones for each other."""
    keeper = IdentityKeeper()
    for frame in range(15):
        lefts = [40.0 - max(0, 12 - frame), 51.0, 62.0 + max(0, 12 - frame)]
        if frame == 0:
            assert detected_in_a_row(keeper, 0, lefts) == [1, 2, 3]
        seen = lefts[::-1] if frame == 14 else lefts
        keeper.see(frame, [1, 2, 3], np.stack([square(left) for left in seen]), np.full(3, 5.0))
        if frame < 14:
            assert keeper.sort_out(frame) == []
    assert detected_in_a_row(keeper, 14, lefts) == [1, 2, 3]


@pytest.mark.parametrize("order", [[2, 1, 0], [0, 1, 2]], ids=["changed over", "as they came"])
def test_two_that_cross_where_a_third_stands(order: list[int]) -> None:
    ways: list[Way] = [lambda frame: 55 - 2.5 * (20 - frame), lambda frame: 55, lambda frame: 55 + 2.5 * (20 - frame)]
    keeper, following = IdentityKeeper(), {1: 0, 2: 1, 3: 2}
    for frame in range(32):
        if frame == 0:
            assert detected_in_a_row(keeper, 0, [way(0) for way in ways]) == [1, 2, 3]
        if frame == 20:
            following = dict(zip((1, 2, 3), order, strict=True))
        masks = np.stack([square(ways[following[obj_id]](frame)) for obj_id in (1, 2, 3)])
        keeper.see(frame, [1, 2, 3], masks, np.full(3, 5.0))
        for one, other in keeper.sort_out(frame):
            following[one], following[other] = following[other], following[one]
    assert following == {1: 0, 2: 1, 3: 2}


@pytest.mark.parametrize("gap", [20, 25, 30, 35])
def test_ways_of_long_ago_decide_nothing(gap: int) -> None:
    """Two pairs stand together for long; then one pair walks past the other, and SAM 2 is right all along."""
    keeper = IdentityKeeper()

    def place(obj_id: int, frame: int) -> tuple[float, int]:
        left = 20.0 + gap * (obj_id in (2, 4)) + 3 * min(max(frame - 1000, 0), 20) * (obj_id in (1, 3))
        return left, 4 if obj_id in (1, 2) else 28 if frame < 8 else 15

    for frame in (*range(60), *range(990, 1030)):
        masks = np.stack([square(*place(obj_id, frame)) for obj_id in (1, 2, 3, 4)])
        if frame == 0:
            boxes, names = sv.mask_to_xyxy(masks), ["dog"] * 4
            keeper.match(0, make_detections(boxes, np.full(4, 0.9), np.zeros(4, int), names, SIZE[::-1], masks=masks))
        keeper.see(frame, [1, 2, 3, 4], masks, np.full(4, 5.0))
        assert keeper.sort_out(frame) == []


def test_who_it_is_does_not_change_with_where_it_is() -> None:
    """One that is known for long and one that was found once, unsurely, come out changed over."""
    keeper, _ = follow([RIGHTWARDS, LEFTWARDS], changed_over)
    assert all(track.state is TrackState.ACTIVE for track in keeper.tracks.values())
    one, other = keeper.tracks[1], keeper.tracks[2]
    one.state, one.rounds = TrackState.TENTATIVE, deque([True])
    one.exchange_sight(other)
    assert one.state is TrackState.TENTATIVE and list(one.rounds) == [True] and other.state is TrackState.ACTIVE
