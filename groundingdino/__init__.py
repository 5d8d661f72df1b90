"""Grounding DINO under the package name of its first publication; everything in it is `grounding_dino.groundingdino`'s.

`pip install -e .` makes it importable, so that scripts written for that package run on ours. Where the published one
(`groundingdino-py`, `rf-groundingdino`, …) is installed too, an editable install leaves it alone, and Python finds the
published one, except in scripts that lie in this repository's root, whose folder is searched before all. A plain
`pip install .` copies files to the same place as the published package's: install one of the two.
"""
