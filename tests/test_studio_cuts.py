"""Scene cuts: found where the colours change at once, and nowhere else; kept beside the session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("gradio")

from studio.cuts import find_cuts, read_cuts, write_cuts

SIZE = (36, 64)


def scene(seed: int, num_frames: int, shift: int = 1, noise: int = 3) -> list[np.ndarray]:
    """Coloured patches that pass by, with some noise."""
    rng = np.random.default_rng(seed)
    patches = np.kron(rng.integers(0, 255, (6, 16, 3)), np.ones((6, 8, 1))).astype(int)
    frames = [np.roll(patches, shift * t, axis=1)[:, :64] for t in range(num_frames)]
    return [np.clip(frame + rng.integers(-noise, noise + 1, frame.shape), 0, 255).astype(np.uint8) for frame in frames]


def test_a_cut_is_the_first_frame_of_the_new_scene() -> None:
    assert find_cuts([*scene(0, 20), *scene(1, 15), *scene(2, 5)]) == [20, 35]


@pytest.mark.parametrize("frames", [[], scene(0, 1), scene(0, 40), scene(0, 30, shift=3)])
def test_no_cut(frames: list[np.ndarray]) -> None:
    assert find_cuts(frames) == []


def test_a_slow_change_of_light_is_no_cut() -> None:
    [image] = scene(0, 1)
    assert find_cuts([(image * (1 - t / 60)).astype(np.uint8) for t in range(50)]) == []


def test_a_flicker_is_no_cut_at_every_frame() -> None:
    dark, light = np.zeros((*SIZE, 3), np.uint8), np.full((*SIZE, 3), 255, np.uint8)
    assert find_cuts([dark, light] * 20) == []


def test_it_ends_when_it_is_asked_to() -> None:
    def check() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        find_cuts(scene(0, 2), check)


def test_what_was_found_is_kept(tmp_path: Path) -> None:
    assert read_cuts(tmp_path) is None
    write_cuts(tmp_path, [3, 9])
    assert read_cuts(tmp_path) == [3, 9] and [path.name for path in tmp_path.iterdir()] == ["cuts.json"]
