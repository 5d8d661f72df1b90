"""Track with continuous ids what a text prompt names, found by the DDS cloud: objects come, go and keep their ids.

    export DDS_API_TOKEN=…   # from https://cloud.deepdataspace.com
    python grounded_sam2_tracking_demo_with_continuous_id_gd1.5.py
    python grounded_sam2_tracking_demo_with_continuous_id_gd1.5.py --video-path street.mp4 \
        --text-prompt "car. person." --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from itertools import islice
from pathlib import Path

from tqdm import tqdm

from grounded_sam2.detectors.dds import DDSCloudDetector, DDSModel
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.export import FrameAnnotationWriter, IdMapWriter
from grounded_sam2.flags import override_from_flags
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.events import EventLogWriter
from grounded_sam2.track.rules import IdentityRules
from grounded_sam2.video import VideoWriter, open_frames
from sam2.build_sam import build_sam2_video_predictor

# ---- settings: edit here, or pass the same name as a flag ----
TEXT_PROMPT = "owl. motorcycle. tiger. pizza. crown. camera."  # phrases, each ended by "."; "not a toy car." bars one
VIDEO_PATH = "assets/parade.mp4"  # video file, folder of frames, URL or camera index
MAX_FRAMES: int | None = None  # stop after so many frames; none goes on to the end
DETECT_EVERY = 10  # frames from one look of the detector to the next
GROUNDING_MODEL: DDSModel = "GroundingDino-1.5-Pro"  # or -1.5-Edge, GroundingDino-1.6-Pro, DINO-X-1.0
API_TOKEN: str | None = None  # of the DDS cloud; none takes the environment variable DDS_API_TOKEN
DDS_ENDPOINT: str | None = None  # address of the service; none takes the official one
CACHE_DIR: Path | None = Path("outputs/dds_cache")  # answers that were paid for, not asked for again; none keeps none
MAX_REQUESTS: int | None = 200  # images, or tiles of them, that may be sent in one run: each costs; none: no limit
SAM2_CHECKPOINT = "checkpoints/sam2.1_hiera_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none reads it from the weights
BOX_THRESHOLD = 0.35  # detector confidence a box needs to be kept
NMS_THRESHOLD: float | None = 0.7  # of two boxes overlapping by a higher IoU the more confident is kept; none keeps all
SLICE_WH: tuple[int, int] | None = None  # also look at tiles of this width and height, for small objects; none does not
OVERLAP_RATIO: tuple[float, float] = (0.2, 0.2)  # how far tiles overlap, as shares of their width and height
SURE_CONFIDENCE = 0.5  # detector confidence with which a new object is shown at once, not after a second detection
LOST_AFTER = 60  # frames without a sighting after which only the detector can bring an object back
MAX_OBJECTS: int | None = None  # followed at a time; none follows all
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo_with_continuous_id_gd1.5")  # where everything goes
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # SAM 2's precision: auto, float32, bfloat16, float16


def main() -> None:
    # Step 1: read the prompt, open the source, and make sure the service can be asked
    phrases = parse_prompt(TEXT_PROMPT)
    rules = IdentityRules(sure_confidence=SURE_CONFIDENCE, lost_after=LOST_AFTER, max_objects=MAX_OBJECTS)
    frames, name = open_frames(VIDEO_PATH), Path(VIDEO_PATH).stem
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
        frames,
        VideoWriter(OUTPUT_DIR / f"{name}.mp4", frames.fps, frames.size, like=frames) as video,
        FrameAnnotationWriter(OUTPUT_DIR / f"{name}.jsonl", frames.size) as annotations,
        IdMapWriter(OUTPUT_DIR, frames.size) as id_maps,
        EventLogWriter(OUTPUT_DIR / "events.jsonl") as event_log,
    ):
        # Step 2: build SAM 2 and the tracker over it
        device = choose_device(DEVICE)
        dtype = choose_dtype(device, DTYPE)
        predictor = build_sam2_video_predictor(SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=dtype)
        tracker = ContinuousTracker(
            detector, predictor, phrases, detect_every=DETECT_EVERY, box_threshold=BOX_THRESHOLD, rules=rules
        )

        # Step 3: follow; draw and write each frame as it comes
        images = stop.guard(islice(frames, MAX_FRAMES), is_endless=frames.num_frames is None)
        for image in tqdm(images, total=MAX_FRAMES or frames.num_frames, unit="frame"):
            objects = tracker.step(image)
            video.write(annotate(image, objects))
            annotations.write(tracker.frame_idx, objects)
            id_maps.write(tracker.frame_idx, objects)
            event_log.write(tracker.take_events())

    print(f"{tracker.keeper.next_obj_id - 1} objects in {tracker.frame_idx + 1} frames")
    print(f"wrote {video.path}, {annotations.path}, {event_log.path}, {id_maps.mask_folder} and {id_maps.json_folder}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
