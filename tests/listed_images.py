"""Small images in a folder, good and bad ones, and how a list has them."""

from pathlib import Path

import numpy as np

from grounded_sam2.batch import ListedImage
from grounded_sam2.images import write_image
from grounded_sam2.prompts import Prompt

PROMPT = "dog. tree."
PHRASES = ("dog", "tree")


def write_images(folder: Path, *names: str) -> list[Path]:
    for index, name in enumerate(names):
        write_image(folder / name, np.full((20 + index, 30, 3), 10 * index, np.uint8))
    return [folder / name for name in names]


def listed_as(*names: str, folder: Path = Path()) -> list[ListedImage]:
    return [ListedImage(folder / name, name, name.rpartition(".")[0], Prompt(PHRASES)) for name in names]


def write_bad_images(folder: Path) -> dict[str, str]:
    """Files that are no images to work on, and what is said about each."""
    [whole] = write_images(folder, "whole.jpg")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    write_image(whole, noise)
    (folder / "truncated.jpg").write_bytes(whole.read_bytes()[:2000])
    whole.unlink()
    (folder / "text.jpg").write_text("this is no picture", encoding="utf-8")
    (folder / "empty.jpg").touch()
    write_image(folder / "dot.png", np.zeros((1, 1, 3), np.uint8))
    write_image(folder / "strip.png", np.zeros((3, 500, 3), np.uint8))
    return {
        "truncated.jpg": "is a damaged image",
        "text.jpg": "is not an image",
        "empty.jpg": "is not an image that can be read (0 bytes)",
        "dot.png": "has 1x1 pixels, expected 4 a side at least",
        "strip.png": "has 500x3 pixels",
        "gone.jpg": "no such image",
    }
