"""Run the published Grounding DINO package and write what it returns; nothing in it is patched.

    PYTHONPATH=.references/groundingdino:tests python -m reference.official_grounding_dino run --work W
    PYTHONPATH=.references/groundingdino:tests python -m reference.official_grounding_dino full --work W --config C
    PYTHONPATH=.references/groundingdino:tests python -m reference.official_grounding_dino describe --work W

`W/text_encoder/` must hold a BERT tokenizer; a BERT is put beside it, which the package then reads as it would read
`bert-base-uncased`. `run` writes a model with a full-size Swin-T, a small BERT, short encoder and decoder and random
weights in the layout of the published files (`W/weights.pth`), its config (`W/config.py`) and, in `W/outputs.npz`, its
answers to `CASES`, what it makes of an image file, and what its `predict` returns. `full` does the same for one of the
published configs, with a BERT of the size of theirs, on `FULL_CASES` only. `describe` prints the shapes of the
parameters of both published configs, with a small BERT again.

Every prompt ends with a mark, without one the package fails; and cases are run one by one: it pads images of different
sizes before its backbone, and mixes up the text masks of prompts that share a batch.
"""

import argparse
import contextlib
import json
import runpy
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from reference.clip import make_frame
from reference.random_weights import random_state_dict
from reference.stages import normalise

Arrays = dict[str, np.ndarray]

# name → (width, height) of the image in pixels, prompt
Cases = dict[str, tuple[tuple[int, int], str]]
CASES: Cases = {
    "one_phrase": ((128, 96), "dog."),
    "several_phrases": ((92, 139), "red apple. the dog. st. bernard. tire."),
    "a_question": ((80, 88), "a cat? car."),
    "long": ((96, 96), "a red car. tire. the green dog. apple. cat. 3 tires. car 5. straße."),
}
FULL_CASES: Cases = {
    "one_phrase": ((500, 333), CASES["one_phrase"][1]),
    "several_phrases": ((640, 480), CASES["several_phrases"][1]),
    "long": ((1066, 800), CASES["long"][1]),
}
PREDICTED_SIZE = (128, 88)
PREDICTED = ("Red apple. the Dog. green car. tire", 0.8, 0.6)  # caption, box threshold, text threshold
FILE_SIZE = (200, 120)  # of the image file that is read and resized
OFFICIAL_CONFIGS = ("GroundingDINO_SwinT_OGC", "GroundingDINO_SwinB_cfg")
SMALL = {"enc_layers": 2, "dec_layers": 3, "dim_feedforward": 256, "num_queries": 40}
SCORE_GAIN = 0.3
BOX_STEP = 0.3  # larger steps push the boxes to the edges, where differences vanish
NOT_CHECKPOINTED = {"use_checkpoint": False, "use_transformer_ckpt": False}
BERT = {"hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 192, "max_position_embeddings": 64}
FULL_BERT = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512}


def published_settings(name: str) -> dict[str, Any]:
    """The assignments of one of the package's config files."""
    import groundingdino.config

    file = Path(groundingdino.config.__file__).with_name(f"{name}.py")
    return {key: value for key, value in runpy.run_path(str(file)).items() if not key.startswith("__")}


def write_text_encoder(folder: Path, num_layers: int, sizes: dict[str, int]) -> None:
    """Put a random BERT of the given sizes beside the tokenizer in `folder`."""
    from transformers import BertConfig, BertModel

    vocab_size = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    BertModel(BertConfig(vocab_size=vocab_size, num_hidden_layers=num_layers, **sizes)).save_pretrained(folder)


def build(work: Path, name: str, settings: dict[str, Any]) -> torch.nn.Module:
    """Write `settings` as the config file `W/NAME.py` and let the package build it with the text encoder in `work`."""
    from groundingdino.models import build_model
    from groundingdino.util.slconfig import SLConfig

    file = work / f"{name}.py"
    file.write_text("".join(f"{key} = {value!r}\n" for key, value in settings.items()), encoding="utf-8")
    config = SLConfig.fromfile(str(file))
    config.text_encoder_type = str(work / "text_encoder")
    with contextlib.redirect_stdout(sys.stderr):  # it announces its text encoder
        return build_model(config).eval()


def published_layout(model: torch.nn.Module) -> dict[str, Any]:
    """What the published files hold: the weights under `module.…`, and two tensors that no forward pass reads."""
    weights = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    weights["module.label_enc.weight"] = torch.randn(7, model.hidden_dim)
    weights["module.bert.embeddings.position_ids"] = torch.arange(model.bert.config.max_position_embeddings)[None]
    return {"model": weights}


def write_random_weights(model: torch.nn.Module, cases: Cases, file: Path) -> None:
    """Fill a model with random weights that suit the cases, and write them in the layout of the published files."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    weights = random_state_dict(shapes)
    for name in weights:
        if "bbox_embed" in name and ".layers.2." in name:
            weights[name] *= BOX_STEP
    model.load_state_dict(weights, strict=False)
    spread_scores(model, *cases["several_phrases"])
    torch.save(published_layout(model), file)


@torch.no_grad()
def spread_scores(model: torch.nn.Module, size: tuple[int, int], prompt: str) -> None:
    """Centre and scale what the decoder puts out, so that scores depend on the query and are not all near 0 or 1."""
    norm, outputs = model.transformer.decoder.norm, []
    handle = norm.register_forward_hook(lambda *call: outputs.append(call[-1]))
    run_case(model, size, prompt)
    handle.remove()
    norm.bias -= outputs[-1].mean(dim=(0, 1))
    norm.weight *= SCORE_GAIN
    norm.bias *= SCORE_GAIN


@torch.inference_mode()
def run_case(model: torch.nn.Module, size: tuple[int, int], prompt: str) -> Arrays:
    """What the model says about one image and prompt of T tokens.

    Returns:
        input_ids (T,), logits (Q, T), boxes (Q, 4) cxcywh in 0..1, the cells (Q,) that its queries start from, the
        margin by which each rank of them is won, relative to the best score, and the seconds it took.
    """
    seen = {}
    handle = model.transformer.enc_out_class_embed.register_forward_hook(lambda *call: seen.update(scores=call[-1]))
    start = time.perf_counter()
    answer = model(normalise(make_frame(0, size)), captions=[prompt])
    seconds = time.perf_counter() - start
    handle.remove()
    input_ids = np.array(model.tokenizer(prompt)["input_ids"])
    logits = answer["pred_logits"][0].numpy()
    if not np.isneginf(logits[:, len(input_ids) :]).all():
        raise AssertionError("expected no score beyond the prompt's tokens")
    scores, cells = seen["scores"].max(-1)[0][0].topk(model.num_queries + 1)
    return {
        "input_ids": input_ids,
        "logits": logits[:, : len(input_ids)],
        "boxes": answer["pred_boxes"][0].numpy(),
        "selected": cells[:-1].numpy(),
        "margin": -(scores.diff() / scores[0]).max().numpy(),
        "seconds": np.array(seconds),
    }


def run_cases(model: torch.nn.Module, cases: Cases) -> Arrays:
    """`run_case` for each, names joined by a dot."""
    return {
        f"{name}.{kind}": array
        for name, (size, prompt) in cases.items()
        for kind, array in run_case(model, size, prompt).items()
    }


def run(work: Path) -> None:
    """Build a small model, save it, answer every case, read an image file, say what is in a picture."""
    from groundingdino.util.inference import load_image, predict

    write_text_encoder(work / "text_encoder", num_layers=2, sizes=BERT)
    model = build(work, "config", published_settings("GroundingDINO_SwinT_OGC") | SMALL | NOT_CHECKPOINTED)
    write_random_weights(model, CASES, work / "weights.pth")
    arrays = run_cases(model, CASES)
    Image.fromarray(make_frame(0, FILE_SIZE)).save(work / "picture.png")
    arrays["file.image"], tensor = load_image(str(work / "picture.png"))
    arrays["file.tensor"] = tensor.numpy()
    image = normalise(make_frame(0, PREDICTED_SIZE))[0]
    for remove_combined in (False, True):
        boxes, scores, phrases = predict(model, image, *PREDICTED, device="cpu", remove_combined=remove_combined)
        for kind, array in {"boxes": boxes.numpy(), "scores": scores.numpy(), "phrases": np.array(phrases)}.items():
            arrays[f"predict.{remove_combined}.{kind}"] = array
    np.savez(work / "outputs.npz", **arrays)


def run_full(work: Path, config: str, names: list[str]) -> None:
    """Build a published model, save it, answer the cases of these names."""
    write_text_encoder(work / "text_encoder", num_layers=12, sizes=FULL_BERT)
    model = build(work, "config", published_settings(config) | NOT_CHECKPOINTED)
    write_random_weights(model, FULL_CASES, work / "weights.pth")
    np.savez(work / "outputs.npz", **run_cases(model, {name: FULL_CASES[name] for name in names}))


def describe(work: Path) -> dict[str, dict[str, list[int]]]:
    """For both published configs, name → shape of every parameter and buffer of the model."""
    write_text_encoder(work / "text_encoder", num_layers=12, sizes=BERT)
    shapes = {}
    for name in OFFICIAL_CONFIGS:
        model = build(work, name, published_settings(name))
        shapes[name] = {key: list(tensor.shape) for key, tensor in model.state_dict().items()}
    return shapes


def main() -> None:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "full", "describe"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--config", choices=OFFICIAL_CONFIGS, default=OFFICIAL_CONFIGS[0], help="of `full`")
    parser.add_argument("--cases", nargs="+", choices=list(FULL_CASES), default=list(FULL_CASES), help="of `full`")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.what == "run":
        run(arguments.work)
    elif arguments.what == "full":
        run_full(arguments.work, arguments.config, arguments.cases)
    else:
        print(json.dumps(describe(arguments.work)))


if __name__ == "__main__":
    main()
