"""Florence-2 through transformers' own class: no code of a checkpoint is run, no flash-attention is needed."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration, Florence2Processor
from transformers.modeling_outputs import BaseModelOutput

from checkpoint_files.reading import check_numbers
from grounded_sam2.detectors.base import Image, as_image_list
from grounded_sam2.detectors.florence2.answer import NUM_BINS, Answer, Region, Span, parse_regions
from grounded_sam2.detectors.florence2.tasks import PHRASE_GROUNDING, Task, check_text
from grounded_sam2.weights.download import CHECKPOINTS
from grounded_sam2.weights.hub import (
    check_weights,
    hub_token,
    reading_model,
    reads_as_path,
    without_progress,
    without_retry_messages,
)

_DEFAULT_CHECKPOINT = "florence-2-large"
_CONVERTED = "florence-community/Florence-2-large"
# of the text model in checkpoints that bring their own code, which transformers' class does not read
_UNCONVERTED_TYPE = "florence2_language"
_NEAR_BINS = 10  # a bin this near to the one written means the same place: 1 % of the image's side


class Florence2:
    """A Florence-2 model that answers questions about images.

    Florence-2 gives no confidence. Each place in an answer gets one from how sure the model was when it wrote it: the
    geometric mean of the probabilities of the label's tokens, times the same over the place's bins, where a bin counts
    with all that are within 1 % of the image's side of it. It lies in [0, 1] and orders what one model finds; it is not
    calibrated, so do not compare it with another detector's.

    Args:
        model_id: a local folder (read with no network access at all) or a model id of the hub, in the format of
            transformers' own class: `florence-community/Florence-2-large`, `-base` and the like.
        device: where the model runs.
        dtype: the precision the model is built with.
        num_beams: how many continuations the search for the likeliest answer holds; 1 takes the likeliest token each
            time, which is faster.
        max_new_tokens: where an answer is cut off; what it holds until there counts.
        batch_size: how many images, and how many questions of one length, go through the model together.

    Raises:
        FileNotFoundError: when the folder, or the model on the hub, is not there; names the command that brings it.
        ValueError: when it is there but holds no Florence-2, one that needs code of its own, or not all of its weights;
            or a number below 1.
    """

    def __init__(
        self,
        model_id: str | Path,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        num_beams: int = 3,
        max_new_tokens: int = 1024,
        batch_size: int = 4,
    ) -> None:
        for name, number in (("num_beams", num_beams), ("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
            if number < 1:
                raise ValueError(f"expected {name} of at least 1, got {number}")
        self.device = torch.device(device)
        self.dtype = dtype
        self.num_beams = num_beams
        self.batch_size = batch_size
        self.model, self.processor = _load(model_id, dtype)
        self.model.to(self.device).eval()
        self.capacity = int(self.model.config.text_config.max_position_embeddings)
        self.max_new_tokens = min(max_new_tokens, self.capacity - 1)
        tokenizer = self.processor.tokenizer
        self._marks = {token_id: str(token) for token_id, token in tokenizer.added_tokens_decoder.items()}
        self._silent = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
        self._bin_of = {tokenizer.convert_tokens_to_ids(f"<loc_{number}>"): number for number in range(NUM_BINS)}
        if len(self._bin_of) < NUM_BINS or tokenizer.unk_token_id in self._bin_of:
            raise ValueError(f"the tokenizer in {model_id} lacks the {NUM_BINS} marks of places, <loc_0> to <loc_999>")
        self._ignored = frozenset(label.lower() for label in self.processor.post_processor.banned_grounding_tokens)

    def ask(self, image: Image, task: Task, text: str | None = None) -> Answer:
        """Ask one question about one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            task: what is asked.
            text: the words that belong to the question, where the task takes any.

        Raises:
            ValueError: as of `ask_all`.
        """
        return self.ask_all(image, task, [text])[0][0]

    def describe(self, image: Image, caption_task: Task, grounding_task: Task = PHRASE_GROUNDING) -> tuple[str, Answer]:
        """Write a caption, and find what it names.

        Args:
            image: (H, W, 3) uint8 RGB.
            caption_task: one of `grounded_sam2.detectors.florence2.tasks.CAPTIONS`.
            grounding_task: how the caption is taken to the image.

        Returns:
            The caption, and the answer to it; nothing is found for a caption without words.

        Raises:
            ValueError: as of `ask_all`.
        """
        caption = self.ask(image, caption_task).caption
        if not caption:
            return caption, Answer("", [], np.zeros(0, np.float32))
        return caption, self.ask(image, grounding_task, caption)

    @torch.inference_mode()
    def ask_all(
        self, images: Image | Sequence[Image], task: Task, texts: Sequence[str | None] = (None,)
    ) -> list[list[Answer]]:
        """Ask every question about every image; each answer is what it would be alone.

        Args:
            images: I ≥ 0 (H, W, 3) uint8 RGB images, of any sizes; each is encoded once.
            task: what is asked.
            texts: Q ≥ 1 texts that belong to the question.

        Returns:
            For each image the answers to all questions, in order.

        Raises:
            ValueError: an image of another shape or dtype, a text that is missing or not wanted (see
                `grounded_sam2.detectors.florence2.tasks.check_text`), or one longer than the model reads.
        """
        image_list = as_image_list(images)
        questions = [self._question(task, check_text(task, text)) for text in texts]
        answers: list[dict[int, Answer]] = [{} for _ in image_list]
        for start in range(0, len(image_list), self.batch_size):
            features = self._encode(image_list[start : start + self.batch_size])
            for pairs in self._equally_long(len(features), questions):
                token_ids = torch.tensor([questions[number] for _, number in pairs], device=self.device)
                found = self._answer(features[[row for row, _ in pairs]], token_ids, task)
                for (row, number), answer in zip(pairs, found, strict=True):
                    answers[start + row][number] = answer
        return [[by_question[number] for number in range(len(questions))] for by_question in answers]

    def _equally_long(self, num_images: int, questions: Sequence[list[int]]) -> Iterator[list[tuple[int, int]]]:
        """Pairs of image and question, by the question's length: padding would change what the model sees."""
        by_length: dict[int, list[tuple[int, int]]] = {}
        for number, token_ids in enumerate(questions):
            by_length.setdefault(len(token_ids), []).extend((row, number) for row in range(num_images))
        for pairs in by_length.values():
            for start in range(0, len(pairs), self.batch_size):
                yield pairs[start : start + self.batch_size]

    def _question(self, task: Task, text: str | None) -> list[int]:
        """The tokens of a question, which follow those of the image."""
        if text is None:
            sentence = self.processor.task_prompts_without_inputs[task.token]
        else:
            sentence = self.processor.task_prompts_with_input[task.token].format(input=text)
        tokenizer = self.processor.tokenizer
        marked = f"{tokenizer.bos_token}{sentence}{tokenizer.eos_token}"
        token_ids: list[int] = tokenizer(marked, add_special_tokens=False)["input_ids"]
        room = self.capacity - self.processor.num_image_tokens
        if len(token_ids) > room:
            raise ValueError(
                f"the question takes {len(token_ids)} tokens, the model reads {room} beside an image: "
                f"{sentence[:60]!r} …"
            )
        return token_ids

    def _encode(self, images: Sequence[Image]) -> torch.Tensor:
        """(B, S, D) image tokens of B images."""
        # the axes are named because a 3-pixel-high image could be read as channels first
        pixels = self.processor.image_processor(
            images=list(images), input_data_format="channels_last", return_tensors="pt"
        )["pixel_values"]
        return cast(torch.Tensor, self.model.get_image_features(pixels.to(self.device, self.dtype)).pooler_output)

    def _answer(self, features: torch.Tensor, token_ids: torch.Tensor, task: Task) -> list[Answer]:
        """Answers to B questions (B, L) about B images (B, S, D)."""
        embeddings = torch.cat([features, self.model.get_input_embeddings()(token_ids)], dim=1)
        attention_mask = torch.ones(embeddings.shape[:2], dtype=torch.long, device=self.device)
        encoded = self.model.get_encoder()(inputs_embeds=embeddings, attention_mask=attention_mask)[0]
        written = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=attention_mask,
            max_new_tokens=self.max_new_tokens,
            num_beams=self.num_beams,
            do_sample=False,
        )
        # read once more, all tokens at a time: the probabilities as they are, whatever rules the search followed
        hidden = self.model.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=encoded),
            attention_mask=attention_mask,
            decoder_input_ids=written[:, :-1],
        )[0]
        return [self._read(row[1:].tolist(), states, task) for row, states in zip(written, hidden, strict=True)]

    def _read(self, token_ids: list[int], states: torch.Tensor, task: Task) -> Answer:
        """One answer of T tokens, and the decoder's states (T, D) from which each was chosen."""
        text, spans = self._decode(token_ids)
        regions = parse_regions(text, task, self._ignored if task is PHRASE_GROUNDING else ())
        if not regions:
            return Answer(text, [], np.zeros(0, np.float32))
        certainties = self._certainties(token_ids, states)
        confidence = [_confidence(region, spans, certainties) for region in regions]
        return Answer(text, regions, np.array(confidence, np.float32))

    def _decode(self, token_ids: list[int]) -> tuple[str, list[Span]]:
        """The text of an answer and the characters each token stands for; words are taken together, as one letter can
        be several tokens."""
        text, spans, words = "", list[Span](), list[int]()
        for token_id in [*token_ids, None]:
            if token_id is not None and token_id not in self._marks:
                words.append(token_id)
                continue
            if words:
                decoded = self.processor.tokenizer.decode(words, clean_up_tokenization_spaces=False)
                spans += [Span(len(text), len(text) + len(decoded))] * len(words)
                text, words = text + decoded, []
            if token_id is not None:
                mark = "" if token_id in self._silent else self._marks[token_id]
                spans.append(Span(len(text), len(text) + len(mark)))
                text += mark
        return text, spans

    def _certainties(self, token_ids: list[int], states: torch.Tensor) -> np.ndarray:
        """(T,) the logarithm of each token's probability; of a bin, of all bins near it."""
        log_p = self.model.get_output_embeddings()(states).float().log_softmax(dim=-1)  # (T, V)
        certainties = log_p.gather(1, torch.tensor(token_ids, device=self.device)[:, None])[:, 0]
        steps = [step for step, token_id in enumerate(token_ids) if token_id in self._bin_of]
        if steps:
            bins_log_p = log_p[steps][:, list(self._bin_of)]  # (P, 1000)
            written = torch.tensor([self._bin_of[token_ids[step]] for step in steps], device=self.device)
            distance = (torch.arange(NUM_BINS, device=self.device) - written[:, None]).abs()
            near = bins_log_p.masked_fill(distance > _NEAR_BINS, float("-inf"))
            certainties[steps] = near.logsumexp(dim=1).clamp(max=0)
        return certainties.cpu().numpy()


def _confidence(region: Region, spans: Sequence[Span], certainties: np.ndarray) -> float:
    """The geometric means over the tokens of the label and of the place, multiplied."""
    confidence = 1.0
    for part in (region.label_span, region.place_span):
        steps = [step for step, span in enumerate(spans) if span.start < part.stop and part.start < span.stop]
        if steps:
            confidence *= float(np.exp(certainties[steps].mean()))
    return confidence


def _load(model_id: str | Path, dtype: torch.dtype) -> tuple[Any, Any]:
    """Build the model and its processor from a folder, or from the hub's cache or the hub itself."""
    name = os.fspath(model_id)
    is_folder = Path(name).is_dir()
    if not is_folder and reads_as_path(name):
        raise FileNotFoundError(f"the Florence-2 folder {name} is missing; get it with: {_download_command(name)}")
    if is_folder and not (Path(name) / "config.json").is_file():
        raise FileNotFoundError(
            f"{name} holds no config.json; a Florence-2 folder has config.json, model.safetensors, "
            "processor_config.json and the tokenizer's files"
        )
    # no code that a folder or repository brings is run, and nobody is asked whether it may be
    options: dict[str, Any] = {"local_files_only": is_folder, "trust_remote_code": False, "token": hub_token()}
    with reading_model(name, "Florence-2", is_folder, _download_command(name)):
        with without_retry_messages():
            settings, _ = Florence2Config.get_config_dict(name, local_files_only=is_folder, token=hub_token())
        if settings.get("model_type") != "florence2":
            raise ValueError(f"{name} holds a model of type {settings.get('model_type')!r}, expected 'florence2'")
        if settings.get("text_config", {}).get("model_type") == _UNCONVERTED_TYPE:
            raise ValueError(
                f"{name} needs code of its own, which is not run here; the same weights without it: "
                f"{_CONVERTED.rpartition('/')[0]}/{Path(name).name}, or {_download_command(name)}"
            )
        with without_progress() if is_folder else contextlib.nullcontext():
            model, loading = Florence2ForConditionalGeneration.from_pretrained(
                name, dtype=dtype, output_loading_info=True, **options
            )
        processor = Florence2Processor.from_pretrained(name, **options)
    check_weights(name, loading)
    check_numbers(dict(model.named_parameters()), name)
    return model, processor


def _download_command(name: str) -> str:
    """The command that brings the checkpoint a folder or hub id names, or else the default one."""
    checkpoint = next(
        (known for known in CHECKPOINTS.values() if known.file_name == Path(name).name),
        CHECKPOINTS[_DEFAULT_CHECKPOINT],
    )
    return f"python -m grounded_sam2.download {checkpoint.name} (→ {checkpoint.folder}/{checkpoint.file_name})"
