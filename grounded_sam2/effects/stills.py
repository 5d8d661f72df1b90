"""A picture for each frame, as PNG files in one zip."""

from __future__ import annotations

import io
import os
import zipfile
from types import TracebackType

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

__all__ = ["PngZip"]


class PngZip:
    """Write pictures as `00000.png`, `00001.png`, … into a zip, one at a time.

    Args:
        path: of the zip; what is there is written over.

    Raises:
        OSError: it cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._archive = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED)  # a PNG does not get smaller

    def write(self, frame_idx: int, image: npt.NDArray[np.uint8]) -> None:
        """Add the picture of a frame: (H, W, 3) RGB or (H, W, 4) RGBA."""
        packed = io.BytesIO()
        PILImage.fromarray(image).save(packed, format="PNG", compress_level=4)
        self._archive.writestr(f"{frame_idx:05d}.png", packed.getvalue())

    def __enter__(self) -> PngZip:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._archive.close()
