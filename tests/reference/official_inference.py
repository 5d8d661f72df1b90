"""Call the published package's `predict` and `Model` on this repository's model, and ours on the same.

    PYTHONPATH=.references/groundingdino:.:tests python -m reference.official_inference MODEL_FOLDER IMAGE_FILE

Prints a JSON list of [case, theirs, ours], both as {"boxes", "scores", "labels"}. The package's functions take any
model that is called with captions and has a tokenizer of transformers, so that only what they do around it is compared.
"""

import json
import sys
from itertools import product
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from transformers import AutoTokenizer

from grounding_dino.groundingdino.util import inference
from groundingdino.util import inference as published

CAPTIONS = ("owl. red apple. car", "Owl . pizza . umbrella? banana .", "an owl that jumps over a red apple")
THRESHOLDS = ((0.35, 0.25), (0.05, 0.03), (0.0, 0.005))
CLASSES = ["owl", "red apple"]


class CalledAsPublished(torch.nn.Module):
    """The model with the tokenizer that the published functions decode with."""

    def __init__(self, model: inference.CaptionedGroundingDINO, folder: str) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def forward(self, images: torch.Tensor, captions: list[str]) -> dict[str, torch.Tensor]:
        return self.model(images, captions)


def as_lists(boxes: Any, scores: Any, labels: Any) -> dict[str, list[Any]]:
    return {"boxes": np.asarray(boxes).tolist(), "scores": np.asarray(scores).tolist(), "labels": list(labels)}


def main(folder: str, image_file: str) -> None:
    assert published.predict is not inference.predict, "the published package must be first on the path"
    ours = inference.Model(None, folder, "cpu")
    theirs = SimpleNamespace(model=CalledAsPublished(ours.model, folder), device="cpu")
    _, image = inference.load_image(image_file, ours.model.image_transform)
    cases = []
    for caption, thresholds, remove_combined in product(CAPTIONS, THRESHOLDS, (False, True)):
        arguments = {"device": "cpu", "remove_combined": remove_combined}
        expected = published.predict(theirs.model, image, caption, *thresholds, **arguments)
        actual = inference.predict(ours.model, image, caption, *thresholds, **arguments)
        cases.append((f"{caption} {thresholds} {remove_combined}", as_lists(*expected), as_lists(*actual)))

    ours.model.image_transform = inference.ImageTransform()  # the published `Model` knows no other
    bgr = cv2.imread(image_file)
    expected = published.Model.predict_with_classes(theirs, bgr, CLASSES, 0.05, 0.04)
    actual = ours.predict_with_classes(bgr, CLASSES, 0.05, 0.04)
    found = [as_lists(one.xyxy, one.confidence, one.class_id.tolist()) for one in (expected, actual)]
    cases.append(("predict_with_classes", *found))
    (expected, labels), (actual, our_labels) = (
        published.Model.predict_with_caption(theirs, bgr, CAPTIONS[0], 0.05, 0.03),
        ours.predict_with_caption(bgr, CAPTIONS[0], 0.05, 0.03),
    )
    found = [as_lists(one.xyxy, one.confidence, of) for one, of in ((expected, labels), (actual, our_labels))]
    cases.append(("predict_with_caption", *found))
    print(json.dumps(cases))


if __name__ == "__main__":
    main(*sys.argv[1:])
