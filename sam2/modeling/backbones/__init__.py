"""The image encoder under facebookresearch/sam2's names, its parts built by upstream's arguments."""
