"""Each measure by hand on tiny cases, and what has no meaning is None."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from score_data import make_pair

from grounded_sam2.masks import decode_window, encode_rle, mask_iou
from grounded_sam2.score import Video, compare, video_of
from grounded_sam2.score.boundary import boundary_f, encoded_boundary_f
from grounded_sam2.score.overlap import Overlap, box_overlap, mask_overlap
from grounded_sam2.score.precision import average_precision, matched

LEFT, RIGHT = (2, 4, 12, 14), (24, 4, 34, 14)  # boxes of two objects
RATIOS = (
    "HOTA", "DetA", "AssA", "DetRe", "DetPr", "AssRe", "AssPr", "LocA", "MOTA", "MOTP", "IDF1", "IDP", "IDR", "J", "F",
    "J&F", "AP", "AP50", "AP75", "track AP", "track AP50", "track AP75",
)  # fmt: skip


def box_mask(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((24, 40), bool)
    mask[top:bottom, left:right] = True
    return mask


def video(*frames: dict[int, tuple[int, int, int, int]], names: dict[int, str] | None = None) -> Video:
    """Frames as id → box."""
    return video_of(
        [
            (list(frame), np.array([box_mask(*box) for box in frame.values()]).reshape(len(frame), 24, 40))
            for frame in frames
        ],
        names=names,
    )


BOTH = {1: LEFT, 2: RIGHT}
TRUTH = video(BOTH, BOTH, BOTH, BOTH)


def scores(run: Video, truth: Video = TRUTH) -> dict[str, float | int | None]:
    return compare(truth, run)[""].scores()


def test_a_perfect_run_is_perfect_whatever_its_ids() -> None:
    renamed = {70: RIGHT, 5: LEFT}
    found = scores(video(renamed, renamed, renamed, renamed))
    assert {name: found[name] for name in RATIOS} == dict.fromkeys(RATIOS, pytest.approx(1.0))
    assert (found["IDSW"], found["Frag"], found["missed"], found["false"], found["MT"]) == (0, 0, 0, 0, 2)
    assert found["frames"] == 4 and found["matches"] == 8


def test_one_switch() -> None:
    other = {1: LEFT, 3: RIGHT}
    found = scores(video(BOTH, BOTH, other, other))
    assert found["IDSW"] == 1 and found["MOTA"] == pytest.approx(7 / 8) and found["DetA"] == 1
    assert found["IDF1"] == pytest.approx(2 * 6 / 16)  # of object 2 one half
    # 4 matches of object 1 fit on all frames, 4 of object 2 on 2 of 4
    assert found["AssA"] == pytest.approx((4 * 1 + 4 * 0.5) / 8)
    assert found["HOTA"] == pytest.approx(np.sqrt(0.75)) and found["LocA"] == 1
    assert found["J"] == pytest.approx((1 + 0.5) / 2) == found["F"]


def test_one_missed() -> None:
    found = scores(video(BOTH, {1: LEFT}, BOTH, BOTH))
    assert (found["missed"], found["Frag"], found["IDSW"]) == (1, 1, 0)
    assert found["MOTA"] == pytest.approx(7 / 8) and found["IDR"] == pytest.approx(7 / 8) and found["IDP"] == 1
    assert found["DetA"] == pytest.approx(7 / 8)
    assert found["AssA"] == pytest.approx((4 * 1 + 3 * 3 / 4) / 7)
    assert found["J&F"] == pytest.approx(7 / 8) and (found["MT"], found["PT"]) == (1, 1)


def test_a_mask_that_is_half_of_the_object() -> None:
    half = {1: (2, 4, 12, 9), 2: RIGHT}
    found = scores(video(half, half, half, half))
    assert found["J"] == pytest.approx(0.75) and found["MOTP"] == pytest.approx(0.75)
    # IoU 0.5 is a match for 10 of 19 thresholds, 0.05 to 0.5
    assert found["DetA"] == pytest.approx((10 * 1 + 9 * 4 / 12) / 19)
    # at 0.5 both match; at the nine above, the first of two equally sure is wrong: 51 of 101 recalls at precision 1/2
    assert found["track AP50"] == 1 and found["track AP"] == pytest.approx((1 + 9 * 0.5 * 51 / 101) / 10)


def test_nothing_found_and_nothing_there() -> None:
    nothing = video({}, {}, {}, {})
    found = scores(nothing)
    zeros = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDP", "IDR", "J", "F", "J&F", "AP", "track AP")
    assert {name: found[name] for name in zeros} == dict.fromkeys(zeros, 0.0)
    assert (found["missed"], found["ML"], found["LocA"], found["MOTP"]) == (8, 2, 1.0, None)
    invented = scores(TRUTH, nothing)
    assert (invented["HOTA"], invented["IDF1"], invented["false"]) == (0.0, 0.0, 8)
    assert all(invented[name] is None for name in ("MOTA", "J", "F", "J&F", "AP", "track AP"))
    both = scores(nothing, nothing)
    assert all(both[name] is None for name in RATIOS) and both["frames"] == 4
    assert scores(video(), video())["frames"] == 0


def test_classes_are_matched_by_themselves() -> None:
    truth = video(BOTH, BOTH, names={1: "dog", 2: "cat"})
    run = video(BOTH, BOTH, names={1: "dog", 2: "owl"})
    assert compare(truth, run)[""].scores()["HOTA"] == 1
    of_class = {name: part.scores() for name, part in compare(truth, run, class_by="names").items()}
    assert [(name, of_class[name]["HOTA"], of_class[name]["missed"]) for name in ("dog", "cat", "owl")] == [
        ("dog", 1.0, 0), ("cat", 0.0, 2), ("owl", 0.0, 0),
    ]  # fmt: skip
    assert of_class["owl"]["false"] == 2 and of_class["owl"]["AP"] is None and of_class["cat"]["J&F"] == 0


def test_an_absent_object_is_right_where_nothing_is_shown() -> None:
    truth = video({1: LEFT}, {}, {1: LEFT}, {})
    assert scores(video({1: LEFT}, {}, {1: LEFT}, {}), truth)["J&F"] == 1
    assert scores(video({1: LEFT}, {}, {}, {}), truth)["J&F"] == pytest.approx(0.75)
    assert scores(video({}, {}, {}, {}), truth)["J&F"] == pytest.approx(0.5)


def test_comparisons_add_up() -> None:
    perfect, nothing = compare(TRUTH, TRUTH)[""], compare(TRUTH, video({}, {}, {}, {}))[""]
    both = (perfect + nothing).scores()
    assert both["IDF1"] == pytest.approx(2 * 8 / 24) and both["MOTA"] == 0.5 and both["J&F"] == 0.5
    assert both["frames"] == 8 and both["DetA"] == 0.5 and both["AssA"] == 1


# ---- parts ----


def test_regions_and_boundaries() -> None:
    one, nothing, everything = box_mask(5, 5, 15, 15), box_mask(0, 0, 0, 0), np.ones((24, 40), bool)
    assert mask_iou(one, one) == mask_iou(nothing, nothing) == 1 and mask_iou(one, nothing) == 0
    assert mask_iou(one, box_mask(10, 5, 20, 15)) == pytest.approx(1 / 3)
    assert boundary_f(one, one) == boundary_f(nothing, nothing) == 1 and boundary_f(one, nothing) == 0
    # 24x40 pixels allow one pixel: ceil(0.008 · 46.6); outlines are one pixel to the left and above
    assert boundary_f(one, box_mask(6, 5, 16, 15)) == 1
    # outlines of 40 and 46 pixels; of the first the side within is too far but for its ends, 7 pixels, and of the other
    # the side without, 9, and two above and below of it
    assert boundary_f(one, box_mask(5, 5, 18, 15)) == pytest.approx(2 * 33 / (40 + 46))
    assert boundary_f(everything, nothing) == 1 and boundary_f(everything, one) == 0  # neither has an outline


@pytest.mark.parametrize("seed", range(4))
def test_encoded_boundaries_are_those_of_the_masks(seed: int) -> None:
    truth, run = make_pair(seed, 6)
    for true, found in zip(truth, run, strict=True):
        for one in true.masks:
            for other in found.masks:
                encoded = encode_rle(np.stack([one, other]))
                assert encoded_boundary_f(*encoded, (80, 60)) == boundary_f(one, other)
            assert encoded_boundary_f(encoded[0], None, (80, 60)) == 0
    assert encoded_boundary_f(None, None, (80, 60)) == 1


@pytest.mark.parametrize("window", [(0, 0, 80, 60), (3, 7, 20, 50), (79, 59, 80, 60), (10, 10, 10, 20)])
def test_a_window_of_a_mask(window: tuple[int, int, int, int]) -> None:
    left, top, right, bottom = window
    masks = np.concatenate([make_pair(3, 2)[0][0].masks, np.zeros((1, 60, 80), bool), np.ones((1, 60, 80), bool)])
    for mask, segmentation in zip(masks, encode_rle(masks), strict=True):
        np.testing.assert_array_equal(decode_window(segmentation, window), mask[top:bottom, left:right])


def test_overlaps_of_masks_and_boxes() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 20, 30]], float)
    overlap = box_overlap(boxes, boxes[:2])
    np.testing.assert_allclose(overlap.iou, [[1, 1 / 3], [1 / 3, 1], [0, 0]])
    masks = np.stack([box_mask(*box) for box in ((0, 0, 10, 10), (5, 0, 15, 10))])
    of_masks = mask_overlap(encode_rle(masks), encode_rle(masks))
    assert of_masks.shared.tolist() == [[100, 50], [50, 100]] and of_masks.areas.tolist() == [100, 100]
    assert mask_overlap([], encode_rle(masks)).iou.shape == (0, 2) and box_overlap(boxes[:0], boxes).iou.shape == (0, 3)
    assert Overlap(np.zeros((1, 1)), np.zeros(1), np.zeros(1)).iou.tolist() == [[0.0]]


def test_crowds_are_neither_right_nor_wrong() -> None:
    ious = np.array([[0.9, 0.0], [0.0, 0.8]])
    group = matched(ious, np.array([0.5, 0.9]), np.array([False, True]))
    assert group.scores.tolist() == [0.9, 0.5] and group.num_true == 1
    precision = average_precision([group])
    assert precision is not None and precision.ap50 == 1
    assert average_precision([matched(ious, np.array([0.5, 0.9]), np.array([True, True]))]) is None


def test_precision_of_frames_is_that_of_coco() -> None:
    truth, run = make_pair(11, 30, num_objects=6)
    ours = scores(*(video_of([(frame.ids, frame.masks) for frame in side]) for side in (run, truth)))
    true, found = [], []
    for frame_idx, (one, other) in enumerate(zip(truth, run, strict=True)):
        for mask in encode_rle(one.masks):
            area = float(coco_mask.area(mask))
            entry = {"image_id": frame_idx, "category_id": 1, "segmentation": mask, "iscrowd": 0, "area": area}
            true.append({"id": len(true) + 1, "bbox": coco_mask.toBbox(mask).tolist(), **entry})
        for mask in encode_rle(other.masks):
            found.append({"image_id": frame_idx, "category_id": 1, "segmentation": mask, "score": 1.0})
    dataset = COCO()
    dataset.dataset = {
        "info": {}, "images": [{"id": i, "width": 80, "height": 60} for i in range(30)],
        "categories": [{"id": 1}], "annotations": true,
    }  # fmt: skip
    dataset.createIndex()
    evaluation = COCOeval(dataset, dataset.loadRes(found), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert [ours["AP"], ours["AP50"], ours["AP75"]] == pytest.approx(evaluation.stats[:3].tolist(), abs=1e-9)
