"""Grounding DINO under upstream's package name; the functions of its public interface are in `util.inference`."""
