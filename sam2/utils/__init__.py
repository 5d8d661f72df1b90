"""Modules of facebookresearch/sam2 under their names there; each gives what this package has elsewhere."""
