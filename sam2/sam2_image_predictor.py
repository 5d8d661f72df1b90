"""Masks in images from points, boxes and masks: a NumPy façade over the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

from sam2.image_compat import UpstreamAttributes
from sam2.modeling.core import ImageFeatures, in_own_precision
from sam2.modeling.sam2_base import SAM2Base
from sam2.per_thread import PerThread
from sam2.prompt_checks import check_labels, finite_tensor
from sam2.transforms import SAM2Transforms, as_rgb_array

LOW_RES_LIMIT = 32.0  # low-resolution logits come back within plus or minus this
BOX_CORNER_LABELS = (2, 3)  # how the prompt encoder tells a box's two corners from points
BUILD_OPTIONS = frozenset({"device", "mode", "hydra_overrides_extra", "apply_postprocessing", "dtype"})

Prediction = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class _Prompts:
    """N prompts on one image, each of all the kinds that are not None, in the frame of the model's input."""

    point_coords: Tensor | None = None  # (N, P, 2) float32 px
    point_labels: Tensor | None = None  # (N, P) int
    boxes: Tensor | None = None  # (N, 2, 2) float32 px, two corners
    mask_logits: Tensor | None = None  # (N, 1, 4h, 4w) float32

    def __len__(self) -> int:
        """N; a prediction without any prompt counts as one."""
        counts = [len(tensor) for tensor in self._given()]
        return counts[0] if counts else 1

    def _given(self) -> list[Tensor]:
        values = (getattr(self, field.name) for field in fields(self))
        return [value for value in values if value is not None]

    def rows(self, start: int, stop: int) -> _Prompts:
        """Prompts `start` to `stop` - 1."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        return _Prompts(**{name: None if part is None else part[start:stop] for name, part in parts.items()})


class SAM2ImagePredictor(UpstreamAttributes):
    """Encodes an image once, then answers any number of prompts on it.

        predictor = SAM2ImagePredictor(build_sam2("sam2.1-large", "checkpoints/sam2.1_hiera_large.pt"))
        predictor.set_image(image)
        masks, mask_scores, low_res_logits = predictor.predict(box=boxes_xyxy, multimask_output=False)

    The model's dtype is the one it was built with; what comes back is float32 whatever it is. The same call gives
    the same masks every time. Threads may share a predictor: each predicts on the image that it has set itself, or,
    where it has set none, on the one that was set last.
    """

    image_features = PerThread["ImageFeatures | None"]()
    _orig_hw = PerThread[list[tuple[int, int]]]()
    _is_batch = PerThread[bool]()

    def __init__(
        self,
        sam_model: SAM2Base,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
        prompts_per_pass: int = 32,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            sam_model: see `sam2.build_sam.build_sam2`.
            mask_threshold: mask logits above it are foreground.
            max_hole_area: holes of at most so many pixels of the low-resolution mask are filled; 0 fills none.
            max_sprinkle_area: islands of at most so many pixels of the low-resolution mask go; 0 keeps all.
            prompts_per_pass: objects decoded together by `predict`; more are decoded in several passes, so that
                the memory the model needs does not grow with them.
            **kwargs: options of `build_sam2`, ignored here.

        Raises:
            TypeError: an argument that neither this class nor `build_sam2` has.
            ValueError: `prompts_per_pass` below 1.
        """
        if unknown := kwargs.keys() - BUILD_OPTIONS:
            raise TypeError(f"SAM2ImagePredictor has no argument {', '.join(sorted(unknown))}")
        if prompts_per_pass < 1:
            raise ValueError(f"prompts_per_pass must be at least 1, got {prompts_per_pass}")
        self.model = sam_model
        self.mask_threshold = mask_threshold
        self.prompts_per_pass = prompts_per_pass
        self._transforms = SAM2Transforms(sam_model.image_size, mask_threshold, max_hole_area, max_sprinkle_area)
        self.reset_predictor()

    @classmethod
    def from_pretrained(cls, model_id: str, **kwargs: Any) -> SAM2ImagePredictor:
        """Build model and predictor from a Hugging Face repository (`"facebook/sam2.1-hiera-large"`) or local folder.

        Args:
            model_id: see `build_sam2_hf`.
            **kwargs: options of `build_sam2` (`device`, `dtype`, …) and of this class.
        """
        from sam2.build_sam import build_sam2_hf

        model = build_sam2_hf(model_id, **{name: kwargs[name] for name in kwargs.keys() & BUILD_OPTIONS})
        return cls(model, **kwargs)

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def mask_input_size(self) -> int:
        """Side of the low-resolution logits, and of a `mask_input`, in cells (256 for inputs of 1024x1024)."""
        return self.model.sam_prompt_encoder.mask_input_size[0]

    @property
    def transforms(self) -> SAM2Transforms:
        """Between the frame of an image and that of the model's input."""
        return self._transforms

    def reset_predictor(self) -> None:
        """Forget the image or images."""
        self._features = None
        self._orig_hw = []
        self._is_batch = False

    def set_image(self, image: np.ndarray | Image.Image) -> None:
        """Encode an image for `predict`.

        Args:
            image: (H, W, 3) RGB, uint8 or floats in [0, 1], or a PIL image; see `sam2.transforms.as_rgb_array`.

        Raises:
            ValueError: not an RGB image; no image is set then.
            TypeError: neither an array nor a PIL image.
        """
        self.reset_predictor()
        self._encode([image])

    def set_image_batch(self, image_list: Sequence[np.ndarray | Image.Image]) -> None:
        """Encode images of any sizes together for `predict_batch`; each as in `set_image`.

        Raises:
            ValueError: not a sequence of at least one RGB image; no image is set then.
            TypeError: one of them is neither an array nor a PIL image.
        """
        self.reset_predictor()
        if isinstance(image_list, (np.ndarray, Image.Image)) or len(image_list) == 0:
            raise ValueError(f"expected a list of at least one image, got {type(image_list).__name__}")
        self._encode(image_list)
        self._is_batch = True

    @torch.no_grad()
    def _encode(self, images: Sequence[np.ndarray | Image.Image]) -> None:
        arrays = [as_rgb_array(image) for image in images]
        features = self.model.forward_image(self._transforms.forward_batch(arrays, self.device))
        if self.model.config.directly_add_no_mem_embed:
            features = ImageFeatures(self.model.add_no_memory(features.vision), features.high_res)
        self._features = features
        self._orig_hw = [(array.shape[0], array.shape[1]) for array in arrays]

    def get_image_embedding(self) -> Tensor:
        """The embedding that masks are decoded from, (B, C, h, w); B is 1 after `set_image`.

        Raises:
            RuntimeError: no image is set.
        """
        if self._features is None:
            raise RuntimeError("An image must be set with .set_image(...) to generate an embedding.")
        return self._features.vision

    def predict(
        self,
        point_coords: ArrayLike | None = None,
        point_labels: ArrayLike | None = None,
        box: ArrayLike | None = None,
        mask_input: ArrayLike | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> Prediction:
        """Masks of one object, or of N objects at once, in the image set.

        All prompts given describe the same objects. Without any, the model is asked for whatever stands out.

        Args:
            point_coords: (P, 2) points x, y on one object or (N, P, 2) on N objects, in pixels of the image.
            point_labels: (P) or (N, P): 1 on the object, 0 beside it, -1 no point (to fill up ragged rows).
            box: (4) or (N, 4) boxes xyxy in pixels of the image. None and zero boxes differ: with (0, 4) there is
                no object.
            mask_input: (1, 4h, 4w) or (N, 1, 4h, 4w) logits, such as the low-resolution logits of an earlier
                prediction (256x256 for models with inputs of 1024x1024). One mask may serve N objects.
            multimask_output: three candidates for each object, better for a single point, instead of one mask.
            return_logits: logits instead of masks of zeros and ones.
            normalize_coords: False if points and boxes are fractions of the image's width and height, not pixels.

        Returns:
            masks (C, H, W), predicted IoUs (C) and low-resolution logits (C, 4h, 4w) of the C = 1 or 3 candidates,
            all float32. Each has a first dimension N if there is not exactly one object; N = 0 is fine.

        Raises:
            RuntimeError: no image is set.
            ValueError: prompts of a wrong shape, not finite, or of different numbers of objects.
        """
        if self._features is None:
            raise RuntimeError("An image must be set with .set_image(...) before mask prediction.")
        if self._is_batch:
            raise RuntimeError("Images were set with .set_image_batch(...): use .predict_batch(...) to predict masks.")
        prompts = self._prepare(point_coords, point_labels, box, mask_input, normalize_coords, self._orig_hw[0])
        return self._predict_in_passes(prompts, multimask_output, return_logits, img_idx=0)

    def predict_batch(
        self,
        point_coords_batch: Sequence[ArrayLike | None] | None = None,
        point_labels_batch: Sequence[ArrayLike | None] | None = None,
        box_batch: Sequence[ArrayLike | None] | None = None,
        mask_input_batch: Sequence[ArrayLike | None] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Masks in each of the images set by `set_image_batch`.

        Args:
            point_coords_batch, point_labels_batch, box_batch, mask_input_batch: for each image what `predict` takes;
                the number of objects may differ. None for an image in every list given: no object in it.
            multimask_output, return_logits, normalize_coords: see `predict`.

        Returns:
            Lists of what `predict` returns, one entry per image; N = 0 for an image without objects.

        Raises:
            RuntimeError: no batch of images is set.
            ValueError: as in `predict`, or a list with not one entry per image.
        """
        if self._features is None or not self._is_batch:
            raise RuntimeError("Images must be set with .set_image_batch(...) before batched mask prediction.")
        num_images = len(self._orig_hw)
        columns = {
            "point_coords_batch": point_coords_batch,
            "point_labels_batch": point_labels_batch,
            "box_batch": box_batch,
            "mask_input_batch": mask_input_batch,
        }
        for name, column in columns.items():
            if column is not None and len(column) != num_images:
                raise ValueError(f"expected {num_images} entries in {name}, one per image, got {len(column)}")
        has_prompts = any(column is not None for column in columns.values())
        predictions: list[Prediction] = []
        for img_idx, orig_hw in enumerate(self._orig_hw):
            coords, labels, box, mask_input = (
                None if column is None else column[img_idx] for column in columns.values()
            )
            if has_prompts and coords is None and box is None and mask_input is None:
                box = np.zeros((0, 4), dtype=np.float32)
            prompts = self._prepare(coords, labels, box, mask_input, normalize_coords, orig_hw)
            predictions.append(self._predict_in_passes(prompts, multimask_output, return_logits, img_idx))
        masks, ious, low_res_logits = zip(*predictions, strict=True)
        return list(masks), list(ious), list(low_res_logits)

    def _prepare(
        self,
        point_coords: ArrayLike | None,
        point_labels: ArrayLike | None,
        box: ArrayLike | None,
        mask_input: ArrayLike | None,
        normalize_coords: bool,
        orig_hw: tuple[int, int],
    ) -> _Prompts:
        """Check prompts in the frame of an image and bring them into the frame of the model's input."""
        coords = labels = boxes = mask_logits = None
        if (point_coords is None) != (point_labels is None):
            raise ValueError("point_coords and point_labels must be given together")
        if point_coords is not None:
            coords = finite_tensor(point_coords, "point_coords", self.device)
            labels = torch.as_tensor(point_labels, dtype=torch.int32, device=self.device)
            if coords.ndim not in (2, 3) or coords.shape[-1] != 2 or labels.shape != coords.shape[:-1]:
                raise ValueError(
                    "expected point_coords (P, 2) with point_labels (P), or (N, P, 2) with (N, P), "
                    f"got {tuple(coords.shape)} with {tuple(labels.shape)}"
                )
            check_labels(labels, "point_labels")
            coords = self._transforms.transform_coords(coords, normalize_coords, orig_hw)
            coords, labels = (coords, labels) if coords.ndim == 3 else (coords[None], labels[None])
        if box is not None:
            boxes = finite_tensor(box, "box", self.device)
            if boxes.numel() > 0 and boxes.shape[-1:] != (4,):
                raise ValueError(f"expected boxes xyxy of shape (4) or (N, 4), got {tuple(boxes.shape)}")
            boxes = self._transforms.transform_boxes(boxes, normalize_coords, orig_hw)
        if mask_input is not None:
            mask_logits = finite_tensor(mask_input, "mask_input", self.device)
            side = self.mask_input_size
            if mask_logits.ndim not in (3, 4) or mask_logits.shape[-3:] != (1, side, side):
                expected = f"(1, {side}, {side}) or (N, 1, {side}, {side})"
                raise ValueError(f"expected mask_input of shape {expected}, got {tuple(mask_logits.shape)}")
            mask_logits = mask_logits if mask_logits.ndim == 4 else mask_logits[None]
        return _Prompts(coords, labels, boxes, self._one_for_all(mask_logits, coords, boxes))

    @staticmethod
    def _one_for_all(mask_logits: Tensor | None, coords: Tensor | None, boxes: Tensor | None) -> Tensor | None:
        """Mask prompts as many as there are points or boxes, after checking that all agree on how many."""
        counts = {"point_coords": coords, "box": boxes, "mask_input": mask_logits}
        given = {name: len(tensor) for name, tensor in counts.items() if tensor is not None}
        num_objects = next(iter(given.values()), 1)
        if mask_logits is not None and len(mask_logits) == 1:
            given.pop("mask_input")
            mask_logits = mask_logits.expand(num_objects, -1, -1, -1)
        if any(count != num_objects for count in given.values()):
            found = ", ".join(f"{count} in {name}" for name, count in given.items())
            raise ValueError(f"expected prompts of the same number of objects, got {found}")
        return mask_logits

    def _predict_in_passes(
        self, prompts: _Prompts, multimask_output: bool, return_logits: bool, img_idx: int
    ) -> Prediction:
        """`predict` for prepared prompts: at most `prompts_per_pass` objects are on the device at a time."""
        num_objects, candidates = len(prompts), 3 if multimask_output else 1
        side = self.mask_input_size
        masks = np.empty((num_objects, candidates, *self._orig_hw[img_idx]), dtype=np.float32)
        ious = np.empty((num_objects, candidates), dtype=np.float32)
        low_res_logits = np.empty((num_objects, candidates, side, side), dtype=np.float32)
        for start in range(0, num_objects, self.prompts_per_pass):
            part = prompts.rows(start, start + self.prompts_per_pass)
            predicted = self._predict(
                part.point_coords,
                part.point_labels,
                part.boxes,
                part.mask_logits,
                multimask_output,
                return_logits,
                img_idx,
            )
            for array, tensor in zip((masks, ious, low_res_logits), predicted, strict=True):
                array[start : start + len(tensor)] = tensor.cpu().numpy()
        if num_objects == 1:
            return masks[0], ious[0], low_res_logits[0]
        return masks, ious, low_res_logits

    @torch.no_grad()
    def _predict(
        self,
        point_coords: Tensor | None,
        point_labels: Tensor | None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        img_idx: int = -1,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masks of N objects in one pass, from prompts in the frame of the model's input.

        Args:
            point_coords: (N, P, 2) px.
            point_labels: (N, P).
            boxes: (N, 4) xyxy or (N, 2, 2) px.
            mask_input: (N, 1, 4h, 4w) logits.
            multimask_output: see `predict`.
            return_logits: see `predict`.
            img_idx: which of the images set.

        Returns:
            masks (N, C, H, W) bool or float32 logits, predicted IoUs (N, C) float32 and low-resolution logits
            (N, C, 4h, 4w) float32, on the model's device.

        Raises:
            RuntimeError: no image is set.
        """
        logits, ious = self.decode(point_coords, point_labels, boxes, mask_input, multimask_output, img_idx)
        masks = self._transforms.postprocess_masks(logits, self._orig_hw[img_idx])
        if not return_logits:
            masks = masks > self.mask_threshold
        return masks, ious, logits.clamp(-LOW_RES_LIMIT, LOW_RES_LIMIT)

    @torch.no_grad()
    @in_own_precision
    def decode(
        self,
        point_coords: Tensor | None = None,
        point_labels: Tensor | None = None,
        boxes: Tensor | None = None,
        mask_input: Tensor | None = None,
        multimask_output: bool = True,
        img_idx: int = -1,
    ) -> tuple[Tensor, Tensor]:
        """Masks of N objects in one pass as the model gives them, from prompts in the frame of its input.

        Args:
            point_coords: (N, P, 2) px of the model's input; see `transforms`.
            point_labels: (N, P); see `predict`.
            boxes: (N, 4) xyxy or (N, 2, 2) px of the model's input.
            mask_input: (N, 1, 4h, 4w) logits.
            multimask_output: three candidates for each object instead of one.
            img_idx: which of the images set.

        Returns:
            Low-resolution logits (N, C, 4h, 4w) and predicted IoUs (N, C), both float32 on the model's device.

        Raises:
            RuntimeError: no image is set.
        """
        if self._features is None:
            raise RuntimeError("An image must be set with .set_image(...) before mask prediction.")
        features = self._features.row(range(len(self._orig_hw))[img_idx])
        points = None
        if point_coords is not None and point_labels is not None:
            points = point_coords, point_labels
        if boxes is not None:
            corners = boxes.reshape(-1, 2, 2)
            labels = torch.tensor([BOX_CORNER_LABELS], dtype=torch.int32, device=corners.device)
            labels = labels.expand(len(corners), -1)
            if points is not None:
                corners, labels = torch.cat((corners, points[0]), dim=1), torch.cat((labels, points[1]), dim=1)
            points = corners, labels
        sparse, dense = self.model.sam_prompt_encoder(points, None, mask_input)
        image_pe = self.model.sam_prompt_encoder.get_dense_pe()
        decoded = self.model.sam_mask_decoder(
            features.vision, image_pe, sparse, dense, multimask_output, high_res_features=features.high_res
        )
        return decoded.mask_logits.float(), decoded.ious.float()
