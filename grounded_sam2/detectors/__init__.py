"""Detectors: images and a text prompt in, one `supervision.Detections` per image out.

Each detector is a module of its own that is imported only when it is used, so that one of them never needs the others'
packages.
"""
