r"""Track what a text prompt names through a video, found by Florence-2: every object keeps its id for its whole life.

    python grounded_sam2_tracking_demo_with_florence2.py
    python grounded_sam2_tracking_demo_with_florence2.py --video-path street.mp4 --text-prompt "car. person." \
        --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from pathlib import Path
from typing import Literal

from tqdm import tqdm

from grounded_sam2.detectors.florence2 import Florence2, Florence2Detector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.flags import override_from_flags, settings_of
from grounded_sam2.outputs import TrackingOutputs
from grounded_sam2.owned import OutputFiles
from grounded_sam2.prompts import read_prompt
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.gallery import Gallery
from grounded_sam2.track.looks import make_descriptor
from grounded_sam2.track.resume import SavedRun
from grounded_sam2.track.rules import IdentityRules
from grounded_sam2.video import open_frames
from sam2.build_sam import build_sam2_video_predictor
from sam2.memory_policies import PolicyName

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
TEXT_PROMPT = "owl. motorcycle. tiger. pizza. crown. camera."  # phrases, each ended by "."
VIDEO_PATH = "assets/parade.mp4"  # video file, folder of frames, URL or camera index
MAX_FRAMES: int | None = None  # stop after so many frames; none: go on to the end

# models
FLORENCE2_MODEL_ID = "florence-community/Florence-2-large"  # folder or hub id
DETECTION_TASK: Literal["open_vocabulary", "phrase_grounding"] = "open_vocabulary"  # how Florence-2 is asked
NUM_BEAMS = 3  # continuations that Florence-2's search holds; 1 is faster
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
DETECT_EVERY = 10  # frames from one look of the detector to the next
SCENE_CUT: float | None = 0.2  # mean change of grey, 0 to 1, at which the detector looks at once; none: off
SURE_CONFIDENCE = 0.5  # detector confidence with which a new object is shown at once, not after a second detection
LOST_AFTER = 60  # frames without a sighting after which only the detector can bring an object back
MAX_OBJECTS: int | None = None  # followed at a time; none: all
LOOKS: str | None = "colours"  # by what those that come back are known: colours, pointers, a DINOv3 folder; none: off
LOOKS_THRESHOLD: float | None = None  # how alike, up to 1, two looks of one object are at least; none: as LOOKS says

# output
GALLERY: Path | None = None  # file of objects that keep their ids in all videos whose runs name it; none: off
RESUME = False  # go on where a run with the same settings was interrupted
SAVE_EVERY = 30.0  # seconds from one saved state, which --resume goes on from, to the next
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo_with_florence2")  # where everything goes


def main() -> None:
    # Step 1: read the prompt and open the source
    prompt = read_prompt(TEXT_PROMPT)
    rules = IdentityRules(
        sure_confidence=SURE_CONFIDENCE,
        lost_after=LOST_AFTER,
        max_objects=MAX_OBJECTS,
        similarity_threshold=LOOKS_THRESHOLD,
    )
    frames = open_frames(VIDEO_PATH)
    files = OutputFiles(OUTPUT_DIR, VIDEO_PATH)
    settings = settings_of(globals())
    descriptor = make_descriptor(LOOKS, SAM2_CHECKPOINT, DEVICE)
    gallery = Gallery(GALLERY, descriptor)
    note_nano_models(VIDEO_PATH, SAM2_CHECKPOINT, detector_setting=None)

    with (
        stop_on_signals() as stop,
        frames,
        SavedRun(files.path(".resume"), gallery.mark(settings), frames, RESUME, SAVE_EVERY) as saved,
        gallery,
        TrackingOutputs(files, frames, prompt.phrases, settings) as outputs,
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
        florence2 = Florence2(FLORENCE2_MODEL_ID, device=device, dtype=dtype, num_beams=NUM_BEAMS)
        detector = Florence2Detector(florence2, task=DETECTION_TASK, nms_threshold=NMS_THRESHOLD)
        detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)
        tracker = ContinuousTracker(
            detector,
            predictor,
            prompt,
            detect_every=DETECT_EVERY,
            scene_cut=SCENE_CUT,
            rules=rules,
            box_threshold=BOX_THRESHOLD,
            descriptor=descriptor,
            gallery=gallery,
        )

        # Step 3: follow; draw and write each frame as it comes
        images = tqdm(images, unit="frame")
        for frame_idx, image, objects in saved.follow(tracker, images, outputs.annotations, outputs.event_log):
            outputs.draw(frame_idx, image, objects)
        gallery.keep(tracker.keeper, tracker.phrases)

    print(f"{tracker.keeper.next_obj_id - gallery.next_obj_id} objects in {tracker.frame_idx + 1} frames")
    print(f"wrote {outputs}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
