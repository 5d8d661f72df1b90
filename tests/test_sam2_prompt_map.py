"""Prompts drawn as maps: where the marks lie, and that the decoder reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_sam2 import make_image, make_tiny_model
from torch import Tensor

from sam2.modeling.prompt_encoder import PromptEncoder, PromptMap
from sam2.sam2_image_predictor import SAM2ImagePredictor

SIZE, SIDE = 64, 16  # px, cells of 4 px


def draw(coords: list[list[float]], labels: list[int]) -> dict[str, Tensor]:
    maps = PromptMap(8).draw(torch.tensor([coords]), torch.tensor([labels]), SIZE, SIDE)[0]
    return dict(zip(("box", "across", "down", "positive", "negative"), maps, strict=True))


def test_a_box_covers_its_cells_by_the_share_that_lies_in_it() -> None:
    maps = draw([[8.0, 20.0], [22.0, 29.0]], [2, 3])
    expected = torch.zeros(SIDE, SIDE)
    expected[5:7, 2:5] = 1
    expected[7, 2:5] = 0.25
    expected[5:8, 5] = 0.5 * expected[5:8, 4]
    torch.testing.assert_close(maps["box"], expected)
    assert not maps["positive"].any() and not maps["negative"].any()


def test_a_cell_of_a_box_is_told_how_near_the_edges_it_lies() -> None:
    maps = draw([[8.0, 16.0], [48.0, 36.0]], [2, 3])
    across = ((torch.arange(2, 12) * 4 + 2 - 28) / 20).square()
    torch.testing.assert_close(maps["across"][4:9, 2:12], across.expand(5, 10))
    down = ((torch.arange(4, 9) * 4 + 2 - 26) / 10).square()
    torch.testing.assert_close(maps["down"][4:9, 2:12], down[:, None].expand(5, 10))


def test_clicks_mark_what_is_near_them_each_on_the_map_of_its_kind() -> None:
    maps = draw([[9.5, 21.5], [41.5, 53.5], [5.5, 61.5], [0.0, 0.0]], [1, 1, 0, -1])
    peaks = {kind: (maps[kind] == 1).nonzero().tolist() for kind in ("positive", "negative")}
    assert peaks == {"positive": [[5, 2], [13, 10]], "negative": [[15, 1]]}
    torch.testing.assert_close(maps["positive"][5, 4], torch.tensor(-0.5).exp())  # one reach of 8 px away
    assert not maps["box"].any()


@pytest.mark.parametrize(
    ("coords", "labels"),
    [
        ([[22.0, 29.0], [8.0, 20.0]], [2, 3]),
        ([[22.0, 20.0], [8.0, 29.0]], [2, 3]),
        ([[0.0, 0.0], [64.0, 64.0], [8.0, 20.0], [22.0, 29.0]], [2, 3, 2, 3]),
    ],
    ids=["other way round", "mirrored", "the last of two"],
)
def test_a_box_is_drawn_whatever_corner_comes_first(coords: list[list[float]], labels: list[int]) -> None:
    torch.testing.assert_close(draw(coords, labels), draw([[8.0, 20.0], [22.0, 29.0]], [2, 3]))


@pytest.mark.parametrize("label", [2, 3])
def test_a_single_corner_is_no_box(label: int) -> None:
    assert not any(plane.any() for plane in draw([[30.0, 40.0]], [label]).values())


def test_no_prompts_are_no_error() -> None:
    model = make_tiny_model(prompt_map=True)
    without = model.sam_prompt_encoder(None, None, None)[1]
    no_points = (torch.zeros(1, 0, 2), torch.zeros(1, 0))
    assert torch.equal(model.sam_prompt_encoder(no_points, None, None)[1], without)
    predictor = SAM2ImagePredictor(model.to(torch.bfloat16))
    predictor.set_image(make_image(40, 60))
    masks, scores, _ = predictor.predict(np.zeros((0, 2)), np.zeros(0))
    assert masks.shape == (3, 40, 60) and scores.shape == (3,)


def test_padding_embeds_to_nothing_and_boxes_to_the_same_however_they_are_given() -> None:
    torch.manual_seed(0)
    encoder = PromptEncoder(8, SIZE, SIDE // 4, prompt_map=True)
    assert encoder.prompt_map is not None
    encoder.prompt_map.embed.weight.data.normal_()
    without = encoder(None, None, None)[1]
    padding = (torch.zeros(1, 1, 2), torch.full((1, 1), -1))
    assert torch.equal(encoder(padding, None, None)[1], without)
    box = torch.tensor([[8.0, 20.0, 22.0, 29.0]])
    as_points = encoder((box.view(1, 2, 2), torch.tensor([[2, 3]])), None, None)[1]
    assert torch.equal(encoder(None, box, None)[1], as_points) and not torch.equal(as_points, without)
    mask = torch.randn(1, 1, SIDE, SIDE)
    with_both = encoder(None, box, mask)[1]
    torch.testing.assert_close(with_both, encoder(None, None, mask)[1] + as_points - without)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_decoder_reads_the_map_alike_in_training_and_in_inference(dtype: torch.dtype) -> None:
    model = make_tiny_model(prompt_map=True)
    images, box = torch.randn(1, 3, 64, 64), torch.tensor([[10.0, 20.0, 33.0, 50.0], [0.0, 0.0, 9.0, 64.0]])

    def masks() -> Tensor:
        features = model.forward_image(images)
        prompts = model.sam_prompt_encoder((box.view(2, 2, 2), torch.tensor([[2, 3], [2, 3]])), None, None)
        image_pe = model.sam_prompt_encoder.get_dense_pe()
        return model.sam_mask_decoder.predict_all(features.vision, image_pe, *prompts, features.high_res)[0]

    expected = masks().detach()
    model.to(dtype)
    with torch.inference_mode():
        found = masks()
    tolerance = 1e-3 if dtype == torch.float32 else 0.05 * float(expected.std())
    assert (found.float() - expected).abs().mean() < tolerance
    model.sam_mask_decoder.prompt_skip.weight.data.zero_()
    with torch.inference_mode():
        assert (masks().float() - expected).abs().mean() > 2 * tolerance
