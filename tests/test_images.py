"""Still images of every kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clips import cut, picture
from PIL import Image

from grounded_sam2.images import read_image, write_image
from grounded_sam2.video import open_frames


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 100, (100, 100, 100)),
        ("1", 1, (255, 255, 255)),
        ("LA", (100, 255), (100, 100, 100)),
        ("RGB", (200, 30, 60), (200, 30, 60)),
        ("RGBA", (200, 30, 60, 255), (200, 30, 60)),
        ("RGBA", (200, 30, 60, 0), (255, 255, 255)),
        ("I;16", 65535, (255, 255, 255)),
        ("I;16", 25700, (100, 100, 100)),
        ("P", 0, (0, 0, 0)),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (5, 3)])
def test_images_of_every_kind(tmp_path: Path, mode: str, value, expected, size) -> None:
    Image.new(mode, size, value).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.shape == (size[1], size[0], 3) and image.dtype == np.uint8 and image.flags.writeable
    assert image[0, 0].tolist() == list(expected)


def test_cmyk_jpeg(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg")
    red, green, blue = read_image(tmp_path / "a.jpg")[4, 4]
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize(("orientation", "quarter_turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_exif_orientation(tmp_path: Path, orientation: int, quarter_turns: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(picture(5)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(picture(5), quarter_turns))
    assert open_frames(tmp_path / "a.png").num_frames == 1


def test_bad_images(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such image"):
        read_image(tmp_path / "no.jpg")
    with pytest.raises(ValueError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "text.jpg").write_text("hello")
    with pytest.raises(ValueError, match="is not an image"):
        read_image(tmp_path / "text.jpg")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "cut.jpg")
    cut(tmp_path / "cut.jpg", 2000)
    with pytest.raises(ValueError, match=r"cut\.jpg is a damaged image"):
        read_image(tmp_path / "cut.jpg")


def test_write_image_round_trip_and_refusals(tmp_path: Path) -> None:
    write_image(tmp_path / "new" / "a.png", picture(3))
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), picture(3))
    with pytest.raises(ValueError, match="expected one of"):
        write_image(tmp_path / "a.xyz", picture(3))
    with pytest.raises(ValueError, match=r"expected RGB uint8 \(H, W, 3\), got float64"):
        write_image(tmp_path / "a.png", picture(3) / 255)
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        (tmp_path / "folder.png").mkdir()
        write_image(tmp_path / "folder.png", picture(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.png", "new"]
