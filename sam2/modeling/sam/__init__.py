"""Prompt encoder, mask decoder and their transformer under facebookresearch/sam2's names and arguments."""
