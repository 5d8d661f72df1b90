"""Which rules of identity are refused."""

import pytest

from grounded_sam2.track.rules import IdentityRules


@pytest.mark.parametrize(
    "rules",
    [
        {"iou_threshold": 1.5},
        {"merge_iou": -0.1},
        {"confirm_hits": 4, "confirm_window": 3},
        {"lost_after": 0},
        {"max_area_ratio": 1.0},
        {"max_objects": -1},
    ],
)
def test_bad_rules_are_refused(rules: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected .* got"):
        IdentityRules(**rules)  # type: ignore[arg-type]
