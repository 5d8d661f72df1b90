r"""Track what a text prompt names through a video: found on one frame, followed from there to both ends.

    python grounded_sam2_tracking_demo.py
    python grounded_sam2_tracking_demo.py --text-prompt "dog." --video-path my.mp4 --start-frame-idx 40 \
        --gdino-model-id IDEA-Research/grounding-dino-tiny --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from pathlib import Path

from tqdm import tqdm

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.export import write_json
from grounded_sam2.flags import override_from_flags, settings_of
from grounded_sam2.images import write_image
from grounded_sam2.outputs import TrackingOutputs
from grounded_sam2.prompts import read_prompt
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.track.follower import as_follower
from grounded_sam2.track.tracking import PromptType, add_objects, follow_both_ways, frame_at, segment_on_frame
from grounded_sam2.video import open_frames
from sam2.build_sam import build_sam2_video_predictor

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
TEXT_PROMPT = "owl. motorcycle. tiger. pizza. crown. camera."  # phrases, each ended by "."
VIDEO_PATH = "assets/parade.mp4"  # video file, folder of frames or URL of a video
START_FRAME_IDX = 0  # 0-based frame the objects are looked for on; they are tracked from it both ways
MAX_FRAMES: int | None = None  # stop after so many frames; none: go on to the end

# models
GDINO_MODEL_ID = "gdino_checkpoints/nano"  # folder or hub id; real footage: IDEA-Research/grounding-dino-tiny or -base
SAM2_CHECKPOINT = "checkpoints/sam2.1_hiera_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none: read from the weights
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
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo")  # where everything goes


def main() -> None:
    # Step 1: read the prompt and open the video
    prompt = read_prompt(TEXT_PROMPT)
    frames = open_frames(VIDEO_PATH)
    start_frame = frame_at(frames, START_FRAME_IDX)
    name = Path(VIDEO_PATH).stem
    settings = settings_of(globals())
    note_nano_models(VIDEO_PATH, GDINO_MODEL_ID, SAM2_CHECKPOINT)

    with (
        stop_on_signals() as stop,
        TrackingOutputs(OUTPUT_DIR, name, frames, prompt.phrases, settings, with_identity=False) as outputs,
    ):
        images = stop.frames(frames, MAX_FRAMES)

        # Step 2: build the models
        device = choose_device(DEVICE)
        dtype = choose_dtype(device, DTYPE)
        predictor = build_sam2_video_predictor(SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=dtype)
        detector = HuggingFaceDetector(GDINO_MODEL_ID, device=device, nms_threshold=NMS_THRESHOLD)
        detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)

        # Step 3: find the objects on one frame
        (detections,) = detector.detect(start_frame, prompt, box_threshold=BOX_THRESHOLD, text_threshold=TEXT_THRESHOLD)
        video = as_follower(predictor).open_video(frames)
        detections = segment_on_frame(video, START_FRAME_IDX, detections)

        # Step 4: one object id per detection
        objects = add_objects(video, START_FRAME_IDX, detections, PROMPT_TYPE_FOR_VIDEO)
        write_image(OUTPUT_DIR / f"{name}_start_frame.jpg", annotate(start_frame, objects))
        write_json(OUTPUT_DIR / f"{name}_start_frame.json", VIDEO_PATH, objects, frames.size)

        # Step 5: follow them to both ends; draw and write each frame as it arrives
        tracked = follow_both_ways(video, START_FRAME_IDX, objects, stop.guard, progress=tqdm)
        for image, (frame_idx, detections) in zip(tqdm(images, unit="frame"), tracked, strict=False):
            outputs.write(frame_idx, annotate(image, detections), detections)

    print(f"found {len(objects)}: {', '.join(objects.data['class_name']) or 'nothing'}")
    print(f"wrote {outputs}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
