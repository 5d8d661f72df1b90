"""Make the demo footage under `assets/`, and print what is to be seen in each file.

    python -m training.make_assets                            # from held-out drawn scenes
    python -m training.make_assets --opencv-doc FOLDER        # the real clips

FOLDER holds the unpacked Debian package opencv-doc (`apt-get download opencv-doc && dpkg -x opencv-doc_*.deb FOLDER`),
whose sample videos are under the Apache License 2.0. The default prompts of the scripts:

    assets/scene.jpg      "owl. pizza. sailboat. green book. teddy bear."
    assets/parade.mp4     "owl. motorcycle. tiger. pizza. crown. camera."    # objects hide each other, leave and return
    assets/crossing.mp4   "penguin. red car. pig."                           # the penguin passes in front of the car
    assets/walkers.mp4    "person."                                          # people cross, leave and enter
    assets/cup.mp4        "cup."                                             # a hand turns a cup
    assets/album/         as its prompts.json says for each of its images
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image

from grounded_sam2.video import VideoWriter
from training.scenes import Scene, make_clip, make_scene

ASSETS = Path("assets")
SIZE = (360, 640)  # height, width
FPS = Fraction(24)
STYLES = ("noto", "fluent", "twemoji")
ALBUM_SEEDS = range(600, 606)


def write_clip(path: Path, scenes: Iterable[Scene]) -> None:
    """Write the frames of a clip as H.264 and print how often each object is seen."""
    seen: dict[str, int] = {}
    num_frames = 0
    with VideoWriter(path, FPS, crf=27) as writer:
        for scene in scenes:
            writer.write(scene.image)
            num_frames += 1
            for phrase, mask in zip(scene.phrases, scene.masks, strict=True):
                seen[phrase] = seen.get(phrase, 0) + int(mask.any())
    visible = ", ".join(f"{phrase} {count}" for phrase, count in seen.items())
    print(f"{path}: {num_frames} frames; frames in which each is visible: {visible}")


def write_album(folder: Path) -> None:
    """Write images of a few objects, and a list of them with a prompt for each."""
    folder.mkdir(exist_ok=True)
    prompts = {}
    for seed in ALBUM_SEEDS:
        scene = make_scene(seed, SIZE, split="heldout", styles=STYLES, num_objects=(2, 5), stretch=1.0)
        Image.fromarray(scene.image).save(folder / f"{seed}.jpg", quality=88)
        prompts[f"{seed}.jpg"] = " ".join(f"{phrase}." for phrase in dict.fromkeys(scene.phrases))
    (folder / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n", encoding="utf-8")
    print(f"{folder}: {prompts}")


def cut_video(source: Path, target: Path, frames: range, rows: slice, columns: slice, size: tuple[int, int]) -> None:
    """Write some frames of a video, cropped and resized to (width, height), as H.264.

    Args:
        source: a video, perhaps compressed with gzip.
    """
    content = source.read_bytes()
    video = av.open(io.BytesIO(gzip.decompress(content) if source.suffix == ".gz" else content))
    with VideoWriter(target, Fraction(video.streams.video[0].average_rate or 10), crf=24) as writer:
        for frame_idx, frame in enumerate(video.decode(video=0)):
            if frame_idx in frames:
                cropped = np.ascontiguousarray(frame.to_ndarray(format="rgb24")[rows, columns])
                writer.write(cv2.resize(cropped, size, interpolation=cv2.INTER_AREA))
    print(f"{target}: {len(frames)} frames, {target.stat().st_size // 1000} kB")


def cut_real_clips(opencv_doc: Path) -> None:
    """Cut the bundled clips out of OpenCV's sample videos."""
    samples = opencv_doc / "usr/share/doc/opencv-doc"
    walkers, cup = samples / "examples/data/vtest.avi", samples / "opencv4/html/cup.mp4.gz"
    cut_video(walkers, ASSETS / "walkers.mp4", range(487, 547), slice(200, 576), slice(300, 768), (468, 376))
    cut_video(cup, ASSETS / "cup.mp4", range(180), slice(0, 480), slice(0, 640), (480, 360))


def make_bundled_scene() -> Scene:
    """What `scene.jpg` is made of."""
    return make_scene(552, SIZE, split="heldout", styles=STYLES, num_objects=(6, 8), stretch=1.0)


def main() -> None:
    """Write the drawn files, or with `--opencv-doc` the real clips."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--opencv-doc", type=Path, help="the unpacked Debian package: cut the real clips out of it")
    options = parser.parse_args()
    ASSETS.mkdir(exist_ok=True)
    if options.opencv_doc:
        cut_real_clips(options.opencv_doc)
        return
    scene = make_bundled_scene()
    Image.fromarray(scene.image).save(ASSETS / "scene.jpg", quality=92)
    print(f"{ASSETS / 'scene.jpg'}: {', '.join(scene.phrases)}")
    parade = make_clip(31, 192, SIZE, split="heldout", styles=STYLES, kind="mixed", num_objects=(4, 6), stretch=1.0)
    write_clip(ASSETS / "parade.mp4", parade)
    crossing = make_clip(
        35, 144, SIZE, split="heldout", styles=STYLES, kind="crossing", num_objects=(3, 4), stretch=1.0
    )
    write_clip(ASSETS / "crossing.mp4", crossing)
    write_album(ASSETS / "album")


if __name__ == "__main__":
    main()
