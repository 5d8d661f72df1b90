"""See `grounding_dino.groundingdino.util.vl_utils`."""

from grounding_dino.groundingdino.util.vl_utils import *  # noqa: F403
