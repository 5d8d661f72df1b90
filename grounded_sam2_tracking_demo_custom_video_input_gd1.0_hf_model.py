"""Track what a text prompt names through your own video, camera or stream, frame by frame as it comes.

Objects are looked for on each frame until some are found, and followed from there on. Nothing is read ahead or kept, so
the video may be of any length.

    python grounded_sam2_tracking_demo_custom_video_input_gd1.0_hf_model.py
    python grounded_sam2_tracking_demo_custom_video_input_gd1.0_hf_model.py --video-path 0 --max-frames 300 \
        --text-prompt "person. cup." --gdino-model-id IDEA-Research/grounding-dino-tiny \
        --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from itertools import islice
from pathlib import Path

from tqdm import tqdm

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.export import FrameAnnotationWriter
from grounded_sam2.flags import override_from_flags
from grounded_sam2.prompts import parse_prompt
from grounded_sam2.render import annotate
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals
from grounded_sam2.segment import segment
from grounded_sam2.track.tracking import PromptType, no_objects, prompt_objects, track_newest_frame
from grounded_sam2.video import VideoWriter, open_frames
from sam2.build_sam import build_sam2_video_predictor
from sam2.sam2_image_predictor import SAM2ImagePredictor

# ---- settings: edit here, or pass the same name as a flag ----
TEXT_PROMPT = "penguin. red car. pig."  # phrases, each ended by "."
VIDEO_PATH = "assets/crossing.mp4"  # video file, folder of frames, URL or camera index
MAX_FRAMES: int | None = None  # stop after so many frames; none goes on to the end
PROMPT_TYPE_FOR_VIDEO: PromptType = "box"  # what the video predictor is told about each object: box, point or mask
GDINO_MODEL_ID = "gdino_checkpoints/nano"  # folder or hub id; real footage: IDEA-Research/grounding-dino-tiny or -base
SAM2_CHECKPOINT = "checkpoints/sam2.1_hiera_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none reads it from the weights
BOX_THRESHOLD = 0.35  # detector confidence a box needs to be kept
TEXT_THRESHOLD = 0.25  # score a phrase needs to become a box's label
NMS_THRESHOLD: float | None = 0.7  # of two boxes overlapping by a higher IoU the more confident is kept; none keeps all
SLICE_WH: tuple[int, int] | None = None  # also look at tiles of this width and height, for small objects; none does not
OVERLAP_RATIO: tuple[float, float] = (0.2, 0.2)  # how far tiles overlap, as shares of their width and height
OUTPUT_DIR = Path("outputs/grounded_sam2_tracking_demo_custom_video_input")  # where the video and the JSON lines go
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # SAM 2's precision: auto, float32, bfloat16, float16


def main() -> None:
    # Step 1: read the prompt and open the source
    phrases = parse_prompt(TEXT_PROMPT)
    frames = open_frames(VIDEO_PATH)
    name = Path(VIDEO_PATH).stem
    note_nano_models(VIDEO_PATH, GDINO_MODEL_ID, SAM2_CHECKPOINT)

    with (
        stop_on_signals() as stop,
        frames,
        FrameAnnotationWriter(OUTPUT_DIR / f"{name}.jsonl", frames.size) as annotations,
        VideoWriter(OUTPUT_DIR / f"{name}.mp4", frames.fps, frames.size, like=frames) as video,
    ):
        # Step 2: build the models; both predictors share one set of weights
        device = choose_device(DEVICE)
        dtype = choose_dtype(device, DTYPE)
        video_predictor = build_sam2_video_predictor(SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=dtype)
        image_predictor = SAM2ImagePredictor(video_predictor)
        detector = HuggingFaceDetector(GDINO_MODEL_ID, device=device, nms_threshold=NMS_THRESHOLD)
        detector = in_tiles(detector, SLICE_WH, OVERLAP_RATIO)

        inference_state = video_predictor.init_stream()
        objects = no_objects(frames.size)
        images = stop.guard(islice(frames, MAX_FRAMES), is_endless=frames.num_frames is None)
        for image in tqdm(images, total=MAX_FRAMES or frames.num_frames, unit="frame"):
            frame_idx = video_predictor.append_frame(inference_state, image)

            # Step 3: until something is found, look for the objects; one object id per detection
            if len(objects) == 0:
                (detections,) = detector.detect(
                    image, phrases, box_threshold=BOX_THRESHOLD, text_threshold=TEXT_THRESHOLD
                )
                detections = segment(image_predictor, image, detections)
                objects = prompt_objects(video_predictor, inference_state, frame_idx, detections, PROMPT_TYPE_FOR_VIDEO)

            # Step 4: follow them onto this frame; draw and write it
            detections = track_newest_frame(video_predictor, inference_state, frame_idx, objects)
            video.write(annotate(image, detections))
            annotations.write(frame_idx, detections)

    print(f"found {len(objects)}: {', '.join(objects.data['class_name']) or 'nothing'}")
    print(f"wrote {video.path} and {annotations.path}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
