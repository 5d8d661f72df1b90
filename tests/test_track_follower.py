"""What a video model has to offer, and what becomes one."""

import numpy as np
import pytest
from fake_follower import FakeFollower
from tiny_sam2 import make_tiny_model

from grounded_sam2.track.follower import Follower, Seen, as_follower
from grounded_sam2.track.sam2_follower import Sam2Follower
from sam2.sam2_video_predictor import SAM2VideoPredictor


def test_a_predictor_becomes_a_follower_and_a_follower_stays_one() -> None:
    predictor = make_tiny_model(model_class=SAM2VideoPredictor)
    follower = as_follower(predictor)
    assert isinstance(follower, Sam2Follower) and isinstance(follower, Follower) and follower.predictor is predictor
    fake = FakeFollower()
    assert as_follower(fake) is fake and as_follower(follower) is follower


@pytest.mark.parametrize(
    ("mask_scores", "expected"),
    [(None, {3: (None, 8.0), 1: (None, -2.0)}), (np.array([0.5, 0.25]), {3: (0.5, 8.0), 1: (0.25, -2.0)})],
)
def test_scores_go_by_id(mask_scores: np.ndarray | None, expected: dict[int, tuple[float | None, float]]) -> None:
    seen = Seen([3, 1], np.zeros((2, 4, 4), bool), np.array([8.0, -2.0]), mask_scores)
    assert seen.scores() == expected
    assert Seen([], np.zeros((0, 4, 4), bool), np.zeros(0), None).scores() == {}
