"""What runs have written, compared file by file."""

from pathlib import Path

import av
import numpy as np


def decoded(path: Path) -> list[np.ndarray]:
    """All frames of a video, RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def assert_same_files(folder: Path, other: Path) -> None:
    """Every file is the same to the last bit, a video to the eye.

    With AVX-512, x264 does not make the same bytes of the same frames every time: its look-ahead differs.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(other).as_posix() for path in other.rglob("*") if path.is_file())
    for name in names:
        if not name.endswith(".mp4"):
            assert (folder / name).read_bytes() == (other / name).read_bytes(), name
            continue
        frames, other_frames = decoded(folder / name), decoded(other / name)
        assert len(frames) == len(other_frames) and frames[0].shape == other_frames[0].shape
        for frame, other_frame in zip(frames, other_frames, strict=True):
            assert np.abs(frame.astype(int) - other_frame).mean() < 1
