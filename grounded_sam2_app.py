r"""Studio: the whole system in a web page. Drop a video, say or click what to follow, correct it, download the results.

    python grounded_sam2_app.py
    python grounded_sam2_app.py --gdino-model-id IDEA-Research/grounding-dino-tiny \
        --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
    python grounded_sam2_app.py --host 0.0.0.0 --auth "ann:her password, bob:his" --no-open-browser

Sessions are kept in OUTPUT_DIR and are there again at the next start. What others may do is under "limits" below; a
password is better kept in a file of settings than on the command line, where other users of this machine see it.
"""

from pathlib import Path

from grounded_sam2.detectors.dds import DDSModel
from grounded_sam2.flags import override_from_flags
from grounded_sam2.runtime import choose_device, choose_dtype, nano_note
from grounded_sam2.script import run
from sam2.build_sam import build_sam2_video_predictor
from studio import Limits, Models, build_app, named_detectors, read_auth, serve

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
HOST = "127.0.0.1"  # address to listen on; 0.0.0.0 lets other machines in: set AUTH then
PORT = 7860  # to listen on
AUTH: str | None = None  # who may log in, "ann:her password, bob:his"; none: everybody who reaches the page
OPEN_BROWSER = True  # show the page

# models
GDINO_MODEL_ID = "gdino_checkpoints/nano"  # folder or hub id; real footage: IDEA-Research/grounding-dino-tiny or -base
FLORENCE2: str | None = None  # folder or hub id of a Florence-2, to find with it too; none: off
CLOUD_MODEL: DDSModel | None = None  # GroundingDino-1.5-Pro and the like, to find with them too; none: off
API_TOKEN: str | None = None  # of the DDS cloud; none: the environment variable DDS_API_TOKEN
DDS_ENDPOINT: str | None = None  # address of the service; none: the official one
CACHE_DIR: Path | None = Path("outputs/dds_cache")  # keeps answers, so that each is paid for once; none: off
MAX_REQUESTS: int | None = 200  # images, or tiles of them, that one run may send: each costs; none: no limit
SAM2_CHECKPOINT = "checkpoints/sam2.1_nano.pt"  # real footage: checkpoints/sam2.1_hiera_large.pt or edgetam.pt
SAM2_CONFIG: str | None = None  # configs/sam2.1/sam2.1_hiera_l.yaml and the like; none: read from the weights
IMAGE_SIZE: int | None = None  # side of the square that SAM 2 sees, a multiple of 32; none: that of the weights
DEVICE = "auto"  # auto, cpu, cuda, cuda:1, mps
DTYPE = "auto"  # precision, where a model has the choice: auto, float32, bfloat16, float16

# thresholds
NMS_THRESHOLD: float | None = 0.7  # of two boxes that overlap by a higher IoU the surer is kept; none: keep all
SLICE_WH: tuple[int, int] | None = None  # also look at tiles of this width and height, for small objects; none: off
OVERLAP_RATIO: tuple[float, float] = (0.2, 0.2)  # how far tiles overlap, as shares of their width and height

# limits
MAX_UPLOAD_MIB = 4096  # of a video, or of the images of a zip together
MAX_VIDEO_FRAMES = 100_000  # of a video
MAX_SIDE = 4096  # pixels, width and height of a video
MAX_SESSIONS = 200  # kept in all
MAX_SESSIONS_PER_USER = 50  # kept for each; without AUTH all are one user
MAX_DISK_GIB = 100.0  # of all sessions, results and uploads together
MAX_RESULTS = 10  # files kept of each session; older ones go
MAX_REQUEST_SECONDS = 120.0  # that a request may take
MAX_IDLE_SECONDS = 900.0  # after which a session that nobody asks for leaves memory

# output
OUTPUT_DIR = Path("outputs/grounded_sam2_app")  # where everything goes


def main() -> None:
    # Step 1: read who may do what
    auth = read_auth(AUTH)
    limits = Limits(
        upload_bytes=MAX_UPLOAD_MIB * 2**20,
        frames=MAX_VIDEO_FRAMES,
        side=MAX_SIDE,
        sessions=MAX_SESSIONS,
        sessions_per_user=MAX_SESSIONS_PER_USER,
        disk_bytes=int(MAX_DISK_GIB * 2**30),
        results=MAX_RESULTS,
        request_seconds=MAX_REQUEST_SECONDS,
        idle_seconds=MAX_IDLE_SECONDS,
    )

    # Step 2: build the models that all sessions share; detectors are built when somebody asks them first
    device = choose_device(DEVICE)
    dtype = choose_dtype(device, DTYPE)
    predictor = build_sam2_video_predictor(
        SAM2_CONFIG, SAM2_CHECKPOINT, device=device, dtype=dtype, image_size=IMAGE_SIZE
    )
    detectors = named_detectors(
        GDINO_MODEL_ID,
        device,
        florence2_model_id=FLORENCE2,
        cloud_model=CLOUD_MODEL,
        api_token=API_TOKEN,
        dds_endpoint=DDS_ENDPOINT,
        cache_dir=CACHE_DIR,
        max_requests=MAX_REQUESTS,
        nms_threshold=NMS_THRESHOLD,
        slice_wh=SLICE_WH,
        overlap_ratio=OVERLAP_RATIO,
    )
    models = Models(predictor, detectors, note=nano_note(GDINO_MODEL_ID, SAM2_CHECKPOINT))

    # Step 3: serve the page until Ctrl-C
    app = build_app(models, OUTPUT_DIR, limits=limits, auth=auth, host=HOST, port=PORT)
    serve(app, HOST, PORT, open_browser=OPEN_BROWSER)


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
