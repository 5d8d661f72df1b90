"""The automatic mask generator: records, filters, crops and errors; and the records of the reference package."""

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from reference import everything
from reference.cache import REFERENCES, answers_of
from tiny_sam2 import make_image, make_tiny_model

from sam2 import build_sam
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator, crop_boxes, ends_at_crop_edge
from sam2.modeling.sam2_base import SAM2Base

HEIGHT, WIDTH = 60, 90
# random weights put nearly the same box around every mask, so suppression is off
LENIENT = {"points_per_side": 4, "pred_iou_thresh": 0.0, "stability_score_thresh": 0.0, "box_nms_thresh": 1.0}
KEYS = ["segmentation", "area", "bbox", "predicted_iou", "point_coords", "stability_score", "crop_box"]


@pytest.fixture(scope="module")
def model() -> SAM2Base:
    return make_tiny_model()


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return make_image(HEIGHT, WIDTH)


def test_records(model: SAM2Base, image: np.ndarray) -> None:
    records = SAM2AutomaticMaskGenerator(model, **LENIENT).generate(image)
    assert len(records) == 4 * 4 * 3
    for record in records:
        mask = record["segmentation"]
        assert list(record) == KEYS
        assert mask.shape == (HEIGHT, WIDTH)
        assert mask.dtype == bool
        assert record["area"] == mask.sum() > 0
        rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
        assert record["bbox"] == [columns[0], rows[0], columns[-1] - columns[0], rows[-1] - rows[0]]
        assert record["crop_box"] == [0.0, 0.0, WIDTH, HEIGHT]
        ((x, y),) = record["point_coords"]
        assert 0 < x < WIDTH
        assert 0 < y < HEIGHT
        assert 0 <= record["stability_score"] <= 1
        assert isinstance(record["predicted_iou"], float)


def test_output_modes_hold_the_same_masks(model: SAM2Base, image: np.ndarray) -> None:
    masks = {}
    for output_mode in ("binary_mask", "uncompressed_rle", "coco_rle"):
        generator = SAM2AutomaticMaskGenerator(model, output_mode=output_mode, **LENIENT)
        masks[output_mode] = [record["segmentation"] for record in generator.generate(image)]
    assert len(masks["binary_mask"]) == 4 * 4 * 3
    for binary, runs, string in zip(*masks.values(), strict=True):
        np.testing.assert_array_equal(coco_mask.decode(string).astype(bool), binary)
        np.testing.assert_array_equal(coco_mask.decode(coco_mask.frPyObjects(runs, HEIGHT, WIDTH)).astype(bool), binary)
        assert isinstance(string["counts"], str)


def test_batches_do_not_matter(model: SAM2Base, image: np.ndarray) -> None:
    whole, parts = (SAM2AutomaticMaskGenerator(model, points_per_batch=n, **LENIENT).generate(image) for n in (64, 3))
    assert [record["point_coords"] for record in whole] == [record["point_coords"] for record in parts] != []
    for one, other in zip(whole, parts, strict=True):
        assert (one["segmentation"] != other["segmentation"]).mean() < 1e-3


def test_thresholds(model: SAM2Base, image: np.ndarray) -> None:
    everything = SAM2AutomaticMaskGenerator(model, **LENIENT).generate(image)
    for setting, key in (("pred_iou_thresh", "predicted_iou"), ("stability_score_thresh", "stability_score")):
        threshold = float(np.median([record[key] for record in everything]))
        records = SAM2AutomaticMaskGenerator(model, **(LENIENT | {setting: threshold})).generate(image)
        assert len(records) == len(everything) // 2
        assert all(record[key] >= threshold for record in records)


def test_suppression_keeps_the_better_mask(model: SAM2Base, image: np.ndarray) -> None:
    everything = SAM2AutomaticMaskGenerator(model, **LENIENT).generate(image)
    records = SAM2AutomaticMaskGenerator(model, **(LENIENT | {"box_nms_thresh": 0.95})).generate(image)
    assert 0 < len(records) < len(everything)
    assert records[0]["predicted_iou"] == max(record["predicted_iou"] for record in everything)


def test_nothing_good_enough_is_no_record(model: SAM2Base, image: np.ndarray) -> None:
    settings = {**LENIENT, "pred_iou_thresh": 2.0}
    for crop_n_layers in (0, 1):
        assert SAM2AutomaticMaskGenerator(model, crop_n_layers=crop_n_layers, **settings).generate(image) == []


@pytest.mark.parametrize(
    ("options", "num_masks"),
    [({"use_m2m": True}, 48), ({"multimask_output": False}, 16), ({"min_mask_region_area": 20}, 48)],
)
def test_options(model: SAM2Base, image: np.ndarray, options: dict[str, object], num_masks: int) -> None:
    plain, changed = (
        SAM2AutomaticMaskGenerator(model, **LENIENT, **given).generate(image)  # type: ignore[arg-type]
        for given in ({}, options)
    )
    assert len(changed) == num_masks
    assert [record["area"] for record in changed] != [record["area"] for record in plain][:num_masks]


def test_crops_are_searched_too(model: SAM2Base) -> None:
    image = make_image(30, 36)  # masks of random weights reach the crop's edge, which is near the image's here
    settings = {**LENIENT, "points_per_side": 2, "crop_n_layers": 1, "crop_nms_thresh": 1.0}
    records = SAM2AutomaticMaskGenerator(model, **settings).generate(image)
    found_in = {tuple(record["crop_box"]) for record in records}
    assert len(found_in) > 1
    for record in records:
        x, y, width, height = map(int, record["crop_box"])
        outside = record["segmentation"].copy()
        outside[y : y + height, x : x + width] = False
        assert not outside.any()


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (80, 50)])
@pytest.mark.parametrize("crop_n_layers", [0, 2])
def test_image_sizes(model: SAM2Base, size: tuple[int, int], crop_n_layers: int) -> None:
    generator = SAM2AutomaticMaskGenerator(model, crop_n_layers=crop_n_layers, **(LENIENT | {"points_per_side": 1}))
    shapes = [record["segmentation"].shape for record in generator.generate(make_image(*size))]
    assert set(shapes) == {size}


def test_pil_images(model: SAM2Base, image: np.ndarray) -> None:
    generator = SAM2AutomaticMaskGenerator(model, **LENIENT)
    from_array, from_pil = generator.generate(image), generator.generate(Image.fromarray(image))
    assert [record["area"] for record in from_array] == [record["area"] for record in from_pil]


@pytest.mark.parametrize(("num_layers", "count"), [(0, 1), (1, 5), (2, 21)])
def test_crop_boxes_cover_the_image(num_layers: int, count: int) -> None:
    boxes = crop_boxes(700, 1000, num_layers, 0.3)
    assert len(boxes) == count
    assert boxes[0] == (0, (0, 0, 1000, 700))
    for layer in range(num_layers + 1):
        covered = np.zeros((700, 1000), dtype=bool)
        for _, (x0, y0, x1, y1) in (box for box in boxes if box[0] == layer):
            covered[y0:y1, x0:x1] = True
        assert covered.all()


def test_boxes_at_crop_edges() -> None:
    boxes = torch.tensor([[250, 150, 400, 300], [215, 150, 400, 300], [250, 150, 400, 480], [250, 15, 400, 300]])
    cut_off = ends_at_crop_edge(boxes, (200, 0, 600, 500), height=500, width=1000)
    assert cut_off.tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points_per_side": None}, "got neither"),
        ({"point_grids": [np.zeros((1, 2))]}, "got both"),
        ({"points_per_side": None, "point_grids": [np.zeros((1, 2))], "crop_n_layers": 1}, "expected 2 point_grids"),
        ({"output_mode": "png"}, "got 'png'"),
    ],
)
def test_bad_settings(model: SAM2Base, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SAM2AutomaticMaskGenerator(model, **settings)


def test_misspelt_settings_are_refused(model: SAM2Base) -> None:
    with pytest.raises(TypeError, match="pred_iou_treshold"):
        SAM2AutomaticMaskGenerator(model, pred_iou_treshold=0.5)


def test_from_pretrained_shares_its_options_out(model: SAM2Base, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(build_sam, "build_sam2_hf", lambda name, **options: calls.append((name, options)) or model)
    generator = SAM2AutomaticMaskGenerator.from_pretrained("facebook/sam2-hiera-tiny", device="cpu", points_per_side=3)
    assert calls == [("facebook/sam2-hiera-tiny", {"device": "cpu"})]
    assert len(generator.point_grids[0]) == 9


@pytest.mark.slow
@pytest.mark.skipif(not (REFERENCES / "sam2").is_dir(), reason="needs the reference package: make references")
def test_records_are_those_of_the_reference() -> None:
    work = answers_of("sam2", "everything", ["--work", "."])
    ours, reference = everything.records_of("ours", work), dict(np.load(work / "records.npz"))
    assert ours.keys() == reference.keys()
    assert len(reference["plain.area"]) > 20
    assert len(np.unique(reference["crops.crop_box"], axis=0)) > 1
    for name, expected in reference.items():
        assert ours[name].shape == expected.shape, name
        if name.endswith(".segmentation"):
            assert (ours[name] != expected).mean() < 1e-5, name
        else:
            np.testing.assert_allclose(ours[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)
