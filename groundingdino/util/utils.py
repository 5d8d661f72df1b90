"""See `grounding_dino.groundingdino.util.utils`."""

from grounding_dino.groundingdino.util.utils import *  # noqa: F403
