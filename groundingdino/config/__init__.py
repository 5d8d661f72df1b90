"""Configuration files are found by name, wherever a path says they lie; see `grounding_dino.groundingdino.config`."""
