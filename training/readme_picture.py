"""Make the picture at the top of the README from what the tracking demo wrote.

make demo
.venv/bin/python -m training.readme_picture
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from grounded_sam2.images import write_image
from grounded_sam2.track.tracking import frame_at
from grounded_sam2.video import open_frames

ANNOTATED_VIDEO = Path("outputs/grounded_sam2_tracking_demo_with_continuous_id/parade.mp4")
PICTURE = Path("assets/readme.jpg")
FRAME_INDICES = ((24, 48), (72, 120))  # the picture's rows, each from left to right
GAP = 8  # white pixels between two frames


def main() -> None:
    """Write the frames of `FRAME_INDICES` as one picture."""
    frames = open_frames(ANNOTATED_VIDEO)
    rows = []
    for indices in FRAME_INDICES:
        padded = [np.pad(frame_at(frames, i), ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for i in indices]
        rows.append(np.concatenate(padded, axis=1))
    write_image(PICTURE, np.concatenate(rows, axis=0)[:-GAP, :-GAP])
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
