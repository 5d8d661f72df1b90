"""How many cores a process may use, and what is set for its threads before PyTorch is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sam2.cores import usable_cores

ALL = usable_cores()
PRINTED = "import os, {}; print(os.environ.get('OMP_WAIT_POLICY'), os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("files", "own", "cores"),
    [
        ({}, "", ALL),
        ({"cpu.max": "max 100000"}, "0::/", ALL),
        ({"cpu.max": "100000 100000"}, "0::/", 1),
        ({"cpu.max": "10000 100000"}, "0::/", 1),
        ({"cpu.max": "900000000 100000"}, "0::/", ALL),
        ({"pod/run/cpu.max": "max 100000", "pod/cpu.max": "50000 100000"}, "0::/pod/run", 1),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu:/", 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "3:cpu:/", ALL),
        ({"cpu.max": "not a number"}, "0::/", ALL),
    ],
)
def test_a_share_of_time_limits_the_cores(files: dict[str, str], own: str, cores: int, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own)
    assert usable_cores(tmp_path, tmp_path / "own") == cores


@pytest.mark.parametrize("package", ["sam2", "grounded_sam2"])
@pytest.mark.parametrize(
    ("given", "printed"),
    [({}, "passive None"), ({"GOMP_SPINCOUNT": "9"}, "None 9"), ({"OMP_WAIT_POLICY": "active"}, "active None")],
)
def test_threads_wait_as_the_user_says_else_passively(package: str, given: dict[str, str], printed: str) -> None:
    environment = {name: value for name, value in os.environ.items() if "OMP" not in name} | given
    command = [sys.executable, "-c", PRINTED.format(package)]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip() == printed
