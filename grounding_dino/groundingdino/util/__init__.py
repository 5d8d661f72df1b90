"""The public functions of Grounding DINO, where scripts written for upstream look for them."""
