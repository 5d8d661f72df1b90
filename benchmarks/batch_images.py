"""How many images per second does the batch script do, in batches and one at a time, and does it go on after a kill?

    python benchmarks/batch_images.py
    python benchmarks/batch_images.py --num-images 100 --batch-sizes 1 16 --device cuda

1,000 generated images are written once. The script runs over all of them with each batch size, in a process of its
own. Then it is killed (SIGKILL), started again, stopped (SIGTERM) and started again. The exit status is 1 if the COCO
file is not valid for pycocotools, if what is written in three runs differs from what is written in one, or if a
finished image was done again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import psutil
from pycocotools.coco import COCO
from tqdm import trange

from grounded_sam2.images import write_image
from training.scenes import make_scene

REPOSITORY = Path(__file__).resolve().parents[1]
SCRIPT = "grounded_sam2_batch_images_demo.py"
NOUNS = ("dog", "penguin", "flamingo", "pizza", "owl", "backpack", "red car", "tiger", "camera", "crown")
SIZES = ((240, 320), (240, 426), (320, 240))  # height and width of the images in pixels
STOPS = ((signal.SIGKILL, 0.3), (signal.SIGTERM, 0.6))  # which signal, after which share of the images


def write_images(folder: Path, num_images: int) -> None:
    """Write the images that are not there yet."""
    for index in trange(num_images, unit="image", desc="drawing"):
        path = folder / f"{index:05d}.jpg"
        if not path.exists():
            size = SIZES[index % len(SIZES)]
            write_image(path, make_scene(index, size, "heldout", num_objects=(0, 6), nouns=NOUNS).image)


def command(folder: Path, output_dir: Path, batch_size: int, device: str) -> list[str]:
    flags = {"images": folder, "output-dir": output_dir, "batch-size": batch_size, "device": device}
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return [sys.executable, SCRIPT, *words, "--text-prompt", ". ".join(NOUNS), "--no-save-annotated"]


def finished_lines(output_dir: Path) -> list[str]:
    """What the run has written down as finished, one line an image."""
    path = output_dir / "progress.jsonl"
    return path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []


def run_whole(words: list[str], output_dir: Path) -> tuple[float, float]:
    """Images per second from the first finished batch to the last one, and the peak resident memory in MB."""
    peak = 0
    first = first_count = 0.0
    process = subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            peak = max(peak, psutil.Process(process.pid).memory_info().rss)
        if not first and (first_count := len(finished_lines(output_dir))):
            first = time.perf_counter()
        last, last_count = time.perf_counter(), len(finished_lines(output_dir))
        time.sleep(0.05)
    if process.returncode != 0:
        sys.exit(f"{' '.join(words)} ended with status {process.returncode}")
    return (last_count - first_count) / max(last - first, 1e-9), peak / 2**20


def interrupt(words: list[str], output_dir: Path, number: signal.Signals, after: int) -> int:
    """Start the script, stop it by a signal once `after` images are finished; gives how many were."""
    process = subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(finished_lines(output_dir)) < after:
        time.sleep(0.02)
    process.send_signal(number)
    status = process.wait()
    num_finished = len(finished_lines(output_dir))
    print(f"  {number.name} after {num_finished} images: exit status {status}")
    return num_finished


def what_was_written(output_dir: Path) -> dict[str, bytes]:
    files = [path for path in output_dir.rglob("*") if path.is_file() and path.name != "progress.jsonl"]
    return {os.fspath(path.relative_to(output_dir)): path.read_bytes() for path in files}


def is_valid_coco(path: Path, num_images: int) -> bool:
    """Whether pycocotools reads a file, its ids are unique, all images are there and categories are in prompt order."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(path)
    images, annotations = coco.dataset["images"], coco.dataset["annotations"]
    print(f"  {len(images)} images, {len(annotations)} annotations")
    return (
        [image["file_name"] for image in images] == [f"{index:05d}.jpg" for index in range(num_images)]
        and len(coco.imgs) == len(images)
        and len(coco.anns) == len(annotations)
        and [category["name"] for category in coco.dataset["categories"]] == list(NOUNS)
        and all(coco.annToMask(annotation).sum() == annotation["area"] for annotation in annotations)
        and {annotation["image_id"] for annotation in annotations} <= coco.imgs.keys()
        and {annotation["category_id"] for annotation in annotations} <= coco.cats.keys()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=1000)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8], help="the last one is also interrupted")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path, help="where images go and stay; default: a temporary folder")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)) / f"images_{arguments.num_images}"
        write_images(folder, arguments.num_images)
        outputs = Path(temporary) / "outputs"
        for batch_size in arguments.batch_sizes:
            words = command(folder, whole := outputs / f"whole_{batch_size}", batch_size, arguments.device)
            rate, peak = run_whole(words, whole)
            print(f"batches of {batch_size}: {rate:.2f} images/s, peak {peak:.0f} MB resident", flush=True)
        is_right = is_valid_coco(whole / "coco.json", arguments.num_images)

        resumed = outputs / "resumed"
        words = command(folder, resumed, batch_size, arguments.device)
        for number, share in STOPS:
            interrupt(words, resumed, number, round(share * arguments.num_images))
        before = finished_lines(resumed)
        run_whole(words, resumed)
        done_again = len(finished_lines(resumed)) - arguments.num_images
        is_same = what_was_written(resumed) == what_was_written(whole)
        print(
            f"  went on from {len(before)}: files {'the same' if is_same else 'DIFFER'}, {done_again} images done again"
        )
    print("valid" if is_right else "NOT valid")
    sys.exit(int(not (is_right and is_same and done_again == 0)))


if __name__ == "__main__":
    main()
