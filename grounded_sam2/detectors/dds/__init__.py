"""Grounding DINO 1.5, 1.6 and DINO-X of the DDS cloud; the SDK is imported once a detector connects."""

from grounded_sam2.detectors.dds.cloud import DDSCloudDetector, DDSModel
from grounded_sam2.detectors.dds.errors import (
    BudgetError,
    DDSError,
    QuotaError,
    RefusedError,
    TaskFailedError,
    TokenError,
)

__all__ = [
    "BudgetError",
    "DDSCloudDetector",
    "DDSError",
    "DDSModel",
    "QuotaError",
    "RefusedError",
    "TaskFailedError",
    "TokenError",
]
