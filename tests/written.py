"""What runs have written, compared file by file."""

from pathlib import Path

import av
import numpy as np

from grounded_sam2.owned import RECORD_NAME


def decoded(path: Path) -> list[np.ndarray]:
    """All frames of a video, RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def assert_same_files(folder: Path, other: Path) -> None:
    """Every file is the same to the last bit, a video to the eye; the record of what was written is left out.

    With AVX-512, x264 does not make the same bytes of the same frames every time: its look-ahead differs.
    """
    names, other_names = (
        sorted(
            path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file() and path.name != RECORD_NAME
        )
        for top in (folder, other)
    )
    assert names == other_names
    for name in names:
        if not name.endswith(".mp4"):
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name
            continue
        frames, other_frames = decoded(folder / name), decoded(other / name)
        assert len(frames) == len(other_frames) and frames[0].shape == other_frames[0].shape
        for frame, other_frame in zip(frames, other_frames, strict=True):
            assert np.abs(frame.astype(int) - other_frame).mean() < 1
