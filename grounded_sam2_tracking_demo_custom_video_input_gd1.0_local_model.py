r"""Track what a text prompt names through your own video, camera or stream, with this repository's Grounding DINO.

Frames are taken as they come. Objects are looked for on each until some are found, and followed from there on. Nothing
is read ahead or kept, so the video may be of any length.

    python grounded_sam2_tracking_demo_custom_video_input_gd1.0_local_model.py
    python grounded_sam2_tracking_demo_custom_video_input_gd1.0_local_model.py --video-path 0 --max-frames 300 \
        --text-prompt "person. cup." --gdino-checkpoint gdino_checkpoints/groundingdino_swint_ogc.pth \
        --gdino-config GroundingDINO_SwinT_OGC --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from pathlib import Path

from tqdm import tqdm

from grounded_sam2.detectors.local import LocalDetector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.flags import override_from_flags, settings_of
from grounded_sam2.outputs import TrackingOutputs
from grounded_sam2.owned import OutputFiles
from grounded_sam2.prompts import read_prompt
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.track.first_sight import FirstSightTracker
from grounded_sam2.track.resume import SavedRun
from grounded_sam2.track.tracking import PromptType
from grounded_sam2.video import open_frames
from sam2.build_sam import build_sam2_video_predictor
from sam2.memory_policies import PolicyName

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
TEXT_PROMPT = "penguin. red car. pig."  # phrases, each ended by "."
VIDEO_PATH = "assets/crossing.mp4"  # video file, folder of frames, URL or camera index
MAX_FRAMES: int | None = None  # stop after so many frames; none: go on to the end

# models
GDINO_CHECKPOINT = "gdino_checkpoints/nano"  # real footage: gdino_checkpoints/groundingdino_swint_ogc.pth
GDINO_CONFIG: str | None = None  # GroundingDINO_SwinT_OGC and the like, or a file; none: read from the weights
GDINO_TOKENIZER: str | None = None  # folder of a BERT tokenizer; none: the one beside the weights, or the hub's
SAM2_CHECKPOINT = "checkpoints/sam2.1_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt or edgetam.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none: read from the weights
IMAGE_SIZE: int | None = None  # side of the square that SAM 2 sees, a multiple of 32; none: that of the weights
MEMORY_POLICY: PolicyName = "default"  # which frames SAM 2 remembers: default, robust, samurai or dam4sam
TRACK_EVERY = 1  # frames from one that SAM 2 looks at to the next; 2 or 3: masks move with the picture between, faster
SPARSE_MEMORIES = 1.0  # share that SAM 2 reads of older memories; 0.05: where attention was most, faster
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # precision, where a model has the choice: auto, float32, bfloat16, float16

# thresholds
BOX_THRESHOLD = 0.35  # detector confidence a box needs to be kept
TEXT_THRESHOLD = 0.25  # score a phrase needs to become a box's label
NMS_THRESHOLD: float | None = 0.7  # of two boxes that overlap by a higher IoU the surer is kept; none: keep all
SLICE_WH: tuple[int, int] | None = None  # also look at tiles of this width and height, for small objects; none: off
OVERLAP_RATIO: tuple[float, float] = (0.2, 0.2)  # how far tiles overlap, as shares of their width and height

# tracking
PROMPT_TYPE_FOR_VIDEO: PromptType = "box"  # what the video predictor is told about each object: box, point or mask

# output
RESUME = False  # go on where a run with the same settings was interrupted
SAVE_EVERY = 30.0  # seconds from one saved state, which --resume goes on from, to the next
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo_custom_video_input_local_model")  # where everything goes


def main() -> None:
    # Step 1: read the prompt and open the source
    prompt = read_prompt(TEXT_PROMPT)
    frames = open_frames(VIDEO_PATH)
    files = OutputFiles(OUTPUT_DIR, VIDEO_PATH)
    settings = settings_of(globals())
    note_nano_models(VIDEO_PATH, GDINO_CHECKPOINT, SAM2_CHECKPOINT, detector_setting="GDINO_CHECKPOINT")

    with (
        stop_on_signals() as stop,
        frames,
        SavedRun(files.path(".resume"), settings, frames, RESUME, SAVE_EVERY) as saved,
        TrackingOutputs(files, frames, prompt.phrases, settings, with_identity=False) as outputs,
    ):
        images = stop.frames(frames, MAX_FRAMES)

        # Step 2: build the models and the tracker over them
        device = choose_device(DEVICE)
        dtype = choose_dtype(device, DTYPE)
        predictor = build_sam2_video_predictor(
            SAM2_CONFIG,
            SAM2_CHECKPOINT,
            device=device,
            dtype=dtype,
            memory_policy=MEMORY_POLICY,
            image_size=IMAGE_SIZE,
            track_every=TRACK_EVERY,
            sparse_memories=SPARSE_MEMORIES,
        )
        detector = LocalDetector(
            GDINO_CHECKPOINT, config=GDINO_CONFIG, tokenizer=GDINO_TOKENIZER, device=device, nms_threshold=NMS_THRESHOLD
        )
        detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)
        tracker = FirstSightTracker(
            detector,
            predictor,
            prompt,
            prompt_type=PROMPT_TYPE_FOR_VIDEO,
            box_threshold=BOX_THRESHOLD,
            text_threshold=TEXT_THRESHOLD,
        )

        # Step 3: look for the objects until some are found, and follow those; draw and write each frame as it comes
        images = tqdm(images, unit="frame")
        for frame_idx, image, objects in saved.follow(tracker, images, outputs.annotations):
            outputs.draw(frame_idx, image, objects)

    print(f"found {len(tracker.objects)}: {', '.join(tracker.objects.data['class_name']) or 'nothing'}")
    print(f"wrote {outputs}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
