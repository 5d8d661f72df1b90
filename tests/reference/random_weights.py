"""Random SAM 2 weights on which a difference between two implementations cannot hide.

Fresh constructors leave many parameters at 0, 1 or 1e-6, where a swapped or forgotten one changes nothing. Here every
tensor is drawn from its own generator, seeded by its name, at a scale that keeps activations near unit size; then the
output heads are calibrated so that masks have both signs, predicted IoUs spread over (0, 1) and object scores have
both signs.
"""

import zlib
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

MASK_LOGIT_STD = 4.0
IOU_LOGIT_STD = 1.2
OBJECT_SCORE_STD = 4.0
ABSENT_SHARES = (0.05, 0.35)  # the share of outputs that say "absent" lies between these

# Gains of layers whose output is added to something, or is the key of an attention that must not be one-hot.
_GAINS = {
    "attn.proj.weight": 0.5,
    "mlp.layers.1.weight": 0.5,
    "linear2.weight": 0.5,
    "pwconv2.weight": 0.5,
    "memory_encoder.out_proj.weight": 0.3,
    "token_mixer.conv.c.weight": 0.4,
    "token_mixer.conv1.c.weight": 0.4,
    "channel_mixer.conv2.c.weight": 0.4,
}


def random_state_dict(shapes: Mapping[str, Iterable[int]], seed: int = 0) -> dict[str, Tensor]:
    """Draw a value for every named tensor.

    Args:
        shapes: Shape of each tensor under its official name.
        seed: Another seed gives other weights.

    Returns:
        float32 tensors under the same names; each depends on its name, its shape and `seed` only.
    """
    return {name: _random_tensor(name, tuple(shape), seed) for name, shape in shapes.items()}


def _random_tensor(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}:{name}".encode()))
    values = torch.randn(shape, generator=generator)
    if name.endswith("gamma"):
        return 0.6 + 0.1 * values
    if name.endswith("gaussian_matrix"):
        return values
    if name.endswith("running_var"):
        return 1 + 0.5 * values.tanh()
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    if name.endswith(("bias", "running_mean")):
        return 0.1 * values
    if name.endswith("weight") and len(shape) == 1:
        return 1 + 0.15 * values
    if not name.endswith("weight") or name.endswith(("token.weight", "tokens.weight", "embed.weight")):
        return 0.5 * values
    if "point_embeddings" in name:
        return 0.7 * values
    is_transposed_conv = "output_upscaling" in name
    fan_in = shape[0] if is_transposed_conv else torch.Size(shape[1:]).numel()
    gain = next((gain for ending, gain in _GAINS.items() if name.endswith(ending)), 1.2)
    return values * gain / fan_in**0.5


@torch.no_grad()
def calibrate_heads(mask_decoder: nn.Module, run_prompts: Callable[[], None]) -> None:
    """Rescale the last layers of a mask decoder in place so that what it puts out is neither constant nor saturated.

    Args:
        mask_decoder: The decoder; only its sub-module names, which are those of the official files, are relied on.
        run_prompts: Runs a representative set of prompts through the model.
    """
    mask_heads = [mlp.layers[-1] for mlp in mask_decoder.output_hypernetworks_mlps]
    iou_head = mask_decoder.iou_prediction_head.layers[-1]
    score_head = mask_decoder.pred_obj_score_head.layers[-1]
    recorder = _Recorder([mask_decoder.output_upscaling[-1], *mask_heads, iou_head, score_head])
    with recorder:
        run_prompts()

    maps = recorder.outputs[mask_decoder.output_upscaling[-1]]
    # (B, C/8, h, w), or as this repository has them on a CPU, (B, …, C/8)
    channels = torch.cat([one.movedim(1 if one.ndim == 4 else -1, 0).flatten(1) for one in maps], dim=1)
    mean = channels.mean(dim=1)
    keep = torch.eye(len(mean)) - torch.outer(mean, mean) / mean.dot(mean)  # masks are 0 on average
    for head in mask_heads:
        filters = torch.cat(recorder.outputs[head]) @ keep
        gain = MASK_LOGIT_STD / (filters @ channels[:, ::7]).std()
        head.weight.copy_(gain * keep @ head.weight)
        head.bias.copy_(gain * keep @ head.bias)

    logits = torch.cat(recorder.outputs[iou_head])
    _rescale(iou_head, IOU_LOGIT_STD / logits.std(), logits.mean())

    scores = torch.cat(recorder.outputs[score_head]).flatten().sort().values
    first, end = (round(share * len(scores)) for share in ABSENT_SHARES)
    widest = first + int(scores[first : end + 1].diff().argmax())  # a threshold that rounding errors do not cross
    _rescale(score_head, OBJECT_SCORE_STD / scores.std(), (scores[widest] + scores[widest + 1]) / 2)


def _rescale(layer: nn.Module, gain: Tensor, zero: Tensor) -> None:
    """Make a linear layer put out `gain` times how far its output was above `zero`."""
    layer.weight.mul_(gain)
    layer.bias.copy_(gain * (layer.bias - zero))


class _Recorder:
    """Keeps the outputs of modules while it is entered."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.outputs: dict[nn.Module, list[Tensor]] = {module: [] for module in modules}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> None:
        for module in self.outputs:
            self._handles.append(module.register_forward_hook(self._keep))

    def __exit__(self, *_error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _keep(self, module: nn.Module, _inputs: object, output: Tensor) -> None:
        self.outputs[module].append(output.detach().float().clone())
