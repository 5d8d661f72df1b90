"""Identity: matching, states, ids that last. Discs on a small frame; no model."""

import numpy as np
import pytest
import supervision as sv
from discs import LEFT, LOW, RIGHT, SIZE, Place, disc

from grounded_sam2.track.keeper import IdentityKeeper
from grounded_sam2.track.object_track import TrackState, unit
from grounded_sam2.track.rules import IdentityRules

LOOKS = np.eye(4, 8)  # four appearances that have nothing in common


def detections(*found: tuple[Place, int, float]) -> sv.Detections:
    """Detections of (place, class_id, confidence)."""
    if not found:
        return sv.Detections.empty()
    masks = np.stack([disc(place) for place, _, _ in found])
    return sv.Detections(
        xyxy=sv.mask_to_xyxy(masks).astype(np.float32),
        mask=masks,
        class_id=np.array([class_id for _, class_id, _ in found]),
        confidence=np.array([confidence for _, _, confidence in found], np.float32),
    )


def see(keeper: IdentityKeeper, frame_idx: int, places: dict[int, Place | None]):
    """One frame on which SAM 2 sees the followed objects at `places`, `None` for unseen ones."""
    obj_ids = [track.obj_id for track in keeper.followed()]
    masks = np.array([disc(places.get(obj_id)) for obj_id in obj_ids]).reshape(-1, SIZE, SIZE)
    scores = np.where(masks.any((1, 2)), 5.0, -5.0)
    return keeper.see(frame_idx, obj_ids, masks, scores)


def kinds(keeper: IdentityKeeper, obj_id: int) -> list[str]:
    return [event.kind for event in keeper.events if event.obj_id == obj_id]


@pytest.mark.parametrize("found", [[], [LEFT], [LEFT, RIGHT, LOW]])
def test_each_new_detection_is_a_new_object(found: list[Place]) -> None:
    keeper = IdentityKeeper()
    answer = keeper.match(0, detections(*((place, 0, 0.9) for place in found)))
    assert answer.obj_ids.tolist() == list(range(1, len(found) + 1))
    assert answer.prompt == list(range(len(found))) and answer.removed == []
    sight = see(keeper, 1, dict(zip(answer.obj_ids.tolist(), found, strict=True)))
    assert sight.shown == sight.remembered == answer.obj_ids.tolist()


def test_matching_is_one_to_one_and_best_in_total() -> None:
    """Greedily, the first detection would take the object that only the second one can have."""
    keeper = IdentityKeeper(IdentityRules(iou_threshold=0.1))
    keeper.match(0, detections(((20, 30, 10), 0, 0.9), ((34, 30, 10), 0, 0.9)))
    see(keeper, 1, {1: (20, 30, 10), 2: (34, 30, 10)})
    answer = keeper.match(1, detections(((26, 30, 10), 0, 0.9), ((14, 30, 10), 0, 0.9)))
    assert answer.obj_ids.tolist() == [2, 1]


@pytest.mark.parametrize(("overlap", "same"), [((17.0, 15.0, 8.0), True), ((22.0, 15.0, 8.0), False)])
def test_another_phrase_on_the_same_object_needs_more_overlap(overlap: Place, same: bool) -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)))
    see(keeper, 1, {1: LEFT})
    answer = keeper.match(1, detections((overlap, 1, 0.6)))
    assert (answer.obj_ids[0] == 1) == same
    assert keeper.tracks[1].class_id == 0  # what most of its confidence says


def test_the_phrase_most_detections_give_wins() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 1, 0.5)))
    for frame_idx in (1, 2):
        see(keeper, frame_idx, {1: LEFT})
        keeper.match(frame_idx, detections((LEFT, 0, 0.4)))
    assert keeper.tracks[1].class_id == 0


@pytest.mark.parametrize(
    ("found", "state"),
    [
        ([True, True], TrackState.ACTIVE),
        ([True, False, True], TrackState.ACTIVE),
        ([True, False], TrackState.TENTATIVE),
        ([True, False, False], None),
    ],
)
def test_unsure_objects_are_confirmed_by_two_of_three(found: list[bool], state: TrackState | None) -> None:
    keeper = IdentityKeeper()
    removed: list[int] = []
    for frame_idx, hit in enumerate(found):
        sight = see(keeper, frame_idx, {1: LEFT})
        assert frame_idx == 0 or 1 not in sight.shown or state is TrackState.ACTIVE
        removed += keeper.match(frame_idx, detections(*([(LEFT, 0, 0.4)] if hit else []))).removed
    assert (keeper.tracks[1].state if 1 in keeper.tracks else None) is state
    assert removed == ([1] if state is None else [])


def test_looks_do_not_confirm_an_unsure_object() -> None:
    keeper = IdentityKeeper(IdentityRules(confirm_hits=3, confirm_window=4))
    keeper.match(0, detections((LEFT, 0, 0.4)), LOOKS[[0]])
    see(keeper, 1, {1: None})
    assert keeper.match(1, detections((RIGHT, 0, 0.4)), LOOKS[[0]]).obj_ids.tolist() == [1]
    assert keeper.tracks[1].state is TrackState.TENTATIVE and kinds(keeper, 1) == ["born"]


def test_what_sam_sees_after_long_counts_once_the_detector_agrees() -> None:
    keeper = IdentityKeeper(IdentityRules(doubt_after=3))
    keeper.match(0, detections((LEFT, 0, 0.9)), LOOKS[[0]])
    for frame_idx in range(1, 4):
        see(keeper, frame_idx, {1: None})
    sights = [see(keeper, frame_idx, {1: RIGHT}) for frame_idx in (4, 5)]
    assert all(sight.shown == sight.remembered == sight.removed == [] for sight in sights)
    answer = keeper.match(5, detections((RIGHT, 0, 0.9)), LOOKS[[0]])
    assert answer.obj_ids.tolist() == [1] and answer.prompt == [0] and answer.removed == []
    assert see(keeper, 6, {1: RIGHT}).shown == [1]
    assert keeper.events[-1].reason == "after 5 frames by SAM 2 and the detector"


def test_an_object_in_doubt_is_where_the_detector_finds_it() -> None:
    keeper = IdentityKeeper(IdentityRules(doubt_after=0))
    keeper.match(0, detections((LEFT, 0, 0.9)), LOOKS[[0]])
    see(keeper, 1, {1: None})
    see(keeper, 2, {1: RIGHT})
    answer = keeper.match(2, detections((LOW, 0, 0.9)), LOOKS[[0]])
    assert answer.obj_ids.tolist() == [1] and answer.prompt == [0] and answer.removed == []


def test_an_object_in_doubt_takes_nothing_from_one_in_sight() -> None:
    """Object 1 hides, and SAM 2 takes object 2, which has its phrase and place, for it."""
    keeper = IdentityKeeper(IdentityRules(doubt_after=0, merge_rounds=1))
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 0, 0.9)), LOOKS[[0, 0]])
    see(keeper, 1, {1: None, 2: RIGHT})
    see(keeper, 2, {1: RIGHT, 2: (46.0, 15.0, 8.0)})
    answer = keeper.match(2, detections((RIGHT, 0, 0.9)), LOOKS[[0]])
    assert answer.obj_ids.tolist() == [2] and answer.removed == []
    assert keeper.tracks[1].state is TrackState.OCCLUDED


@pytest.mark.parametrize(("hid", "agreed", "obj_id"), [(True, False, 1), (True, True, 2), (False, False, 2)])
def test_what_sam_alone_brought_back_is_where_the_detector_finds_it(hid: bool, agreed: bool, obj_id: int) -> None:
    """One who hid is taken to be where SAM 2 sees it only until the detector finds its like elsewhere."""
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)), LOOKS[[0]])
    see(keeper, 1, {1: None if hid else LEFT})
    assert see(keeper, 2, {1: LEFT}).shown == [1]
    if agreed:
        keeper.match(2, detections((LEFT, 0, 0.9)), LOOKS[[0]])
    see(keeper, 3, {1: LEFT})
    answer = keeper.match(3, detections((RIGHT, 0, 0.9)), LOOKS[[0]])
    assert answer.obj_ids.tolist() == [obj_id] and answer.prompt == [0]
    assert answer.removed == ([1] if obj_id == 1 else [])


def test_a_hidden_object_does_not_come_back_where_another_one_is() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 1, 0.9)), LOOKS[[0, 1]])
    see(keeper, 1, {1: None, 2: RIGHT})
    for place in (RIGHT, (47.0, 15.0, 8.0)):
        assert see(keeper, 2, {1: place, 2: RIGHT}).shown == [2]
    assert see(keeper, 3, {1: (58.0, 15.0, 8.0), 2: RIGHT}).shown == [1, 2]


@pytest.mark.parametrize(("look", "obj_id"), [(0, 1), (1, 2)])
def test_behind_a_cut_nothing_is_taken_on_trust(look: int, obj_id: int) -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)), LOOKS[[0]])
    sight = keeper.see(1, [1], disc(LEFT)[None], np.array([5.0]), is_cut=True)
    assert sight.shown == sight.remembered == []
    assert keeper.match(1, detections((LEFT, 0, 0.9)), LOOKS[[look]]).obj_ids.tolist() == [obj_id]
    assert kinds(keeper, 1) == ["born", "confirmed", "occluded"] + ["found again"] * (obj_id == 1)


def test_a_missed_detection_changes_nothing() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)))
    for frame_idx in range(1, 50):
        assert see(keeper, frame_idx, {1: LEFT}).shown == [1]
        assert keeper.match(frame_idx, detections()).removed == []
    assert kinds(keeper, 1) == ["born", "confirmed"]


def test_an_object_hides_and_sam_finds_it_again() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)))
    assert see(keeper, 1, {1: None}).shown == []
    assert keeper.tracks[1].state is TrackState.OCCLUDED
    assert see(keeper, 9, {1: RIGHT}).shown == [1]
    assert kinds(keeper, 1) == ["born", "confirmed", "occluded", "found again"]


def lose_two_look_alikes(rules: IdentityRules, looks: dict[int, int]) -> IdentityKeeper:
    """Objects 1 and 2 of one phrase, gone for so long that SAM 2 lets go."""
    keeper = IdentityKeeper(rules)
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 0, 0.9)), LOOKS[[looks[1], looks[2]]])
    see(keeper, 1, {1: LEFT, 2: RIGHT})
    sight = see(keeper, 1000, {1: None, 2: None})
    assert sight.removed == [1, 2] and keeper.followed() == []
    return keeper


def test_a_lost_object_gets_its_old_id_by_its_looks() -> None:
    keeper = lose_two_look_alikes(IdentityRules(), {1: 0, 2: 1})
    answer = keeper.match(5000, detections((LOW, 0, 0.9), (LEFT, 0, 0.9)), LOOKS[[1, 2]])
    assert answer.obj_ids.tolist() == [2, 3]  # the second one looks like neither
    assert answer.prompt == [0, 1]
    assert kinds(keeper, 2) == ["born", "confirmed", "occluded", "lost", "found again"]
    assert "4999 frames" in keeper.events[-3].reason


def test_looks_that_do_not_decide_make_a_new_object() -> None:
    keeper = lose_two_look_alikes(IdentityRules(), {1: 0, 2: 0})
    assert keeper.match(5000, detections((LOW, 0, 0.9)), LOOKS[[0]]).obj_ids.tolist() == [3]


@pytest.mark.parametrize(
    ("hidden", "place", "class_id", "obj_id"),
    [(10, (18.0, 15.0, 8.0), 0, 1), (11, LEFT, 0, 2), (10, LEFT, 1, 2), (10, RIGHT, 0, 2)],
)
def test_an_object_hidden_for_a_moment_is_where_it_was(hidden: int, place: Place, class_id: int, obj_id: int) -> None:
    """Its other side looks like something else; only phrase and place, and for a while, speak for it."""
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)), LOOKS[[0]])
    see(keeper, 1, {1: LEFT})
    for frame_idx in range(2, 2 + hidden):
        see(keeper, frame_idx, {1: None})
    answer = keeper.match(1 + hidden, detections((place, class_id, 0.9)), LOOKS[[1]])
    assert answer.obj_ids.tolist() == [obj_id] and answer.prompt == [0]


def test_places_tell_hidden_look_alikes_apart() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 0, 0.9)), LOOKS[[0, 0]])
    see(keeper, 1, {1: None, 2: None})
    answer = keeper.match(1, detections(((47.0, 15.0, 8.0), 0, 0.9), ((17.0, 15.0, 8.0), 0, 0.9)), LOOKS[[0, 0]])
    assert answer.obj_ids.tolist() == [2, 1]


def test_without_descriptors_only_the_phrase_can_decide() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 1, 0.9)))
    see(keeper, 1000, {1: None, 2: None})
    assert keeper.match(1000, detections((LOW, 1, 0.9), (LEFT, 2, 0.9))).obj_ids.tolist() == [2, 3]


def test_lost_objects_are_forgotten_by_age_and_number() -> None:
    keeper = lose_two_look_alikes(IdentityRules(forget_after=2000), {1: 0, 2: 1})
    see(keeper, 3000, {})
    assert keeper.tracks == {} and kinds(keeper, 1)[-2:] == ["lost", "ended"]
    keeper = lose_two_look_alikes(IdentityRules(max_lost=1), {1: 0, 2: 1})
    assert list(keeper.tracks) == [1]
    assert keeper.match(1001, detections((LEFT, 0, 0.9))).obj_ids.tolist() == [1]


def test_ids_are_never_used_twice() -> None:
    keeper = lose_two_look_alikes(IdentityRules(forget_after=2000), {1: 0, 2: 1})
    see(keeper, 3000, {})
    assert keeper.match(3001, detections((LEFT, 0, 0.9)), LOOKS[[0]]).obj_ids.tolist() == [3]


def test_duplicates_merge_into_the_older_id() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)))
    see(keeper, 0, {1: LOW})
    keeper.match(0, detections((RIGHT, 0, 0.8)))  # it may be object 1, which SAM 2 has lost
    removed = []
    for frame_idx in (1, 2):
        see(keeper, frame_idx, {1: LEFT, 2: (15.0, 15.5, 8.0)})
        answer = keeper.match(frame_idx, detections((LEFT, 0, 0.9)))
        removed += answer.removed
    assert removed == [2] and list(keeper.tracks) == [1]
    assert kinds(keeper, 2)[-1] == "merged" and "object 1" in keeper.events[-1].reason


def test_objects_found_side_by_side_are_never_merged() -> None:
    """Object 2 is hidden by object 1, which has its phrase, and SAM 2 takes one for the other."""
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 0, 0.8)))
    keeper.restore(keeper.to_dict())
    for frame_idx in (1, 2):
        see(keeper, frame_idx, {1: LEFT, 2: LEFT})
        answer = keeper.match(frame_idx, detections((LEFT, 0, 0.9)))
    [hidden] = answer.removed
    assert answer.obj_ids.tolist() == [3 - hidden] and keeper.tracks[hidden].state is TrackState.LOST
    see(keeper, 3, {1: LEFT, 2: LEFT})
    answer = keeper.match(3, detections((LEFT, 0, 0.9), (RIGHT, 0, 0.9)))
    assert answer.obj_ids.tolist() == [3 - hidden, hidden]


def test_who_is_on_a_twin_is_where_the_detector_finds_another() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 0, 0.9)))
    see(keeper, 1, {1: RIGHT, 2: RIGHT})
    answer = keeper.match(1, detections((LOW, 0, 0.9), (RIGHT, 0, 0.9)))
    assert sorted(answer.obj_ids.tolist()) == [1, 2] and answer.removed == [answer.obj_ids[0]]


def test_two_detections_with_one_mask_are_one_object() -> None:
    """The box of a hidden object gives the mask of what hides it; another phrase may name the same thing."""
    keeper = IdentityKeeper()
    near = (LEFT[0] + 1, LEFT[1], LEFT[2])
    for frame_idx in (0, 1):
        answer = keeper.match(frame_idx, detections((near, 0, 0.8), (LEFT, 0, 0.9), (LEFT, 1, 0.7)))
        assert answer.obj_ids.tolist() == [0, 1, 2]
        see(keeper, frame_idx, {1: (9.0, 15.0, 8.0), 2: LEFT})


def test_objects_that_pass_over_each_other_once_stay_two() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)))
    see(keeper, 0, {1: LOW})
    keeper.match(0, detections((RIGHT, 0, 0.8)))
    for frame_idx, second in enumerate((LEFT, RIGHT, LEFT, RIGHT), start=1):
        see(keeper, frame_idx, {1: LEFT, 2: second})
        assert keeper.match(frame_idx, detections()).removed == []


def test_a_part_of_a_followed_object_is_no_object() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections(((30, 30, 20), 0, 0.9)))
    see(keeper, 1, {1: (30, 30, 20)})
    answer = keeper.match(1, detections(((30, 30, 20), 0, 0.9), ((34, 30, 5), 0, 0.9), ((26, 30, 5), 1, 0.9)))
    assert answer.obj_ids.tolist() == [1, 0, 2]  # the third one has another phrase: a button on a shirt


def test_a_mask_that_shrank_inside_its_object_is_prompted_again() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections(((30, 30, 20), 0, 0.9)))
    see(keeper, 1, {1: (34, 30, 5)})  # IoU 0.06
    answer = keeper.match(1, detections(((30, 30, 20), 0, 0.9)))
    assert answer.obj_ids.tolist() == [1] and answer.prompt == [0]


def test_an_object_gone_astray_is_let_go_and_found_again() -> None:
    """SAM 2 slides from object 1 onto object 2, of another phrase; its id is not given up."""
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 1, 0.9)), LOOKS[[0, 1]])
    for frame_idx, removed in ((1, []), (2, [1])):
        see(keeper, frame_idx, {1: RIGHT, 2: RIGHT})
        assert keeper.match(frame_idx, detections((RIGHT, 1, 0.9)), LOOKS[[1]]).removed == removed
    assert keeper.tracks[1].state is TrackState.LOST
    answer = keeper.match(3, detections((RIGHT, 1, 0.9), (LOW, 0, 0.9)), LOOKS[[1, 0]])
    assert answer.obj_ids.tolist() == [2, 1] and answer.prompt == [1]


def test_only_rounds_in_a_row_make_an_object_astray() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 1, 0.9)), LOOKS[[0, 1]])
    for frame_idx, place in enumerate((RIGHT, LEFT, RIGHT), start=1):  # only the other one is detected
        see(keeper, frame_idx, {1: place, 2: RIGHT})
        assert keeper.match(frame_idx, detections((RIGHT, 1, 0.9)), LOOKS[[1]]).removed == []
    assert keeper.tracks[1].state is TrackState.ACTIVE


def test_who_goes_astray_before_it_is_confirmed_is_ended() -> None:
    keeper = IdentityKeeper(IdentityRules(confirm_window=5))
    keeper.match(0, detections((RIGHT, 1, 0.9), (LEFT, 0, 0.36)), LOOKS[[1, 0]])
    for frame_idx in (1, 2):
        see(keeper, frame_idx, {1: RIGHT, 2: RIGHT})
        answer = keeper.match(frame_idx, detections((RIGHT, 1, 0.9)), LOOKS[[1]])
    assert answer.removed == [2] and 2 not in keeper.tracks and kinds(keeper, 2) == ["born", "ended"]


def test_an_object_astray_that_is_detected_elsewhere_starts_anew_there() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 1, 0.9)), LOOKS[[0, 1]])
    see(keeper, 1, {1: RIGHT, 2: RIGHT})
    answer = keeper.match(1, detections((RIGHT, 1, 0.9), (LOW, 0, 0.9)), LOOKS[[1, 0]])
    assert answer.obj_ids.tolist() == [2, 1]
    assert answer.removed == [1] and answer.prompt == [1]
    assert keeper.tracks[1].state is TrackState.ACTIVE and keeper.tracks[1].mask[48, 30]


def test_who_is_where_a_hidden_object_returns_is_astray() -> None:
    """SAM 2 slides from object 1 nearly onto the place where hidden object 2 comes back; the detector sees both."""
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 1, 0.9)), LOOKS[[0, 1]])
    see(keeper, 1, {1: (48.0, 15.0, 8.0), 2: None})
    answer = keeper.match(1, detections((RIGHT, 1, 0.9), (LOW, 0, 0.9)), LOOKS[[1, 0]])
    assert answer.obj_ids.tolist() == [2, 1] and answer.removed == [1] and answer.prompt == [0, 1]
    assert keeper.next_obj_id == 3


def test_a_drifted_object_is_prompted_again() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)))
    see(keeper, 1, {1: (19.0, 15.0, 8.0)})
    assert keeper.match(1, detections((LEFT, 0, 0.9))).prompt == [0]
    see(keeper, 2, {1: (15.5, 15.0, 8.0)})
    assert keeper.match(2, detections((LEFT, 0, 0.9))).prompt == []


def test_a_mask_that_jumps_in_area_is_not_remembered_until_it_lasts() -> None:
    keeper = IdentityKeeper(IdentityRules(jump_patience=3))
    keeper.match(0, detections((LEFT, 0, 0.9)))
    assert see(keeper, 1, {1: LEFT}).remembered == [1]
    grown = [see(keeper, frame_idx, {1: (30.0, 30.0, 20.0)}) for frame_idx in range(2, 7)]
    assert [sight.remembered for sight in grown] == [[], [], [], [1], [1]]
    assert all(sight.shown == [1] for sight in grown)


def test_a_mask_that_the_presence_score_denies_is_not_seen() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)))
    sight = keeper.see(1, [1], disc(LEFT)[None], np.array([-3.0]))
    assert sight.shown == sight.remembered == [] and keeper.tracks[1].state is TrackState.OCCLUDED


def test_max_objects_keeps_the_most_confident() -> None:
    keeper = IdentityKeeper(IdentityRules(max_objects=2))
    answer = keeper.match(0, detections((LEFT, 0, 0.6), (RIGHT, 0, 0.9), (LOW, 0, 0.7)))
    assert (answer.obj_ids > 0).tolist() == [False, True, True] and answer.prompt == [1, 2]
    assert keeper.match(0, detections((LEFT, 0, 0.6))).obj_ids.tolist() == [0]


def test_who_comes_back_needs_room_too() -> None:
    keeper = IdentityKeeper(IdentityRules(max_objects=1, lost_after=3))
    keeper.match(0, detections((LEFT, 0, 0.9)), LOOKS[[0]])
    for frame_idx in range(1, 5):
        sight = see(keeper, frame_idx, {1: None})
        if sight.removed:
            break
    keeper.match(5, detections((LOW, 0, 0.9)), LOOKS[[1]])
    see(keeper, 6, {2: LOW})
    both = detections((LOW, 0, 0.9), (RIGHT, 0, 0.9))
    assert keeper.match(6, both, LOOKS[[1, 0]]).obj_ids.tolist() == [2, 0]
    keeper.remove(6, 2)
    assert keeper.match(7, both, LOOKS[[1, 0]]).obj_ids.tolist() == [0, 1]


def test_the_prompt_may_change_and_ids_live_on() -> None:
    """New phrases come with new class ids; what is in sight keeps its id and its phrase."""
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)))
    see(keeper, 1, {1: LEFT})
    answer = keeper.match(1, detections((RIGHT, 5, 0.9)))
    assert answer.obj_ids.tolist() == [2] and see(keeper, 2, {1: LEFT, 2: RIGHT}).shown == [1, 2]


def test_memory_stays_bounded_while_objects_come_and_go() -> None:
    keeper = IdentityKeeper(IdentityRules(lost_after=2, max_lost=10))
    rng = np.random.default_rng(0)
    for frame_idx in range(0, 600, 3):
        place = (*rng.uniform(8, 56, 2), 6.0)
        keeper.match(frame_idx, detections((place, frame_idx, 0.9)), unit(rng.standard_normal((1, 8))))
        see(keeper, frame_idx + 2, {})
        assert len(keeper.tracks) <= 11
    assert len(keeper.take_events()) >= 600 and keeper.events == []


def test_bad_input_is_refused() -> None:
    keeper = IdentityKeeper()
    with pytest.raises(ValueError, match="object 7 is not followed"):
        keeper.see(0, [7], disc(LEFT)[None], np.array([1.0]))
    with pytest.raises(ValueError, match="expected masks for 0 objects, got 1"):
        keeper.see(0, [], disc(LEFT)[None], np.zeros(0))
    without_masks = detections((LEFT, 0, 0.9))
    without_masks.mask = None
    with pytest.raises(ValueError, match="none of mask"):
        keeper.match(0, without_masks)
    with pytest.raises(ValueError, match="expected descriptors for 1 objects, got 2"):
        keeper.match(0, detections((LEFT, 0, 0.9)), LOOKS[:2])


# ---- what a person shows ----


def given(keeper: IdentityKeeper, place: Place, class_id: int = 7) -> int:
    return keeper.add(0, class_id, disc(place), LOOKS[0]).obj_id


def test_what_a_person_shows_is_an_object_at_once() -> None:
    keeper = IdentityKeeper()
    keeper.match(0, detections((LEFT, 0, 0.9)))
    assert given(keeper, RIGHT) == 2 and kinds(keeper, 2) == ["born", "confirmed"]
    assert keeper.tracks[2].class_id == 7 and keeper.tracks[2].state is TrackState.ACTIVE
    assert keeper.find_same(disc(RIGHT)) == 2 and keeper.find_same(disc(LEFT)) == 1
    assert keeper.find_same(disc(LOW)) is None and keeper.find_same(np.zeros((SIZE, SIZE), bool)) is None
    assert IdentityKeeper().find_same(disc(LOW)) is None
    assert see(keeper, 1, {1: LEFT, 2: RIGHT}).shown == [1, 2]


def test_no_detection_renames_or_corrects_what_a_person_shows() -> None:
    keeper = IdentityKeeper()
    given(keeper, LEFT)
    for frame_idx in (1, 2, 3):
        see(keeper, frame_idx, {1: LEFT})
        answer = keeper.match(frame_idx, detections(((15.0, 15.0, 7.0), 0, 0.9)))  # IoU 0.77
        assert answer.obj_ids.tolist() == [1] and answer.prompt == []
    assert keeper.tracks[1].class_id == 7


def test_what_a_person_shows_is_never_let_go() -> None:
    """Neither hidden for long, nor behind a cut, nor on what the detector calls another thing."""
    keeper = IdentityKeeper(IdentityRules(lost_after=3, doubt_after=2, merge_rounds=1))
    given(keeper, LEFT)
    for frame_idx in range(1, 9):
        assert see(keeper, frame_idx, {1: None}).removed == []
    assert see(keeper, 9, {1: LEFT}).shown == [1]
    mask = keeper.tracks[1].mask
    assert mask is not None
    sight = keeper.see(10, [1], mask[None], np.array([5.0]), is_cut=True)
    assert sight.shown == [1]
    part = (15.0, 15.0, 6.4)  # IoU between `astray_iou` and `other_class_iou`
    answer = keeper.match(10, detections((part, 0, 0.9)))
    assert answer.obj_ids.tolist() == [2] and answer.removed == [] and 1 in keeper.tracks


def test_what_a_person_shows_side_by_side_is_never_merged() -> None:
    keeper = IdentityKeeper(IdentityRules(merge_rounds=1))
    given(keeper, LEFT)
    given(keeper, RIGHT)
    see(keeper, 1, {1: LEFT, 2: LEFT})
    keeper.match(1, detections())
    assert keeper.tracks.keys() == {1, 2}


def test_of_two_in_one_place_the_one_that_a_person_shows_stays() -> None:
    keeper = IdentityKeeper(IdentityRules(merge_rounds=1))
    keeper.match(0, detections(((15.0, 15.0, 6.0), 7, 0.9)))  # half of it
    see(keeper, 0, {1: (15.0, 15.0, 6.0)})
    given(keeper, LEFT)
    see(keeper, 1, {1: LEFT, 2: LEFT})
    keeper.match(1, detections())
    assert keeper.tracks.keys() == {2} and keeper.events[-1].reason.startswith("into object 2")
    assert keeper.tracks[2].is_given


def test_two_that_a_person_shows_are_two() -> None:
    keeper = IdentityKeeper(IdentityRules(merge_rounds=1))
    given(keeper, (15.0, 15.0, 6.0))
    given(keeper, LEFT)
    see(keeper, 1, {1: LEFT, 2: LEFT})
    keeper.match(1, detections())
    assert keeper.tracks.keys() == {1, 2}


def test_no_detection_carries_off_what_a_person_shows_and_sam_sees() -> None:
    keeper = IdentityKeeper()
    given(keeper, LEFT)
    see(keeper, 1, {1: None})
    assert see(keeper, 2, {1: LEFT}).shown == [1]
    answer = keeper.match(2, detections((LOW, 7, 0.9)), LOOKS[[0]])
    assert answer.obj_ids.tolist() == [2] and answer.removed == []


@pytest.mark.parametrize("is_given", [True, False])
def test_a_place_in_another_scene_is_no_place(is_given: bool) -> None:
    keeper = IdentityKeeper()
    if is_given:
        given(keeper, LEFT)
    else:
        keeper.match(0, detections((LEFT, 7, 0.9)), LOOKS[[0]])
    see(keeper, 1, {1: LEFT})
    keeper.see(2, [1], disc(None)[None], np.array([-5.0]), is_cut=True)
    assert keeper.match(2, detections((LEFT, 7, 0.9)), LOOKS[[3]]).obj_ids.tolist() == [2]


def test_a_person_ends_an_object() -> None:
    keeper = IdentityKeeper()
    given(keeper, LEFT)
    keeper.remove(3, 1)
    assert kinds(keeper, 1)[-1] == "ended" and keeper.events[-1].reason == "by a person" and not keeper.tracks
    with pytest.raises(ValueError, match=r"object 1 is not followed; followed: \[\]"):
        keeper.remove(4, 1)


def test_a_person_shows_no_more_than_may_be() -> None:
    keeper = IdentityKeeper(IdentityRules(max_objects=1))
    given(keeper, LEFT)
    with pytest.raises(ValueError, match="1 objects are followed already, the most that may be"):
        given(keeper, RIGHT)
    assert keeper.next_obj_id == 2


def test_what_a_person_showed_is_known_after_a_restart() -> None:
    keeper, restored = IdentityKeeper(), IdentityKeeper()
    given(keeper, LEFT)
    saved = keeper.to_dict()
    restored.restore(saved)
    assert restored.tracks[1].is_given
    del saved["tracks"][0]["is_given"]  # as earlier versions saved it
    restored.restore(saved)
    assert not restored.tracks[1].is_given


# ---- known again by looks ----

EDGE: Place = (0.0, 15.0, 8.0)  # half of it outside the frame


def come_back(keeper: IdentityKeeper, look: int) -> list[int]:
    """Object 1, of look 0, is seen well and goes; then something comes in over the edge, in part at first."""
    for frame_idx in range(2):
        if frame_idx:
            see(keeper, frame_idx, {1: LEFT})
        keeper.match(frame_idx, detections((LEFT, 0, 0.9)), LOOKS[[0]])
    see(keeper, 1000, {1: None})
    assert keeper.match(1000, detections((EDGE, 0, 0.9)), LOOKS[[3]]).obj_ids.tolist() == [2]
    see(keeper, 1001, {2: LEFT})
    answer = keeper.match(1001, detections((LEFT, 0, 0.9)), LOOKS[[look]])
    assert answer.removed == ([2] if look == 0 else [])
    return answer.obj_ids.tolist()


def test_who_comes_in_over_the_edge_is_known_once_it_is_seen_whole() -> None:
    keeper = IdentityKeeper()
    assert come_back(keeper, look=0) == [1]
    assert 2 not in keeper.tracks and kinds(keeper, 2)[-1] == "merged"
    assert [event.reason for event in keeper.events if event.kind == "found again"] == [
        "after 1000 frames by its looks"
    ]
    assert see(keeper, 1002, {1: LEFT}).shown == [1]


def test_who_comes_in_over_the_edge_and_looks_otherwise_is_new() -> None:
    keeper = IdentityKeeper()
    assert come_back(keeper, look=1) == [2]
    assert keeper.tracks.keys() == {1, 2}


@pytest.mark.parametrize("touched", [False, True])
def test_a_look_that_may_show_another_object_is_not_remembered(touched: bool) -> None:
    keeper = IdentityKeeper()
    beside = (LEFT[0] + 5, LEFT[1], LEFT[2]) if touched else RIGHT
    keeper.match(0, detections((LEFT, 0, 0.9), (RIGHT, 1, 0.9)), LOOKS[[0, 1]])
    see(keeper, 1, {1: LEFT, 2: RIGHT})
    keeper.match(1, detections((LEFT, 0, 0.9)), LOOKS[[0]])
    see(keeper, 2, {1: LEFT, 2: beside})
    keeper.match(2, detections((LEFT, 0, 0.9), (beside, 1, 0.9)), LOOKS[[2, 1]])
    looks = keeper.tracks[1].looks
    assert looks is not None and looks.argmax(axis=1).tolist() == ([0] if touched else [0, 2])


def test_a_known_object_is_found_by_its_looks_alone() -> None:
    keeper = IdentityKeeper()
    keeper.recall(7, 0, unit(LOOKS[[0]]))
    with pytest.raises(ValueError, match="there is an object 7 already"):
        keeper.recall(7, 0, unit(LOOKS[[0]]))
    assert keeper.match(0, detections((LEFT, 0, 0.9))).obj_ids.tolist() == [
        8
    ]  # the only one of its phrase, without looks
    answer = keeper.match(1, detections((RIGHT, 0, 0.9), (LOW, 1, 0.9)), LOOKS[[0, 0]])
    assert answer.obj_ids.tolist() == [7, 9] and answer.prompt == [0, 1]
    again = IdentityKeeper()
    again.restore(keeper.to_dict())
    assert again.to_dict() == keeper.to_dict() and again.tracks[7].is_known
