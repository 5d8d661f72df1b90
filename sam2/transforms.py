"""Images, prompts and masks between the frame of the user's image and the square that the model sees."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from sam2.mask_ops import clean_masks

PIXEL_MEAN = (0.485, 0.456, 0.406)  # of RGB in [0, 1]
PIXEL_STD = (0.229, 0.224, 0.225)

_MODES_WITHOUT_RGB = ("I", "I;16", "I;16B", "I;16L", "F")  # converting these would clip their values


def as_rgb_array(image: np.ndarray | Image.Image) -> np.ndarray:
    """An image as an RGB array (H, W, 3).

    Args:
        image: array (H, W, 3) in RGB order, uint8 or floating point in [0, 1]; or a PIL image of any 8-bit mode, which
            is converted to RGB (transparency is dropped, its EXIF rotation is not applied).

    Returns:
        (H, W, 3) uint8, or float of the dtype given.

    Raises:
        ValueError: an array of another shape, dtype or range, a PIL image of 16 or 32 bits, an image without pixels.
        TypeError: neither an array nor a PIL image.
    """
    if isinstance(image, Image.Image):
        if image.mode in _MODES_WITHOUT_RGB:
            raise ValueError(f"expected a PIL image of 8 bits per channel, got mode {image.mode!r}: scale it to 8 bits")
        return np.array(image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise TypeError(f"expected an image as a NumPy array or PIL image, got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3:
        cure = {2: ": repeat a greyscale image three times, np.stack([image] * 3, axis=-1)"}.get(image.ndim, "")
        if image.ndim == 3 and image.shape[2] == 4:
            cure = ": drop the alpha channel, image[:, :, :3]"
        raise ValueError(f"expected an RGB image of shape (H, W, 3), got {image.shape}{cure}")
    if image.size == 0:
        raise ValueError(f"expected an image of at least 1x1 pixels, got shape {image.shape}")
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"expected an image of dtype uint8 or of floats in [0, 1], got {image.dtype}")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"expected a float image in [0, 1], got values from {low:g} to {high:g}: divide by 255?")
    return image


class SAM2Transforms:
    """What a SAM 2 model of one resolution needs done before and after it.

    The image is resized to the square without keeping its aspect ratio, so x and y scale differently.
    """

    def __init__(
        self, resolution: int, mask_threshold: float, max_hole_area: float = 0.0, max_sprinkle_area: float = 0.0
    ) -> None:
        """
        Args:
            resolution: side of the model's input, pixels.
            mask_threshold: mask logits above it are foreground.
            max_hole_area: holes of at most so many pixels of the low-resolution mask are filled; 0 fills none.
            max_sprinkle_area: islands of at most so many pixels of the low-resolution mask go; 0 keeps all.
        """
        self.resolution = resolution
        self.mask_threshold = mask_threshold
        self.max_hole_area = max_hole_area
        self.max_sprinkle_area = max_sprinkle_area

    def __call__(self, image: np.ndarray | Image.Image, device: torch.device | str = "cpu") -> Tensor:
        """The normalised model input (3, resolution, resolution) float32 on `device`; errors of `as_rgb_array`.

        Bilinear with antialiasing, on unrounded values.
        """
        # a copy: PyTorch takes neither reversed channels (image[..., ::-1]) nor read-only arrays as they are
        pixels = torch.from_numpy(np.array(as_rgb_array(image), order="C")).to(device)
        scale = 255.0 if pixels.dtype == torch.uint8 else 1.0
        pixels = pixels.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format) / scale
        size = (self.resolution, self.resolution)
        square = F.interpolate(pixels[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
        mean = square.new_tensor(PIXEL_MEAN)[:, None, None]
        std = square.new_tensor(PIXEL_STD)[:, None, None]
        return (square - mean) / std

    def forward_batch(self, images: Sequence[np.ndarray | Image.Image], device: torch.device | str = "cpu") -> Tensor:
        """At least one image, of any sizes → (B, 3, resolution, resolution) float32 on `device`."""
        return torch.stack([self(image, device) for image in images])

    def transform_coords(
        self, coords: Tensor, normalize: bool = False, orig_hw: tuple[int, int] | None = None
    ) -> Tensor:
        """Points (…, 2), x first, in pixels of the model's input.

        Args:
            coords: pixels of the original image if `normalize`, else fractions of its width and height.
            normalize: whether `coords` are pixels.
            orig_hw: height and width of the original image; needed for pixels.

        Raises:
            ValueError: `normalize` without `orig_hw`.
        """
        if normalize:
            if orig_hw is None:
                raise ValueError("points in pixels need the size of their image: orig_hw=(height, width)")
            height, width = orig_hw
            coords = coords / coords.new_tensor([width, height])
        return coords * self.resolution

    def transform_boxes(self, boxes: Tensor, normalize: bool = False, orig_hw: tuple[int, int] | None = None) -> Tensor:
        """Boxes (B, 4) xyxy as their corners (B, 2, 2) in pixels of the model's input; else as `transform_coords`."""
        return self.transform_coords(boxes.reshape(-1, 2, 2), normalize, orig_hw)

    def postprocess_masks(self, masks: Tensor, orig_hw: tuple[int, int]) -> Tensor:
        """Mask logits of the model at the size of the original image.

        Args:
            masks: (B, C, h, w) logits.
            orig_hw: height and width of the original image, H and W.

        Returns:
            (B, C, H, W) float32 logits, small holes filled and islands removed before the bilinear upscaling.
        """
        logits = clean_masks(masks.float(), self.max_hole_area, self.max_sprinkle_area, self.mask_threshold)
        if len(logits) == 0:
            return logits.new_zeros(0, logits.shape[1], *orig_hw)
        return F.interpolate(logits, size=orig_hw, mode="bilinear", align_corners=False)
