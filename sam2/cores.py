"""The cores this process may use, and threads that leave them to others while they wait.

PyTorch's threads spin between two operations. Alone on a machine that is a little quicker; beside another program, or a
second run, threads spin on the cores that others compute on, and all take several times as long.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

__all__ = ["share_cores", "usable_cores"]

_CGROUPS = Path("/sys/fs/cgroup")
# what a user may have set of how threads wait, or of how many there are
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_NUMBER = "OMP_NUM_THREADS"


def usable_cores(cgroups: Path = _CGROUPS, own_groups: Path = Path("/proc/self/cgroup")) -> int:
    """How many cores this process may use: those that it may run on, and no more than a container's share of time.

    Args:
        cgroups: where the system shows the groups of processes.
        own_groups: a file that says which this process is in.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    shares = [share for folder in _groups_around(cgroups, own_groups) if (share := _share_of(folder)) is not None]
    return max(1, min([available, *(math.ceil(share) for share in shares)]))


def _groups_around(cgroups: Path, own_groups: Path) -> list[Path]:
    """The folders that may limit this process: of cgroups of version 2 from its own one up, of version 1 the top."""
    try:
        named = [line.partition("::")[2].strip() for line in own_groups.read_text().splitlines() if "::" in line]
    except OSError:
        named = []
    own = [Path(name.strip("/")) for name in named]
    inner = [part for group in own for part in (group, *group.parents)]
    return [*(cgroups / part for part in inner), cgroups, cgroups / "cpu"]


def _share_of(folder: Path) -> float | None:
    """Cores' worth of time that a group's processes get together; None where that is not limited."""
    for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = map(float, " ".join((folder / name).read_text() for name in names).split())
        except (OSError, ValueError):  # no such file, or the quota is "max"
            continue
        return quota / period if quota > 0 and period > 0 else None
    return None


def share_cores() -> None:
    """Have threads sleep while they wait, and be no more than there are cores to run them.

    PyTorch reads these variables of the environment as it is loaded, so they are set before that. What a user has set
    stays.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"
    cores = usable_cores()
    if _NUMBER not in os.environ and cores < (os.cpu_count() or 1):
        os.environ[_NUMBER] = str(cores)
