"""Compare this repository's SAM 2 with the reference package `sam2==1.1.0`, for all eight official configs.

    make references
    python benchmarks/sam2_parity.py                                  # full size; an hour or more on a small CPU
    python benchmarks/sam2_parity.py --configs sam2.1_hiera_t --image-size 256

Random weights in the official file format, every parameter away from its initial constant, go through both packages,
each in a process of its own: single stages, the image predictor with every kind of prompt, and a clip with several
objects, box / point / mask prompts, refinement on a later frame, removal and reverse tracking
(`tests/reference/scenarios.py`). The figure is the largest absolute difference over the largest magnitude of the
reference's array, row by row for arrays of several objects (`tests/reference/compare.py`). "-float32" runs keep spatial
memories in float32 in both packages: the arithmetic compared without the rounding to bfloat16 that both do.

Outputs and weights (3 GB for all configs) are kept in the work folder: a run that was interrupted goes on, one that is
finished prints its table again, `--again` compares changed code with the reference outputs that are there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tqdm import tqdm

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))

from reference.compare import compare_runs  # noqa: E402  (the harness lives beside the tests)
from reference.run import OFFICIAL_CONFIGS  # noqa: E402

SCENARIOS = ("stages", "image", "tour", "tour-float32")
TOLERANCE = 1e-4


def run_package(package: str, config: str, image_size: int, scenarios: list[str], work: Path) -> None:
    """Run scenarios with one package in a process of its own; `work` is made and filled, see `reference.run`."""
    sources = REPOSITORY / ".references" / "sam2" if package == "reference" else REPOSITORY
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(sources), str(REPOSITORY / "tests")))}
    command = [sys.executable, "-m", "reference.run", "--package", package, "--config", config]
    command += ["--image-size", str(image_size), "--num-frames", "4", "--work", str(work), "--scenarios", *scenarios]
    work.mkdir(parents=True, exist_ok=True)
    with open(work / f"{package}.log", "a", encoding="utf-8") as log:
        subprocess.run(command, check=True, cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT)


def compare_config(config: str, image_size: int, scenarios: list[str], work: Path, again: bool) -> dict[str, float]:
    """Run both packages as far as needed, this repository's in any case if `again`; relative error by scenario."""
    table_file = work / "errors.json"
    errors: dict[str, float] = json.loads(table_file.read_text()) if table_file.exists() and not again else {}
    for scenario in scenarios if again else ():
        (work / "ours" / f"{scenario}.npz").unlink(missing_ok=True)
    todo = [scenario for scenario in scenarios if scenario not in errors]
    for scenario in todo:
        for package in ("reference", "ours"):
            run_package(package, config, image_size, [scenario], work)
        ours, reference = (work / package / f"{scenario}.npz" for package in ("ours", "reference"))
        errors[scenario] = compare_runs(ours, reference).error
        table_file.write_text(json.dumps(errors))
    return errors


def main() -> None:
    """Run what is missing and print the table; the exit status is 1 if any figure is above the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=OFFICIAL_CONFIGS, choices=OFFICIAL_CONFIGS, metavar="CONFIG")
    parser.add_argument("--image-size", type=int, default=1024, help="side of the model's input, a multiple of 32")
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS), help="see tests/reference/scenarios.py")
    parser.add_argument("--again", action="store_true", help="run our side again, keep the reference's")
    parser.add_argument("--work-folder", type=Path, default=REPOSITORY / "outputs" / "sam2_parity")
    arguments = parser.parse_args()
    if not (REPOSITORY / ".references" / "sam2").is_dir():
        parser.error("the reference package is not installed; run: make references")
    rows = {}
    for config in tqdm(arguments.configs, desc="configs"):
        work = arguments.work_folder.resolve() / f"{config}-{arguments.image_size}"
        rows[config] = compare_config(config, arguments.image_size, arguments.scenarios, work, arguments.again)
    print(f"{'relative error':16}" + "".join(f"{scenario:>14}" for scenario in arguments.scenarios))
    for config, errors in rows.items():
        print(f"{config:16}" + "".join(f"{errors[scenario]:14.1e}" for scenario in arguments.scenarios))
    worst = max(errors[scenario] for errors in rows.values() for scenario in arguments.scenarios)
    print(f"worst {worst:.1e}, tolerance {TOLERANCE:.0e}")
    sys.exit(int(worst > TOLERANCE))


if __name__ == "__main__":
    main()
