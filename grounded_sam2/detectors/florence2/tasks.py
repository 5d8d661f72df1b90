"""What Florence-2 can be asked, and what it writes in answer."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

# What follows a label in an answer: boxes, outlines, either of the two, or nothing because all of it is a caption.
Places: TypeAlias = Literal["boxes", "polygons", "boxes or polygons", "none"]

AND = "<and>"  # between the phrases of one open-vocabulary question
_MARK = re.compile(r"</?[a-z_]+(?:_\d+)?>")


@dataclass(frozen=True)
class Task:
    """One kind of question.

    Attributes:
        name: in words, as messages give it.
        token: what the processor turns into the question the model was trained on.
        places: what the answer holds.
        example: of the text that belongs to the question; None for a task that takes no text.
        is_labelled: whether the answer says what is at each place; without, a place needs no label.
    """

    name: str
    token: str
    places: Places
    example: str | None = None
    is_labelled: bool = True


OBJECT_DETECTION = Task("object detection", "<OD>", "boxes")
DENSE_REGION_CAPTION = Task("dense region captioning", "<DENSE_REGION_CAPTION>", "boxes")
REGION_PROPOSAL = Task("region proposal", "<REGION_PROPOSAL>", "boxes", is_labelled=False)
PHRASE_GROUNDING = Task(
    "phrase grounding", "<CAPTION_TO_PHRASE_GROUNDING>", "boxes", example="A dog sits beside a red car."
)
REFERRING_EXPRESSION = Task(
    "referring expression segmentation",
    "<REFERRING_EXPRESSION_SEGMENTATION>",
    "polygons",
    example="the dog on the left",
    is_labelled=False,
)
OPEN_VOCABULARY = Task(
    "open-vocabulary detection", "<OPEN_VOCABULARY_DETECTION>", "boxes or polygons", example=f"car {AND} building"
)

# the names that scripts take
PIPELINES: Mapping[str, Task] = {
    "object_detection_segmentation": OBJECT_DETECTION,
    "dense_region_caption_segmentation": DENSE_REGION_CAPTION,
    "region_proposal_segmentation": REGION_PROPOSAL,
    "phrase_grounding_segmentation": PHRASE_GROUNDING,
    "referring_expression_segmentation": REFERRING_EXPRESSION,
    "open_vocabulary_detection_segmentation": OPEN_VOCABULARY,
    "caption_to_phrase_grounding": PHRASE_GROUNDING,
}
CAPTIONS: Mapping[str, Task] = {
    "caption": Task("captioning", "<CAPTION>", "none"),
    "detailed_caption": Task("detailed captioning", "<DETAILED_CAPTION>", "none"),
    "more_detailed_caption": Task("more detailed captioning", "<MORE_DETAILED_CAPTION>", "none"),
}


def check_text(task: Task, text: str | None) -> str | None:
    """Make sure that a question has a text if and only if it needs one.

    Args:
        task: what is asked.
        text: the words that belong to the question; blank is as good as none.

    Returns:
        The text without space around it; None for a task that takes none.

    Raises:
        ValueError: a text is missing, not wanted, or holds marks of the model's own such as "<loc_5>"; between the
            phrases of an open-vocabulary question "<and>" is right.
    """
    text = (text or "").strip()
    if task.example is None:
        if text:
            raise ValueError(f"{task.name} takes no text, got {text!r}")
        return None
    if not text:
        raise ValueError(f"{task.name} needs a text, such as {task.example!r}")
    allowed = {AND} if task is OPEN_VOCABULARY else set()
    marks = [mark for mark in _MARK.findall(text) if mark not in allowed]
    if marks:
        raise ValueError(f"{task.name} takes words only, got {', '.join(marks)} in {text!r}")
    return text
