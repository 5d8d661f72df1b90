"""One predictor in several threads, and frames and sessions in forked processes: what each alone would give."""

import copy
import gc
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from clips import make_video
from tiny_sam2 import make_tiny_model

from grounded_sam2.video import open_frames
from sam2.frames.decoding import orientation_of, upright_rgb
from sam2.per_thread import PerThread
from sam2.sam2_image_predictor import SAM2ImagePredictor
from sam2.sam2_video_predictor import SAM2VideoPredictor

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="a system that does not fork")
SECONDS = 60
FOOTAGE = Path(__file__).resolve().parent.parent / "assets/cup.mp4"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_video(tmp_path_factory.mktemp("clip") / "clip.mp4", 12)


# ---- threads ----


def test_threads_share_an_image_predictor() -> None:
    predictor = SAM2ImagePredictor(make_tiny_model())
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (40 + 9 * i, 70 - 7 * i, 3), dtype=np.uint8) for i in range(4)]
    box = np.array([5.0, 6, 30, 35])

    def masks_of(image: np.ndarray) -> np.ndarray:
        predictor.set_image(image)
        return predictor.predict(box=box, return_logits=True)[0]

    expected = [masks_of(image) for image in images]
    found: dict[int, list[np.ndarray]] = {i: [] for i in range(len(images))}
    barrier = threading.Barrier(len(images))

    def work(i: int) -> None:
        for _ in range(3):
            barrier.wait()  # all at once
            found[i].append(masks_of(images[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, masks in found.items():
        assert len(masks) == 3
        for each in masks:
            np.testing.assert_array_equal(each, expected[i])


def test_an_image_that_one_thread_sets_serves_others() -> None:
    predictor = SAM2ImagePredictor(make_tiny_model())
    predictor.set_image(np.zeros((40, 50, 3), np.uint8))
    expected = predictor.predict(box=[5, 6, 30, 35])[0]
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(predictor.predict(box=[5, 6, 30, 35])[0]))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0], expected)


def test_attributes_of_threads() -> None:
    class Holder:
        value = PerThread[int]()

    holder = Holder()
    holder.value = 1
    seen: list[int] = []

    def work() -> None:
        seen.append(holder.value)
        holder.value = 2
        seen.append(holder.value)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert (seen, holder.value) == ([1, 2], 1)
    assert copy.deepcopy(holder).value == 2  # what was set last


def test_a_predictor_can_be_copied() -> None:
    predictor = SAM2ImagePredictor(make_tiny_model())
    predictor.set_image(np.zeros((40, 50, 3), np.uint8))
    for twin in (copy.deepcopy(predictor), pickle.loads(pickle.dumps(predictor))):
        np.testing.assert_array_equal(twin.predict(box=[5, 6, 30, 35])[0], predictor.predict(box=[5, 6, 30, 35])[0])


# ---- forks ----


def in_a_child(function: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """What a function gives in a forked process; a failure when it is not done in time."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def work() -> None:
        try:
            sender.send(function())
        except BaseException as error:
            sender.send(error)

    process = context.Process(target=work, daemon=True)
    process.start()
    try:
        assert receiver.poll(seconds), "the child waits without end"
        return receiver.recv()
    finally:
        process.kill()
        process.join()


@needs_fork
def test_frames_are_read_on_both_sides_of_a_fork(clip: Path) -> None:
    expected = [int(image.sum()) for image in open_frames(clip)]
    frames = open_frames(clip)
    assert [int(frames[i].sum()) for i in range(4)] == expected[:4]  # read ahead in a thread from the second on

    def sums() -> list[int]:
        return [int(frames[i].sum()) for i in (4, 5, 1, 11)] + [int(image.sum()) for image in frames]

    assert in_a_child(sums) == [expected[i] for i in (4, 5, 1, 11)] + expected
    assert [int(frames[i].sum()) for i in (4, 5)] == expected[4:6]


@needs_fork
def test_a_child_lets_go_of_a_decoded_frame() -> None:
    """What converts a frame would wait there for its threads, had it any."""
    with av.open(str(FOOTAGE)) as container:
        held = [next(container.decode(video=0))]
    upright_rgb(held[0], (held[0].width, held[0].height), orientation_of(held[0]))

    def let_go() -> None:
        held.clear()
        gc.collect()  # a frame and its side data hold each other

    assert in_a_child(let_go, seconds=10) is None


@needs_fork
def test_an_iterator_does_not_go_on_in_a_child(clip: Path) -> None:
    images = iter(open_frames(clip))
    next(images)
    error = in_a_child(lambda: next(images))
    assert isinstance(error, RuntimeError) and "read them anew" in str(error)
    assert next(images) is not None


@needs_fork
def test_a_session_goes_on_in_a_child(clip: Path) -> None:
    predictor = make_tiny_model(model_class=SAM2VideoPredictor)
    session = predictor.init_state(str(clip))
    predictor.add_new_points_or_box(session, 0, 1, box=[5, 6, 30, 35])

    def areas() -> list[int]:
        return [int((logits > 0).sum()) for _, _, logits in predictor.propagate_in_video(session)]

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        next(iter(predictor.propagate_in_video(session)))  # frames are prepared ahead in a thread from here on
        found = in_a_child(areas)
        assert found == areas() and len(found) == 12
    finally:
        torch.set_num_threads(threads)
