"""The parts of Grounding DINO."""
