"""`clean_state_dict` where upstream's `misc` has it."""

from grounding_dino.groundingdino.util.utils import clean_state_dict

__all__ = ["clean_state_dict"]
