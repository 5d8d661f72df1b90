"""Where a frame of video tracking spends its time, and how near each stage is to what the machine can do.

    python benchmarks/stages.py                                              # SAM 2.1 tiny, 1024 px, one object
    python benchmarks/stages.py --config edgetam --num-objects 8 --threads 1
    python benchmarks/stages.py --checkpoint checkpoints/sam2.1_nano.pt --num-objects 6
    python benchmarks/stages.py --device cuda --num-objects 16               # in bfloat16

For every stage: processor time of a frame once the memory is full, the floating-point operations and the bytes that
its operators read and write, and the share of the machine's rate of matrix products and of what is possible: the time
that the operations take at that rate, or the bytes at the rate of copying, whichever is longer, over the time measured.
Both rates are measured in the same run. Bytes count each operator by itself; a value that stays in a cache between two
of them is counted nevertheless, so a stage may be "possible" at more than 100 %. On a GPU it is time on the clock, with
a wait for the GPU at the border of every stage.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor

FRAME_SIZE = (360, 640)  # height, width in pixels
STAGES = {
    "trunk": "image_encoder.trunk",
    "neck": "image_encoder.neck",
    "memory attention": "memory_attention",
    "prompt encoder": "sam_prompt_encoder",
    "mask decoder": "sam_mask_decoder",
    "memory encoder": "memory_encoder",
    "perceiver": "spatial_perceiver",
}
REST = "all else"
SAME_WORK = {  # of operators that PyTorch does not count, those that it does
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: torch.ops.aten._scaled_dot_product_flash_attention,
    torch.ops.aten.addmm_: torch.ops.aten.addmm,
}
VIEWS = ("view", "reshape", "permute", "transpose", "expand", "slice", "select", "unsqueeze", "squeeze", "split", "t")


def clock(device: torch.device) -> float:
    """Seconds of processor time, or once a GPU has done all it was given, on the clock."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


class Stopwatch:
    """Says in which stage the program is, and counts the time of each."""

    def __init__(self, model: SAM2VideoPredictor) -> None:
        self.device = model.device
        self.seconds: dict[str, float] = defaultdict(float)
        self.open = [REST]
        self.since = clock(self.device)
        for stage, path in STAGES.items():
            try:
                module = model.get_submodule(path)
            except AttributeError:
                continue  # not every model has it
            self._watch(stage, module)

    @property
    def stage(self) -> str:
        return self.open[-1]

    def tick(self) -> None:
        now = clock(self.device)
        self.seconds[self.stage] += now - self.since
        self.since = now

    def _watch(self, stage: str, module: nn.Module) -> None:
        """Wrap the methods by which the engine calls a module, which are not only `forward`."""
        for name in ("forward", "attend_to_frame"):
            method = getattr(module, name, None)
            if method is not None:
                object.__setattr__(module, name, self._timed(stage, method))

    def _timed(self, stage: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            self.open.append(stage)
            try:
                return method(*args, **kwargs)
            finally:
                self.tick()
                self.open.pop()

        return timed


class Counter(TorchDispatchMode):
    """Bytes that operators read and write, and operations, by stage."""

    def __init__(self, watch: Stopwatch) -> None:
        super().__init__()
        self.watch = watch
        self.bytes: dict[str, float] = defaultdict(float)
        self.flop: dict[str, float] = defaultdict(float)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # in inference mode a convolution or a linear layer arrives here as a whole
            result = func.decompose(*args, **(kwargs or {}))
        if result is not NotImplemented:
            return result
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__.strip("_") not in VIEWS:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.bytes[self.watch.stage] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        counted = flop_registry.get(SAME_WORK.get(func.overloadpacket, func.overloadpacket))
        if counted is not None:
            self.flop[self.watch.stage] += counted(*args, **(kwargs or {}), out_val=result)
        return result


def rate_of(work: Callable[[], Any], amount: float, device: torch.device, seconds: float = 2.0) -> float:
    """How much of something is done in a second."""
    work()
    start, rounds = clock(device), 0
    while clock(device) - start < seconds:
        work()
        rounds += 1
    return rounds * amount / (clock(device) - start)


def machine_rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Operations a second in products of matrices, and bytes read and written a second in copies that fit no cache."""
    side = 1536 if device.type == "cpu" else 8192
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)
    source = torch.ones(64 << 20, device=device)
    target = torch.empty_like(source)
    return (
        rate_of(lambda: torch.mm(a, b), 2 * side**3, device),
        rate_of(lambda: target.copy_(source), 2 * source.numel() * source.element_size(), device),
    )


def make_frames(num_frames: int) -> list[np.ndarray]:
    """Noise that moves: RGB uint8 frames."""
    height, width = FRAME_SIZE
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return [np.roll(noise, 3 * index, axis=1) for index in range(num_frames)]


def boxes(num_objects: int) -> np.ndarray:
    """(N, 4) float32 xyxy in pixels, side by side."""
    height, width = FRAME_SIZE
    left = np.linspace(8, width - 100, num_objects)
    return np.stack([left, np.full_like(left, 60), left + 80, np.full_like(left, height - 60)], 1).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/sam2.1/sam2.1_hiera_t.yaml")
    parser.add_argument("--checkpoint", help="a checkpoint that says itself which model it is; or with --config")
    parser.add_argument("--image-size", type=int, help="side of the model's input; default the model's own")
    parser.add_argument("--num-objects", type=int, default=1)
    parser.add_argument("--num-frames", type=int, default=3, help="that are timed, after those that fill the memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    size = [] if options.image_size is None else [f"++model.image_size={options.image_size}"]
    predictor = build_sam2_video_predictor(
        None if options.checkpoint else options.config,
        options.checkpoint,
        device=options.device,
        hydra_overrides_extra=size,
        dtype=torch.float32 if options.device == "cpu" else torch.bfloat16,
    )
    seconds, counter = measure(predictor, options.num_objects, options.num_frames)
    rates = machine_rates(predictor.device, predictor.dtype)
    print(f"{rates[0] / 1e9:.1f} GFLOP/s in matrix products, {rates[1] / 1e9:.1f} GB/s in copies")
    print(
        f"{'stage':17} {'ms':>8} {'GFLOP':>8} {'GB':>7} {'GFLOP/s':>8} {'of matrix rate':>15} {'of the possible':>16}"
    )
    for stage in (*STAGES, REST):
        if seconds.get(stage):
            print_line(stage, seconds[stage], counter.flop[stage], counter.bytes[stage], rates)
    totals = (sum(each.values()) for each in (seconds, counter.flop, counter.bytes))
    print_line("frame", *totals, rates)


def measure(predictor: SAM2VideoPredictor, num_objects: int, num_frames: int) -> tuple[dict[str, float], Counter]:
    """Seconds by stage of a frame, and what is counted on one more frame."""
    full = predictor.config.num_maskmem + 1
    frames = make_frames(full + num_frames + 1)
    state = predictor.init_stream()
    predictor.append_frame(state, frames[0])
    for obj_id, box in enumerate(boxes(num_objects), start=1):
        predictor.add_new_points_or_box(state, 0, obj_id, box=box)
    predictor.step(state)
    for frame in frames[1:full]:
        predictor.append_frame(state, frame)
        predictor.step(state)
    watch = Stopwatch(predictor)
    for frame in frames[full:-1]:
        predictor.append_frame(state, frame)
        predictor.step(state)
    watch.tick()
    seconds = {stage: total / num_frames for stage, total in watch.seconds.items()}
    counter = Counter(watch)
    with counter:
        predictor.append_frame(state, frames[-1])
        predictor.step(state)
    return seconds, counter


def print_line(stage: str, seconds: float, flop: float, moved: float, rates: tuple[float, float]) -> None:
    limit = max(flop / rates[0], moved / rates[1])
    print(
        f"{stage:17} {1000 * seconds:8.1f} {flop / 1e9:8.2f} {moved / 1e9:7.2f} {flop / seconds / 1e9:8.1f} "
        f"{flop / seconds / rates[0]:15.0%} {limit / seconds:16.0%}"
    )


if __name__ == "__main__":
    main()
