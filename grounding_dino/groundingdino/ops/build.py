"""Compile the deformable-attention kernels into the cache of PyTorch's extensions.

    python -m grounding_dino.groundingdino.ops.build           # for the CPU, and for CUDA where there is a GPU
    python -m grounding_dino.groundingdino.ops.build cpu cuda  # these

From then on they are used; a new version of PyTorch needs a new build.
"""

from __future__ import annotations

import argparse
import sys

import torch

from grounding_dino.groundingdino.ops import extension


def main() -> None:
    """Build what is asked for; exit status 1 with the compiler's words when it cannot be built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs="*", choices=["cpu", "cuda"], metavar="cpu|cuda")
    devices = parser.parse_args().devices or (["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
    for device_type in devices:
        try:
            extension.build(device_type)
        except (ImportError, OSError, RuntimeError) as error:
            sys.exit(f"The {device_type} kernel cannot be built: {error}")
        print(extension.library_path(device_type))


if __name__ == "__main__":
    main()
