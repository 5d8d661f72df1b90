"""How the bundled nano models are made: artwork, procedural scenes with ground truth, and the training recipes."""
