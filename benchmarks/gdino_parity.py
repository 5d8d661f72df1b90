"""Compare this repository's Grounding DINO with transformers' at full size: Swin-T and Swin-B, sizes and prompts.

    python benchmarks/gdino_parity.py                                  # half an hour on a small CPU
    python benchmarks/gdino_parity.py --backbones swin_T_224_1k --sizes 320x480 --phrases 1 20
    python benchmarks/gdino_parity.py --backbones swin_T_224_1k --sizes 800x1333 --phrases 8 --dtype bfloat16

The same random weights, every parameter away from its initial constant, go through both, ours by way of the folder
that transformers writes and in `--dtype`, the reference in float32. Figures are the largest absolute difference: of
logits and of the feature enhancer's cells relative to the largest magnitude of the reference's, of boxes relative to
the image.

Queries start from a learned embedding that goes by their rank, so two cells whose scores differ by rounding alone may
trade places, and then their queries differ altogether. "moved" counts ranks at which the two selections differ; where
there are any, the figures of logits and boxes are those of our decoder on the reference's selection.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY))

from grounding_dino.groundingdino.configuration import BACKBONES, CONFIG_FILES  # noqa: E402
from grounding_dino.groundingdino.models.grounding_dino import DetectorOutput, GroundingDINO  # noqa: E402
from grounding_dino.groundingdino.text import text_inputs  # noqa: E402
from grounding_dino.groundingdino.weights import build_model  # noqa: E402

CLS, SEP, STOP, QUESTION = 101, 102, 1012, 1029
TOLERANCE = 1e-4
NOISE = 0.02


class Comparison(NamedTuple):
    """Errors of one image and prompt, and the seconds that both took for it."""

    cells: float
    logits: float
    boxes: float
    moved: int
    reference_seconds: float
    our_seconds: float


def random_reference(backbone: str, seed: int) -> Any:
    """transformers' model of one of upstream's backbones, of random weights."""
    torch.manual_seed(seed)
    sizes = {name: list(value) if isinstance(value, tuple) else value for name, value in BACKBONES[backbone].items()}
    swin = transformers.SwinConfig(out_indices=[2, 3, 4], **sizes)
    config = transformers.GroundingDinoConfig(backbone_config=swin, disable_custom_kernels=True)
    model = transformers.GroundingDinoForObjectDetection(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(NOISE * torch.randn_like(parameter))
    return model


def random_prompt(num_phrases: int, seed: int) -> list[int]:
    """[CLS] phrase . phrase . [SEP] of phrases of one to three random tokens, at most 256 tokens in all."""
    generator = random.Random(seed)
    input_ids = [CLS]
    for _ in range(num_phrases):
        phrase = [generator.randrange(2000, 30000) for _ in range(generator.randint(1, 3))]
        if len(input_ids) + len(phrase) + 2 > 256:
            break
        input_ids += [*phrase, STOP]
    return [*input_ids, SEP]


def relative_error(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).abs().max() / reference.abs().max())


@torch.inference_mode()
def compare(reference: Any, model: GroundingDINO, image: Tensor, prompts: list[list[int]]) -> list[Comparison]:
    """Run both on an image (3, H, W) with each prompt."""
    started = time.perf_counter()
    image_features = model.encode_images([image])
    image_seconds = time.perf_counter() - started
    comparisons = []
    for input_ids in prompts:
        started = time.perf_counter()
        expected = reference(pixel_values=image[None], input_ids=torch.tensor([input_ids]))
        reference_seconds = time.perf_counter() - started
        expected_output = DetectorOutput(expected.logits[..., : len(input_ids)], expected.pred_boxes)
        expected_cells = expected.enc_outputs_class.amax(dim=-1).topk(model.config.num_queries, dim=1).indices

        seen: dict[str, Tensor] = {}
        handle = model.transformer.encoder.register_forward_hook(lambda *call: seen.update(cells=call[-1][0].cells))  # noqa: B023
        select = model.transformer.select
        model.transformer.select = lambda scores: seen.setdefault("selected", select(scores))  # noqa: B023
        started = time.perf_counter()
        text_features = model.encode_text(text_inputs([input_ids], (CLS, SEP, STOP, QUESTION)))
        output = model.detect(image_features, text_features)
        our_seconds = image_seconds + time.perf_counter() - started
        handle.remove()

        moved = int((seen["selected"] != expected_cells).sum())
        if moved:
            model.transformer.select = lambda _: expected_cells  # noqa: B023
            output = model.detect(image_features, text_features)
        model.transformer.select = select
        comparisons.append(
            Comparison(
                relative_error(seen["cells"], expected.encoder_last_hidden_state_vision),
                relative_error(output.logits, expected_output.logits),
                float((output.boxes_cxcywh - expected_output.boxes_cxcywh).abs().max()),
                moved,
                reference_seconds,
                our_seconds,
            )
        )
    return comparisons


def size_of(text: str) -> tuple[int, int]:
    """`"800x1333"` → (800, 1333), height first."""
    height, _, width = text.partition("x")
    return int(height), int(width)


def main() -> None:
    """Print a row for each backbone, size and prompt; exit status 1 if a float32 figure is above the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=list(CONFIG_FILES), choices=list(BACKBONES))
    parser.add_argument(
        "--sizes", nargs="+", type=size_of, default=[(800, 1333), (640, 640), (333, 500)], metavar="HxW"
    )
    parser.add_argument("--phrases", nargs="+", type=int, default=[1, 8, 85], help="numbers of phrases in the prompts")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"], help="of our model")
    parser.add_argument("--seed", type=int, default=0, help="of weights, images and prompts")
    arguments = parser.parse_args()
    prompts = [random_prompt(number, arguments.seed + i) for i, number in enumerate(arguments.phrases)]
    worst = 0.0
    header = ("backbone", "image", "tokens", "cells", "logits", "boxes", "moved", "transformers", "ours")
    print("{:16}{:>10}{:>8}{:>10}{:>10}{:>10}{:>7}{:>14}{:>8}".format(*header), flush=True)
    for backbone in arguments.backbones:
        reference = random_reference(backbone, arguments.seed)
        with tempfile.TemporaryDirectory() as folder:
            reference.save_pretrained(folder)
            model = build_model(folder, device="cpu", dtype=getattr(torch, arguments.dtype))
        for height, width in arguments.sizes:
            image = torch.randn(3, height, width, generator=torch.Generator().manual_seed(arguments.seed))
            rows = compare(reference, model, image, prompts)
            for input_ids, row in zip(prompts, rows, strict=True):
                worst = max(worst, row.cells, row.logits, row.boxes)
                print(
                    f"{backbone:16}{f'{height}x{width}':>10}{len(input_ids):8}{row.cells:10.1e}{row.logits:10.1e}"
                    f"{row.boxes:10.1e}{row.moved:7}{row.reference_seconds:12.1f} s{row.our_seconds:6.1f} s",
                    flush=True,
                )
    print(f"worst {worst:.1e}, tolerance in float32 {TOLERANCE:.0e}")
    sys.exit(int(arguments.dtype == "float32" and worst > TOLERANCE))


if __name__ == "__main__":
    main()
