"""SAM 2 and SAM 2.1: segment anything in images and videos.

Scripts that compose upstream's configurations themselves import hydra before this package; hydra then finds the
configurations here, as upstream does. Without hydra nothing needs it.
"""

import sys

from sam2.cores import share_cores


def _offer_configs_to_hydra() -> None:
    from hydra import initialize_config_module
    from hydra.core.global_hydra import GlobalHydra

    if not GlobalHydra.instance().is_initialized():
        initialize_config_module("sam2", version_base="1.2")


if "hydra" in sys.modules:
    _offer_configs_to_hydra()

share_cores()  # before PyTorch is loaded
