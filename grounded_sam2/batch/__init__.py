"""Many images: listed, read ahead and detected in batches, and written into one folder."""

from grounded_sam2.batch.batch import BatchFolder, ImageBatch, detect_batch, read_batches
from grounded_sam2.batch.image_list import ListedImage, all_phrases, list_images

__all__ = [
    "BatchFolder",
    "ImageBatch",
    "ListedImage",
    "all_phrases",
    "detect_batch",
    "list_images",
    "read_batches",
]
