"""See `grounding_dino.groundingdino.util.misc`."""

from grounding_dino.groundingdino.util.misc import *  # noqa: F403
