"""Track with continuous ids, then follow what was found late back to where it appears.

    python grounded_sam2_tracking_demo_with_continuous_id_plus.py
    python grounded_sam2_tracking_demo_with_continuous_id_plus.py --video-path street.mp4 --text-prompt "car. person." \
        --gdino-model-id IDEA-Research/grounding-dino-tiny --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from pathlib import Path

from tqdm import tqdm

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.export import FrameAnnotationWriter, IdMapWriter
from grounded_sam2.flags import override_from_flags
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.events import EventLogWriter
from grounded_sam2.track.resume import SavedRun, settings_of
from grounded_sam2.track.reverse import ReverseTracker, merged
from grounded_sam2.track.rules import IdentityRules
from grounded_sam2.video import VideoWriter, open_indexed_frames
from sam2.build_sam import build_sam2_video_predictor

# ---- settings: edit here, or pass the same name as a flag ----
TEXT_PROMPT = "owl. motorcycle. tiger. pizza. crown. camera."  # phrases, each ended by "."; "not a toy car." bars one
VIDEO_PATH = "assets/parade.mp4"  # video file or folder of frames
DETECT_EVERY = 10  # frames from one look of the detector to the next
GDINO_MODEL_ID = "gdino_checkpoints/nano"  # folder or hub id; real footage: IDEA-Research/grounding-dino-tiny or -base
SAM2_CHECKPOINT = "checkpoints/sam2.1_hiera_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none reads it from the weights
BOX_THRESHOLD = 0.35  # detector confidence a box needs to be kept
TEXT_THRESHOLD = 0.25  # score a phrase needs to become a box's label
NMS_THRESHOLD: float | None = 0.7  # of two boxes overlapping by a higher IoU the more confident is kept; none keeps all
SLICE_WH: tuple[int, int] | None = None  # also look at overlapping tiles of this size, for small objects; none does not
SURE_CONFIDENCE = 0.5  # detector confidence with which a new object is shown at once, not after a second detection
LOST_AFTER = 60  # frames without a sighting after which only the detector can bring an object back
MAX_OBJECTS: int | None = None  # followed at a time; none follows all
RESUME = False  # go on where a run with the same settings was interrupted
SAVE_EVERY = 30.0  # seconds from one saved state, which --resume goes on from, to the next
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo_with_continuous_id_plus")  # where everything goes
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # SAM 2's precision: auto, float32, bfloat16, float16


def main() -> None:
    # Step 1: open the video
    rules = IdentityRules(sure_confidence=SURE_CONFIDENCE, lost_after=LOST_AFTER, max_objects=MAX_OBJECTS)
    frames = open_indexed_frames(VIDEO_PATH)
    name = Path(VIDEO_PATH).stem
    note_nano_models(VIDEO_PATH, GDINO_MODEL_ID, SAM2_CHECKPOINT)

    with (
        stop_on_signals() as stop,
        frames,
        SavedRun(OUTPUT_DIR / f"{name}.resume", settings_of(globals()), frames, RESUME, SAVE_EVERY) as saved,
        FrameAnnotationWriter(OUTPUT_DIR / f"{name}_forward.jsonl", frames.size) as forward_lines,
        FrameAnnotationWriter(OUTPUT_DIR / f"{name}_backward.jsonl", frames.size) as backward_lines,
        FrameAnnotationWriter(OUTPUT_DIR / f"{name}.jsonl", frames.size) as annotations,
        IdMapWriter(OUTPUT_DIR, frames.size) as id_maps,
        EventLogWriter(OUTPUT_DIR / "events.jsonl") as event_log,
        VideoWriter(OUTPUT_DIR / f"{name}.mp4", frames.fps, frames.size, like=frames) as video,
    ):
        # Step 2: build the models and the tracker over them
        device = choose_device(DEVICE)
        dtype = choose_dtype(device, DTYPE)
        predictor = build_sam2_video_predictor(SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=dtype)
        detector = HuggingFaceDetector(GDINO_MODEL_ID, device=device, nms_threshold=NMS_THRESHOLD)
        detector = in_tiles(detector, SLICE_WH)
        detection = {"detect_every": DETECT_EVERY, "box_threshold": BOX_THRESHOLD, "text_threshold": TEXT_THRESHOLD}
        tracker = ContinuousTracker(detector, predictor, TEXT_PROMPT, rules=rules, **detection)

        # Step 3: follow forwards; what is found goes to disk frame by frame
        for _ in saved.follow(tracker, tqdm(stop.guard(frames), total=len(frames)), forward_lines, event_log):
            pass

        # Step 4: follow what was found late, or found again late, back to where it appears
        forward = forward_lines.read()
        back = ReverseTracker(predictor, forward)
        saved.follow_back(back, tqdm(stop.guard(back.run(frames)), desc="backwards"), backward_lines)

        # Step 5: put both together; draw and write each frame
        with forward, backward_lines.read() as backward:
            for frame_idx, image in enumerate(tqdm(stop.guard(frames), total=len(frames), desc="writing")):
                earlier = backward[frame_idx].detections if frame_idx in backward else None
                objects = merged(forward[frame_idx].detections, earlier, back.renamed)
                video.write(annotate(image, objects))
                annotations.write(frame_idx, objects)
                id_maps.write(frame_idx, objects)

    print(f"{len(backward)} frames completed backwards, ids joined: {back.renamed or 'none'}")
    print(f"wrote {video.path}, {annotations.path}, {event_log.path}, {id_maps.mask_folder} and {id_maps.json_folder}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
