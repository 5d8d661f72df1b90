"""Checkpoints by name: fetched, checked, and found again in a local folder."""
