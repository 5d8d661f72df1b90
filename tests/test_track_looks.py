"""What objects look like: colours by hand, patch features beside the model itself, and what is remembered of them."""

from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    DINOv3ViTConfig,
    DINOv3ViTImageProcessor,
    DINOv3ViTModel,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
)

from grounded_sam2.track.looks import COLOURS, Descriptor, Pointers, make_descriptor
from grounded_sam2.track.object_track import Track, TrackState, unit
from grounded_sam2.track.patch_looks import PatchFeatures
from grounded_sam2.track.rules import IdentityRules
from grounded_sam2.track.seen import Proposed

RED, GREEN, GREY = (255, 0, 0), (0, 255, 0), (128, 128, 128)
SIDE = 64  # of what the tiny models take, in patches of 16


def striped(*colours: tuple[int, int, int]) -> np.ndarray:
    """An image (8, 8 per colour, 3) of upright stripes."""
    return np.repeat(np.array([colours], np.uint8), 8, axis=1).repeat(8, axis=0)


def stripes(count: int, *shown: int) -> np.ndarray:
    """The mask (8, 8 count) of some of the stripes."""
    return np.repeat(np.isin(np.arange(count), shown)[None], 8, axis=0).repeat(8, axis=1)


def test_colours_are_compared_by_the_share_of_pixels_that_they_have_in_common() -> None:
    """The cosine of two histograms' roots is the sum of sqrt(p q): 1 of equal ones, 0 of disjoint ones."""
    masks = np.stack([stripes(3, 0), stripes(3, 0, 1), stripes(3, 0, 1, 2), stripes(3, 2)])
    looks = unit(COLOURS.describe(striped(RED, GREEN, GREY), Proposed(masks)))
    expected = {
        (0, 0): 1,
        (0, 1): 0.5**0.5,
        (0, 2): (1 / 3) ** 0.5,
        (0, 3): 0,
        (1, 2): 2 * (1 / 6) ** 0.5,
        (2, 3): 3**-0.5,
    }
    for (one, other), cosine in expected.items():
        assert looks[one] @ looks[other] == pytest.approx(cosine, abs=1e-6)


def test_colours_do_not_depend_on_place_and_size() -> None:
    near, far = striped(RED, GREEN, GREY), np.kron(striped(GREY, RED, GREEN), np.ones((3, 3, 1), np.uint8))
    one = COLOURS.describe(near, Proposed(stripes(3, 0, 1)[None]))
    other = COLOURS.describe(far, Proposed(np.kron(stripes(3, 1, 2), np.ones((3, 3), bool))[None]))
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert COLOURS.describe(near, Proposed(np.zeros((0, 8, 24), bool))).shape == (0, one.shape[1])


def test_pointers_are_those_of_the_follower() -> None:
    pointers = np.eye(2, 5, dtype=np.float32)
    masks = np.ones((2, 4, 4), bool)
    image = np.zeros((4, 4, 3), np.uint8)
    assert Pointers().describe(image, Proposed(masks, descriptors=pointers)) is pointers
    assert Pointers().describe(image, Proposed(masks)) is None
    assert Pointers("a").name != Pointers("b").name


# ---- what is remembered ----


def learned(looks: list[np.ndarray], clear: list[bool] | None = None, most: int = 3) -> np.ndarray:
    track = Track(1, TrackState.ACTIVE, {0: 1.0}, 1.0, 0, 0, deque(maxlen=3))
    for look, is_clear in zip(looks, clear or [True] * len(looks), strict=True):
        track.learn_look(look, is_clear, IdentityRules(max_looks=most))
    assert track.looks is not None
    return track.looks


def test_the_looks_that_differ_most_are_remembered() -> None:
    """Of directions at 0°, 90°, 180° and a fourth one, the older of the two nearest to each other goes."""

    def direction(degrees: float) -> np.ndarray:
        return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])

    kept = learned([2 * direction(angle) for angle in (0, 90, 180, 85)])
    np.testing.assert_allclose(kept, [direction(angle) for angle in (0, 180, 85)], atol=1e-6)


def test_a_poor_view_is_remembered_until_there_is_a_good_one() -> None:
    first, second, third, fourth = np.eye(4)
    np.testing.assert_array_equal(learned([first, second], [False, False]), [second])
    np.testing.assert_array_equal(learned([first, second, third, fourth], [False, True, False, True]), [second, fourth])


def test_memory_of_looks_stays_flat() -> None:
    rng = np.random.default_rng(0)
    assert learned(list(rng.normal(size=(200, 6))), most=8).shape == (8, 6)


# ---- models of images, tiny and random, in the folders that the hub has ----


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.manual_seed(0)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    vision = {**size, "image_size": SIDE, "patch_size": 16}
    text = {**size, "vocab_size": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    models = {
        "dinov3": DINOv3ViTModel(DINOv3ViTConfig(**vision, num_register_tokens=4)),
        "siglip": SiglipModel(SiglipConfig(text_config=text, vision_config=vision)),
    }
    found = {}
    for name, model in models.items():
        found[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(found[name])
        kind = DINOv3ViTImageProcessor if name == "dinov3" else SiglipImageProcessor
        kind(size={"height": SIDE, "width": SIDE}).save_pretrained(found[name])
    return found


def patch_tokens(folder: Path, kind: str, image: np.ndarray) -> np.ndarray:
    """(4, 4, C) of an image (64, 64, 3) by the classes of transformers, whose preprocessing has nothing to scale."""
    model = (DINOv3ViTModel if kind == "dinov3" else SiglipModel).from_pretrained(folder)
    processor = (DINOv3ViTImageProcessor if kind == "dinov3" else SiglipImageProcessor).from_pretrained(folder)
    pixels = processor(images=[image], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        tokens = (model if kind == "dinov3" else model.vision_model)(pixel_values=pixels).last_hidden_state[0]
    return tokens[5 if kind == "dinov3" else 0 :].reshape(4, 4, -1).numpy()  # behind [CLS] and four registers


@pytest.mark.parametrize("kind", ["dinov3", "siglip"])
def test_patch_features_are_means_of_the_patches_that_the_mask_covers(
    kind: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The square around these masks is the whole image: one covers two patches and a half, the other all of them."""
    monkeypatch.setattr("grounded_sam2.track.patch_looks._SURROUND", 1.0)
    image = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    masks = np.zeros((2, SIDE, SIDE), bool)
    masks[0, :16, :16] = masks[0, 48:, 48:] = masks[0, 16:32, :8] = True
    masks[1] = True
    descriptor: Descriptor = PatchFeatures(folders[kind], batch_size=1)
    looks = descriptor.describe(image, Proposed(masks))
    tokens = patch_tokens(folders[kind], kind, image)
    expected = [(tokens[0, 0] + tokens[3, 3] + tokens[1, 0] / 2) / 2.5, tokens.mean((0, 1))]
    np.testing.assert_allclose(looks, expected, rtol=1e-4, atol=1e-4)
    assert looks is not None and descriptor.describe(image, Proposed(masks[:0])).shape == (0, looks.shape[1])  # type: ignore[union-attr]


def test_an_object_on_the_edge_of_a_frame_is_described(folders: dict[str, Path]) -> None:
    image = np.random.default_rng(1).integers(0, 256, (20, 90, 3), dtype=np.uint8)
    masks = np.zeros((2, 20, 90), bool)
    masks[0, 5:9, :3] = masks[1, :, 80:] = True
    looks = PatchFeatures(folders["dinov3"]).describe(image, Proposed(masks))
    assert looks.shape == (2, 16) and np.isfinite(looks).all()


def test_what_looks_are_called(folders: dict[str, Path], tmp_path: Path) -> None:
    weights = tmp_path / "sam2.pt"
    weights.write_bytes(b"weights")
    assert make_descriptor(None, weights) is None and make_descriptor("colours", weights) is COLOURS
    pointers = make_descriptor("pointers", weights)
    assert isinstance(pointers, Pointers)
    weights.write_bytes(b"other weights")
    assert make_descriptor("pointers", weights) != pointers
    of_model = make_descriptor(str(folders["dinov3"]), weights)
    assert of_model is not None and of_model.name.startswith("dinov3_vit ")
    assert of_model.name == PatchFeatures(folders["dinov3"]).name != PatchFeatures(folders["siglip"]).name


def test_looks_that_are_none_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected looks by colours, pointers, none, or a folder .* got 'colour'"):
        make_descriptor("colour", "sam2.pt")
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        make_descriptor(str(tmp_path), "sam2.pt")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="a model of type 'bert', expected dinov2"):
        make_descriptor(str(tmp_path), "sam2.pt")
    (tmp_path / "config.json").write_bytes((folders["dinov3"] / "config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match="is not a complete model of images folder"):
        make_descriptor(str(tmp_path), "sam2.pt")
