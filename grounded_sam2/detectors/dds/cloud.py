"""Grounding DINO 1.5, 1.6 and DINO-X, which run in the DDS cloud only: images go there, boxes come back, and it costs.

A token is had at https://cloud.deepdataspace.com. What is needed besides comes with `make install`.
"""

import base64
import contextlib
import io
import logging
import math
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from grounded_sam2.detectors.base import Image, PhraseDetector, RawBoxes, Search
from grounded_sam2.detectors.dds.cache import ResponseCache, is_task_name, request_key
from grounded_sam2.detectors.dds.errors import DDSError, RefusedError, TaskFailedError
from grounded_sam2.masks import decode_rle
from grounded_sam2.plain_json import check_box, check_number, check_text
from grounded_sam2.prompts import encoder_phrase
from sam2.shown import shown

if TYPE_CHECKING:
    from grounded_sam2.detectors.dds.service import DDSService

logger = logging.getLogger(__name__)

DDSModel = Literal["GroundingDino-1.5-Pro", "GroundingDino-1.5-Edge", "GroundingDino-1.6-Pro", "DINO-X-1.0"]

TOKEN_VARIABLE = "DDS_API_TOKEN"
DEFAULT_CACHE_DIR = Path("outputs/dds_cache")
_DINOX: DDSModel = "DINO-X-1.0"
_MASK_FORMAT = "coco_rle"
_MOST_OBJECTS = 2000  # in an answer; models find 900 at most
_MOST_WORDS = 300  # characters of a text of the service
_LONGEST_SIDE = 1536  # pixels of an image that is sent; what the service itself computes on


class DDSCloudDetector(PhraseDetector):
    """A `Detector` over the models of the DDS cloud.

    The service gives each box one phrase with one score, which `box_threshold` alone judges; `text_threshold` is
    checked and has no effect. `detect` raises a `DDSError` when the service does not answer; the subclass tells why
    (`grounded_sam2.detectors.dds.errors`).

    Images are sent one after the other, as JPEG of at most 1536 pixels a side. An answer is kept on disk as soon as it
    is there, and so is the name of a task that was started: what was asked once, with the same pixels, model, prompt
    and thresholds, is never paid for again, also not after a failure or a stop in between.

    Args:
        model: one of `DDSModel`.
        token: of an account; None takes the environment variable DDS_API_TOKEN.
        masks: let DINO-X find masks too, so that detections carry `mask` (N, H, W) bool; the other models have none.
        nms_threshold: of two boxes that overlap by a higher IoU only the more confident is kept; None keeps all.
        class_agnostic_nms: let boxes of different phrases suppress each other too.
        cache_dir: where answers are kept; None keeps none.
        max_requests: images that may be sent, see `DDSService.num_requests`; None does not limit them.
        endpoint: address of the service; None takes the official one.
        request_timeout_s: seconds that one HTTP request may go without an answer.
        task_timeout_s: seconds that the service may take for an image.

    Attributes:
        service: counts the requests.

    Raises:
        ValueError: no token, an unknown model, masks of a model that has none, or a number out of its range.
        OSError: the SDK is not installed, or `cache_dir` cannot be written in.
    """

    def __init__(
        self,
        model: DDSModel,
        *,
        token: str | None = None,
        masks: bool = False,
        nms_threshold: float | None = 0.7,
        class_agnostic_nms: bool = True,
        cache_dir: str | os.PathLike[str] | None = DEFAULT_CACHE_DIR,
        max_requests: int | None = None,
        endpoint: str | None = None,
        request_timeout_s: float = 30.0,
        task_timeout_s: float = 180.0,
    ) -> None:
        if model not in get_args(DDSModel):
            raise ValueError(f"expected a model of {', '.join(get_args(DDSModel))}, got {model!r}")
        if masks and model != _DINOX:
            raise ValueError(f"{model} finds boxes only; masks come from {_DINOX}, or from SAM 2")
        super().__init__(nms_threshold, class_agnostic_nms)
        if max_requests is not None and max_requests < 0:
            raise ValueError(f"expected max_requests of at least 0, or None, got {max_requests}")
        for name, seconds in (("request_timeout_s", request_timeout_s), ("task_timeout_s", task_timeout_s)):
            if not 0 < seconds < math.inf:
                raise ValueError(f"expected a {name} above 0, got {seconds}")
        token = (token or os.environ.get(TOKEN_VARIABLE, "")).strip()
        if not token:
            raise ValueError(
                f"no token for the DDS cloud: set the environment variable {TOKEN_VARIABLE}, or pass --api-token; "
                "tokens are had at https://cloud.deepdataspace.com"
            )
        self.model = model
        self._api_path = f"/v2/task/{'dinox' if model == _DINOX else 'grounding_dino'}/detection"
        self.masks = masks
        self.cache = None if cache_dir is None else ResponseCache(cache_dir)
        self.service = _connect(
            token,
            endpoint=endpoint,
            request_timeout_s=request_timeout_s,
            task_timeout_s=task_timeout_s,
            max_requests=max_requests,
        )

    def find(self, images: Sequence[Image], search: Search) -> Iterator[RawBoxes]:
        """The boxes of a search's texts, each image sent when its turn comes; see `PhraseDetector.find`.

        Raises:
            DDSError: the service did not answer; what it answered until then is in the cache.
        """
        return (self._boxes(self._ask(image, search), search) for image in images)

    def _ask(self, image: Image, search: Search) -> "_Objects":
        """What the service finds in an image: from the cache, from a task started earlier, or newly asked for."""
        request: dict[str, Any] = {
            "model": self.model,
            "prompt": {"type": "text", "text": ".".join(encoder_phrase(text) for text in search.texts)},
            "targets": ["bbox", "mask"] if self.masks else ["bbox"],
            "bbox_threshold": round(float(search.box_threshold.min()), 4),
            "iou_threshold": 1.0 if self.nms_threshold is None else self.nms_threshold,
        }
        if self.masks:
            request["mask_format"] = _MASK_FORMAT
        key = request_key(image, {**request, "endpoint": self.service.endpoint})
        with self.cache.asking(key) if self.cache else contextlib.nullcontext():
            return self._answer(image, request, key)

    def _answer(self, image: Image, request: Mapping[str, Any], key: str) -> "_Objects":
        entry = self.cache.read(key) if self.cache else {}
        if "objects" in entry:
            try:
                return _read_objects(entry, image)
            except TaskFailedError:
                logger.info("the cached answer %s is damaged", key)
        try:
            return self._fetch(image, request, key, entry.get("task_uuid"))
        except DDSError as error:
            kept = f"; answers so far are kept in {self.cache.folder} and not paid for again" if self.cache else ""
            raise type(error)(f"{error}{kept}") from error

    def _fetch(self, image: Image, request: Mapping[str, Any], key: str, task_uuid: object) -> "_Objects":
        """Go on with a task that was started earlier, if there is one the service still knows, or start one."""
        if is_task_name(task_uuid):
            try:
                return self._finish(image, key, task_uuid)
            except (RefusedError, TaskFailedError) as error:
                logger.info("the task that was started earlier is lost: %s", error)
        task_uuid = self.service.start(self._api_path, {**request, "image": _as_data_url(image)})
        if self.cache:
            self.cache.write(key, {"task_uuid": task_uuid})
        return self._finish(image, key, task_uuid)

    def _finish(self, image: Image, key: str, task_uuid: str) -> "_Objects":
        """Wait for a task and keep its answer, or forget the task when there will be none."""
        try:
            answer = self.service.wait(task_uuid)
            objects = _read_objects(answer, image)
        except (RefusedError, TaskFailedError):
            if self.cache:
                self.cache.discard(key)
            raise
        if self.cache:
            self.cache.write(key, {"objects": answer.get("objects")})
        return objects

    def _boxes(self, objects: "_Objects", search: Search) -> RawBoxes:
        """Objects that carry one of the texts and reach its threshold."""
        text_of = {_letters(text): index for index, text in reversed(list(enumerate(search.texts)))}
        text_index = np.array([text_of.get(_letters(name), -1) for name in objects.categories], dtype=np.int64)
        if (text_index < 0).any():
            strange = sorted({objects.categories[index] for index in np.flatnonzero(text_index < 0)})
            names = shown(", ".join(strange))[:_MOST_WORDS]
            logger.warning("left out what the DDS cloud calls %s: no phrase of the prompt", names)
        kept = (text_index >= 0) & (objects.confidence >= search.box_threshold[text_index])
        return RawBoxes(
            objects.xyxy[kept],
            objects.confidence[kept],
            search.class_id[text_index[kept]],
            objects.masks[kept] if self.masks else None,
        )


@dataclass(frozen=True)
class _Objects:
    """What the service found in one image: xyxy (N, 4) in its pixels, confidence (N,), N categories, masks (N, H, W).

    Where no masks were asked for they are empty.
    """

    xyxy: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    categories: list[str]
    masks: npt.NDArray[np.bool_]


def _connect(token: str, **settings: Any) -> "DDSService":
    """The service; its packages are imported here and not earlier."""
    try:
        from grounded_sam2.detectors.dds.service import DDSService
    except ImportError as error:
        raise OSError(f"the DDS cloud needs its SDK: make install, or pip install -e '.[cloud]' ({error})") from error
    return DDSService(token, **settings)


def _sent_size(image: Image) -> tuple[int, int]:
    """Width and height in pixels that an image is sent with."""
    height, width = image.shape[:2]
    scale = min(1.0, _LONGEST_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _as_data_url(image: Image) -> str:
    """An (H, W, 3) uint8 RGB image as JPEG in base64."""
    picture = PILImage.fromarray(image)
    if picture.size != _sent_size(image):
        picture = picture.resize(_sent_size(image), PILImage.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=95, subsampling=0)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _read_objects(answer: Mapping[str, Any], image: Image) -> _Objects:
    """Read an answer of the service; no "objects" are none found.

    Raises:
        TaskFailedError: it is not what the service is known to answer.
    """
    height, width = image.shape[:2]
    sent_width, sent_height = _sent_size(image)
    scale = np.array([width / sent_width, height / sent_height] * 2)
    try:
        objects = answer.get("objects") or []
        if not isinstance(objects, list) or len(objects) > _MOST_OBJECTS:
            raise ValueError(f"expected a list of at most {_MOST_OBJECTS} objects")
        xyxy = np.array([check_box(found["bbox"]) for found in objects], dtype=np.float64).reshape(-1, 4) * scale
        scores = [check_number(found["score"], "score", largest=1 + 1e-6) for found in objects]
        confidence = np.array(scores, dtype=np.float64).reshape(-1)
        if (confidence < 0).any():
            raise ValueError(f"score: expected a number from 0 to 1, got {confidence.min()}")
        categories = [check_text(found["category"], "category") for found in objects]
        masks = np.zeros((len(objects), height, width), dtype=bool)
        for mask, found in zip(masks, objects, strict=True):
            if found.get("mask"):
                mask[:] = _read_mask(found["mask"], (width, height))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = shown(repr(error))[:_MOST_WORDS]
        raise TaskFailedError(f"the DDS cloud answers with objects that cannot be read: {reason}") from error
    return _Objects(xyxy.astype(np.float32), confidence.astype(np.float32), categories, masks)


def _read_mask(mask: Mapping[str, Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The run-length encoded mask of one object, at a size (width, height) in pixels."""
    if mask.get("format", _MASK_FORMAT) != _MASK_FORMAT:
        raise ValueError(f"a mask as {shown(mask['format'])[:40]}, asked for {_MASK_FORMAT}")
    (decoded,) = decode_rle([dict(mask)])
    if decoded.shape != size[::-1]:
        decoded = cv2.resize(decoded.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.5
    return decoded


def _letters(text: str) -> str:
    """What is left of a phrase however a service writes it: "T-Shirt" and "t - shirt" are both "tshirt"."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFC", text).lower()))
