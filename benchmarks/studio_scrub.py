"""How many frames per second does the page show while one scrubs through tracked frames, and while it plays?

    python benchmarks/studio_scrub.py
    python benchmarks/studio_scrub.py --frames 100 --objects 4 --ratio 2

A studio with the bundled models is started, with a session of 480x360 and one of 1280x720 pixels whose objects have a
mask on every frame. A headless Chromium opens each. When the frames and their masks have been fetched, the page goes
through them, one for each picture of the screen, with the overlays to be made and then once more with those that it
keeps. The exit status is 1 below 30 frames per second.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import cv2
import numpy as np
from studio_browser import Server, bundled_models, chromium

from grounded_sam2.masks import encode_rle
from grounded_sam2.video import VideoWriter, open_frames

REPOSITORY = Path(__file__).resolve().parents[1]
SIZES = ((480, 360), (1280, 720))
LEAST_FPS = 30.0
# Go to each frame in turn, one for each picture of the screen; → [frames that were drawn, milliseconds, longest gap].
SCRUB = """async (count) => {
    const store = (await import("/studio/static/main.js")).openStore();
    const shown = () => new Promise(requestAnimationFrame);
    let drawn = 0;
    const { drawImage } = CanvasRenderingContext2D.prototype;
    CanvasRenderingContext2D.prototype.drawImage = function (image, ...place) {
        if (image instanceof ImageBitmap && image === store.frames.get(store.frame)) drawn += 1;
        return drawImage.call(this, image, ...place);
    };
    await shown();
    drawn = 0;
    let [start, last, longest] = [performance.now(), performance.now(), 0];
    for (let index = 0; index < count; index++) {
        store.setFrame(index + 1);
        await shown();
        const now = performance.now();
        [longest, last] = [Math.max(longest, now - last), now];
    }
    CanvasRenderingContext2D.prototype.drawImage = drawImage;
    return [drawn, last - start, longest];
}"""
PLAY = """async (count) => {
    const store = (await import("/studio/static/main.js")).openStore();
    store.setFrame(0);
    store.state.fps = 60;
    const [times, seen] = [[], performance.now()];
    store.on("frame", () => times.push(performance.now()));
    store.play();
    await new Promise((done) => store.on("frame", () => store.frame >= count && done()));
    store.pause();
    return [times.length, performance.now() - seen, 0];
}"""
FETCHED = """async (count) => {
    const store = (await import("/studio/static/main.js")).openStore();
    const all = [...Array(count + 1).keys()];
    return all.every((frame) => store.frames.get(frame) && store.masks.get(frame));
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=100, help="that are gone through")
    parser.add_argument("--objects", type=int, default=4, help="with a mask on each frame")
    parser.add_argument("--ratio", type=float, default=1.0, help="pixels of the screen for one of CSS")
    args = parser.parse_args()
    os.fsync = lambda number: None  # the sessions need not outlive this
    slowest = np.inf
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        server = Server(folder / "sessions", bundled_models())
        for size in SIZES:
            token = make_session(server, folder, size, args.frames + 1, args.objects)
            page = browser.new_page(viewport={"width": 1280, "height": 720}, device_scale_factor=args.ratio)
            page.goto(server.url(f"#{token}"))
            page.wait_for_selector(".studio[data-ready]")
            while not page.evaluate(FETCHED, args.frames):
                page.wait_for_timeout(100)
            for words, script in (("scrub", SCRUB), ("again", SCRUB), ("play at 60 fps", PLAY)):
                drawn, milliseconds, longest = page.evaluate(script, args.frames)
                fps = 1000 * drawn / milliseconds
                slowest = min(slowest, fps)
                gap = f", longest gap {longest:.0f} ms" if longest else ""
                print(
                    f"{size[0]}x{size[1]}, {args.objects} objects, {words}: {fps:.1f} frames per second{gap}",
                    flush=True,
                )
                page.evaluate("async () => (await import('/studio/static/main.js')).openStore().setFrame(0)")
            page.close()
        server.stop()
    if slowest < LEAST_FPS:
        sys.exit(f"expected at least {LEAST_FPS:.0f} frames per second, got {slowest:.1f}")


def make_session(server: Server, folder: Path, size: tuple[int, int], num_frames: int, num_objects: int) -> str:
    """A session whose objects, ellipses that wander, have a mask on every frame → its token."""
    width, height = size
    video = folder / f"{width}x{height}.mp4"
    with open_frames(REPOSITORY / "assets/parade.mp4") as frames, VideoWriter(video, 24, size) as writer:
        for frame_idx in range(num_frames):
            writer.write(cv2.resize(frames[frame_idx % len(frames)], size))
    token = server.session(video)
    for index in range(num_objects):
        for frame_idx in range(num_frames):
            mask = np.zeros((height, width), np.uint8)
            turn = frame_idx / 20 + 2 * np.pi * index / num_objects
            center = (round(width * (0.5 + 0.3 * np.cos(turn))), round(height * (0.5 + 0.3 * np.sin(turn))))
            cv2.ellipse(mask, center, (width // 8, height // 6), frame_idx, 0, 360, 1, cv2.FILLED)
            counts = encode_rle(mask[None] > 0)[0]["counts"]
            if frame_idx == 0:
                obj_id = server.do(token, "add", frame=0, counts=counts)["id"]
            else:
                server.do(token, "set_mask", id=obj_id, frame=frame_idx, counts=counts)
    return token


if __name__ == "__main__":
    main()
