r"""Track what a text prompt names through your own video, camera or stream, with DINO-X of the DDS cloud.

    export DDS_API_TOKEN=…   # from https://cloud.deepdataspace.com
    python grounded_sam2_tracking_demo_custom_video_input_dinox.py
    python grounded_sam2_tracking_demo_custom_video_input_dinox.py --video-path 0 \
        --text-prompt "person. cup." --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from pathlib import Path

from tqdm import tqdm

from grounded_sam2.detectors.dds import DDSCloudDetector
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
API_TOKEN: str | None = None  # of the DDS cloud; none: the environment variable DDS_API_TOKEN
DDS_ENDPOINT: str | None = None  # address of the service; none: the official one
CACHE_DIR: Path | None = Path("outputs/dds_cache")  # keeps answers, so that each is paid for once; none: off
MAX_REQUESTS: int | None = 200  # images, or tiles of them, that one run may send: each costs; none: no limit
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
NMS_THRESHOLD: float | None = 0.7  # of two boxes that overlap by a higher IoU the surer is kept; none: keep all
SLICE_WH: tuple[int, int] | None = None  # also look at tiles of this width and height, for small objects; none: off
OVERLAP_RATIO: tuple[float, float] = (0.2, 0.2)  # how far tiles overlap, as shares of their width and height

# tracking
PROMPT_TYPE_FOR_VIDEO: PromptType = "box"  # what the video predictor is told about each object: box, point or mask

# output
RESUME = False  # go on where a run with the same settings was interrupted
SAVE_EVERY = 30.0  # seconds from one saved state, which --resume goes on from, to the next
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo_custom_video_input_dinox")  # where everything goes


def main() -> None:
    # Step 1: read the prompt, open the source, and make sure the service can be asked
    prompt = read_prompt(TEXT_PROMPT)
    frames = open_frames(VIDEO_PATH)
    files = OutputFiles(OUTPUT_DIR, VIDEO_PATH)
    settings = settings_of(globals())
    note_nano_models(VIDEO_PATH, SAM2_CHECKPOINT, detector_setting=None)
    detector = DDSCloudDetector(
        "DINO-X-1.0",
        token=API_TOKEN,
        nms_threshold=NMS_THRESHOLD,
        cache_dir=CACHE_DIR,
        max_requests=MAX_REQUESTS,
        endpoint=DDS_ENDPOINT,
    )
    detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)

    with (
        stop_on_signals() as stop,
        frames,
        SavedRun(files.path(".resume"), settings, frames, RESUME, SAVE_EVERY) as saved,
        TrackingOutputs(files, frames, prompt.phrases, settings, with_identity=False) as outputs,
    ):
        images = stop.frames(frames, MAX_FRAMES)

        # Step 2: build SAM 2 and the tracker over it
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
        tracker = FirstSightTracker(
            detector, predictor, prompt, prompt_type=PROMPT_TYPE_FOR_VIDEO, box_threshold=BOX_THRESHOLD
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
