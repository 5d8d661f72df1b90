r"""Find and mask what a text prompt names in one image, with this repository's Grounding DINO.

    python grounded_sam2_local_demo.py
    python grounded_sam2_local_demo.py --text-prompt "dog. tree." --image-path my.jpg \
        --gdino-checkpoint gdino_checkpoints/groundingdino_swint_ogc.pth --gdino-config GroundingDINO_SwinT_OGC \
        --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from pathlib import Path

from grounded_sam2.detectors.local import LocalDetector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.export import write_json
from grounded_sam2.flags import override_from_flags
from grounded_sam2.images import read_image, write_image
from grounded_sam2.owned import OutputFiles
from grounded_sam2.prompts import read_prompt
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run
from grounded_sam2.segment import segment
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
TEXT_PROMPT = "owl. pizza. sailboat. green book. teddy bear."  # phrases, each ended by "."
IMAGE_PATH = "assets/scene.jpg"  # any image file

# models
GDINO_CHECKPOINT = "gdino_checkpoints/nano"  # real footage: gdino_checkpoints/groundingdino_swint_ogc.pth
GDINO_CONFIG: str | None = None  # GroundingDINO_SwinT_OGC and the like, or a file; none: read from the weights
GDINO_TOKENIZER: str | None = None  # folder of a BERT tokenizer; none: the one beside the weights, or the hub's
SAM2_CHECKPOINT = "checkpoints/sam2.1_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt or edgetam.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none: read from the weights
IMAGE_SIZE: int | None = None  # side of the square that SAM 2 sees, a multiple of 32; none: that of the weights
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # precision, where a model has the choice: auto, float32, bfloat16, float16

# thresholds
BOX_THRESHOLD = 0.35  # detector confidence a box needs to be kept
TEXT_THRESHOLD = 0.25  # score a phrase needs to become a box's label
NMS_THRESHOLD: float | None = 0.7  # of two boxes that overlap by a higher IoU the surer is kept; none: keep all
SLICE_WH: tuple[int, int] | None = None  # also look at tiles of this width and height, for small objects; none: off
OVERLAP_RATIO: tuple[float, float] = (0.2, 0.2)  # how far tiles overlap, as shares of their width and height

# output
OUTPUT_DIR = Path("outputs/grounded_sam2_local_demo")  # where everything goes


def main() -> None:
    # Step 1: read the prompt and the image, and make sure the outputs can be written
    prompt = read_prompt(TEXT_PROMPT)
    image = read_image(IMAGE_PATH)
    height, width = image.shape[:2]
    files = OutputFiles(OUTPUT_DIR, IMAGE_PATH, ("_annotated.jpg", ".json"))
    annotated_path, json_path = files.paths
    note_nano_models(IMAGE_PATH, GDINO_CHECKPOINT, SAM2_CHECKPOINT, detector_setting="GDINO_CHECKPOINT")

    # Step 2: build the models
    device = choose_device(DEVICE)
    sam2_model = build_sam2(
        SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=choose_dtype(device, DTYPE), image_size=IMAGE_SIZE
    )
    predictor = SAM2ImagePredictor(sam2_model)
    detector = LocalDetector(
        GDINO_CHECKPOINT, config=GDINO_CONFIG, tokenizer=GDINO_TOKENIZER, device=device, nms_threshold=NMS_THRESHOLD
    )
    detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)

    # Step 3: find the boxes that the prompt names
    (detections,) = detector.detect(image, prompt, box_threshold=BOX_THRESHOLD, text_threshold=TEXT_THRESHOLD)

    # Step 4: find the mask in each box
    detections = segment(predictor, image, detections)

    # Step 5: draw and write
    write_image(annotated_path, annotate(image, detections))
    write_json(json_path, IMAGE_PATH, detections, size=(width, height))
    print(f"found {len(detections)}: {', '.join(detections.data['class_name']) or 'nothing'}")
    print(f"wrote {annotated_path} and {json_path}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
