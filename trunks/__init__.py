"""Image trunks that `sam2` and `grounding_dino` have in common."""
