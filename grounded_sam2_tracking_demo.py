"""Track what a text prompt names through a video: found on one frame, followed from there to both ends.

    python grounded_sam2_tracking_demo.py
    python grounded_sam2_tracking_demo.py --text-prompt "dog." --video-path my.mp4 --start-frame-idx 40 \
        --gdino-model-id IDEA-Research/grounding-dino-tiny --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from pathlib import Path

from tqdm import tqdm

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.export import FrameAnnotationWriter, write_json
from grounded_sam2.flags import override_from_flags
from grounded_sam2.images import write_image
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.segment import segment
from grounded_sam2.track.tracking import PromptType, frame_at, prompt_objects, track_both_ways
from grounded_sam2.video import VideoWriter, open_frames
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_image_predictor import SAM2ImagePredictor

# ---- settings: edit here, or pass the same name as a flag ----
TEXT_PROMPT = "owl. motorcycle. tiger. pizza. crown. camera."  # phrases, each ended by "."
VIDEO_PATH = "assets/parade.mp4"  # video file, folder of frames or URL of a video
START_FRAME_IDX = 0  # 0-based frame the objects are looked for on; they are tracked from it both ways
PROMPT_TYPE_FOR_VIDEO: PromptType = "box"  # what the video predictor is told about each object: box, point or mask
GDINO_MODEL_ID = "gdino_checkpoints/nano"  # folder or hub id; real footage: IDEA-Research/grounding-dino-tiny or -base
SAM2_CHECKPOINT = "checkpoints/sam2.1_hiera_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none reads it from the weights
BOX_THRESHOLD = 0.35  # detector confidence a box needs to be kept
TEXT_THRESHOLD = 0.25  # score a phrase needs to become a box's label
NMS_THRESHOLD: float | None = 0.7  # of two boxes overlapping by a higher IoU the more confident is kept; none keeps all
SLICE_WH: tuple[int, int] | None = None  # also look at tiles of this width and height, for small objects; none does not
OVERLAP_RATIO: tuple[float, float] = (0.2, 0.2)  # how far tiles overlap, as shares of their width and height
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo")  # where the video and the JSON files go
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # SAM 2's precision: auto, float32, bfloat16, float16


def main() -> None:
    # Step 1: read the prompt and open the video
    phrases = parse_prompt(TEXT_PROMPT)
    frames = open_frames(VIDEO_PATH)
    start_frame = frame_at(frames, START_FRAME_IDX)
    name = Path(VIDEO_PATH).stem
    note_nano_models(VIDEO_PATH, GDINO_MODEL_ID, SAM2_CHECKPOINT)

    with (
        stop_on_signals() as stop,
        FrameAnnotationWriter(OUTPUT_DIR / f"{name}.jsonl", frames.size) as annotations,
        VideoWriter(OUTPUT_DIR / f"{name}.mp4", frames.fps, frames.size, like=frames) as video,
    ):
        # Step 2: build the models; both predictors share one set of weights
        device = choose_device(DEVICE)
        video_predictor = build_sam2_video_predictor(
            SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=choose_dtype(device, DTYPE)
        )
        image_predictor = SAM2ImagePredictor(video_predictor)
        detector = HuggingFaceDetector(GDINO_MODEL_ID, device=device, nms_threshold=NMS_THRESHOLD)
        detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)

        # Step 3: find the objects on one frame
        (detections,) = detector.detect(
            start_frame, phrases, box_threshold=BOX_THRESHOLD, text_threshold=TEXT_THRESHOLD
        )
        detections = segment(image_predictor, start_frame, detections)

        # Step 4: one object id per detection
        inference_state = video_predictor.init_state(frames)
        objects = prompt_objects(video_predictor, inference_state, START_FRAME_IDX, detections, PROMPT_TYPE_FOR_VIDEO)
        write_image(OUTPUT_DIR / f"{name}_start_frame.jpg", annotate(start_frame, objects))
        write_json(OUTPUT_DIR / f"{name}_start_frame.json", VIDEO_PATH, objects, frames.size)

        # Step 5: propagate; draw and write each frame as it arrives
        tracked = track_both_ways(video_predictor, inference_state, START_FRAME_IDX, objects, stop.guard, progress=tqdm)
        for frame_idx, detections in tqdm(stop.guard(tracked), total=frames.num_frames, unit="frame"):
            video.write(annotate(frames[frame_idx], detections))
            annotations.write(frame_idx, detections)

    print(f"found {len(objects)}: {', '.join(objects.data['class_name']) or 'nothing'}")
    print(f"wrote {video.path} and {annotations.path}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
