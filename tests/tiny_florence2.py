"""A Florence-2 of random weights in the real file format, and one whose answers a test can set."""

from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import (
    BartConfig,
    BartTokenizer,
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    Florence2VisionConfig,
)

from grounded_sam2.detectors.florence2 import Florence2

IMAGE_SIZE = 64  # pixels: the four stages shrink it by 32, to 2 × 2 tokens and one for all
NUM_IMAGE_TOKENS = 5
MAX_POSITIONS = 128
_MARKS = ["<od>", "</od>", "<sep>", "<poly>", "</poly>", "<and>", *(f"<loc_{number}>" for number in range(1000))]


def write_tiny_florence2(folder: Path) -> None:
    """Write a random model of some 200,000 parameters with its processor, as `save_pretrained` lays them out.

    The tokenizer has Florence-2's special tokens and its marks; words are spelled byte by byte, so that one letter can
    be several tokens.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate(["<s>", "<pad>", "</s>", "<unk>", *alphabet, "<mask>"])}
    tokenizer = BartTokenizer(vocab=vocab, merges=[], extra_special_tokens={"image_token": "<image>"})
    tokenizer.add_tokens(_MARKS, special_tokens=True)

    image_processor = CLIPImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, do_center_crop=False, image_seq_length=NUM_IMAGE_TOKENS
    )
    parse_tasks = ("ocr", "pure_text", "description_with_bboxes", "description_with_polygons", "polygons", "bboxes")
    Florence2Processor(
        image_processor,
        tokenizer,
        post_processor_config={
            "phrase_grounding": {"banned_grounding_tokens": ["it", "the image"]},
            "description_with_bboxes_or_polygons": {},
            **{task: {} for task in parse_tasks},
        },
    ).save_pretrained(folder)

    torch.manual_seed(0)
    config = Florence2Config(
        vision_config=Florence2VisionConfig(
            depths=(1, 1, 1, 1), embed_dim=(16, 16, 32, 32), num_heads=(1, 1, 2, 2), num_groups=(1, 1, 2, 2),
            window_size=2, projection_dim=64, max_temporal_embeddings=4, max_position_embeddings=4,
        ),
        text_config=BartConfig(
            vocab_size=len(tokenizer), d_model=64, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=MAX_POSITIONS,
        ).to_dict(),
        image_token_id=tokenizer.image_token_id,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    model = Florence2ForConditionalGeneration(config)
    with torch.no_grad():  # answers differ with the image, the question and the position
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=2 / parameter[0].numel() ** 0.5)
        torch.nn.init.normal_(model.get_input_embeddings().weight)
        torch.nn.init.normal_(model.model.language_model.decoder.embed_positions.weight, std=3)
    model.generation_config.update(forced_bos_token_id=0, no_repeat_ngram_size=3)
    model.save_pretrained(folder)


def say(florence2: Florence2, text: str) -> None:
    """Make a tiny model answer every question with `text`.

    Its decoder's layers then add nothing to what they are given, and that is at each position the embedding of the
    token that comes next; the output layer, whose weights are the embeddings, chooses the token they are of.
    """
    tokenizer = florence2.processor.tokenizer
    token_ids = tokenizer(f"<s>{text}</s>", add_special_tokens=False)["input_ids"]
    language_model = florence2.model.model.language_model
    positions = language_model.decoder.embed_positions
    with torch.no_grad():
        for layer in language_model.decoder.layers:
            for output in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                output.weight.zero_()
        positions.weight.zero_()
        positions.weight[positions.offset : positions.offset + len(token_ids)] = (
            100 * florence2.model.get_input_embeddings().weight[token_ids]
        )


def write_parrot(source: Path, folder: Path, text: str) -> str:
    """Write a copy of a tiny model that answers every question with `text`; gives the folder's name."""
    florence2 = Florence2(source)
    say(florence2, text)
    florence2.model.save_pretrained(folder)
    florence2.processor.save_pretrained(folder)
    return str(folder)
