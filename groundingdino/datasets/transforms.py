"""See `grounding_dino.groundingdino.datasets.transforms`."""

from grounding_dino.groundingdino.datasets.transforms import *  # noqa: F403
