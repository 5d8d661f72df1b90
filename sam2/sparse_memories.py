"""Which cells are read of an object's memories when these are read sparsely (Zhang et al., 2026, Efficient-SAM2, sparse
memory retrieval): of an older one, those that got the most attention when it was first read.

A conditioning frame and the newest memory are read whole, and so is every memory the first time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sam2.video_state import FrameOutput

# of one object, with their places, 0 for a conditioning frame, and what their keys are scaled by
Memories = Sequence[tuple[int, FrameOutput, float]]


def cells_read(memories: Memories) -> list[Tensor | None]:
    """The cells that are read of each memory, (K,) long; None: all of them."""
    newest = min((place for place, _, _ in memories if place > 0), default=0)
    return [None if place in (0, newest) else output.kept_cells for place, output, _ in memories]


def index_of_cells(memories: Memories, num_cells: int, device: torch.device) -> Tensor:
    """(L,) long, the cells that are read among those of all memories, one memory of `num_cells` after another."""
    whole = torch.arange(num_cells, device=device)
    read = [whole if cells is None else cells for cells in cells_read(memories)]
    return torch.cat([cells + i * num_cells for i, cells in enumerate(read)])


def choose_cells(memories: Memories, index: Tensor, received: Tensor, num_cells: int, share: float) -> None:
    """Keep the cells of the memories that were read for the first time.

    Args:
        memories: their `kept_cells` are filled in, but for conditioning frames.
        index: (L,) see `index_of_cells`.
        received: (L,) attention that each of these cells got.
        share: of the cells of a memory that are kept; at least one is.
    """
    num_kept = max(1, round(share * num_cells))
    of_all = received.new_zeros(len(memories) * num_cells).index_copy(0, index, received)
    for (place, output, _), of_memory in zip(memories, of_all.split(num_cells), strict=True):
        if place > 0 and output.kept_cells is None:
            output.kept_cells = of_memory.topk(num_kept).indices
