"""The parts of Grounding DINO, and upstream's way to build it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grounding_dino.groundingdino.models.captioned import CaptionedGroundingDINO


def build_model(args: Any) -> CaptionedGroundingDINO:
    """A model of random weights on the CPU, for `load_state_dict`.

        args = SLConfig.fromfile("GroundingDINO_SwinT_OGC.py")
        model = build_model(args)
        model.load_state_dict(clean_state_dict(torch.load(checkpoint)["model"]), strict=False)

    Args:
        args: settings as keys or attributes. `text_encoder_type` names the tokenizer, a folder or a hub name; that of
            BERT is looked for in `gdino_checkpoints` first.

    Raises:
        FileNotFoundError: no tokenizer.
        ValueError: settings of an architecture that this package does not build.
    """
    from grounding_dino.groundingdino.configuration import config_of_settings
    from grounding_dino.groundingdino.models.captioned import CaptionedGroundingDINO
    from grounding_dino.groundingdino.text import tokenizer_for

    config = config_of_settings(args if isinstance(args, Mapping) else vars(args))
    return CaptionedGroundingDINO(config, tokenizer_for("gdino_checkpoints/model.pth", config.own_tokenizer))
