"""See `grounding_dino.groundingdino.datasets`."""
