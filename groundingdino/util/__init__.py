"""See `grounding_dino.groundingdino.util`."""
