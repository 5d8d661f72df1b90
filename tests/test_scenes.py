"""Scenes: the same seed gives the same scene, and what is said of it is true."""

from __future__ import annotations

import numpy as np
import pytest

from training.artwork import COMPLETE_STYLES, STYLES, load_sprites
from training.scenes import CLIP_KINDS, NOUNS, TRAIN_STYLES, UNSEEN_STYLE, Scene, make_clip, make_scene


def check_truth(scene: Scene, size: tuple[int, int]) -> None:
    """Shapes and dtypes, masks that do not overlap, and boxes tight around them."""
    count = len(scene.phrases)
    assert scene.image.shape == (*size, 3) and scene.image.dtype == np.uint8
    assert scene.masks.shape == (count, *size) and scene.masks.dtype == bool
    assert scene.boxes_xyxy.shape == (count, 4) and scene.boxes_xyxy.dtype == np.float32
    assert scene.ids.tolist() == list(range(1, count + 1))
    assert set(scene.phrases) <= set(NOUNS)
    assert scene.masks.sum(0).max(initial=0) <= 1
    for mask, box in zip(scene.masks, scene.boxes_xyxy, strict=True):
        if not mask.any():
            assert not box.any()
            continue
        left, top, right, bottom = box.astype(int)
        assert mask.sum() == mask[top:bottom, left:right].sum()
        assert mask[top].any() and mask[bottom - 1].any() and mask[:, left].any() and mask[:, right - 1].any()


def test_there_are_enough_nouns_in_every_style() -> None:
    assert len(NOUNS) >= 60 and {"red apple", "green apple"} <= set(NOUNS)
    assert UNSEEN_STYLE not in TRAIN_STYLES
    for style in STYLES:
        sprites = load_sprites(style)
        assert list(sprites) == [noun for noun in NOUNS if noun in sprites] and len(sprites) >= 40
        assert style not in (*COMPLETE_STYLES, UNSEEN_STYLE) or len(sprites) == len(NOUNS)
        assert all(sprite.dtype == np.uint8 and (sprite[..., 3] > 127).mean() > 0.1 for sprite in sprites.values())


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("size", [(192, 192), (90, 160), (160, 90)])
def test_scene_is_true_and_repeatable(split: str, size: tuple[int, int]) -> None:
    for seed in range(6):
        scene, again = (make_scene(seed, size, split) for _ in range(2))
        check_truth(scene, size)
        assert np.array_equal(scene.image, again.image) and np.array_equal(scene.masks, again.masks)
        assert scene.phrases == again.phrases
        assert scene.masks.any((1, 2)).all()  # nothing that cannot be seen is named


def test_splits_and_seeds_differ() -> None:
    images = [make_scene(seed, split=split).image for seed in (0, 1) for split in ("train", "heldout")]
    for i, image in enumerate(images):
        assert all(np.abs(image.astype(int) - other).mean() > 5 for other in images[:i])


@pytest.mark.parametrize(("fewest", "most"), [(0, 0), (1, 1), (3, 3), (12, 12)])
def test_number_of_objects(fewest: int, most: int) -> None:
    scenes = [make_scene(seed, num_objects=(fewest, most)) for seed in range(4)]
    for scene in scenes:
        check_truth(scene, (192, 192))
        assert min(fewest, 1) <= len(scene.phrases) <= most
    assert sum(len(scene.phrases) for scene in scenes) >= 0.9 * 4 * fewest  # one that cannot be seen is not named


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_clip_is_true_and_repeatable(kind: str) -> None:
    frames, again = (list(make_clip(3, 9, (96, 128), kind=kind)) for _ in range(2))
    assert len(frames) == 9
    for scene, same in zip(frames, again, strict=True):
        check_truth(scene, (96, 128))
        assert scene.phrases == frames[0].phrases
        assert np.array_equal(scene.image, same.image) and np.array_equal(scene.masks, same.masks)


def test_clip_kinds_do_what_they_say() -> None:
    """Over some seeds: crossings touch, twins look alike, occluded and leaving objects vanish and come back."""
    for seed in range(4):
        crossing = next(make_clip(seed, 9, kind="crossing"))
        assert crossing.phrases[0] != crossing.phrases[1]
        twins = next(make_clip(seed, 9, kind="twins"))
        assert twins.phrases[0] == twins.phrases[1]

    def returns(kind: str, seed: int) -> bool:
        visible = [bool(scene.masks[0].any()) for scene in make_clip(seed, 24, (96, 96), kind=kind)]
        return visible[0] and visible[-1] and not all(visible)

    assert sum(returns("reentry", seed) for seed in range(12)) >= 6
    assert sum(returns("occlusion", seed) for seed in range(40)) >= 5  # it is hidden altogether in one of four


def test_a_clip_without_objects_has_empty_arrays() -> None:
    scene = next(make_clip(0, 2, kind="drift", num_objects=(0, 0)))
    check_truth(scene, (192, 192))
    assert scene.phrases == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "test"}, "split must be one of train, heldout, got 'test'"),
        ({"styles": ("oil",)}, "styles must be some of"),
        ({"num_objects": (3, 1)}, "num_objects must be"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_scene(0, **arguments)


def test_bad_clip_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        make_clip(0, 5, kind="dance")
    with pytest.raises(ValueError, match="num_frames must be at least 1, got 0"):
        make_clip(0, 0)


def test_only_nouns_that_a_style_draws_are_shown() -> None:
    drawn = set(load_sprites("streamline"))
    assert drawn < set(NOUNS)
    shown = {phrase for seed in range(8) for phrase in make_scene(seed, styles=("streamline",)).phrases}
    assert shown and shown <= drawn


def test_objects_of_a_chosen_size_and_kind() -> None:
    scene = make_scene(3, (300, 400), num_objects=(6, 6), stretch=1.0, extents=(0.1, 0.15), nouns=("dog", "crown"))
    assert len(scene.phrases) > 2 and set(scene.phrases) <= {"dog", "crown"}
    sides = (scene.boxes_xyxy[:, 2:] - scene.boxes_xyxy[:, :2]).max(axis=1)
    assert (sides <= 0.15 * 300 * 2**0.5 + 2).all()  # turned by 45 degrees at most
