"""Real photographs and clips with ground truth: read, split, packed into one file, and cut into sprites.

The data is a folder beside the repository (or the pack made of it) and never part of it. Everything stays compressed in
memory, about 120 MB, and is decoded when it is asked for.

    photos = load_photos(Path("../shared/real"))
    training = [photo for photo in photos if photo.split == "train"]
    python -m training.photos --pack runs/real.pack          # one file of less than 60 MiB, read like the folder
"""

from __future__ import annotations

import argparse
import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle_codec

DEFAULT_FOLDER = Path("../shared/real")
SPLIT_SHARES: tuple[tuple[str, float], ...] = (("train", 0.85), ("choose", 0.05), ("test", 0.10))

VOC_NAMES: frozenset[str] = frozenset(
    """airplane|bicycle|bird|boat|bottle|bus|car|cat|chair|cow|dining table|dog|horse|motorcycle|person|potted plant|
    sheep|sofa|train|tv""".replace("\n    ", "").split("|")
)
COCO_NAMES: frozenset[str] = VOC_NAMES | frozenset(
    """traffic light|fire hydrant|stop sign|parking meter|bench|elephant|bear|zebra|giraffe|backpack|umbrella|handbag|
    tie|suitcase|frisbee|skis|snowboard|sports ball|kite|baseball bat|baseball glove|skateboard|surfboard|
    tennis racket|wine glass|cup|fork|knife|spoon|bowl|banana|apple|sandwich|orange|broccoli|carrot|hot dog|pizza|
    donut|cake|bed|toilet|laptop|mouse|remote|keyboard|cell phone|microwave|oven|toaster|sink|refrigerator|book|
    clock|vase|scissors|teddy bear|hair drier|toothbrush|truck""".replace("\n    ", "").split("|")
)
FRUIT_NAMES: frozenset[str] = frozenset({"apple", "banana", "orange"})
VOCABULARY_OF_SET: dict[str, frozenset[str]] = {"voc": VOC_NAMES, "coco": COCO_NAMES, "fruit": FRUIT_NAMES}

PACK_PHOTO_QUALITY, PACK_FRAME_QUALITY = 70, 50  # of WebP

MIN_CUT_OUT_SIDE = 40  # pixels, the longer side
MIN_CUT_OUT_PIXELS = 500
MOST_BORDER = 0.25  # of the square root of a cut-out's area may lie on the photograph's border
LEAST_IN_ONE_PIECE = 0.9  # of a cut-out's pixels in its largest connected part


# ---- photographs ----


@dataclass
class Photo:
    """One photograph and its labelled objects; N of them, possibly none.

    Attributes:
        name: the file's name without its ending, unique in the set; it decides the split.
        jpeg: the compressed image (WebP in a pack).
        size: (height, width) in pixels.
        names: N lower-case nouns.
        boxes_xyxy: (N, 4) float32 in pixels, right and bottom edges exclusive.
        rles: N compressed run-length masks of pycocotools, or None where only a box is known.
        kinds: N of None (one object), "component" (a connected part of a class mask, which may join two touching
            objects) or "region" (a garment).
        crowd: (N,) bool, one box around many objects.
        complete: all objects of the set's vocabulary are labelled.
        licence: of the photograph and its labels.
    """

    name: str
    jpeg: bytes
    size: tuple[int, int]
    names: list[str]
    boxes_xyxy: np.ndarray
    rles: list[dict[str, Any] | None]
    kinds: list[str | None]
    crowd: np.ndarray
    complete: bool
    licence: str

    @property
    def image(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, decoded at each call."""
        return decode_image(self.jpeg, self.name)

    @property
    def half_image(self) -> np.ndarray:
        """The image at half its size, rounded up, which is decoded in half the time."""
        return decode_image(self.jpeg, self.name, cv2.IMREAD_REDUCED_COLOR_2)

    @cached_property
    def split(self) -> str:
        """ "train", "choose" (thresholds are chosen on it) or "test" (reported, never trained on)."""
        return split_of(self.name)

    @property
    def vocabulary(self) -> frozenset[str]:
        """The names whose absence from `names` means that the photograph does not show them; empty if not complete."""
        return VOCABULARY_OF_SET.get(self.name.partition("_")[0], frozenset()) if self.complete else frozenset()

    def mask(self, index: int) -> np.ndarray | None:
        """(H, W) bool, decoded at each call, or None where only the box is known."""
        rle = self.rles[index]
        return None if rle is None else rle_codec.decode(rle).astype(bool)


def split_of(name: str) -> str:
    """The split of a photograph, by a hash of its name alone: the same on every machine and for every selection."""
    position = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    for split, share in SPLIT_SHARES:
        if position < share:
            return split
        position -= share
    return SPLIT_SHARES[-1][0]


def decode_image(encoded: bytes, name: str, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a compressed image.

    Raises:
        ValueError: not an image; names it.
    """
    bgr = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if bgr is None:
        raise ValueError(f"{name} is not an image that can be decoded")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


class _Files:
    """The files of a data folder, or of a pack of it."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; name the folder of the real photographs, or a pack of it")
        self.folder = path
        self.archive = zipfile.ZipFile(path) if path.is_file() else None

    def read(self, name: str) -> bytes:
        return self.archive.read(name) if self.archive else (self.folder / name).read_bytes()

    def records(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.read(name).decode().splitlines() if line.strip()]


def load_photos(path: Path = DEFAULT_FOLDER) -> list[Photo]:
    """All photographs of a data folder or pack, in the order of its `photos.jsonl`.

    Raises:
        FileNotFoundError: nothing there.
    """
    files = _Files(path)
    return [_read_photo(record, files.read(record["image"])) for record in files.records("photos.jsonl")]


def _read_photo(record: dict[str, Any], jpeg: bytes) -> Photo:
    objects = record["objects"]
    return Photo(
        name=Path(record["image"]).stem,
        jpeg=jpeg,
        size=(record["height"], record["width"]),
        names=[item["name"] for item in objects],
        boxes_xyxy=np.array([item["bbox"] for item in objects], np.float32).reshape(-1, 4),
        rles=[item.get("segmentation") for item in objects],
        kinds=[item.get("kind") for item in objects],
        crowd=np.array([bool(item.get("crowd")) for item in objects], bool),
        complete=bool(record["complete"]),
        licence=record.get("licence", ""),
    )


def frequent_names(photos: Sequence[Photo], most: int) -> list[str]:
    """The `most` names with the most objects, most frequent first; garments and crowds do not count."""
    counts: Counter[str] = Counter()
    for photo in photos:
        counts.update(
            name
            for name, kind, crowd in zip(photo.names, photo.kinds, photo.crowd, strict=True)
            if kind != "region" and not crowd
        )
    return [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]]


# ---- clips ----


@dataclass
class Clip:
    """Consecutive frames of a video in which one object is masked.

    Attributes:
        name: of the sequence.
        noun: what the object is; "person + bicycle" where the mask joins two things.
        single_noun: whether the mask covers one thing only.
        split: "train" or "val"; never train on "val".
        frame_files: T compressed frames.
        mask_files: T compressed masks.
        licence: of the sequence.
    """

    name: str
    noun: str
    single_noun: bool
    split: str
    frame_files: list[bytes]
    mask_files: list[bytes]
    licence: str

    def __len__(self) -> int:
        return len(self.frame_files)

    def frame(self, frame_idx: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB, decoded at each call."""
        return decode_image(self.frame_files[frame_idx], f"frame {frame_idx} of {self.name}")

    def mask(self, frame_idx: int) -> np.ndarray:
        """(H, W) bool, decoded at each call; all False while the object is out of sight."""
        mask = cv2.imdecode(np.frombuffer(self.mask_files[frame_idx], np.uint8), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            raise ValueError(f"mask {frame_idx} of {self.name} is not an image that can be decoded")
        return mask > 0


def load_clips(path: Path = DEFAULT_FOLDER, split: str | None = None) -> list[Clip]:
    """The clips of a data folder or pack, all of them or those of one split.

    Raises:
        FileNotFoundError: nothing there.
    """
    files = _Files(path)
    clips = []
    for record in files.records("clips.jsonl"):
        if split in (None, record["split"]):
            folder, indices = record["clip"], range(record["frames"])
            clips.append(
                Clip(
                    name=Path(folder).name,
                    noun=record["name"],
                    single_noun=bool(record["single_noun"]),
                    split=record["split"],
                    frame_files=[files.read(f"{folder}/frames/{index:05d}.jpg") for index in indices],
                    mask_files=[files.read(f"{folder}/masks/{index:05d}.png") for index in indices],
                    licence=record.get("licence", ""),
                )
            )
    return clips


def mask_box(mask: np.ndarray) -> np.ndarray:
    """(4,) float32 xyxy around the True pixels, right and bottom edges exclusive; zeros if there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return np.zeros(4, np.float32)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


# ---- sprites ----


@dataclass(frozen=True)
class CutOut:
    """One well-cut object of a photograph.

    Attributes:
        photo: where it lies.
        index: its index among the photograph's objects.
        name: its noun.
    """

    photo: Photo
    index: int
    name: str

    def rgba(self) -> np.ndarray:
        """(h, w, 4) uint8 RGB and alpha, cropped to the object; the alpha's edge is soft and a little inside the mask,
        so that no rim of the old background shows. Decoded at each call."""
        mask = self.photo.mask(self.index)
        if mask is None:
            raise ValueError(f"object {self.index} of {self.photo.name} has no mask")
        x1, y1, x2, y2 = mask_box(mask).astype(int)
        padded = np.pad(mask[y1:y2, x1:x2].astype(np.float32), 2, mode="edge")
        soft = cv2.GaussianBlur(padded, (0, 0), 1.0)[2:-2, 2:-2]
        alpha = np.clip((soft - 0.4) / 0.5, 0, 1) * 255
        return np.dstack([self.photo.image[y1:y2, x1:x2], alpha.astype(np.uint8)])


def cut_outs(photos: Iterable[Photo]) -> list[CutOut]:
    """Objects that can stand elsewhere: masked, single, not a garment, large enough, in one piece and whole.

    Parts of class masks ("component") are left out because they may join or halve objects.
    """
    kept = []
    for photo in photos:
        for index, name in enumerate(photo.names):
            if photo.kinds[index] is None and not photo.crowd[index]:
                mask = photo.mask(index)
                if mask is not None and is_well_cut(mask):
                    kept.append(CutOut(photo, index, name))
    return kept


def is_well_cut(mask: np.ndarray) -> bool:
    """Whether an object's (H, W) bool mask is large enough, in one piece, and hardly cut off by the image's border."""
    num_pixels = int(mask.sum())
    x1, y1, x2, y2 = mask_box(mask)
    if num_pixels < MIN_CUT_OUT_PIXELS or max(x2 - x1, y2 - y1) < MIN_CUT_OUT_SIDE:
        return False
    on_border = max(mask[:2].any(0).sum(), mask[-2:].any(0).sum(), mask[:, :2].any(1).sum(), mask[:, -2:].any(1).sum())
    if on_border > MOST_BORDER * num_pixels**0.5:
        return False
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return bool(stats[1:, cv2.CC_STAT_AREA].max() >= LEAST_IN_ONE_PIECE * num_pixels)


# ---- one file ----


def write_pack(path: Path, pack_path: Path, with_test: bool = False) -> None:
    """Write what training needs into one file that `load_photos` and `load_clips` read like the folder.

    Args:
        path: the data folder.
        pack_path: the file to write; it is complete or absent.
        with_test: also the photographs of the test split and the clips of the val split, for scoring elsewhere.
    """
    files = _Files(path)
    pack_path.parent.mkdir(parents=True, exist_ok=True)
    partial = pack_path.with_name(pack_path.name + ".part")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        photo_lines = []
        for record in files.records("photos.jsonl"):
            if with_test or split_of(Path(record["image"]).stem) != "test":
                archive.writestr(
                    record["image"], _shrink(files.read(record["image"]), record["image"], PACK_PHOTO_QUALITY)
                )
                photo_lines.append({key: value for key, value in record.items() if key != "source"})
        clip_records = [record for record in files.records("clips.jsonl") if with_test or record["split"] != "val"]
        for record in clip_records:
            for index in range(record["frames"]):
                frame, mask = f"{record['clip']}/frames/{index:05d}.jpg", f"{record['clip']}/masks/{index:05d}.png"
                archive.writestr(frame, _shrink(files.read(frame), frame, PACK_FRAME_QUALITY))
                archive.writestr(mask, files.read(mask))
        for name, lines in (("photos.jsonl", photo_lines), ("clips.jsonl", clip_records)):
            archive.writestr(name, "".join(json.dumps(line) + "\n" for line in lines), zipfile.ZIP_DEFLATED)
    partial.replace(pack_path)


def _shrink(encoded: bytes, name: str, quality: int) -> bytes:
    """The image compressed more at the same size, as boxes and masks are in its pixels."""
    bgr = cv2.cvtColor(decode_image(encoded, name), cv2.COLOR_RGB2BGR)
    smaller = cv2.imencode(".webp", bgr, [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()
    return min(encoded, smaller, key=len)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, default=DEFAULT_FOLDER, help="the data folder")
    parser.add_argument("--pack", type=Path, help="write this file instead of printing what there is")
    parser.add_argument("--with-test", action="store_true", help="pack what is only for scoring too")
    arguments = parser.parse_args()
    if arguments.pack:
        write_pack(arguments.real, arguments.pack, arguments.with_test)
        print(f"{arguments.pack}: {arguments.pack.stat().st_size / 2**20:.1f} MiB")
        return
    photos, clips = load_photos(arguments.real), load_clips(arguments.real)
    print(f"{len(photos)} photographs, {dict(Counter(photo.split for photo in photos))}; {len(clips)} clips")
    print(f"cut-outs: {Counter(cut_out.name for cut_out in cut_outs(photos)).most_common()}")


if __name__ == "__main__":
    main()
