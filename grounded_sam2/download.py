"""The command `python -m grounded_sam2.download`; see `grounded_sam2.weights.download`."""

import sys

from grounded_sam2.weights.download import main

if __name__ == "__main__":
    sys.exit(main())
