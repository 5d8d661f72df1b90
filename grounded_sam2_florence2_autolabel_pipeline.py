r"""Label an image with no prompt: Florence-2 writes a caption, finds what it names, and SAM 2 masks each thing.

    python grounded_sam2_florence2_autolabel_pipeline.py
    python grounded_sam2_florence2_autolabel_pipeline.py --image-path my.jpg --caption-type more_detailed_caption \
        --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from pathlib import Path
from typing import Literal

from grounded_sam2.detectors.florence2 import Florence2
from grounded_sam2.detectors.florence2.tasks import CAPTIONS, PIPELINES
from grounded_sam2.export import write_json
from grounded_sam2.flags import override_from_flags
from grounded_sam2.images import read_image, write_image
from grounded_sam2.owned import OutputFiles
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run
from grounded_sam2.segment import segment
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
IMAGE_PATH = "assets/scene.jpg"  # any image file
PIPELINE: Literal["caption_to_phrase_grounding"] = "caption_to_phrase_grounding"  # how a caption is taken to the image
CAPTION_TYPE: Literal["caption", "detailed_caption", "more_detailed_caption"] = "caption"  # how much the caption says

# models
FLORENCE2_MODEL_ID = "florence-community/Florence-2-large"  # folder or hub id
NUM_BEAMS = 3  # continuations that Florence-2's search holds; 1 is faster
SAM2_CHECKPOINT = "checkpoints/sam2.1_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt or edgetam.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none: read from the weights
IMAGE_SIZE: int | None = None  # side of the square that SAM 2 sees, a multiple of 32; none: that of the weights
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # precision, where a model has the choice: auto, float32, bfloat16, float16

# output
OUTPUT_DIR = Path("outputs/grounded_sam2_florence2_autolabel_pipeline")  # where everything goes


def main() -> None:
    # Step 1: read the image, and make sure the outputs can be written
    image = read_image(IMAGE_PATH)
    note_nano_models(IMAGE_PATH, SAM2_CHECKPOINT, detector_setting=None)
    height, width = image.shape[:2]
    files = OutputFiles(OUTPUT_DIR, IMAGE_PATH, (f"_{CAPTION_TYPE}.jpg", f"_{CAPTION_TYPE}.json"))
    annotated_path, json_path = files.paths

    # Step 2: build the models
    device = choose_device(DEVICE)
    dtype = choose_dtype(device, DTYPE)
    florence2 = Florence2(FLORENCE2_MODEL_ID, device=device, dtype=dtype, num_beams=NUM_BEAMS)
    predictor = SAM2ImagePredictor(
        build_sam2(SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=dtype, image_size=IMAGE_SIZE)
    )

    # Step 3: describe the image, and find what the description names
    caption, answer = florence2.describe(image, CAPTIONS[CAPTION_TYPE], PIPELINES[PIPELINE])
    detections = answer.detections((width, height))

    # Step 4: find the mask in each box
    detections = segment(predictor, image, detections)

    # Step 5: draw and write
    write_image(annotated_path, annotate(image, detections))
    write_json(json_path, IMAGE_PATH, detections, size=(width, height), caption=caption)
    print(f"caption: {caption}")
    print(f"found {len(detections)}: {', '.join(detections.data['class_name']) or 'nothing'}")
    print(f"wrote {annotated_path} and {json_path}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
