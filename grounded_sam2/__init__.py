"""What the scripts share: settings as flags, detectors, segmentation, video in and out, drawing and export.

Each module is one noun and is imported by its own name (``from grounded_sam2.render import annotate``), and what
belongs together has a folder (``from grounded_sam2.video import open_frames``). Importing this package loads nothing
heavy.
"""

import sam2  # noqa: F401  (before PyTorch is loaded, see `sam2.cores`)

__all__ = ["__version__"]

__version__ = "0.1.0"
