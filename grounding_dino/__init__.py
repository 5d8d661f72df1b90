"""Grounding DINO: find in images what a text names."""
