r"""Find and mask what a text prompt names in one image, with DINO-X of the DDS cloud.

    export DDS_API_TOKEN=…   # from https://cloud.deepdataspace.com
    python grounded_sam2_dinox_demo.py
    python grounded_sam2_dinox_demo.py --text-prompt "dog. tree." --image-path my.jpg \
        --dinox-masks --max-requests 1
"""

from pathlib import Path

from grounded_sam2.detectors.dds import DDSCloudDetector
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
DINOX_MASKS = False  # take the masks from DINO-X instead of SAM 2
API_TOKEN: str | None = None  # of the DDS cloud; none: the environment variable DDS_API_TOKEN
DDS_ENDPOINT: str | None = None  # address of the service; none: the official one
CACHE_DIR: Path | None = Path("outputs/dds_cache")  # keeps answers, so that each is paid for once; none: off
MAX_REQUESTS: int | None = 200  # images, or tiles of them, that one run may send: each costs; none: no limit
SAM2_CHECKPOINT = "checkpoints/sam2.1_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt or edgetam.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none: read from the weights
IMAGE_SIZE: int | None = None  # side of the square that SAM 2 sees, a multiple of 32; none: that of the weights
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # precision, where a model has the choice: auto, float32, bfloat16, float16

# thresholds
BOX_THRESHOLD = 0.35  # detector confidence a box needs to be kept
NMS_THRESHOLD: float | None = 0.7  # of two boxes that overlap by a higher IoU the surer is kept; none: keep all
SLICE_WH: tuple[int, int] | None = None  # also look at tiles of this width and height, for small objects; none: off
OVERLAP_RATIO: tuple[float, float] = (0.2, 0.2)  # how far tiles overlap, as shares of their width and height

# output
OUTPUT_DIR = Path("outputs/grounded_sam2_dinox_demo")  # where everything goes


def main() -> None:
    # Step 1: read the prompt and the image, and make sure the outputs can be written and the service be asked
    prompt = read_prompt(TEXT_PROMPT)
    image = read_image(IMAGE_PATH)
    note_nano_models(IMAGE_PATH, SAM2_CHECKPOINT, detector_setting=None)
    height, width = image.shape[:2]
    files = OutputFiles(OUTPUT_DIR, IMAGE_PATH, ("_annotated.jpg", ".json"))
    annotated_path, json_path = files.paths
    detector = DDSCloudDetector(
        "DINO-X-1.0",
        token=API_TOKEN,
        masks=DINOX_MASKS,
        nms_threshold=NMS_THRESHOLD,
        cache_dir=CACHE_DIR,
        max_requests=MAX_REQUESTS,
        endpoint=DDS_ENDPOINT,
    )
    detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)

    # Step 2: build SAM 2
    device = choose_device(DEVICE)
    sam2_model = build_sam2(
        SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=choose_dtype(device, DTYPE), image_size=IMAGE_SIZE
    )
    predictor = SAM2ImagePredictor(sam2_model)

    # Step 3: find the boxes that the prompt names
    (detections,) = detector.detect(image, prompt, box_threshold=BOX_THRESHOLD)

    # Step 4: find the mask in each box, unless DINO-X has given it
    if detections.mask is None:
        detections = segment(predictor, image, detections)

    # Step 5: draw and write
    write_image(annotated_path, annotate(image, detections))
    write_json(json_path, IMAGE_PATH, detections, size=(width, height))
    print(f"found {len(detections)}: {', '.join(detections.data['class_name']) or 'nothing'}")
    print(f"wrote {annotated_path} and {json_path}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
