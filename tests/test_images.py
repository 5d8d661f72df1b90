"""Still images of every kind."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from clips import cut, picture
from PIL import Image

from grounded_sam2.batch import list_images, read_batches
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


# ---- files that are damaged, or are no files ----

CASES = Path(__file__).parents[2] / "shared" / "cases"


def png_of(width: int, height: int) -> bytes:
    """A PNG of black pixels, of which no more is made than is in the file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("no 'x'"), RuntimeError("bad\nlines"), NotImplementedError("kind 11"), MemoryError(),
        KeyError(5), IndexError("out"), TypeError("no"), ZeroDivisionError("0"), struct.error("4 bytes"),
        zlib.error("-3"), OverflowError("long"), RecursionError("deep"), AssertionError(), SyntaxError("png"),
    ],
)  # fmt: skip
def test_whatever_a_decoder_raises_is_one_line_with_the_name(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.png")

    def fail(_: object) -> None:
        raise error

    monkeypatch.setattr(Image.Image, "load", fail)
    with pytest.raises(ValueError, match=r"a\.png is a damaged image: \S") as raised:
        read_image(tmp_path / "a.png")
    assert "\n" not in str(raised.value)


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
@pytest.mark.parametrize("case", ["AttributeError_SPIDER_3", "NotImplementedError_DDS_11", "RuntimeError_AVIF_1"])
def test_damaged_images_from_the_field(case: str) -> None:
    with pytest.raises(ValueError, match=f"img_{case}.bin is "):
        read_image(CASES / f"img_{case}.bin")


@pytest.mark.parametrize("size", [(13_400, 13_400), (65_535, 65_535), (2**31 - 1, 1), (178_000_001, 1)])
def test_too_many_pixels_are_refused_before_memory_is_taken(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of(*size))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb\.png has .*pixels, expected at most 178000000"):
        read_image(tmp_path / "bomb.png")
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_what_is_no_file_or_no_image_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ValueError, match=r"pipe\.jpg is a pipe, a socket or a device, expected an image file"):
        read_image(tmp_path / "pipe.jpg")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.jpg is not an image that can be read \(0 bytes\)"):
        read_image(tmp_path / "empty.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "program.jpg", format="EPS")
    with pytest.raises(ValueError, match=r"program\.jpg is PostScript"):
        read_image(tmp_path / "program.jpg")
    Image.new("F", (8, 8)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif has floating-point pixels"):
        read_image(tmp_path / "float.tif")


def test_a_batch_skips_them_by_name_and_goes_on(tmp_path: Path) -> None:
    names = ["bomb.png", "cut.jpg", "empty.jpg", "folder.jpg", "good.png", "text.png"]
    (tmp_path / "bomb.png").write_bytes(png_of(65_535, 65_535))
    Image.fromarray(picture(1)).save(tmp_path / "cut.jpg")
    cut(tmp_path / "cut.jpg", 700)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.jpg").mkdir()
    Image.fromarray(picture(2)).save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("hello")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "list.txt").write_text("\n".join([*names, "pipe.jpg"]))
    (batch,) = read_batches(list_images(tmp_path / "list.txt", "dog."), 16, lambda _: False)
    assert [image.name for image in batch.listed] == ["good.png"]
    skipped = {image.name: problem for image, problem in batch.skipped}
    assert sorted(skipped) == sorted({*names, "pipe.jpg"} - {"good.png"})
    assert all(name in problem and "\n" not in problem for name, problem in skipped.items())
