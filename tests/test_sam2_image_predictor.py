"""The image predictor's shapes, batching, chunking, frames of reference and errors, on a small random model."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sam2 import TINY, make_image, make_tiny_model

from sam2 import build_sam
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_image_predictor import LOW_RES_LIMIT, SAM2ImagePredictor
from sam2.transforms import SAM2Transforms, as_rgb_array

HEIGHT, WIDTH = 50, 90
SIDE = 16  # of low-resolution logits
BOXES = np.array([[5, 5, 40, 30], [30, 10, 70, 40], [0, 0, 90, 50]], dtype=np.float32)
POINTS = np.array([[[20, 15], [60, 40]], [[50, 20], [5, 5]], [[45, 25], [80, 45]]], dtype=np.float32)
LABELS = np.array([[1, 0], [1, -1], [1, 1]])
MASKS = np.random.default_rng(0).normal(0, 5, (3, 1, SIDE, SIDE)).astype(np.float32)

Prediction = tuple[np.ndarray, np.ndarray, np.ndarray]


def assert_same(one: Prediction, other: Prediction, tolerance: float = 1e-5) -> None:
    for a, b in zip(one, other, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def model() -> SAM2Base:
    return make_tiny_model()


@pytest.fixture
def predictor(model: SAM2Base) -> SAM2ImagePredictor:
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(make_image(HEIGHT, WIDTH))
    return predictor


def prompts_of(kinds: str, rows: slice) -> dict[str, np.ndarray]:
    prompts = {}
    if "p" in kinds:
        prompts |= {"point_coords": POINTS[rows], "point_labels": LABELS[rows]}
    if "b" in kinds:
        prompts["box"] = BOXES[rows]
    if "m" in kinds:
        prompts["mask_input"] = MASKS[rows]
    return prompts


@pytest.mark.parametrize("multimask_output", [False, True])
@pytest.mark.parametrize("kinds", ["p", "b", "m", "pb", "pm", "bm", "pbm"])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_shapes_and_batch_equals_single(
    predictor: SAM2ImagePredictor, count: int, kinds: str, multimask_output: bool
) -> None:
    candidates = 3 if multimask_output else 1
    leading = () if count == 1 else (count,)
    options = {"multimask_output": multimask_output, "return_logits": True}
    prediction = predictor.predict(**prompts_of(kinds, slice(count)), **options)
    masks, ious, low_res_logits = prediction
    assert masks.shape == (*leading, candidates, HEIGHT, WIDTH)
    assert ious.shape == (*leading, candidates)
    assert low_res_logits.shape == (*leading, candidates, SIDE, SIDE)
    assert {array.dtype for array in prediction} == {np.dtype(np.float32)}
    if count > 1:
        for i in range(count):
            single = predictor.predict(**prompts_of(kinds, slice(i, i + 1)), **options)
            assert_same((masks[i], ious[i], low_res_logits[i]), single)


def test_masks_are_zeros_and_ones_above_the_threshold(model: SAM2Base) -> None:
    predictor = SAM2ImagePredictor(model, mask_threshold=0.5)
    predictor.set_image(make_image(HEIGHT, WIDTH))
    masks = predictor.predict(box=BOXES)[0]
    logits = predictor.predict(box=BOXES, return_logits=True)[0]
    assert masks.dtype == np.float32
    np.testing.assert_array_equal(masks, logits > 0.5)
    assert 0 < masks.mean() < 1


def test_without_prompts_one_object_is_predicted(predictor: SAM2ImagePredictor) -> None:
    assert predictor.predict()[0].shape == (3, HEIGHT, WIDTH)


def test_one_point_list_and_one_box_describe_one_object(predictor: SAM2ImagePredictor) -> None:
    one = predictor.predict(POINTS[0], LABELS[0], BOXES[0], MASKS[0], return_logits=True)
    assert one[0].shape == (3, HEIGHT, WIDTH)
    assert_same(one, predictor.predict(POINTS[:1], LABELS[:1], BOXES[:1], MASKS[:1], return_logits=True), 0)
    assert_same(one, predictor.predict(*map(np.ndarray.tolist, (POINTS[0], LABELS[0], BOXES[0], MASKS[0])),
                                       return_logits=True), 0)  # fmt: skip


def test_one_mask_serves_all_boxes(predictor: SAM2ImagePredictor) -> None:
    shared = predictor.predict(box=BOXES, mask_input=MASKS[0], return_logits=True)
    repeated = predictor.predict(box=BOXES, mask_input=MASKS[[0, 0, 0]], return_logits=True)
    assert_same(shared, repeated)


@pytest.mark.parametrize("prompts_per_pass", [1, 2, 3])
def test_chunked_equals_unchunked(model: SAM2Base, predictor: SAM2ImagePredictor, prompts_per_pass: int) -> None:
    chunked = SAM2ImagePredictor(model, prompts_per_pass=prompts_per_pass)
    chunked.set_image(make_image(HEIGHT, WIDTH))
    prompts = prompts_of("pbm", slice(3))
    assert_same(chunked.predict(**prompts, return_logits=True), predictor.predict(**prompts, return_logits=True))


def test_chunks_bound_what_the_model_sees(model: SAM2Base, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    predictor = SAM2ImagePredictor(model, prompts_per_pass=4)
    predictor.set_image(make_image(HEIGHT, WIDTH))
    hook = model.sam_mask_decoder.register_forward_hook(lambda *call: seen.append(len(call[2].ious)))
    masks = predictor.predict(box=np.tile(BOXES, (3, 1)), multimask_output=False)[0]
    hook.remove()
    assert seen == [4, 4, 1]
    assert masks.shape == (9, 1, HEIGHT, WIDTH)


def test_the_same_call_twice_gives_the_same_result(predictor: SAM2ImagePredictor) -> None:
    first = predictor.predict(box=BOXES, return_logits=True)
    predictor.predict(point_coords=POINTS[0], point_labels=LABELS[0])
    assert_same(first, predictor.predict(box=BOXES, return_logits=True), 0)
    predictor.set_image(make_image(HEIGHT, WIDTH))
    assert_same(first, predictor.predict(box=BOXES, return_logits=True), 0)


def test_coordinates_in_pixels_equal_fractions(predictor: SAM2ImagePredictor) -> None:
    size = np.array([WIDTH, HEIGHT], dtype=np.float32)
    pixels = predictor.predict(POINTS, LABELS, BOXES, return_logits=True)
    fractions = predictor.predict(
        POINTS / size, LABELS, BOXES / np.tile(size, 2), return_logits=True, normalize_coords=False
    )
    assert_same(pixels, fractions)


def test_prompts_are_scaled_with_the_image(model: SAM2Base) -> None:
    predictor = SAM2ImagePredictor(model)
    colour = np.array([30, 150, 90], dtype=np.uint8)  # the model sees the same square whatever the size
    predictor.set_image(np.tile(colour, (50, 90, 1)))
    expected = predictor.predict(POINTS, LABELS, BOXES, return_logits=True)
    predictor.set_image(np.tile(colour, (150, 180, 1)))
    scaled = predictor.predict(POINTS * [2, 3], LABELS, BOXES * [2, 3, 2, 3], return_logits=True)
    assert_same(scaled[1:], expected[1:])


def test_low_res_logits_go_back_in(predictor: SAM2ImagePredictor) -> None:
    _, ious, low_res_logits = predictor.predict(POINTS, LABELS)
    best = low_res_logits[np.arange(3), ious.argmax(axis=1)][:, None]
    refined = predictor.predict(POINTS, LABELS, mask_input=best, multimask_output=False)
    assert refined[2].shape == (3, 1, SIDE, SIDE)
    assert not np.allclose(refined[2][:, 0], best[:, 0])
    single = predictor.predict(POINTS[1], LABELS[1], mask_input=best[1], multimask_output=False)
    assert_same((refined[0][1], refined[1][1], refined[2][1]), single)
    assert np.abs(low_res_logits).max() <= 32


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (90, 50), (51, 33), (64, 64), (200, 300)])
def test_image_sizes(model: SAM2Base, size: tuple[int, int]) -> None:
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(make_image(*size))
    height, width = size
    masks, ious, _ = predictor.predict(box=[0, 0, width, height])
    assert masks.shape == (3, *size)
    assert np.isfinite(ious).all()


IMAGES = [make_image(HEIGHT, WIDTH), make_image(70, 40, seed=1), make_image(1, 1, seed=2)]


@pytest.mark.parametrize("multimask_output", [False, True])
def test_batch_equals_one_image_at_a_time(model: SAM2Base, multimask_output: bool) -> None:
    options = {"multimask_output": multimask_output, "return_logits": True}
    boxes = [BOXES, None, BOXES[0]]
    points, labels = [POINTS, POINTS[0], None], [LABELS, LABELS[0], None]
    predictor = SAM2ImagePredictor(model)
    predictor.set_image_batch(IMAGES)
    assert predictor.get_image_embedding().shape == (3, TINY.d_model, 4, 4)
    batched = predictor.predict_batch(points, labels, boxes, **options)
    for i, image in enumerate(IMAGES):
        predictor.set_image(image)
        single = predictor.predict(points[i], labels[i], boxes[i], **options)
        assert_same(tuple(column[i] for column in batched), single)


def test_images_of_a_batch_without_objects(model: SAM2Base) -> None:
    predictor = SAM2ImagePredictor(model)
    predictor.set_image_batch(IMAGES)
    masks, ious, low_res_logits = predictor.predict_batch(
        box_batch=[None, BOXES[:2], np.zeros((0, 4))], multimask_output=False
    )
    assert [m.shape for m in masks] == [(0, 1, HEIGHT, WIDTH), (2, 1, 70, 40), (0, 1, 1, 1)]
    assert [i.shape for i in ious] == [(0, 1), (2, 1), (0, 1)]
    assert [logits.shape for logits in low_res_logits] == [(0, 1, SIDE, SIDE), (2, 1, SIDE, SIDE), (0, 1, SIDE, SIDE)]
    assert [m.shape for m in predictor.predict_batch()[0]] == [(3, HEIGHT, WIDTH), (3, 70, 40), (3, 1, 1)]


def test_small_regions_are_cleaned(model: SAM2Base) -> None:
    plain, cleaning = SAM2ImagePredictor(model), SAM2ImagePredictor(model, max_hole_area=30, max_sprinkle_area=30)
    for predictor in (plain, cleaning):
        predictor.set_image(make_image(HEIGHT, WIDTH))
    before, after = (predictor.predict(POINTS, LABELS) for predictor in (plain, cleaning))
    assert (before[0] != after[0]).any()
    assert_same(before[1:], after[1:], 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_precision_is_the_models(model: SAM2Base, predictor: SAM2ImagePredictor, dtype: torch.dtype) -> None:
    half = SAM2ImagePredictor(make_tiny_model(dtype))
    half.set_image(make_image(HEIGHT, WIDTH))
    assert half.get_image_embedding().dtype == dtype
    coarse = half.predict(box=BOXES, return_logits=True)
    assert {array.dtype for array in coarse} == {np.dtype(np.float32)}
    assert np.abs(coarse[1] - predictor.predict(box=BOXES)[1]).max() < 0.1


@pytest.mark.parametrize("changes", [{"use_high_res_features_in_sam": False}, {"directly_add_no_mem_embed": False}])
def test_other_architectures(changes: dict[str, bool]) -> None:
    predictor = SAM2ImagePredictor(make_tiny_model(**changes))
    predictor.set_image(make_image(HEIGHT, WIDTH))
    assert predictor.predict(box=BOXES)[0].shape == (3, 3, HEIGHT, WIDTH)


def test_calls_in_the_wrong_order(model: SAM2Base) -> None:
    predictor = SAM2ImagePredictor(model)
    with pytest.raises(RuntimeError, match=r"set_image\(\.\.\.\) before mask prediction"):
        predictor.predict(box=BOXES)
    with pytest.raises(RuntimeError, match=r"set_image\(\.\.\.\) to generate an embedding"):
        predictor.get_image_embedding()
    predictor.set_image(IMAGES[0])
    with pytest.raises(RuntimeError, match=r"set_image_batch\(\.\.\.\) before"):
        predictor.predict_batch(box_batch=[BOXES])
    predictor.set_image_batch(IMAGES)
    with pytest.raises(RuntimeError, match=r"use \.predict_batch"):
        predictor.predict(box=BOXES)
    predictor.reset_predictor()
    with pytest.raises(RuntimeError, match="set_image_batch"):
        predictor.predict_batch()


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"point_coords": POINTS[0]}, "must be given together"),
        ({"point_coords": POINTS, "point_labels": LABELS[0]}, r"got \(3, 2, 2\) with \(2,\)"),
        ({"point_coords": POINTS[0, 0], "point_labels": 1}, r"got \(2,\) with \(\)"),
        ({"point_coords": POINTS[0], "point_labels": [1, 7]}, r"1, 0 or -1, got \[1, 7\]"),
        ({"box": [1, 2, 3]}, r"got \(3,\)"),
        ({"box": [1, 2, 3, np.nan]}, "finite numbers in box"),
        ({"box": BOXES, "point_coords": POINTS[:2], "point_labels": LABELS[:2]}, "2 in point_coords, 3 in box"),
        ({"box": BOXES, "mask_input": MASKS[:2]}, "3 in box, 2 in mask_input"),
        ({"mask_input": MASKS[0, 0]}, r"\(1, 16, 16\) or \(N, 1, 16, 16\), got \(16, 16\)"),
        ({"mask_input": np.zeros((1, 32, 32))}, r"got \(1, 32, 32\)"),
    ],
)
def test_bad_prompts(predictor: SAM2ImagePredictor, prompts: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictor.predict(**prompts)


def test_bad_batches(model: SAM2Base) -> None:
    predictor = SAM2ImagePredictor(model)
    with pytest.raises(ValueError, match="at least one image"):
        predictor.set_image_batch([])
    with pytest.raises(ValueError, match="got ndarray"):
        predictor.set_image_batch(np.zeros((2, 8, 8, 3), np.uint8))
    predictor.set_image_batch(IMAGES)
    with pytest.raises(ValueError, match="expected 3 entries in box_batch, one per image, got 2"):
        predictor.predict_batch(box_batch=[BOXES, BOXES])


def test_bad_image_leaves_no_image_set(predictor: SAM2ImagePredictor) -> None:
    with pytest.raises(ValueError, match=r"\(H, W, 3\), got \(5, 5\)"):
        predictor.set_image(np.zeros((5, 5), np.uint8))
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict(box=BOXES)


@pytest.mark.parametrize("arguments", [{"mask_treshold": 0.5}, {"prompts_per_pass": 0}])
def test_bad_constructor_arguments(model: SAM2Base, arguments: dict[str, float]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(arguments))):
        SAM2ImagePredictor(model, **arguments)


def test_from_pretrained_shares_its_options_out(model: SAM2Base, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(build_sam, "build_sam2_hf", lambda name, **options: calls.append((name, options)) or model)
    predictor = SAM2ImagePredictor.from_pretrained("facebook/sam2.1-hiera-tiny", device="cpu", max_hole_area=3.0)
    assert calls == [("facebook/sam2.1-hiera-tiny", {"device": "cpu"})]
    assert predictor._transforms.max_hole_area == 3.0


class TestImages:
    """What `as_rgb_array` takes and `SAM2Transforms` makes of it."""

    transforms = SAM2Transforms(32, 0.0)

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK"])
    def test_pil_modes_become_rgb(self, mode: str) -> None:
        image = Image.fromarray(make_image(20, 30)).convert(mode)
        np.testing.assert_array_equal(as_rgb_array(image), np.array(image.convert("RGB")))

    def test_floats_are_in_the_unit_range(self) -> None:
        image = make_image(20, 30)
        torch.testing.assert_close(self.transforms(image / 255.0), self.transforms(image))

    def test_reversed_channels_and_read_only_arrays(self, recwarn: pytest.WarningsRecorder) -> None:
        image = make_image(20, 30)
        image.setflags(write=False)
        flipped = self.transforms(image[..., ::-1])
        torch.testing.assert_close(flipped, self.transforms(image[..., ::-1].copy()))
        assert len(recwarn) == 0

    def test_one_colour_stays_itself(self) -> None:
        image = np.full((5, 7, 3), (255, 0, 51), np.uint8)
        expected = (torch.tensor([1.0, 0.0, 0.2]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
            [0.229, 0.224, 0.225]
        )
        torch.testing.assert_close(self.transforms(image), expected[:, None, None].expand(3, 32, 32))

    @pytest.mark.parametrize(
        ("image", "message"),
        [
            (np.zeros((4, 5), np.uint8), r"got \(4, 5\): repeat a greyscale"),
            (np.zeros((4, 5, 1), np.uint8), r"got \(4, 5, 1\)"),
            (np.zeros((4, 5, 4), np.uint8), r"got \(4, 5, 4\): drop the alpha"),
            (np.zeros((3, 4, 5), np.uint8), r"got \(3, 4, 5\)"),
            (np.zeros((0, 5, 3), np.uint8), "at least 1x1"),
            (np.zeros((4, 5, 3), np.uint16), "got uint16"),
            (np.full((4, 5, 3), 200.0), "from 200 to 200: divide by 255"),
            (np.full((4, 5, 3), np.nan), "from nan"),
            (Image.new("I;16", (4, 5)), "mode 'I;16'"),
        ],
    )
    def test_bad_images(self, image: np.ndarray | Image.Image, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            as_rgb_array(image)

    def test_paths_are_no_images(self) -> None:
        with pytest.raises(TypeError, match="got str"):
            as_rgb_array("image.jpg")  # type: ignore[arg-type]

    def test_points_in_pixels_need_a_size(self) -> None:
        with pytest.raises(ValueError, match="orig_hw"):
            self.transforms.transform_coords(torch.zeros(1, 2), normalize=True)


def test_what_a_mask_prompt_looks_like_is_public(model: SAM2Base) -> None:
    predictor = SAM2ImagePredictor(model)
    predictor.set_image(make_image(48, 80))
    _, _, low_res_logits = predictor.predict(box=[5, 5, 40, 30], multimask_output=False)
    assert low_res_logits.shape == (1, predictor.mask_input_size, predictor.mask_input_size)
    coords = predictor.transforms.transform_boxes(torch.tensor([[5.0, 5.0, 40.0, 30.0]]), True, (48, 80))
    logits, ious = predictor.decode(boxes=coords, multimask_output=False)
    assert torch.equal(logits[0].clamp(-LOW_RES_LIMIT, LOW_RES_LIMIT), torch.from_numpy(low_res_logits))
    assert ious.shape == (1, 1)
