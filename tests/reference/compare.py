"""Measure how far two runs of `reference.run` are apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
NO_OBJECT = -1000.0  # mask logits below this say that the object is absent (the models put out -1024)


@dataclass(frozen=True)
class Difference:
    """How far one scenario's outputs are apart.

    Attributes:
        error: The largest relative error of any array, see `relative_error`.
        array: Name of that array.
        num_arrays: How many arrays were compared.
    """

    error: float
    array: str
    num_arrays: int


def relative_error(ours: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """The largest absolute difference over the largest magnitude of the reference.

    Arrays with a leading dimension of objects or images are measured row by row, so that an object with small logits,
    or one beside an absent object, is held to its own scale; the worst row counts. A scale below 1 counts as 1: a
    presence score near 0 is a difference of larger numbers. Arrays of different shapes are infinitely far apart.
    """
    if ours.shape != reference.shape:
        return float("inf")
    if reference.size == 0:
        return 0.0
    rows = reference.reshape(len(reference), -1) if reference.ndim > 1 else reference.reshape(1, -1)
    difference = np.abs(ours.astype(np.float64).reshape(rows.shape) - rows).max(axis=1)
    scale = np.abs(rows).astype(np.float64).max(axis=1)
    return float((difference / np.maximum(scale, 1.0)).max())


def compare_arrays(ours: Arrays, reference: Arrays) -> Difference:
    """Compare what one scenario returned in both packages; arrays named `in.…` are inputs and left out.

    Raises:
        ValueError: the runs did not return the same set of arrays.
    """
    names = sorted(name for name in reference if not name.startswith("in."))
    if names != sorted(ours):
        odd = sorted(set(names) ^ set(ours))
        raise ValueError(f"only one of the two runs has {', '.join(odd[:5])}")
    errors = {name: relative_error(ours[name], reference[name]) for name in names}
    worst = max(errors, key=lambda name: errors[name])
    return Difference(errors[worst], worst, len(errors))


def compare_runs(ours: Path, reference: Path) -> Difference:
    """`compare_arrays` for two `.npz` files."""
    return compare_arrays(dict(np.load(ours)), dict(np.load(reference)))


def share_of_absent(run: Path) -> float:
    """The share of mask outputs in a video scenario's `.npz` that say the object is absent."""
    with np.load(run) as arrays:
        masks = [arrays[name].reshape(len(arrays[name]), -1) for name in arrays.files if name.endswith(".masks")]
    flags = np.concatenate([rows.max(axis=1) < NO_OBJECT for rows in masks])
    return float(flags.mean())


def positive_shares(run: Path) -> NDArray[np.float64]:
    """For each present object of each output, the share of pixels inside its mask."""
    with np.load(run) as arrays:
        masks = [arrays[name].reshape(len(arrays[name]), -1) for name in arrays.files if name.endswith(".masks")]
    rows = np.concatenate(masks)
    return (rows[rows.max(axis=1) >= NO_OBJECT] > 0).mean(axis=1)
