"""A person's way from an upload to every download, in a real browser, with the bundled models on bundled footage."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

pytest.importorskip("gradio", reason="the page needs the extra `app`: pip install .[app]")

from clips import bundled_clip
from studio_browser import WAIT_SECONDS, Server, bundled_models
from test_studio_panels import Page

from grounded_sam2.score import compare, open_videos
from grounded_sam2.session import RESULTS

SIZE, NUM_FRAMES, MIDDLE = (640, 360), 16, 8
STROKE = ((300, 300), (340, 320))  # pixels of the video, on the ground beside the owl


@pytest.fixture(scope="module")
def server(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("studio"), bundled_models())
    yield server
    server.stop()


@pytest.fixture(scope="module")
def page(browser: Any, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page with the first frames of the bundled video, uploaded; its owl and motorcycle found and tracked."""
    clip = bundled_clip(tmp_path_factory.mktemp("clip") / "walk.mp4", NUM_FRAMES)
    context = browser.new_context(viewport={"width": 1280, "height": 720}, accept_downloads=True)
    context.set_default_timeout(WAIT_SECONDS * 1000)
    tab = context.new_page()
    tab.goto(server.url())
    page = Page(tab)
    page.the("file").set_input_files(clip)
    page.see("timeline-chart")
    page.find("owl. motorcycle.", 2)
    page.track()
    yield page
    context.close()


def token_of(page: Page) -> str:
    return str(page.get("store.token"))


def cells(page: Page, server: Server) -> dict[tuple[int, int], str]:
    """Object id and frame → its mask, as run lengths, of all that is known."""
    frames = server.ask("GET", f"studio/{token_of(page)}/masks?first=0&last={NUM_FRAMES - 1}")["frames"]
    return {(cell["id"], int(t)): cell["counts"] for t, found in frames.items() for cell in found}


def decoded(counts: str) -> np.ndarray:
    return coco_mask.decode({"size": SIZE[::-1], "counts": counts}).astype(bool)


def go_to(page: Page, frame_idx: int) -> None:
    page.the("frame-number").fill(str(frame_idx))
    page.page.keyboard.press("Enter")
    page.until(f"store.frame === {frame_idx} && store.masks.get({frame_idx}) && store.frames.get({frame_idx})")


def test_a_correction_sticks_and_leaves_others_alone_and_a_merge_is_undone(page: Page, server: Server) -> None:
    tracked = cells(page, server)
    assert len(tracked) == 2 * NUM_FRAMES

    # correct the owl on a frame in the middle, with the brush
    assert page.get("store.selected") == 1
    go_to(page, MIDDLE)
    page.page.locator("#stage-canvas").focus()
    page.page.keyboard.press("b")
    page.page.mouse.move(*page.place(*STROKE[0]))
    page.page.mouse.down()
    page.page.mouse.move(*page.place(*STROKE[1]), steps=4)
    page.page.mouse.up()
    page.until(f"store.object(1).given.join() === '0,{MIDDLE}'")
    painted = cells(page, server)
    assert [key for key in tracked if painted[key] != tracked[key]] == [(1, MIDDLE)]
    corrected = decoded(painted[1, MIDDLE])
    assert all(corrected[y, x] for x, y in STROKE) and not decoded(tracked[1, MIDDLE])[STROKE[1][::-1]]

    # track the owl again between the barriers
    page.click("track-again")
    page.until("store.changingJob === null && store.state.undo === 'propagate'")
    again = cells(page, server)
    changed = [key for key in painted if again[key] != painted[key]]
    assert changed and {obj_id for obj_id, _ in changed} == {1} and {(1, 0), (1, MIDDLE)}.isdisjoint(changed)
    assert page.get("store.object(1).given") == [0, MIDDLE]

    # merge both, and take that back
    page.click("menu-1", "do-merge-1", "merge-run")
    page.gone("object-2")
    assert {obj_id for obj_id, _ in cells(page, server)} == {1}
    page.page.locator("#undo").click()
    page.see("object-2")
    assert cells(page, server) == again

    # what is there is there again
    state, address = server.state(token_of(page)), page.page.url
    page.page.reload()
    page.see("object-2")
    assert page.page.url == address and server.state(token_of(page)) == state
    assert page.get("[store.frame, store.selected]") == [MIDDLE, 1]
    assert cells(page, server) == again


# ---- every download is read back ----


@pytest.fixture(scope="module")
def downloads(page: Page, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every file that the page offers, made and downloaded by its buttons."""
    folder = tmp_path_factory.mktemp("downloads")
    offered = [each["kind"] for each in page.get("store.state.results")]
    assert set(offered) == set(RESULTS)
    for group in page.page.locator("[data-test^='results-']").all():
        if group.get_attribute("open") is None and group.locator("summary").count():
            group.locator("summary").first.click()
    paths = {}
    for kind in offered:
        page.click(f"make-{kind}")
        link = page.see(f"file-{kind}")
        with page.page.expect_download() as download:
            link.click()
        paths[kind] = folder / download.value.suggested_filename
        download.value.save_as(paths[kind])
    assert len({path.name for path in paths.values()}) == len(offered)
    return paths


def frames_of_video(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def frames_of_zipped_video(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        [video] = [name for name in archive.namelist() if name.endswith(".mp4")]
        [log] = [name for name in archive.namelist() if name.endswith(".json")]
        assert json.loads(archive.read(log))
        with av.open(io.BytesIO(archive.read(video))) as container:
            return sum(1 for _ in container.decode(video=0))


def frames_of_zipped_images(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".png")]
        assert {Image.open(io.BytesIO(archive.read(name))).size for name in names} == {SIZE}
        return len(names)


READERS: dict[str, Callable[[Path], int]] = {
    "video": frames_of_video,
    "cutout_webm": frames_of_video,
    "cutout_prores": frames_of_video,
    "cutout_png": frames_of_zipped_images,
    "masks": frames_of_zipped_images,
    "blur": frames_of_zipped_video,
    "pixelate": frames_of_zipped_video,
    "cover": frames_of_zipped_video,
    "remove_background": frames_of_zipped_video,
    "coco": lambda path: len(COCO(path).imgs),
    "youtube_vis": lambda path: json.loads(path.read_text())["videos"][0]["length"],
    "jsonl": lambda path: len(path.read_text().splitlines()) - 1,  # below a header
}


@pytest.mark.parametrize("kind", READERS)
def test_a_download_has_every_frame(downloads: dict[str, Path], kind: str) -> None:
    assert READERS[kind](downloads[kind]) == NUM_FRAMES


@pytest.mark.parametrize("kind", ["gif", "webp", "cutout_gif", "cutout_webp"])
def test_an_animation_moves(downloads: dict[str, Path], kind: str) -> None:
    with Image.open(downloads[kind]) as picture:
        assert picture.n_frames > 3


@pytest.mark.parametrize("kind", ["jsonl", "mot", "mots", "masks", "youtube_vis"])
def test_what_is_read_back_is_what_the_page_has(
    downloads: dict[str, Path], page: Page, server: Server, tmp_path: Path, kind: str
) -> None:
    """Objects, ids and masks of a format are those of the session's own lines, which are those of the page."""
    shown = cells(page, server)
    lines = [json.loads(line) for line in downloads["jsonl"].read_text().splitlines()[1:]]
    told = {
        (each["tracker_id"], t): each["segmentation"]["counts"]
        for t, line in enumerate(lines)
        for each in line["annotations"]
    }
    assert told == {key: counts for key, counts in shown.items() if decoded(counts).any()}

    path = downloads[kind]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "read")
        path = tmp_path / "read"
    [truth], [run] = (list(open_videos(each).openers.values()) for each in (downloads["jsonl"], path))
    scores = compare(truth(), run())[""].scores()
    assert scores["IDF1"] == 1.0
    assert scores["HOTA"] > (0.999 if kind in ("jsonl", "youtube_vis") else 0.9)  # others have whole boxes, no overlaps


def test_a_yolo_data_set_names_what_was_looked_for(downloads: dict[str, Path]) -> None:
    with zipfile.ZipFile(downloads["yolo"]) as archive:
        names = archive.namelist()
        [data] = [name for name in names if name.endswith("data.yaml")]
        assert b"owl" in archive.read(data) and b"motorcycle" in archive.read(data)
        labels = [name for name in names if "/labels/" in f"/{name}" and name.endswith(".txt")]
        assert len(labels) == NUM_FRAMES and all(archive.read(name) for name in labels)
