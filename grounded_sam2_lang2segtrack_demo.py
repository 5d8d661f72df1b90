r"""Track what is named, pointed at, boxed or masked, and what a person types, clicks and draws while it goes on.

A line typed on the terminal is looked for from then on, beside what was looked for before: owl. red car.
With --show, in the window: click = point on a new object, drag = box around one, right click = end the object there,
space = pause. Without TEXT_PROMPT ("") nothing is looked for until something is typed.

    python grounded_sam2_lang2segtrack_demo.py
    python grounded_sam2_lang2segtrack_demo.py --text-prompt "" --boxes "owl: 184 112 284 246" --selected owl --show
    python grounded_sam2_lang2segtrack_demo.py --video-path 0 --text-prompt "person." --show \
        --gdino-model-id IDEA-Research/grounding-dino-tiny --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.flags import override_from_flags, settings_of
from grounded_sam2.object_prompts import read_object_prompts
from grounded_sam2.outputs import ObjectOutputs, TrackingOutputs
from grounded_sam2.owned import OutputFiles
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.render import annotate, in_corner
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals, typed_lines
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.discovery import TextDiscovery
from grounded_sam2.track.passes import follow_through
from grounded_sam2.track.resume import SavedRun
from grounded_sam2.track.rules import IdentityRules
from grounded_sam2.track.sam2_follower import Sam2Follower
from grounded_sam2.track.steering import SteeredTracker
from grounded_sam2.video import InteractiveWindow, open_frames
from sam2.build_sam import build_sam2_video_predictor

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
TEXT_PROMPT = "owl. motorcycle. tiger. pizza. crown. camera."  # phrases, each ended by "."
POINTS = ""  # objects of the first frame, in pixels: "owl: 230 180, 250 200, not 60 60; cup: 400 300"
BOXES = ""  # the same by left, top, right and bottom: "owl: 184 112 284 246; cup: 380 280 420 330"
MASKS = ""  # the same by images that are black but for the object: "owl: masks/owl.png; masks/cup.png"
VIDEO_PATH = "assets/parade.mp4"  # video file, folder of frames, URL, RTSP URL, camera index or realsense
MAX_FRAMES: int | None = None  # stop after so many frames; none: go on to the end

# models
GDINO_MODEL_ID = "gdino_checkpoints/nano"  # folder or hub id; real footage: IDEA-Research/grounding-dino-tiny or -base
SAM2_CHECKPOINT = "checkpoints/sam2.1_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt or edgetam.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none: read from the weights
IMAGE_SIZE: int | None = 512  # side of the square that SAM 2 sees, a multiple of 32; none: that of the weights
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
DETECT_EVERY = 5  # frames from one look of the detector to the next
NEW_BELOW_IOU = 0.3  # what the detector finds is new where its mask's IoU with every known object's is lower
SCENE_CUT: float | None = 0.2  # mean change of grey, 0 to 1, at which the detector looks at once; none: off
SURE_CONFIDENCE = 0.5  # detector confidence with which a new object is shown at once, not after a second detection
LOST_AFTER = 60  # frames without a sighting after which only the detector can bring an object back
MAX_OBJECTS: int | None = None  # followed at a time; none: all
MASK_CLEANING: Literal["specks", "morphology", "none"] = (
    "specks"  # specks: small parts go; morphology: also 3x3 closed, opened
)
BACKWARD = True  # files: then follow objects back over the frames before they were found or added

# output
SELECTED = ""  # names and ids of objects that a second video shows alone, "owl. 3."; empty: no such video
SELECTED_BACKGROUND = 0.15  # brightness of everything else in it: 0 is black, 1 as it was
OBJECT_MASKS = True  # also write mask images, in a folder for each object
SHOW = False  # also show a window, in which q or Esc ends the run
RESUME = False  # go on where a run with the same settings was interrupted
SAVE_EVERY = 30.0  # seconds from one saved state, which --resume goes on from, to the next
OUTPUT_DIR = Path("outputs/grounded_sam2_lang2segtrack_demo")  # where everything goes


def main() -> None:
    with (
        stop_on_signals() as stop,
        open_frames(VIDEO_PATH, stop=stop) as frames,
        InteractiveWindow(frames.name) if SHOW else nullcontext() as window,
    ):
        # Step 1: read what is looked for and shown on the first frame
        given = read_object_prompts(POINTS, BOXES, MASKS, frames.size)
        phrases = parse_prompt(TEXT_PROMPT) if TEXT_PROMPT.strip() else []
        names = list(dict.fromkeys([*phrases, *(prompt.name for prompt in given)]))
        rules = IdentityRules(
            iou_threshold=NEW_BELOW_IOU,
            sure_confidence=SURE_CONFIDENCE,
            lost_after=LOST_AFTER,
            max_objects=MAX_OBJECTS,
        )
        images = stop.frames(frames, MAX_FRAMES)
        files = OutputFiles(OUTPUT_DIR, VIDEO_PATH)
        settings = settings_of(globals())
        note_nano_models(VIDEO_PATH, GDINO_MODEL_ID, SAM2_CHECKPOINT)

        with (
            SavedRun(files.path(".resume"), settings, frames, RESUME, SAVE_EVERY) as saved,
            TrackingOutputs(files, frames, names, settings) as outputs,
            ObjectOutputs(files, frames, OBJECT_MASKS, SELECTED, SELECTED_BACKGROUND) as of_objects,
        ):
            # Step 2: build the models and the tracker over them
            device = choose_device(DEVICE)
            dtype = choose_dtype(device, DTYPE)
            predictor = build_sam2_video_predictor(
                SAM2_CONFIG,
                SAM2_CHECKPOINT,
                device=device,
                dtype=dtype,
                image_size=IMAGE_SIZE,
                track_every=TRACK_EVERY,
                sparse_memories=SPARSE_MEMORIES,
            )
            follower = Sam2Follower(predictor, MASK_CLEANING)
            detector = HuggingFaceDetector(GDINO_MODEL_ID, device=device, nms_threshold=NMS_THRESHOLD)
            detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)
            discovery = TextDiscovery(detector, TEXT_PROMPT if phrases else None, BOX_THRESHOLD, TEXT_THRESHOLD)
            tracker = ContinuousTracker(
                discovery, follower, given=given, detect_every=DETECT_EVERY, scene_cut=SCENE_CUT, rules=rules
            )

            # Step 3: let what is typed, clicked and drawn steer it
            steered = SteeredTracker(tracker, discovery, typed_lines(), window, stop=stop, say=tqdm.write)

            # Step 4: follow, forwards and back; draw and write each frame once all is known of it
            for frame_idx, image, objects in follow_through(
                steered, images, saved, outputs, files, stop,
                backward_with=follower if BACKWARD else None, progress=tqdm,
            ):  # fmt: skip
                annotated = in_corner(annotate(image, objects), steered.rate_at(frame_idx))
                outputs.write_picture(frame_idx, annotated, objects)
                of_objects.write(frame_idx, image, objects)

        print(f"{tracker.keeper.next_obj_id - 1} objects in {tracker.frame_idx + 1} frames, {steered.rate.mean}")
        print(f"wrote {outputs}, {of_objects}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
