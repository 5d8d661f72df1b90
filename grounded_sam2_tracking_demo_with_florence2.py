"""Track what a text prompt names through a video, found by Florence-2: every object keeps its id for its whole life.

    python grounded_sam2_tracking_demo_with_florence2.py
    python grounded_sam2_tracking_demo_with_florence2.py --video-path street.mp4 --text-prompt "car. person." \
        --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from itertools import islice
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from grounded_sam2.detectors.florence2 import Florence2, Florence2Detector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.export import FrameAnnotationWriter
from grounded_sam2.flags import override_from_flags
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.video import VideoWriter, open_frames
from sam2.build_sam import build_sam2_video_predictor

# ---- settings: edit here, or pass the same name as a flag ----
TEXT_PROMPT = "owl. motorcycle. tiger. pizza. crown. camera."  # phrases, each ended by "."; "not a toy car." bars one
VIDEO_PATH = "assets/parade.mp4"  # video file, folder of frames, URL or camera index
MAX_FRAMES: int | None = None  # stop after so many frames; none goes on to the end
DETECT_EVERY = 10  # frames from one look of the detector to the next
FLORENCE2_MODEL_ID = "florence-community/Florence-2-large"  # folder or hub id
DETECTION_TASK: Literal["open_vocabulary", "phrase_grounding"] = "open_vocabulary"  # how Florence-2 is asked
SAM2_CHECKPOINT = "checkpoints/sam2.1_hiera_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none reads it from the weights
BOX_THRESHOLD = 0.35  # detector confidence a box needs to be kept
NMS_THRESHOLD: float | None = 0.7  # of two boxes overlapping by a higher IoU the more confident is kept; none keeps all
SLICE_WH: tuple[int, int] | None = None  # also look at tiles of this width and height, for small objects; none does not
OVERLAP_RATIO: tuple[float, float] = (0.2, 0.2)  # how far tiles overlap, as shares of their width and height
NUM_BEAMS = 3  # continuations that Florence-2's search holds; 1 is faster
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo_with_florence2")  # where everything goes
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # SAM 2's and Florence-2's precision: auto, float32, bfloat16, float16


def main() -> None:
    # Step 1: read the prompt and open the source
    phrases = parse_prompt(TEXT_PROMPT)
    frames = open_frames(VIDEO_PATH)
    note_nano_models(VIDEO_PATH, SAM2_CHECKPOINT, detector_setting=None)
    name = Path(VIDEO_PATH).stem

    with (
        stop_on_signals() as stop,
        frames,
        VideoWriter(OUTPUT_DIR / f"{name}.mp4", frames.fps, frames.size, like=frames) as video,
        FrameAnnotationWriter(OUTPUT_DIR / f"{name}.jsonl", frames.size) as annotations,
    ):
        # Step 2: build the models and the tracker over them
        device = choose_device(DEVICE)
        dtype = choose_dtype(device, DTYPE)
        florence2 = Florence2(FLORENCE2_MODEL_ID, device=device, dtype=dtype, num_beams=NUM_BEAMS)
        detector = Florence2Detector(florence2, task=DETECTION_TASK, nms_threshold=NMS_THRESHOLD)
        detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)
        predictor = build_sam2_video_predictor(SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=dtype)
        tracker = ContinuousTracker(
            detector, predictor, phrases, detect_every=DETECT_EVERY, box_threshold=BOX_THRESHOLD
        )

        # Step 3: follow; draw and write each frame as it comes
        images = stop.guard(islice(frames, MAX_FRAMES), is_endless=frames.num_frames is None)
        for image in tqdm(images, total=MAX_FRAMES or frames.num_frames, unit="frame"):
            objects = tracker.step(image)
            video.write(annotate(image, objects))
            annotations.write(tracker.frame_idx, objects)

    print(f"{tracker.keeper.next_obj_id - 1} objects in {tracker.frame_idx + 1} frames")
    print(f"wrote {video.path} and {annotations.path}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
