"""Track what a text prompt names while objects come and go: every object keeps its id for its whole life.

The detector looks again every few frames; what is new joins, what comes back gets its old id, and nothing is reset.

    python grounded_sam2_tracking_demo_with_continuous_id.py
    python grounded_sam2_tracking_demo_with_continuous_id.py --resume  # go on with a run that was interrupted
    python grounded_sam2_tracking_demo_with_continuous_id.py --video-path street.mp4 --text-prompt "car. person." \
        --gdino-model-id IDEA-Research/grounding-dino-tiny --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from itertools import islice
from pathlib import Path

from tqdm import tqdm

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.export import FrameAnnotationWriter, IdMapWriter
from grounded_sam2.flags import override_from_flags
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.events import EventLogWriter
from grounded_sam2.track.resume import SavedRun, settings_of
from grounded_sam2.track.rules import IdentityRules
from grounded_sam2.video import VideoWriter, open_frames
from sam2.build_sam import build_sam2_video_predictor

# ---- settings: edit here, or pass the same name as a flag ----
TEXT_PROMPT = "owl. motorcycle. tiger. pizza. crown. camera."  # phrases, each ended by "."; "not a toy car." bars one
VIDEO_PATH = "assets/parade.mp4"  # video file, folder of frames, URL or camera index
MAX_FRAMES: int | None = None  # stop after so many frames; none goes on to the end
DETECT_EVERY = 10  # frames from one look of the detector to the next
GDINO_MODEL_ID = "gdino_checkpoints/nano"  # folder or hub id; real footage: IDEA-Research/grounding-dino-tiny or -base
SAM2_CHECKPOINT = "checkpoints/sam2.1_hiera_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none reads it from the weights
BOX_THRESHOLD = 0.35  # detector confidence a box needs to be kept
TEXT_THRESHOLD = 0.25  # score a phrase needs to become a box's label
NMS_THRESHOLD: float | None = 0.7  # of two boxes overlapping by a higher IoU the more confident is kept; none keeps all
SLICE_WH: tuple[int, int] | None = None  # also look at tiles of this width and height, for small objects; none does not
OVERLAP_RATIO: tuple[float, float] = (0.2, 0.2)  # how far tiles overlap, as shares of their width and height
SURE_CONFIDENCE = 0.5  # detector confidence with which a new object is shown at once, not after a second detection
LOST_AFTER = 60  # frames without a sighting after which only the detector can bring an object back
MAX_OBJECTS: int | None = None  # followed at a time; none follows all
RESUME = False  # go on where a run with the same settings was interrupted
SAVE_EVERY = 30.0  # seconds from one saved state, which --resume goes on from, to the next
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo_with_continuous_id")  # where everything goes
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # SAM 2's precision: auto, float32, bfloat16, float16


def main() -> None:
    # Step 1: read the prompt and open the source
    phrases = parse_prompt(TEXT_PROMPT)
    rules = IdentityRules(sure_confidence=SURE_CONFIDENCE, lost_after=LOST_AFTER, max_objects=MAX_OBJECTS)
    frames = open_frames(VIDEO_PATH)
    name = Path(VIDEO_PATH).stem
    note_nano_models(VIDEO_PATH, GDINO_MODEL_ID, SAM2_CHECKPOINT)

    with (
        stop_on_signals() as stop,
        frames,
        SavedRun(OUTPUT_DIR / f"{name}.resume", settings_of(globals()), frames, RESUME, SAVE_EVERY) as saved,
        FrameAnnotationWriter(OUTPUT_DIR / f"{name}.jsonl", frames.size) as annotations,
        IdMapWriter(OUTPUT_DIR, frames.size) as id_maps,
        EventLogWriter(OUTPUT_DIR / "events.jsonl") as event_log,
        VideoWriter(OUTPUT_DIR / f"{name}.mp4", frames.fps, frames.size, like=frames) as video,
    ):
        # Step 2: build the models and the tracker over them
        device = choose_device(DEVICE)
        predictor = build_sam2_video_predictor(
            SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=choose_dtype(device, DTYPE)
        )
        detector = HuggingFaceDetector(GDINO_MODEL_ID, device=device, nms_threshold=NMS_THRESHOLD)
        detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)
        detection = {"detect_every": DETECT_EVERY, "box_threshold": BOX_THRESHOLD, "text_threshold": TEXT_THRESHOLD}
        tracker = ContinuousTracker(detector, predictor, phrases, rules=rules, **detection)

        # Step 3: follow; draw and write each frame as it comes
        images = stop.guard(islice(frames, MAX_FRAMES), is_endless=frames.num_frames is None)
        images = tqdm(images, total=MAX_FRAMES or frames.num_frames, unit="frame")
        for frame_idx, image, objects in saved.follow(tracker, images, annotations, event_log):
            video.write(annotate(image, objects))
            id_maps.write(frame_idx, objects)

    print(f"{tracker.keeper.next_obj_id - 1} objects in {tracker.frame_idx + 1} frames")
    print(f"wrote {video.path}, {annotations.path}, {event_log.path}, {id_maps.mask_folder} and {id_maps.json_folder}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
