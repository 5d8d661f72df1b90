r"""Find and mask what text prompts name in many images: a JSON file for each, COCO and YOLO files for all.

    python grounded_sam2_batch_images_demo.py
    python grounded_sam2_batch_images_demo.py --images "photos/**/*.jpg" --text-prompt "dog. tree." --batch-size 16 \
        --gdino-model-id IDEA-Research/grounding-dino-tiny --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt

IMAGES is a folder, a pattern, or a list that may give each image a prompt of its own: a .txt file of lines, path and
prompt with a tab between them; a .csv file with the columns image and prompt; a .json file, {"a.jpg": "dog. tree."}.
Other images have TEXT_PROMPT. Stopped in whatever way, the same command goes on from there. The exit status is 0 when
every image is finished, 1 when some could not be read and were skipped, 2 when a setting is wrong, 130 or 143 when it
was stopped.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from grounded_sam2.batch import BatchFolder, all_phrases, detect_batch, list_images, read_batches
from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.export import write_json
from grounded_sam2.export.images import write_image_coco, write_image_yolo
from grounded_sam2.flags import override_from_flags, settings_of
from grounded_sam2.images import write_image
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.segment import segment_batch
from sam2.build_sam import build_sam2
from sam2.sam2_image_predictor import SAM2ImagePredictor

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
TEXT_PROMPT = "owl. pizza. sailboat. green book. teddy bear."  # phrases, each ended by "."
IMAGES = "assets/album/prompts.json"  # folder, pattern such as photos/**/*.jpg, or list of images (.txt, .csv, .json)

# models
GDINO_MODEL_ID = "gdino_checkpoints/nano"  # folder or hub id; real footage: IDEA-Research/grounding-dino-tiny or -base
SAM2_CHECKPOINT = "checkpoints/sam2.1_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt or edgetam.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none: read from the weights
IMAGE_SIZE: int | None = None  # side of the square that SAM 2 sees, a multiple of 32; none: that of the weights
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # precision, where a model has the choice: auto, float32, bfloat16, float16
BATCH_SIZE = 8  # images that go through the models together

# thresholds
BOX_THRESHOLD = 0.35  # detector confidence a box needs to be kept
TEXT_THRESHOLD = 0.25  # score a phrase needs to become a box's label
NMS_THRESHOLD: float | None = 0.7  # of two boxes that overlap by a higher IoU the surer is kept; none: keep all
SLICE_WH: tuple[int, int] | None = None  # also look at tiles of this width and height, for small objects; none: off
OVERLAP_RATIO: tuple[float, float] = (0.2, 0.2)  # how far tiles overlap, as shares of their width and height

# output
SAVE_ANNOTATED = True  # also write each image with what was found drawn in
OVERWRITE = False  # do all images anew; otherwise those that an earlier run finished are kept
OUTPUT_DIR = Path("outputs/grounded_sam2_batch_images_demo")  # where everything goes


def main() -> None:
    # Step 1: list the images, and see which ones an earlier run with the same settings finished
    listed = list_images(IMAGES, TEXT_PROMPT)
    settings = settings_of(globals(), without=["TEXT_PROMPT"])  # the phrases are noted image by image
    folder = BatchFolder(OUTPUT_DIR, settings, listed, source=IMAGES, with_pictures=SAVE_ANNOTATED, overwrite=OVERWRITE)
    note_nano_models(IMAGES, GDINO_MODEL_ID, SAM2_CHECKPOINT)

    # Step 2: build the models
    device = choose_device(DEVICE)
    sam2_model = build_sam2(
        SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=choose_dtype(device, DTYPE), image_size=IMAGE_SIZE
    )
    predictor = SAM2ImagePredictor(sam2_model)
    detector = HuggingFaceDetector(GDINO_MODEL_ID, device=device, nms_threshold=NMS_THRESHOLD, batch_size=BATCH_SIZE)
    detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)

    with folder, stop_on_signals() as stop:
        # Step 3: find boxes and masks in a batch of images at a time; write each image's files
        progress = tqdm(total=len(listed), initial=len(folder.exported(listed)), unit="image")
        for batch in read_batches(listed, BATCH_SIZE, folder.is_finished):
            if stop.signal_number is not None:
                progress.write(f"stopped with {progress.n} of {len(listed)} images finished", file=sys.stderr)
                sys.exit(128 + stop.signal_number)
            for _, reason in batch.skipped:
                progress.write(f"skipped: {reason}", file=sys.stderr)
            found = detect_batch(detector, batch, BOX_THRESHOLD, TEXT_THRESHOLD)
            segmented = segment_batch(predictor, batch.images, found)
            for image, pixels, detections in zip(batch.listed, batch.images, segmented, strict=True):
                write_json(folder.json_path(image), image.path, detections, size=pixels.shape[1::-1])
                if SAVE_ANNOTATED:
                    write_image(folder.picture_path(image), annotate(pixels, detections))
            folder.finish(batch.listed)
            progress.update(len(batch.listed))
        progress.close()

        # Step 4: write one COCO file and the YOLO labels of all images
        finished = folder.exported(listed)
        write_image_coco(finished, all_phrases(listed), OUTPUT_DIR / "coco.json")
        write_image_yolo(finished, all_phrases(listed), OUTPUT_DIR / "yolo")

    print(f"finished {len(finished)} of {len(listed)} images; wrote json, coco.json and yolo in {OUTPUT_DIR}")
    if len(finished) < len(listed):
        sys.exit(1)


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
