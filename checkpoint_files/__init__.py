"""Files of weights, read without running anything that is in them; what `sam2` and `grounding_dino` share."""
