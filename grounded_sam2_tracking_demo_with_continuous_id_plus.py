r"""Track with continuous ids, then follow what was found late back to where it appears.

    python grounded_sam2_tracking_demo_with_continuous_id_plus.py
    python grounded_sam2_tracking_demo_with_continuous_id_plus.py --video-path street.mp4 --text-prompt "car. person." \
        --gdino-model-id IDEA-Research/grounding-dino-tiny --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from pathlib import Path

from tqdm import tqdm

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.export import FrameAnnotationWriter
from grounded_sam2.flags import override_from_flags, settings_of
from grounded_sam2.outputs import TrackingOutputs
from grounded_sam2.owned import OutputFiles
from grounded_sam2.prompts import read_prompt
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.gallery import Gallery
from grounded_sam2.track.looks import make_descriptor
from grounded_sam2.track.resume import SavedRun
from grounded_sam2.track.reverse import ReverseTracker, merged
from grounded_sam2.track.rules import IdentityRules
from grounded_sam2.video import open_indexed_frames
from sam2.build_sam import build_sam2_video_predictor
from sam2.memory_policies import PolicyName

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
TEXT_PROMPT = "owl. motorcycle. tiger. pizza. crown. camera."  # phrases, each ended by "."
VIDEO_PATH = "assets/parade.mp4"  # video file, folder of frames or URL of a video
MAX_FRAMES: int | None = None  # stop after so many frames; none: go on to the end

# models
GDINO_MODEL_ID = "gdino_checkpoints/nano"  # folder or hub id; real footage: IDEA-Research/grounding-dino-tiny or -base
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
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo_with_continuous_id_plus")  # where everything goes


def main() -> None:
    # Step 1: read the prompt and open the source
    prompt = read_prompt(TEXT_PROMPT)
    rules = IdentityRules(
        sure_confidence=SURE_CONFIDENCE,
        lost_after=LOST_AFTER,
        max_objects=MAX_OBJECTS,
        similarity_threshold=LOOKS_THRESHOLD,
    )
    frames = open_indexed_frames(VIDEO_PATH)
    files = OutputFiles(OUTPUT_DIR, VIDEO_PATH)
    settings = settings_of(globals())
    descriptor = make_descriptor(LOOKS, SAM2_CHECKPOINT, DEVICE)
    gallery = Gallery(GALLERY, descriptor)
    note_nano_models(VIDEO_PATH, GDINO_MODEL_ID, SAM2_CHECKPOINT)

    with (
        stop_on_signals() as stop,
        frames,
        SavedRun(files.path(".resume"), gallery.mark(settings), frames, RESUME, SAVE_EVERY) as saved,
        gallery,
        TrackingOutputs(files, frames, prompt.phrases, settings) as outputs,
        FrameAnnotationWriter(files.path("_forward.jsonl"), outputs.header) as forward_lines,
        FrameAnnotationWriter(files.path("_backward.jsonl"), outputs.header) as backward_lines,
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
        detector = HuggingFaceDetector(GDINO_MODEL_ID, device=device, nms_threshold=NMS_THRESHOLD)
        detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)
        tracker = ContinuousTracker(
            detector,
            predictor,
            prompt,
            detect_every=DETECT_EVERY,
            scene_cut=SCENE_CUT,
            rules=rules,
            box_threshold=BOX_THRESHOLD,
            text_threshold=TEXT_THRESHOLD,
            descriptor=descriptor,
            gallery=gallery,
        )

        # Step 3: follow forwards; what is found goes to disk frame by frame
        for _ in saved.follow(tracker, tqdm(images, desc="forwards"), forward_lines, outputs.event_log):
            pass

        # Step 4: follow what was found late, or found again late, back to where it appears
        forward = forward_lines.read()
        back = ReverseTracker(predictor, forward)
        saved.follow_back(back, tqdm(stop.guard(back.run(frames)), desc="backwards"), backward_lines)

        # Step 5: put both together; draw and write each frame
        with forward, backward_lines.read() as backward:
            for frame_idx, image in enumerate(tqdm(images, desc="writing")):
                earlier = backward[frame_idx].detections if frame_idx in backward else None
                objects = merged(forward[frame_idx].detections, earlier, back.renamed)
                outputs.write(frame_idx, annotate(image, objects), objects)
        gallery.keep(tracker.keeper, tracker.phrases, back.renamed)

    print(f"{len(backward)} frames completed backwards, ids joined: {back.renamed or 'none'}")
    print(f"wrote {outputs}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
