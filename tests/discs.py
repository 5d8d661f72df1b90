"""Discs on a small frame."""

import numpy as np
import numpy.typing as npt

SIZE = 64  # pixels a side
Place = tuple[float, float, float]  # x, y, radius in pixels


def disc(place: Place | None) -> npt.NDArray[np.bool_]:
    if place is None:
        return np.zeros((SIZE, SIZE), bool)
    x, y, radius = place
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


LEFT, RIGHT, LOW = (15.0, 15.0, 8.0), (45.0, 15.0, 8.0), (30.0, 48.0, 8.0)
