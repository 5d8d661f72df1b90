"""What a model of images makes of an object: the mean of its features inside the mask."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel

from checkpoint_files.reading import check_numbers
from grounded_sam2.images import RGBImage
from grounded_sam2.masks import Masks, corners_of
from grounded_sam2.owned import hidden_id, source_ids
from grounded_sam2.track.object_track import Descriptors
from grounded_sam2.track.seen import Proposed, Seen
from grounded_sam2.weights.hub import check_weights, reading_model, without_progress

__all__ = ["PatchFeatures"]

# model types whose last hidden state ends in one token a patch, row by row
_PATCH_MODELS = ("dinov2", "dinov2_with_registers", "dinov3_vit", "siglip", "siglip_vision_model")
_SURROUND = 1.2  # side of the square that the model sees, in longer sides of the object's box


class PatchFeatures:
    """The mean of DINOv2's, DINOv3's or SigLIP's patch features, weighed by how much of each patch the mask covers.

    Args:
        folder: with `config.json`, `model.safetensors` and `preprocessor_config.json`, as the hub has them. Nothing is
            fetched, and no code of the folder's is run.
        device: where the model runs.
        batch_size: how many objects go through it together.

    Attributes:
        name: says the type of model, and tells its weights from others.
        threshold: see `Descriptor`; not measured on published weights, so that a script's own may be better.
        margin: likewise.

    Raises:
        FileNotFoundError: no such folder, or files are missing in it.
        ValueError: it holds another kind of model, or not all of its weights.
    """

    threshold = 0.7
    margin = 0.05

    def __init__(
        self, folder: str | os.PathLike[str], device: torch.device | str = "cpu", batch_size: int = 16
    ) -> None:
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._model, processor = _load(Path(folder))
        self._model.to(self.device).eval()
        config = self._model.config
        self._grid = config.image_size // config.patch_size
        self._side = self._grid * config.patch_size
        self._mean, self._std = (np.array(each, np.float32) for each in (processor.image_mean, processor.image_std))
        self.name = f"{config.model_type} {_id_of_weights(Path(folder))}"

    @torch.inference_mode()
    def describe(self, image: RGBImage, seen: Seen | Proposed) -> Descriptors:
        """See `Descriptor.describe`; C is the width of the model."""
        features = [np.zeros((0, self._model.config.hidden_size), np.float32)]
        for batch in self._batches(image, seen.masks):
            pixels, weights = (torch.from_numpy(np.stack(each)).to(self.device) for each in zip(*batch, strict=True))
            tokens = self._model(pixel_values=pixels.permute(0, 3, 1, 2)).last_hidden_state.float()
            patches = tokens[:, -(self._grid**2) :]  # (N, patches, C), behind the tokens for the image and registers
            means = (patches * weights.flatten(1)[..., None]).sum(1) / weights.sum((1, 2))[:, None]
            features.append(means.cpu().numpy())
        return np.concatenate(features)

    def _batches(
        self, image: RGBImage, masks: Masks
    ) -> Iterator[list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]]:
        for start in range(0, len(masks), self.batch_size):
            yield [self._crop(image, mask) for mask in masks[start : start + self.batch_size]]

    def _crop(self, image: RGBImage, mask: Masks) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The square around a mask as the model takes it, (S, S, 3), and how much of each patch the mask covers."""
        left, top, right, bottom = corners_of(mask)
        side = max(2, round(_SURROUND * max(right - left, bottom - top)))
        left, top = (left + right - side) // 2, (top + bottom - side) // 2
        height, width = mask.shape
        before = max(0, -top), max(0, -left)
        after = max(0, top + side - height), max(0, left + side - width)
        window = slice(max(0, top), top + side), slice(max(0, left), left + side)
        around = tuple(zip(before, after, strict=True))
        pixels = np.pad((image[window] / np.float32(255) - self._mean) / self._std, (*around, (0, 0)))
        covered = np.pad(mask[window].astype(np.float32), around)
        size, grid = (self._side, self._side), (self._grid, self._grid)
        scaling = cv2.INTER_AREA if side > self._side else cv2.INTER_LINEAR
        covered = cv2.resize(cv2.resize(covered, size, interpolation=scaling), grid, interpolation=cv2.INTER_AREA)
        return cv2.resize(pixels, size, interpolation=scaling), covered


def _load(folder: Path) -> tuple[Any, Any]:
    """The model and the processor of its images."""
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no config.json; a folder of DINOv3 or SigLIP has config.json, model.safetensors and "
            "preprocessor_config.json"
        )
    name = os.fspath(folder)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "token": False}
    with reading_model(name, "model of images", is_folder=True, cure=""):
        config = AutoConfig.from_pretrained(name, **options)
        if config.model_type not in _PATCH_MODELS:
            raise ValueError(f"{name} holds a model of type {config.model_type!r}, expected {', '.join(_PATCH_MODELS)}")
        with without_progress():
            model, loading = AutoModel.from_pretrained(name, output_loading_info=True, dtype=torch.float32, **options)
        processor = AutoImageProcessor.from_pretrained(name, **options)
    check_weights(name, loading)
    check_numbers(dict(model.named_parameters()), name)
    return getattr(model, "vision_model", model), processor  # without SigLIP's half for text


def _id_of_weights(folder: Path) -> str:
    """Tells the weights in a folder from others, without reading all of them."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    return hidden_id(json.dumps([source_ids(file)[1] for file in files]))
