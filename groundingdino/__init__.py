"""Grounding DINO under the package name of its first publication; everything in it is `grounding_dino.groundingdino`'s.

`pip install -e .` makes it importable, so that scripts written for that package run on ours. Where the published package
is installed too (`pip install groundingdino-py`, `rf-groundingdino`, …), an editable install leaves it alone and it is
found first, except by scripts that lie in this repository's root, whose folder is searched before all. A plain
`pip install .` copies files to the same place as the published package's: install one of the two.
"""
