"""The parity harness: one set of scenarios, run by this repository's `sam2` and by the reference package.

Two packages named `sam2` cannot share a process, so `python -m reference.run` is started once for each of them with a
`PYTHONPATH` that decides which one it imports. Both read the same weights and the same clip and write every output to
an `.npz` file; `reference.compare` measures the difference. Nothing of the reference packages is contained here.

`python -m reference.official_grounding_dino` does the same for Grounding DINO, whose package needs a process of its own
because of the older transformers it imports.
"""
