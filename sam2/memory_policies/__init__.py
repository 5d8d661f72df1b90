"""What an object's memory may be made of, by name; `sam2.memory_policy` has SAM 2's own rules and says how to write
others.

    predictor = build_sam2_video_predictor("sam2.1-large", checkpoint, memory_policy="samurai")
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from sam2.config import SAM2Config
from sam2.memory_policies.dam4sam import Dam4Sam
from sam2.memory_policies.robust import Robust
from sam2.memory_policies.sam2long import Sam2Long
from sam2.memory_policies.samurai import Samurai
from sam2.memory_policy import MemoryPolicy

__all__ = [
    "POLICIES",
    "Dam4Sam",
    "MemoryPolicy",
    "PolicyName",
    "Robust",
    "Sam2Long",
    "Samurai",
    "VideoPolicyName",
    "check_policy",
    "make_policy",
]

PolicyName = Literal["default", "robust", "samurai", "dam4sam"]  # of videos and of streams
VideoPolicyName = Literal[PolicyName, "sam2long"]  # of videos whose frames can be read in any order

POLICIES: dict[str, type[MemoryPolicy]] = {
    "default": MemoryPolicy,
    "robust": Robust,
    "samurai": Samurai,
    "dam4sam": Dam4Sam,
    "sam2long": Sam2Long,
}


def check_policy(policy: object) -> None:
    """Make sure that `make_policy` takes something for a policy.

    Raises:
        ValueError: it is no name of one, and makes none.
    """
    is_named = isinstance(policy, str) and policy in POLICIES
    if policy is not None and not is_named and not callable(policy):
        raise ValueError(f"expected a memory policy, one of: {', '.join(POLICIES)}; got {policy!r}")


def make_policy(policy: str | Callable[[SAM2Config], MemoryPolicy] | None, config: SAM2Config) -> MemoryPolicy:
    """The policy of a name, or that a class makes, for a model.

    Args:
        policy: "default", or None, is what the configuration says: SAM 2's own rules, or SAMURAI's with
            `samurai_mode`.
        config: of the model.

    Raises:
        ValueError: see `check_policy`.
    """
    check_policy(policy)
    if policy is None or policy == "default":
        policy = "samurai" if config.samurai_mode else "default"
    return POLICIES[policy](config) if isinstance(policy, str) else policy(config)
