"""Our Grounding DINO: equal to transformers' on the same weights, and the same alone as in a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_gdino import (
    CLS,
    PROMPTS,
    SEP,
    STOP,
    difference,
    hugging_face_model,
    random_images,
    run,
    run_hugging_face,
    save,
    texts,
)

from grounding_dino.groundingdino.models import layers
from grounding_dino.groundingdino.models.encoder import DeformableEncoderLayer
from grounding_dino.groundingdino.models.features import ImageFeatures, TextFeatures
from grounding_dino.groundingdino.models.fusion import BiAttention
from grounding_dino.groundingdino.models.grounding_dino import DetectorOutput, GroundingDINO
from grounding_dino.groundingdino.models.position_encoding import encode_boxes, encode_cells, sine_encoding
from grounding_dino.groundingdino.models.transformer import anchor_boxes
from grounding_dino.groundingdino.weights import build_model

REPOSITORY = Path(__file__).parents[1]
NANO_FOLDER = REPOSITORY / "gdino_checkpoints" / "nano"
SIZES = ((96, 128), (75, 101), (160, 72))  # on which the selected cells are no ties
TOLERANCE = 1e-5

MODELS = {
    "swin, 4 levels": {},
    "swin, 5 levels": {"num_feature_levels": 5},
    "swin, other numbers of heads and points": {
        "encoder_attention_heads": 8,
        "decoder_attention_heads": 2,
        "encoder_n_points": 2,
        "decoder_n_points": 3,
        "positional_embedding_temperature": 100,
        "layer_norm_eps": 1e-3,
    },
    "resnet, 3 levels, a head for each layer": {
        "backbone": "resnet",
        "num_feature_levels": 3,
        "decoder_bbox_embed_share": False,
    },
    "efficientnet_lite, 3 levels": {"backbone": "efficientnet_lite", "num_feature_levels": 3},
    "MM-Grounding-DINO": {"kind": "MMGroundingDino"},
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> GroundingDINO:
    return build_model(save(hugging_face_model(), tmp_path_factory.mktemp("tiny")), device="cpu")


# ---- transformers as the reference ----


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS.keys())
def test_random_models_equal_the_reference(settings, tmp_path):
    reference = hugging_face_model(**settings)
    ours = build_model(save(reference, tmp_path), device="cpu")
    for size in SIZES:
        images = random_images(size)
        for name, input_ids in PROMPTS.items():
            error = difference(run(ours, images, input_ids), run_hugging_face(reference, images[0], input_ids))
            assert error < TOLERANCE, f"{size}, {name}: {error:.1e}"


def test_nano_equals_the_reference_on_the_bundled_scene():
    import transformers

    import grounded_sam2.detectors.efficientnet_lite  # noqa: F401 (a backbone that transformers has not)

    reference = transformers.GroundingDinoForObjectDetection.from_pretrained(NANO_FOLDER, dtype=torch.float32).eval()
    processor = transformers.AutoProcessor.from_pretrained(NANO_FOLDER)
    scene = Image.open(REPOSITORY / "assets" / "scene.jpg").convert("RGB")
    inputs = processor(images=scene, text="red apple. owl. traffic light.", return_tensors="pt")
    ours = build_model(NANO_FOLDER, device="cpu")
    input_ids = inputs["input_ids"][0].tolist()
    image = inputs["pixel_values"][0]
    error = difference(run(ours, [image], input_ids), run_hugging_face(reference, image, input_ids))
    assert error < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["swin_T_224_1k", "swin_B_384_22k"])
def test_full_size_models_equal_the_reference(backbone, load_script, tmp_path):
    parity = load_script("benchmarks/gdino_parity.py")
    reference = parity.random_reference(backbone, seed=0)
    ours = build_model(save(reference, tmp_path), device="cpu")
    prompts = [parity.random_prompt(num_phrases, seed=0) for num_phrases in (1, 20)]
    comparisons = list(parity.compare(reference, ours, random_images((224, 320))[0], prompts))
    assert len(comparisons) == len(prompts)
    for comparison in comparisons:
        assert max(comparison.cells, comparison.logits, comparison.boxes) < 1e-4


# ---- batches ----


def assert_same_rows(batched: DetectorOutput, singles: list[DetectorOutput]) -> None:
    for row, single in enumerate(singles):
        num_queries, num_tokens = single.logits.shape[1:]
        own = DetectorOutput(
            batched.logits[row : row + 1, :num_queries, :num_tokens], batched.boxes_cxcywh[row : row + 1, :num_queries]
        )
        assert difference(own, single) < TOLERANCE
        assert (batched.logits[row, num_queries:] == -torch.inf).all()
        assert (batched.logits[row, :, num_tokens:] == -torch.inf).all()


@pytest.mark.parametrize(
    "sizes",
    [
        ((96, 128),),
        ((96, 128), (96, 128), (96, 128)),
        ((96, 128), (64, 64), (160, 64)),
        ((96, 128), (24, 24), (96, 128)),  # 15 cells for 20 queries
    ],
    ids=str,
)
def test_batched_equals_single(tiny, sizes):
    images = random_images(*sizes)
    prompts = list(PROMPTS.values())[-len(sizes) :]
    singles = [run(tiny, [image], prompt) for image, prompt in zip(images, prompts, strict=True)]
    assert_same_rows(run(tiny, images, *prompts), singles)


def test_an_image_is_encoded_once_for_many_texts_and_texts_are_kept(tiny):
    image = random_images((75, 101))
    prompts = list(PROMPTS.values())
    with torch.inference_mode():
        kept = TextFeatures.stack([tiny.encode_text(texts(prompt)) for prompt in prompts])
        batched = tiny.detect(tiny.encode_images(image).rows([0] * len(prompts)), kept)
    assert_same_rows(batched, [run(tiny, image, prompt) for prompt in prompts])


def test_rows_of_padded_features(tiny):
    images = random_images((96, 128), (64, 80))
    prompts = [PROMPTS["one word"], PROMPTS["many phrases"]]
    with torch.inference_mode():
        image_features, text_features = tiny.encode_images(images), tiny.encode_text(texts(*prompts))
        output = tiny.detect(image_features.rows([1, 0, 1]), text_features.rows([1, 0, 0]))
    pairs = ((1, 1), (0, 0), (1, 0))
    assert_same_rows(output, [run(tiny, [images[i]], prompts[j]) for i, j in pairs])


def test_padding_is_never_proposed_before_an_image_s_own_cells(tiny):
    images = random_images((24, 24), (160, 128))
    with torch.inference_mode():
        features = tiny.encode_images(images)
        text = tiny.encode_text(texts(PROMPTS["one word"], PROMPTS["one word"]))
        proposals = tiny.transformer.propose(features, text)
    num_cells = (~features.padding_mask).sum(dim=1)
    assert num_cells[0] == 15 < tiny.config.num_queries
    assert proposals.query_mask.sum(dim=1).tolist() == [15, tiny.config.num_queries]
    assert proposals.query_mask[0, :15].all()


def test_the_same_call_twice_gives_the_same_numbers(tiny):
    images = random_images((75, 101), (64, 64))
    prompts = [PROMPTS["one word"], PROMPTS["many phrases"]]
    first, second = run(tiny, images, *prompts), run(tiny, images, *prompts)
    assert torch.equal(first.logits, second.logits) and torch.equal(first.boxes_cxcywh, second.boxes_cxcywh)


# ---- precision, gradients, bad input ----


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_a_property_of_the_model(tmp_path, dtype):
    folder = save(hugging_face_model(), tmp_path)
    half, full = build_model(folder, device="cpu", dtype=dtype), build_model(folder, device="cpu")
    assert half.dtype == dtype and full.dtype == torch.float32
    image = random_images((96, 128))
    with torch.inference_mode():
        cells = [model.encode_images(image).cells.float() for model in (half, full)]
        output = half(image, texts(PROMPTS["two phrases"]))
    assert (cells[0] - cells[1]).abs().max() < 0.05 * cells[1].abs().max()
    assert output.logits.dtype == output.boxes_cxcywh.dtype == torch.float32
    assert output.logits.isfinite().all() and output.boxes_cxcywh.isfinite().all()


def test_gradients_reach_every_weight_that_is_used(tmp_path):
    model = build_model(save(hugging_face_model(), tmp_path), device="cpu").train()
    images = random_images((96, 128), (64, 64))
    prompts = [PROMPTS["two phrases"], PROMPTS["one word"]]
    output = model(images, texts(*prompts))
    without_gradients = run(model, images, *prompts)
    real = output.logits.isfinite()
    difference = (output.logits[real] - without_gradients.logits[real]).abs().max()
    assert difference <= 1e-5 * output.logits[real].abs().max()  # float32, summed in another order
    (output.logits[real].square().sum() + output.boxes_cxcywh.sum()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    # proposals and the boxes between layers are detached, as in the paper
    detached = ("transformer.enc_out", "transformer.decoder.bbox_embed.0.", "transformer.decoder.bbox_embed.1.")
    assert all(name.startswith(detached) for name in without), without


def test_bad_input_is_named(tiny):
    image_features = tiny.encode_images(random_images((64, 64)))
    with pytest.raises(ValueError, match="at least one image"):
        tiny.encode_images([])
    with pytest.raises(ValueError, match=r"\(3, H, W\), got \(1, 3, 64, 64\)"):
        tiny.encode_images([torch.zeros(1, 3, 64, 64)])
    with pytest.raises(ValueError, match="at most 32 tokens in a text, got 33"):
        tiny.encode_text(texts([CLS, *[7] * 30, STOP, SEP]))
    with pytest.raises(ValueError, match="got 1 and 2"):
        tiny.detect(image_features, tiny.encode_text(texts(PROMPTS["one word"], PROMPTS["one word"])))


# ---- parts ----


def test_bi_attention_equals_the_formula_with_projected_cells():
    torch.manual_seed(0)
    attention = BiAttention(dim=12, inner_dim=20, num_heads=2).double()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    vision, text = torch.randn(2, 30, 12).double(), torch.randn(2, 5, 12).double()
    padding_mask = torch.zeros(2, 30, dtype=torch.bool)
    padding_mask[1, 20:] = True
    token_mask = torch.ones(2, 5, dtype=torch.bool)
    token_mask[0, 3:] = False

    def heads(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (2, 10)).transpose(1, 2)

    logits = heads(attention.v_proj(vision)) @ heads(attention.l_proj(text)).transpose(2, 3) / 10**0.5
    by_cell = logits.masked_fill(~token_mask[:, None, None], -torch.inf).softmax(-1)
    by_token = logits.masked_fill(padding_mask[:, None, :, None], -torch.inf).softmax(-2).transpose(2, 3)
    expected_vision = attention.out_v_proj((by_cell @ heads(attention.values_l_proj(text))).transpose(1, 2).flatten(2))
    expected_text = attention.out_l_proj((by_token @ heads(attention.values_v_proj(vision))).transpose(1, 2).flatten(2))

    vision_delta, text_delta = attention(vision, text, padding_mask, token_mask)
    assert torch.allclose(vision_delta, expected_vision, atol=1e-12)
    assert torch.allclose(text_delta[token_mask], expected_text[token_mask], atol=1e-12)
    assert text_delta.isfinite().all()


@pytest.mark.parametrize("batch", [1, 2, 9])
def test_encoder_layer_in_blocks_equals_all_at_once(monkeypatch, batch: int):
    """Without gradients a CPU takes a few rows at a time, at least one of each image."""
    torch.manual_seed(0)
    layer = DeformableEncoderLayer(8, num_heads=2, num_levels=2, num_points=1, dim_feedforward=6, layer_norm_eps=1e-5)
    shapes = ((3, 4), (2, 2))
    vision, position = torch.randn(batch, 16, 8), torch.randn(1, 16, 8)
    points, level_sizes = torch.rand(batch, 16, 2, 2), torch.tensor([(4.0, 3.0), (2.0, 2.0)]).expand(batch, 2, 2)
    images = ImageFeatures(vision, position, shapes, level_sizes, torch.rand(batch, 16) > 0.8)
    expected = layer(images, points)
    monkeypatch.setattr(layers, "ROWS_AT_ONCE", 6)
    with torch.inference_mode():
        assert len(layers.row_blocks(vision)) == {1: 3, 2: 6, 9: 16}[batch]
        assert torch.allclose(layer(images, points), expected, atol=1e-6)


def test_sine_encoding_is_that_of_the_paper():
    encoded = sine_encoding(torch.tensor([0.0, 0.25, 3.0]), 8, temperature=20.0)
    for row, value in enumerate((0.0, 0.25, 3.0)):
        for pair in range(4):
            angle = 2 * np.pi * value / 20 ** (2 * pair / 8)
            expected = np.array([np.sin(angle), np.cos(angle)])
            assert np.allclose(encoded[row, 2 * pair : 2 * pair + 2].numpy(), expected, atol=1e-5)


def test_cells_are_encoded_by_row_then_column_and_boxes_by_cy_cx_w_h():
    cells = encode_cells(3, 5, 16, (20.0, 30.0), torch.device("cpu"))
    assert cells.shape == (3, 5, 16)
    assert torch.allclose(cells[1, 4, :8], sine_encoding(torch.tensor(2 / 3), 8, 20.0), atol=1e-5)
    assert torch.allclose(cells[1, 4, 8:], sine_encoding(torch.tensor(1.0), 8, 30.0), atol=1e-5)
    box = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert torch.equal(encode_boxes(box, 6), sine_encoding(box[[1, 0, 2, 3]], 6).flatten())


def test_anchor_boxes_lie_on_the_cells_of_each_image():
    shapes, level_sizes = ((2, 3), (1, 2)), torch.tensor([[(3.0, 2.0), (2.0, 1.0)], [(2.0, 1.0), (1.0, 1.0)]])
    anchors = anchor_boxes(shapes, level_sizes)
    assert anchors.shape == (2, 8, 4)
    assert torch.allclose(anchors[0, 4], torch.tensor([0.5, 0.75, 0.05, 0.05]))
    assert torch.allclose(anchors[1, 1], torch.tensor([0.75, 0.5, 0.05, 0.05]))
    assert torch.allclose(anchors[1, 6], torch.tensor([0.5, 0.5, 0.1, 0.1]))
