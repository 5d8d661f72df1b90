"""Compare this repository's Grounding DINO with the published package, for both published configs at full size.

    make references
    python benchmarks/gdino_reference.py                                    # some ten minutes on a small CPU
    python benchmarks/gdino_reference.py --configs GroundingDINO_SwinT_OGC --cases one_phrase

The package runs in a process of its own, on random weights that it writes in the layout of its files; ours reads that
file and works out by itself which model it is (`tests/reference/official_grounding_dino.py`). Figures are the largest
absolute difference: of logits relative to the largest of a query, of boxes relative to the image.

Queries start from a learned embedding that goes by their rank, so two cells whose scores differ by rounding alone may
trade places, and then their queries differ altogether. "moved" counts ranks at which the two selections differ; where
there are any, the figures are those of our decoder on the package's selection.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from conftest import write_tokenizer  # noqa: E402
from reference.clip import make_frame  # noqa: E402  (the harness lives beside the tests)
from reference.compare import relative_error  # noqa: E402
from reference.official_grounding_dino import FULL_CASES, OFFICIAL_CONFIGS  # noqa: E402
from reference.stages import normalise  # noqa: E402

from grounding_dino.groundingdino.models.grounding_dino import GroundingDINO  # noqa: E402
from grounding_dino.groundingdino.text import load_tokenizer, text_inputs  # noqa: E402
from grounding_dino.groundingdino.weights import build_model  # noqa: E402

TOLERANCE = 1e-4


def run_package(config: str, cases: list[str], work: Path) -> dict[str, np.ndarray]:
    """Let the package write weights and its answers into `work`."""
    (work / "text_encoder").mkdir()
    write_tokenizer(work / "text_encoder")
    paths = (REPOSITORY / ".references" / "groundingdino", REPOSITORY / "tests")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    command = [sys.executable, "-m", "reference.official_grounding_dino", "full", "--config", config]
    command += ["--cases", *cases]
    ended = subprocess.run([*command, "--work", str(work)], cwd=work, env=environment, capture_output=True, text=True)
    if ended.returncode != 0:
        sys.exit(f"the package failed:\n{ended.stderr[-3000:]}")
    return dict(np.load(work / "outputs.npz"))


@torch.inference_mode()
def compare(model: GroundingDINO, work: Path, case: str, expected: dict[str, np.ndarray]) -> tuple[float, ...]:
    """Errors of logits and boxes, ranks at which the selections differ, and our seconds."""
    size, prompt = FULL_CASES[case]
    tokenizer = load_tokenizer(work / "text_encoder")
    text = text_inputs([tokenizer.caption_ids(prompt)], tokenizer.special_ids)
    selected: list[torch.Tensor] = []
    select = model.transformer.select
    model.transformer.select = lambda scores: selected.append(select(scores)) or selected[0]
    start = time.perf_counter()
    image_features, text_features = model.encode_images(normalise(make_frame(0, size))), model.encode_text(text)
    output = model.detect(image_features, text_features)
    seconds = time.perf_counter() - start
    cells = torch.from_numpy(expected[f"{case}.selected"])[None]
    moved = int((selected[0] != cells).sum())
    if moved:
        model.transformer.select = lambda _: cells
        output = model.detect(image_features, text_features)
    model.transformer.select = select
    logits = relative_error(output.logits[0].numpy(), expected[f"{case}.logits"])
    boxes = float(np.abs(output.boxes_cxcywh[0].numpy() - expected[f"{case}.boxes"]).max())
    return logits, boxes, moved, seconds


def main() -> None:
    """Print a row for each config and case; the exit status is 1 if any figure is above the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", nargs="+", default=list(OFFICIAL_CONFIGS), choices=OFFICIAL_CONFIGS)
    parser.add_argument("--cases", nargs="+", default=list(FULL_CASES), choices=list(FULL_CASES))
    arguments = parser.parse_args()
    worst = 0.0
    header = ("config", "image", "tokens", "logits", "boxes", "moved", "package", "ours")
    print("{:26}{:>10}{:>8}{:>10}{:>10}{:>7}{:>11}{:>9}".format(*header), flush=True)
    for config in arguments.configs:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            expected = run_package(config, arguments.cases, work)
            model = build_model(work / "weights.pth", device="cpu")
            for case in arguments.cases:
                width, height = FULL_CASES[case][0]
                logits, boxes, moved, seconds = compare(model, work, case, expected)
                worst = max(worst, logits, boxes)
                tokens, package_seconds = len(expected[f"{case}.input_ids"]), float(expected[f"{case}.seconds"])
                print(
                    f"{config:26}{f'{height}x{width}':>10}{tokens:8}{logits:10.1e}{boxes:10.1e}{moved:7}"
                    f"{package_seconds:9.1f} s{seconds:7.1f} s",
                    flush=True,
                )
    print(f"worst {worst:.1e}, tolerance {TOLERANCE:.0e}")
    sys.exit(int(worst > TOLERANCE))


if __name__ == "__main__":
    main()
