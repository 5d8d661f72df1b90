"""A state on disk that is whole or counts as damaged: tensors and plain values behind their checksum."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import Any

from grounded_sam2.files import partial_of, replacing

__all__ = ["read_state", "write_state"]

DIGEST_BYTES = hashlib.sha256().digest_size


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a state, in one step in place of an older one, and surely to the disk.

    Raises:
        OSError: it cannot be written.
    """
    import torch  # the states of models are tensors; callers may need it for nothing else

    buffer = io.BytesIO()
    torch.save(state, buffer)
    with replacing(path, partial_of(path)) as temporary, temporary.open("wb") as file:
        file.write(hashlib.sha256(buffer.getbuffer()).digest())
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def read_state(path: Path) -> dict[str, Any] | None:
    """What `write_state` wrote, on the CPU; None where the file is damaged, or holds something else.

    Raises:
        OSError: it cannot be read.
    """
    import torch

    content = path.read_bytes()
    digest, payload = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception:  # what a damaged pickle raises
        return None
    return state if isinstance(state, dict) else None
