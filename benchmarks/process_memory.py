"""How much memory a benchmark's process has resident, in MB of 2**20 bytes."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import psutil


def resident_mb() -> float:
    """Now."""
    return psutil.Process().memory_info().rss / 2**20


def peak_resident_mb() -> float:
    """The most that this process has had so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count the parent's memory from before the program was replaced
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
