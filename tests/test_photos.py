"""The reader of real photographs: splits, masks, cut-outs, clips and the pack, on folders made here."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle_codec

from training.photos import (
    COCO_NAMES,
    DEFAULT_FOLDER,
    VOC_NAMES,
    Photo,
    cut_outs,
    frequent_names,
    is_well_cut,
    load_clips,
    load_photos,
    mask_box,
    split_of,
    write_pack,
)


def encode(mask: np.ndarray) -> dict:
    rle = rle_codec.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def disc(height: int, width: int, centre: tuple[int, int], radius: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return (rows - centre[1]) ** 2 + (columns - centre[0]) ** 2 <= radius**2


@pytest.fixture(scope="module")
def real_folder(tmp_path_factory) -> Path:
    """Two photographs and one clip in the layout of the real data."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    mask = disc(120, 160, (70, 60), 30)
    records = []
    for index in range(2):
        name = f"photos/{'voc' if index == 0 else 'wild'}_{index}.jpg"
        cv2.imwrite(str(folder / name), rng.integers(0, 255, (120, 160, 3), np.uint8))
        objects = [
            {"name": "dog", "bbox": [40, 30, 101, 91], "segmentation": encode(mask)},
            {"name": "person", "bbox": [0, 0, 20, 20], "segmentation": None, "crowd": True},
            {"name": "dress", "bbox": [40, 30, 101, 91], "segmentation": encode(mask), "kind": "region"},
        ]
        records.append(
            {
                "image": name,
                "width": 160,
                "height": 120,
                "objects": objects if index == 0 else [],
                "complete": index == 0,
                "source": "made",
                "licence": "none",
            }
        )
    (folder / "photos.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    for kind in ("frames", "masks"):
        (folder / "clips/ball" / kind).mkdir(parents=True)
    for index in range(3):
        moved = disc(60, 80, (20 + 10 * index, 30), 8)
        cv2.imwrite(str(folder / f"clips/ball/frames/{index:05d}.jpg"), rng.integers(0, 255, (60, 80, 3), np.uint8))
        cv2.imwrite(str(folder / f"clips/ball/masks/{index:05d}.png"), moved.astype(np.uint8))
    clip = {"clip": "clips/ball", "frames": 3, "split": "train", "name": "ball", "single_noun": True}
    (folder / "clips.jsonl").write_text(json.dumps(clip) + "\n")
    return folder


def test_photos_are_read(real_folder):
    first, second = load_photos(real_folder)
    assert first.image.shape == (120, 160, 3) and first.size == (120, 160)
    assert first.names == ["dog", "person", "dress"] and first.crowd.tolist() == [False, True, False]
    mask = first.mask(0)
    assert mask is not None and mask.dtype == bool
    np.testing.assert_array_equal(mask_box(mask), first.boxes_xyxy[0])
    assert first.mask(1) is None
    assert first.vocabulary == VOC_NAMES and not second.vocabulary
    assert second.names == [] and second.boxes_xyxy.shape == (0, 4) and not second.crowd.any()


def test_the_pack_reads_like_the_folder(real_folder, tmp_path):
    write_pack(real_folder, tmp_path / "deep" / "real.pack", with_test=True)
    for packed, whole in zip(load_photos(tmp_path / "deep" / "real.pack"), load_photos(real_folder), strict=True):
        assert packed.name == whole.name and packed.names == whole.names and packed.split == whole.split
        assert packed.image.shape == whole.image.shape
        np.testing.assert_array_equal(packed.boxes_xyxy, whole.boxes_xyxy)
    (clip,) = load_clips(tmp_path / "deep" / "real.pack")
    assert len(clip) == 3 and clip.frame(0).shape == (60, 80, 3)


def test_the_pack_leaves_the_test_split_out(real_folder, tmp_path):
    write_pack(real_folder, tmp_path / "real.pack")
    kept = {photo.name for photo in load_photos(real_folder) if photo.split != "test"}
    assert {photo.name for photo in load_photos(tmp_path / "real.pack")} == kept


def test_clips_are_read(real_folder):
    (clip,) = load_clips(real_folder, "train")
    assert (clip.name, clip.noun, clip.single_noun, len(clip)) == ("ball", "ball", True, 3)
    assert mask_box(clip.mask(2)).tolist() == [32, 22, 49, 39]
    assert load_clips(real_folder, "val") == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_photos(tmp_path / "nowhere")


def test_the_split_depends_on_the_name_alone():
    shares = Counter(split_of(f"photo_{index}") for index in range(4000))
    assert split_of("voc_2008_000001") == split_of("voc_2008_000001")
    assert shares["train"] / 4000 == pytest.approx(0.85, abs=0.02)
    assert shares["choose"] / 4000 == pytest.approx(0.05, abs=0.01)


def test_vocabularies():
    assert len(VOC_NAMES) == 20 and len(COCO_NAMES) == 80 and VOC_NAMES < COCO_NAMES


def test_frequent_names_leave_garments_and_crowds_out(real_folder):
    assert frequent_names(load_photos(real_folder), 5) == ["dog"]


def test_cut_outs(real_folder):
    (sprite,) = cut_outs(load_photos(real_folder))
    rgba = sprite.rgba()
    assert sprite.name == "dog" and rgba.shape == (61, 61, 4)
    assert rgba[30, 30, 3] == 255 and rgba[0, 0, 3] == 0


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.zeros((90, 90), bool), False),
        (disc(90, 90, (45, 45), 25), True),
        (disc(90, 90, (45, 45), 8), False),  # small
        (disc(90, 90, (10, 45), 25), False),  # cut off
        (disc(90, 190, (40, 45), 25) | disc(90, 190, (140, 45), 25), False),  # two pieces
    ],
)
def test_well_cut(mask, expected):
    assert is_well_cut(mask) is expected


@pytest.mark.slow
@pytest.mark.skipif(not DEFAULT_FOLDER.exists(), reason="the real photographs are not there")
def test_real_photographs():
    photos: list[Photo] = load_photos()
    assert len({photo.name for photo in photos}) == len(photos) > 3000
    for photo in photos[::100]:
        assert photo.image.shape[:2] == photo.size
        for index, box in enumerate(photo.boxes_xyxy):
            mask = photo.mask(index)
            if mask is not None:
                assert np.abs(mask_box(mask) - box).max() <= 3
