"""Which detection shows which object: one to one, by place, by looks."""

from collections import deque

import numpy as np
import pytest
import supervision as sv
from discs import LEFT, LOW, RIGHT, Place, disc

from grounded_sam2.masks import corners_of
from grounded_sam2.track.association import (
    Association,
    assign,
    begin_association,
    match_by_looks,
    match_by_overlap,
    match_by_place,
    similarities,
)
from grounded_sam2.track.object_track import Track, TrackState
from grounded_sam2.track.rules import IdentityRules

RULES = IdentityRules()


def followed(obj_id: int, place: Place, class_id: int = 0, look: int | None = None) -> Track:
    track = Track(obj_id, TrackState.ACTIVE, {class_id: 1.0}, 0.9, 0, 0, deque(maxlen=3), mask=disc(place))
    if look is not None:
        track.learn_look(np.eye(4)[look], is_clear=True, rules=RULES)
    return track


def round_of(*places: Place, looks: list[int] | None = None, seen: list[Track] | None = None) -> Association:
    """A round of detection of phrase 0."""
    if not places:
        return begin_association(1, sv.Detections.empty(), None, seen or [])
    masks = np.stack([disc(place) for place in places])
    found = sv.Detections(
        xyxy=sv.mask_to_xyxy(masks).astype(np.float32),
        mask=masks,
        class_id=np.zeros(len(places), int),
        confidence=np.full(len(places), 0.9, np.float32),
    )
    return begin_association(1, found, None if looks is None else np.eye(4)[looks], seen or [])


def test_assign_leaves_forbidden_pairs_alone() -> None:
    assert assign(np.array([[0.5, -1.0], [0.9, -1.0]])) == [(1, 0)]
    assert assign(np.zeros((0, 3))) == assign(np.zeros((3, 0))) == []


@pytest.mark.parametrize(("places", "pairs"), [([], []), ([LEFT], [(0, 0)]), ([LOW, LEFT, RIGHT], [(1, 0), (2, 1)])])
def test_each_detection_goes_to_the_object_it_lies_on(places: list[Place], pairs: list[tuple[int, int]]) -> None:
    association = round_of(*places, seen=[followed(1, LEFT), followed(2, RIGHT)])
    assert match_by_overlap(association, RULES) == pairs


def test_an_object_out_of_sight_is_found_where_it_was_a_moment_ago() -> None:
    unseen = [followed(1, LEFT), followed(2, RIGHT), followed(3, LOW)]
    for track in unseen:
        track.hide()
    unseen[2].place = None
    association = round_of(RIGHT, LOW)
    assert unseen[1].place == corners_of(disc(RIGHT))
    assert match_by_place(association, [0, 1], unseen, RULES) == [(0, 1)]
    assert match_by_place(association, [1], unseen, RULES) == match_by_place(association, [], unseen, RULES) == []


def test_an_object_out_of_sight_is_found_by_its_looks() -> None:
    unseen = [followed(1, LEFT, look=0), followed(2, LEFT, look=1), followed(3, LEFT, class_id=1, look=2)]
    association = round_of(RIGHT, LOW, looks=[1, 2])
    assert match_by_looks(association, [0, 1], unseen, RULES) == [(0, 1)]
    assert match_by_looks(round_of(RIGHT), [0], unseen, RULES) == []  # two of the phrase, and no looks to tell them
    assert match_by_looks(round_of(RIGHT), [0], unseen[1:], RULES) == [(0, 0)]


def test_what_is_settled_takes_its_doubles_with_it() -> None:
    association = round_of(LEFT, LEFT, RIGHT)
    nothing = np.zeros(3, bool)
    assert association.free(nothing, RULES) == [0, 1, 2]
    association.settle(0, followed(7, LEFT), needs_prompt=True)
    assert association.free(nothing, RULES) == [2]
    assert association.obj_ids.tolist() == [7, 0, 0] and association.prompt == [0]


def test_similarities_of_what_is_unknown_are_nan() -> None:
    tracks = [followed(1, LEFT, look=0), followed(2, LEFT)]
    np.testing.assert_array_equal(similarities(np.eye(4)[[0, 1]], 2, tracks), [[1.0, np.nan], [0.0, np.nan]])
    assert np.isnan(similarities(None, 2, tracks)).all()


@pytest.mark.parametrize(
    ("cosine", "other", "is_known", "found"),
    [
        (0.72, 0.6, False, True),
        (0.68, 0.0, False, False),
        (0.72, 0.68, False, False),  # no clear choice
        (0.72, 0.0, True, False),
        (0.82, 0.75, True, False),
        (0.82, 0.71, True, True),
    ],
)
def test_how_alike_looks_have_to_be(cosine: float, other: float, is_known: bool, found: bool) -> None:
    """0.7, and 0.05 more than any other; for objects of earlier videos 0.8, and 0.1 more."""
    unseen = [followed(1, LEFT), followed(2, LEFT)]
    for track, alike in zip(unseen, (cosine, other), strict=True):
        track.hide()
        track.looks = np.array([[alike, (1 - alike**2) ** 0.5, 0, 0], [0, 0, 1, 0]])
        track.is_known, track.last_seen_frame_idx = is_known, -1 if is_known else 0
    association = round_of(RIGHT, looks=[0])
    assert match_by_looks(association, [0], unseen, RULES) == ([(0, 0)] if found else [])
