r"""Track what a text prompt names through a video: found on one frame by the DDS cloud, followed from it to both ends.

    export DDS_API_TOKEN=…   # from https://cloud.deepdataspace.com
    python grounded_sam2_tracking_demo_with_gd1.5.py
    python grounded_sam2_tracking_demo_with_gd1.5.py --text-prompt "dog." --video-path my.mp4 \
        --start-frame-idx 40 --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from pathlib import Path

from tqdm import tqdm

from grounded_sam2.detectors.dds import DDSCloudDetector, DDSModel
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.export import write_json
from grounded_sam2.flags import override_from_flags, settings_of
from grounded_sam2.images import write_image
from grounded_sam2.outputs import TrackingOutputs
from grounded_sam2.owned import OutputFiles
from grounded_sam2.prompts import read_prompt
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.track.both_ways import TwoWayTracker
from grounded_sam2.track.resume import SavedRun
from grounded_sam2.track.tracking import PromptType, frame_at
from grounded_sam2.video import open_frames
from sam2.build_sam import build_sam2_video_predictor
from sam2.memory_policies import VideoPolicyName

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
TEXT_PROMPT = "owl. motorcycle. tiger. pizza. crown. camera."  # phrases, each ended by "."
VIDEO_PATH = "assets/parade.mp4"  # video file, folder of frames or URL of a video
START_FRAME_IDX = 0  # 0-based frame the objects are looked for on; they are tracked from it both ways
MAX_FRAMES: int | None = None  # stop after so many frames; none: go on to the end

# models
GROUNDING_MODEL: DDSModel = "GroundingDino-1.5-Pro"  # or -1.5-Edge, GroundingDino-1.6-Pro, DINO-X-1.0
API_TOKEN: str | None = None  # of the DDS cloud; none: the environment variable DDS_API_TOKEN
DDS_ENDPOINT: str | None = None  # address of the service; none: the official one
CACHE_DIR: Path | None = Path("outputs/dds_cache")  # keeps answers, so that each is paid for once; none: off
MAX_REQUESTS: int | None = 200  # images, or tiles of them, that one run may send: each costs; none: no limit
SAM2_CHECKPOINT = "checkpoints/sam2.1_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt or edgetam.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none: read from the weights
IMAGE_SIZE: int | None = None  # side of the square that SAM 2 sees, a multiple of 32; none: that of the weights
MEMORY_POLICY: VideoPolicyName = "default"  # what SAM 2 remembers: default, robust, samurai, dam4sam or sam2long
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
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo_with_gd1.5")  # where everything goes
RESUME = False  # go on where a run with the same settings was interrupted
SAVE_EVERY = 30.0  # seconds from one saved state, which --resume goes on from, to the next


def main() -> None:
    # Step 1: read the prompt, open the video, and make sure the service can be asked
    prompt = read_prompt(TEXT_PROMPT)
    frames = open_frames(VIDEO_PATH)
    start_frame = frame_at(frames, START_FRAME_IDX)
    files = OutputFiles(OUTPUT_DIR, VIDEO_PATH)
    settings = settings_of(globals())
    note_nano_models(VIDEO_PATH, SAM2_CHECKPOINT, detector_setting=None)
    detector = DDSCloudDetector(
        GROUNDING_MODEL,
        token=API_TOKEN,
        nms_threshold=NMS_THRESHOLD,
        cache_dir=CACHE_DIR,
        max_requests=MAX_REQUESTS,
        endpoint=DDS_ENDPOINT,
    )
    detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)

    with (
        stop_on_signals() as stop,
        SavedRun(files.path(".resume"), settings, frames, RESUME, SAVE_EVERY) as saved,
        TrackingOutputs(files, frames, prompt.phrases, settings, with_identity=False) as outputs,
    ):
        images = stop.frames(frames, MAX_FRAMES)

        # Step 2: build SAM 2
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

        tracker = TwoWayTracker(predictor, frames, START_FRAME_IDX)

        with saved.stage("both ways", tracker, outputs.annotations) as stage:
            # Step 3: find the objects on one frame, each with a mask and an id, unless an interrupted run has
            if tracker.objects is None:
                (detections,) = detector.detect(start_frame, prompt, box_threshold=BOX_THRESHOLD)
                objects = tracker.start(detections, PROMPT_TYPE_FOR_VIDEO)
                write_image(files.path("_start_frame.jpg"), annotate(start_frame, objects))
                write_json(files.path("_start_frame.json"), VIDEO_PATH, objects, frames.size)

            # Step 4: follow them back to the first frame
            for _ in tqdm(stop.guard(tracker.go_back()), desc="backwards", unit="frame", leave=False):
                stage.save_when_due()

            # Step 5: go through the video, following them on; draw and write each frame
            images = tqdm(images, unit="frame")
            for frame_idx, image, objects in stage.follow(tracker, images, outputs.annotations):
                outputs.draw(frame_idx, image, objects)

    print(f"found {len(tracker.objects)}: {', '.join(tracker.objects.data['class_name']) or 'nothing'}")
    print(f"wrote {outputs}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
