"""Build SAM 2 models from a configuration and a checkpoint, with the entry points of facebookresearch/sam2."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from sam2.config import SAM2Config, apply_overrides, load_config
from sam2.memory_policies import check_policy, make_policy
from sam2.memory_policy import MemoryPolicy
from sam2.modeling.sam2_base import SAM2Base
from sam2.sam2_camera_predictor import SAM2CameraPredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor, SAM2VideoPredictorVOS
from sam2.weights import config_and_weights, find_weights, load_into

Model = TypeVar("Model", bound=SAM2Base)
Predictor = TypeVar("Predictor", bound=SAM2VideoPredictor)

# Hugging Face repository → config, checkpoint file in the repository
HF_MODELS = {
    f"facebook/{family}-hiera-{size}": (
        f"configs/{family}/{family}_hiera_{letter}.yaml",
        f"{family}_hiera_{size.replace('-', '_')}.pt",
    )
    for family in ("sam2", "sam2.1")
    for size, letter in (("tiny", "t"), ("small", "s"), ("base-plus", "b+"), ("large", "l"))
}

# What `apply_postprocessing` turns on: ambiguous single masks are replaced by the best of three.
_IMAGE_POSTPROCESSING = ("++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",)
# In videos the mask seen on a prompted frame also enters memory as it is shown, and small holes are filled.
_VIDEO_POSTPROCESSING = (
    *_IMAGE_POSTPROCESSING,
    "++model.binarize_mask_from_pts_for_mem_enc=true",
    "++model.fill_hole_area=8",
)
COARSEST_STRIDE = 32  # of the trunk's four levels, in pixels: a side of the image has to be a multiple of it
# what upstream's configurations name for a compiled predictor
_VOS = "sam2.sam2_video_predictor.SAM2VideoPredictorVOS"


def build_sam2(
    config_file: str | Path | None = None,
    ckpt_path: str | Path | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    dtype: torch.dtype = torch.float32,
    image_size: int | None = None,
    **ignored: object,
) -> SAM2Base:
    """Build a model for images (see `SAM2ImagePredictor`).

    Args:
        config_file: an upstream config name (`"configs/sam2.1/sam2.1_hiera_l.yaml"`), a short name
            (`"sam2.1-large"`) or a YAML file; None works the architecture out from the checkpoint.
        ckpt_path: official `.pt` file or Hugging Face folder; None gives random weights.
        device: where the model goes; None takes a GPU if there is one.
        mode: `"eval"`, or anything else for training mode.
        hydra_overrides_extra: assignments such as `"++model.fill_hole_area=0"`.
        apply_postprocessing: replace unstable single masks by the best of three.
        dtype: precision of weights and computation.
        image_size: side in pixels of the square that images are scaled to, a multiple of 32; None is what the weights
            were trained with (1024 in the official models). Smaller is faster, and sees less of small objects: at 512,
            a quarter of the cells. All weights fit any size; position encodings are made for it.
        ignored: other arguments change nothing, as upstream, but are warned of.

    Raises:
        FileNotFoundError: no such config or checkpoint.
        ValueError: neither config nor checkpoint given, an unknown setting, an `image_size` that is no multiple of 32,
            or weights that do not fit.
    """
    _warn_of(ignored)
    overrides = [*(_IMAGE_POSTPROCESSING if apply_postprocessing else ()), *hydra_overrides_extra]
    overrides += _size_override(image_size)
    return _build(SAM2Base, config_file, ckpt_path, device, mode, overrides, dtype)


def build_sam2_video_predictor(
    config_file: str | Path | None = None,
    ckpt_path: str | Path | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    vos_optimized: bool = False,
    dtype: torch.dtype = torch.float32,
    memory_policy: str | Callable[[SAM2Config], MemoryPolicy] | None = None,
    image_size: int | None = None,
    track_every: int = 1,
    sparse_memories: float = 1.0,
    **ignored: object,
) -> SAM2VideoPredictor:
    """Build a model for videos; the other arguments, and errors, as in `build_sam2`.

    Args:
        vos_optimized: compile the image encoder, memory attention, memory encoder and mask decoder with
            `torch.compile`: the first frames are slow, the others faster.
        memory_policy: a name of `sam2.memory_policies.POLICIES`, a subclass of `MemoryPolicy`, or whatever else makes
            one of the model's configuration. "default", or None, is SAM 2's, or SAMURAI's where the configuration
            says so.
        track_every: frames from one on which the model runs to the next, fewer than `num_maskmem`. Those whose index is
            no multiple of it have the masks of the frame before, moved by optical flow, and enter no memory; prompts
            are answered on any. 1, every frame, is SAM 2; 2 or 3 are faster, and not exact.
        sparse_memories: share of the cells that are read of an older memory, above 0 and at most 1: those that got the
            most attention when the memory was first read. Conditioning frames and the newest memory are read whole. 1,
            all cells, is SAM 2; 0.05 is faster, and not exact.

    Raises:
        ValueError: no such memory policy, a `track_every` or `sparse_memories` out of its range, memories read sparsely
            of a model whose memories are no cells (EdgeTAM), either of them beside a policy that looks ahead, or as in
            `build_sam2`.
    """
    _warn_of(ignored)
    check_policy(memory_policy)  # before any model is built
    overrides = _video_overrides(apply_postprocessing, hydra_overrides_extra, image_size)
    overrides += _cost_overrides(track_every, sparse_memories)
    is_compiled = vos_optimized or any(override.endswith("_target_=" + _VOS) for override in overrides)
    model_class = SAM2VideoPredictorVOS if is_compiled else SAM2VideoPredictor
    predictor = _build(model_class, config_file, ckpt_path, device, mode, overrides, dtype)
    return _with_policy(predictor, memory_policy)


def build_sam2_camera_predictor(
    config_file: str | Path | None = None,
    ckpt_path: str | Path | None = None,
    device: str | torch.device | None = None,
    mode: str = "eval",
    hydra_overrides_extra: Sequence[str] = (),
    apply_postprocessing: bool = True,
    dtype: torch.dtype = torch.float32,
    memory_policy: str | Callable[[SAM2Config], MemoryPolicy] | None = None,
    image_size: int | None = None,
    track_every: int = 1,
    sparse_memories: float = 1.0,
    **ignored: object,
) -> SAM2CameraPredictor:
    """Build the predictor that forks for cameras have, see `SAM2CameraPredictor`; arguments as in
    `build_sam2_video_predictor`."""
    _warn_of(ignored)
    check_policy(memory_policy)
    overrides = _video_overrides(apply_postprocessing, hydra_overrides_extra, image_size)
    overrides += _cost_overrides(track_every, sparse_memories)
    predictor = _build(SAM2CameraPredictor, config_file, ckpt_path, device, mode, overrides, dtype)
    return _with_policy(predictor, memory_policy)


def build_sam2_hf(model_id: str, **kwargs: object) -> SAM2Base:
    """`build_sam2` with a checkpoint of the Hugging Face hub (`"facebook/sam2.1-hiera-large"`) or a local folder."""
    return build_sam2(*_files_of(model_id), **kwargs)  # type: ignore[arg-type]


def build_sam2_video_predictor_hf(model_id: str, **kwargs: object) -> SAM2VideoPredictor:
    """`build_sam2_video_predictor` with a checkpoint of the Hugging Face hub or a local folder."""
    return build_sam2_video_predictor(*_files_of(model_id), **kwargs)  # type: ignore[arg-type]


def _with_policy(predictor: Predictor, policy: str | Callable[[SAM2Config], MemoryPolicy] | None) -> Predictor:
    """The same predictor, which remembers by a policy.

    Raises:
        ValueError: a policy that looks ahead, with settings that leave out frames or cells.
    """
    predictor.memory_policy = made = make_policy(policy, predictor.config)
    if made.looks_ahead and (predictor.config.track_every > 1 or predictor.config.sparse_memories < 1):
        raise ValueError(
            f"{type(made).__name__} looks at every frame and all memories: no track_every, no sparse_memories"
        )
    return predictor


def _warn_of(ignored: dict[str, object]) -> None:
    if ignored:
        warnings.warn(f"these arguments of a SAM 2 builder change nothing: {', '.join(ignored)}", stacklevel=3)


def _video_overrides(apply_postprocessing: bool, extra: Sequence[str], image_size: int | None) -> list[str]:
    return [*(_VIDEO_POSTPROCESSING if apply_postprocessing else ()), *extra, *_size_override(image_size)]


def _cost_overrides(track_every: int, sparse_memories: float) -> list[str]:
    """What makes a model faster and less exact, where it is asked for; else the configuration says."""
    settings = {"track_every": (track_every, 1), "sparse_memories": (sparse_memories, 1.0)}
    return [f"++model.{name}={value}" for name, (value, off) in settings.items() if value != off]


def _size_override(image_size: int | None) -> list[str]:
    return [] if image_size is None else [f"++model.image_size={image_size}"]


def _files_of(model_id: str) -> tuple[str | None, str]:
    if Path(model_id).is_dir():
        return None, model_id
    if model_id not in HF_MODELS:
        raise ValueError(f"{model_id!r} is neither a folder nor one of: {', '.join(HF_MODELS)}")
    from huggingface_hub import hf_hub_download

    config_file, checkpoint = HF_MODELS[model_id]
    return config_file, hf_hub_download(repo_id=model_id, filename=checkpoint)


def _build(
    model_class: type[Model],
    config_file: str | Path | None,
    ckpt_path: str | Path | None,
    device: str | torch.device | None,
    mode: str,
    overrides: Sequence[str],
    dtype: torch.dtype,
) -> Model:
    if ckpt_path is not None:
        find_weights(ckpt_path)  # a missing file is reported before any model is built
    state_dict = None
    if config_file is not None:
        config = load_config(config_file, overrides)
    elif ckpt_path is not None:
        config, state_dict = config_and_weights(ckpt_path)
        config = apply_overrides(config, overrides)
    else:
        raise ValueError("give a config_file, a ckpt_path, or both")
    if config.image_size < COARSEST_STRIDE or config.image_size % COARSEST_STRIDE:
        raise ValueError(f"expected an image_size that is a multiple of {COARSEST_STRIDE}, got {config.image_size}")
    if not 1 <= config.track_every < max(2, config.num_maskmem):
        most = max(1, config.num_maskmem - 1)
        raise ValueError(f"expected a track_every of 1 to {most} for this model, got {config.track_every}")
    if not 0 < config.sparse_memories <= 1:
        raise ValueError(f"expected sparse_memories above 0 and at most 1, got {config.sparse_memories}")
    if config.sparse_memories < 1 and config.memory_compressor != "none":
        raise ValueError(
            f"sparse_memories needs memories of cells; those of this model are a {config.memory_compressor}'s"
        )
    try:
        with torch.device("cpu"):  # whatever the default device and dtype are
            model = model_class(config).float()
    except (ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, AssertionError) as error:
        source = config_file if config_file is not None else ckpt_path
        raise ValueError(f"{source} describes a model that cannot be built: {error}") from error
    if ckpt_path is not None:
        load_into(model, ckpt_path, state_dict)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.to(device, dtype).train(mode != "eval")
