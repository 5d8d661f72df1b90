"""One object's life: what it learns, where it is, and a round trip through plain values."""

from collections import deque

import numpy as np
import pytest
from discs import LEFT, RIGHT, disc

from grounded_sam2.masks import corners_of
from grounded_sam2.track.object_track import Track, TrackState
from grounded_sam2.track.rules import IdentityRules


def new_track(**fields: object) -> Track:
    return Track(1, TrackState.ACTIVE, {0: 0.5}, 0.5, 0, 0, deque(maxlen=3), **fields)  # type: ignore[arg-type]


def test_an_area_that_jumps_is_learned_once_it_lasts() -> None:
    rules, track = IdentityRules(max_area_ratio=3.0, jump_patience=2), new_track()
    assert [track.learn_area(area, rules) for area in (100, 110, 900, 900, 900)] == [True, True, False, False, True]
    assert track.usual_area == 900


def test_the_place_is_kept_while_it_is_hidden_and_only_if_it_was_sure() -> None:
    track = new_track()
    track.show(disc(LEFT), 4)
    assert track.in_sight and track.place is None
    track.hide()
    assert not track.in_sight and track.place == corners_of(disc(LEFT))
    track.show(disc(RIGHT), 5)
    track.in_doubt = True
    track.hide()
    assert track.place is None and track.last_seen_frame_idx == 5


@pytest.mark.parametrize(("doubt_after", "is_hidden"), [(None, False), (5, True), (6, False)])
def test_long_hidden(doubt_after: int | None, is_hidden: bool) -> None:
    assert new_track().is_long_hidden(6, IdentityRules(doubt_after=doubt_after)) is is_hidden


def test_plain_values_and_back() -> None:
    rules, track = IdentityRules(), new_track(apart={3, 2}, place=(1, 2, 3, 4))
    track.learn_look(np.array([3.0, 4.0]), is_clear=True, rules=rules)
    track.rounds.append(True)
    track.show(disc(LEFT), 4)
    again = Track.from_dict(track.to_dict(), rules)
    assert again.to_dict() == track.to_dict()
    np.testing.assert_array_equal(again.mask, track.mask)
    assert again.rounds == track.rounds and again.rounds.maxlen == rules.confirm_window
