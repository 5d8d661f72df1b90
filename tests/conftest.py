"""Tiny random detectors in the real file formats, the scripts of the repository as modules; one thread per process."""

import copy
import functools
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
import torch

# No test may reach a model hub by accident; read by huggingface_hub when it is first imported.
os.environ["HF_HUB_OFFLINE"] = "1"

# Test processes run beside each other, one per core; the variables are for the processes that they start.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
torch.set_num_threads(1)
cv2.setNumThreads(1)

REPOSITORY = Path(__file__).resolve().parent.parent
BUNDLED_WEIGHTS = (REPOSITORY / "checkpoints/sam2.1_nano.pt", REPOSITORY / "gdino_checkpoints/nano")
# What scripts build models with; each is called with the path of its weights, or with "kind:path".
BUILDERS = ("build_sam2", "build_sam2_video_predictor", "HuggingFaceDetector", "LocalDetector", "build_detector")
_WORDS = ("a", "red", "green", "apple", "dog", "car", "tire", "the", "cat", "st", "bernard", "straße", "3", "5")


@pytest.fixture
def images() -> list[np.ndarray]:
    """Three (H, W, 3) uint8 images, two of one size."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, size, dtype=np.uint8) for size in ((60, 80, 3), (80, 60, 3), (60, 80, 3))]


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: what a loss of power would leave is not tested."""
    monkeypatch.setattr(os, "fsync", lambda number: None)


def write_tokenizer(folder: Path) -> None:
    """Write a BERT tokenizer of a few words and all letters, with the special ids Grounding DINO counts on."""
    vocabulary = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", 1010: ",", 1012: ".", 1029: "?"}
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    for index, token in enumerate(letters + ["##" + letter for letter in letters] + list(_WORDS)):
        vocabulary[1100 + index] = token
    size = max(vocabulary) + 1
    lines = [vocabulary.get(index, f"[unused{index}]") for index in range(size)]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def write_tiny_detector(folder: Path, kind: str) -> None:
    """Write a random detector of a few hundred thousand parameters that scores boxes around 0.5.

    Args:
        folder: where the model, its processor and its tokenizer go.
        kind: "GroundingDino" or "MMGroundingDino".
    """
    import transformers

    write_tokenizer(folder)
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(
        backbone_config=transformers.SwinConfig(
            image_size=64, embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 2], window_size=4,
            out_indices=[2, 3, 4],
        ),
        text_config=transformers.BertConfig(
            vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=32, max_position_embeddings=64,
        ),
        d_model=32, num_queries=20, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        encoder_attention_heads=4, decoder_attention_heads=4, max_text_len=48, disable_custom_kernels=True,
    )  # fmt: skip
    model = getattr(transformers, f"{kind}ForObjectDetection")(config)
    with torch.no_grad():
        for parameter in model.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    image_processor = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 128, "longest_edge": 192})
    transformers.GroundingDinoProcessor(image_processor, tokenizer).save_pretrained(folder)


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Grounding DINO."""
    folder = tmp_path_factory.mktemp("tiny-grounding-dino")
    write_tiny_detector(folder, "GroundingDino")
    return folder


@pytest.fixture(scope="session")
def tiny_florence2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random Florence-2."""
    from tiny_florence2 import write_tiny_florence2

    folder = tmp_path_factory.mktemp("tiny-florence-2")
    write_tiny_florence2(folder)
    return folder


def built_once(build: Callable[..., Any], built: dict[object, Any]) -> Callable[..., Any]:
    """`build`, but of the bundled weights it makes each model only once.

    Every call gets a shallow copy, so that no caller sees an attribute that another one set; weights are shared.

    Args:
        build: makes a model from its arguments.
        built: the models so far, by what they were built from.
    """

    @functools.wraps(build, updated=())
    def build_or_copy(*args: Any, **kwargs: Any) -> Any:
        paths = [Path(str(value).rpartition(":")[2]).resolve() for value in (*args, *kwargs.values())]
        if not any(path in BUNDLED_WEIGHTS and path.exists() for path in paths):
            return build(*args, **kwargs)
        key = (build, repr(args), repr(sorted(kwargs.items())))
        if key not in built:
            built[key] = build(*args, **kwargs)
        return copy.copy(built[key])

    return build_or_copy


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """A function that imports a script of the repository by its file name, whatever dots that has.

    Scripts that are loaded with it share the bundled models, see `built_once`.
    """
    built: dict[object, Any] = {}

    def load(file_name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(Path(file_name).stem.replace(".", "_"), REPOSITORY / file_name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name in BUILDERS:
            if hasattr(module, name):
                setattr(module, name, built_once(getattr(module, name), built))
        return module

    return load


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium; where there is none, the test is skipped."""
    from studio_browser import chromium

    with chromium() as browser:
        yield browser
