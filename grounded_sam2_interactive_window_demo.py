r"""Find, click, follow and correct objects of a video in a window: an editing session by hand.

    ctrl + left click: point    left drag: box    right click: not that    space: play    u: undo    x: remove
    , .  or arrows: step        b: track backward    s: save    ?: all keys    q: save and quit
    a line typed on the terminal is looked for on the frame that is shown: owl. red car.

Everything is kept in a session folder as it is done, and --resume goes on with it. A camera is recorded first, until q.

    python grounded_sam2_interactive_window_demo.py
    python grounded_sam2_interactive_window_demo.py --resume
    python grounded_sam2_interactive_window_demo.py --video-path 0 --text-prompt "person."
    python grounded_sam2_interactive_window_demo.py --video-path my.mp4 --text-prompt "dog. person." \
        --gdino-model-id IDEA-Research/grounding-dino-tiny --sam2-checkpoint checkpoints/sam2.1_hiera_large.pt
"""

from pathlib import Path

from grounded_sam2.detectors.huggingface import HuggingFaceDetector
from grounded_sam2.detectors.tiled import in_tiles
from grounded_sam2.flags import override_from_flags
from grounded_sam2.owned import OutputFiles
from grounded_sam2.runtime import choose_device, choose_dtype, note_nano_models
from grounded_sam2.script import run, stop_on_signals, typed_lines
from grounded_sam2.session import set_search
from grounded_sam2.session.interaction import HELP, Interaction
from grounded_sam2.session.picture import with_lines
from grounded_sam2.session.reopen import open_or_create, video_name
from grounded_sam2.video import InteractiveWindow
from sam2.build_sam import build_sam2_video_predictor
from sam2.memory_policies import PolicyName

# ---- settings: edit here, pass the same name as a flag, or set them in a file (--settings my.toml) ----
# input
TEXT_PROMPT = "owl. motorcycle."  # phrases, each ended by "."
VIDEO_PATH = "assets/parade.mp4"  # video file, folder or zip of frames, URL of a video file, camera index or stream

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

# output
RESUME = False  # go on where a run with the same settings was interrupted
OUTPUT_DIR = Path("outputs/grounded_sam2_interactive_window_demo")  # where everything goes


def main() -> None:
    # Step 1: open the window, build the models, and make or open the session of the video
    files = OutputFiles(OUTPUT_DIR, VIDEO_PATH)
    note_nano_models(VIDEO_PATH, GDINO_MODEL_ID, SAM2_CHECKPOINT)
    with stop_on_signals() as stop, InteractiveWindow(video_name(VIDEO_PATH)) as window:
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
        session_dir = OUTPUT_DIR / f"{files.name}.session"
        shown = "recording: q ends it, and then it is edited"  # of a camera; others are not recorded
        with open_or_create(
            session_dir,
            VIDEO_PATH,
            predictor,
            resume=RESUME,
            watch=lambda image: window.show(with_lines(image, [shown])) and not stop.is_set(),
        ) as session:
            set_search(session, box_threshold=BOX_THRESHOLD, text_threshold=TEXT_THRESHOLD)

            # Step 2: look for what the prompt names on the first frame of a new session
            interaction = Interaction(session, detector, files.paths)
            if not session.objects:
                interaction.look_for(TEXT_PROMPT)

            # Step 3: show, follow, and do what is clicked, pressed and typed, until it is ended
            print(*HELP.splitlines(), sep="\n")
            lines = typed_lines()
            while not stop.is_set() and not interaction.has_quit:
                window.put(interaction.picture(window.pointer.box))
                for event in window.events(interaction.playback.seconds_to_wait()):
                    interaction.handle(event)
                while not lines.empty():
                    interaction.look_for(lines.get())
                interaction.playback.advance()

            # Step 4: write the results
            print(f"wrote {', '.join(map(str, interaction.save()))}; the session is kept in {session_dir}")


if __name__ == "__main__":
    override_from_flags(globals())
    run(main)
