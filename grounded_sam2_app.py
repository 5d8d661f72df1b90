r"""Studio: the whole system in a web page. Drop a video, say or click what to follow, correct it, download the results.

    python grounded_sam2_app.py
    python grounded_sam2_app.py --gdino-model-id IDEA-Research/grounding-dino-tiny \
        --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
    python grounded_sam2_app.py --host 0.0.0.0 --auth "ann:her password" --open-browser false
"""

from pathlib import Path

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.flags import override_from_flags
from grounded_sam2.runtime import choose_device, choose_dtype
from grounded_sam2.script import run
from sam2.build_sam import build_sam2_video_predictor
from studio import Limits, Models, build_app, serve

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
HOST = "127.0.0.1"  # address to listen on; 0.0.0.0 lets other machines in: set AUTH then
PORT = 7860  # to listen on
AUTH: str | None = None  # who may log in, "ann:her password, bob:his"; none: everybody who reaches the page
OPEN_BROWSER = True  # show the page

# models
GDINO_MODEL_ID = "gdino_checkpoints/nano"  # folder or hub id; real footage: IDEA-Research/grounding-dino-tiny or -base
SAM2_CHECKPOINT = "checkpoints/sam2.1_hiera_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none: read from the weights
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # precision, where a model has the choice: auto, float32, bfloat16, float16

# thresholds
NMS_THRESHOLD: float | None = 0.7  # of two boxes that overlap by a higher IoU the surer is kept; none: keep all

# output
OUTPUT_DIR = Path("outputs/grounded_sam2_app")  # where everything goes


def main() -> None:
    # Step 1: build the models that all sessions share
    device = choose_device(DEVICE)
    dtype = choose_dtype(device, DTYPE)
    predictor = build_sam2_video_predictor(SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=dtype)
    detectors = {
        Path(GDINO_MODEL_ID).name: lambda: HuggingFaceDetector(
            GDINO_MODEL_ID, device=device, nms_threshold=NMS_THRESHOLD
        )
    }
    models = Models(predictor, detectors)

    # Step 2: serve the page until Ctrl-C
    app = build_app(models, OUTPUT_DIR, limits=Limits(), host=HOST, port=PORT)
    serve(app, HOST, PORT, open_browser=OPEN_BROWSER)


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
