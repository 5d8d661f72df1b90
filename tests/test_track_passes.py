"""All of a run behind one loop: forwards, back, ended early by a person, interrupted and gone on with."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import supervision as sv
from fake_follower import FakeFollower, picture
from test_track_steering import NamedColours

from grounded_sam2.export import read_frame_annotations, read_id_map
from grounded_sam2.outputs import TrackingOutputs
from grounded_sam2.owned import OutputFiles
from grounded_sam2.script import StoppedError, StopRequest
from grounded_sam2.track.continuous import ContinuousTracker
from grounded_sam2.track.discovery import TextDiscovery
from grounded_sam2.track.events import read_events
from grounded_sam2.track.passes import follow_through
from grounded_sam2.track.resume import SavedRun
from grounded_sam2.track.steering import SteeredTracker
from grounded_sam2.video import FrameSource, open_frames

pytestmark = pytest.mark.usefixtures("quick_disk")

FRAMES = [picture({7: (2, 2, 18, 18), 200: (30, 20, 60, 40)}) for _ in range(6)]
TYPED = {3: "blue"}  # what a person types on a frame


class Run:
    """What the script does, in a folder, over a follower of colours."""

    def __init__(self, folder: Path, go_back: bool, typed: dict[int, str] | None = None) -> None:
        self.folder, self.go_back = folder, go_back
        self.typed = TYPED if typed is None else typed
        self.given: list[tuple[int, list[int]]] = []
        self.said: list[str] = []

    def start(
        self,
        frames: FrameSource | None = None,
        resume: bool = False,
        stop_at: tuple[str, int] | None = None,
        quit_at: int | None = None,
    ) -> None:
        """Run; stop before an item of a pass, or let the person end it on a frame."""
        frames = frames or open_frames(FRAMES)
        stop = StopRequest()
        discovery = TextDiscovery(NamedColours(), "red")
        follower = FakeFollower()
        tracker = ContinuousTracker(discovery, follower, detect_every=2, scene_cut=None)
        lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        steered = SteeredTracker(tracker, discovery, lines, say=self.said.append)
        files = OutputFiles(self.folder, "clip.mp4")
        follow = tracker.step

        def step(image: np.ndarray) -> sv.Detections:
            steered.has_quit = tracker.frame_idx + 1 == quit_at
            return follow(image)

        def progress(items: Any, desc: str = "only") -> Iterator[Any]:
            for position, item in enumerate(items):
                is_new = desc in ("forwards", "only") and position > tracker.frame_idx  # not followed before a restart
                if is_new and position in self.typed:
                    lines.put(self.typed[position])
                if stop_at == (desc, position):
                    stop.signal_number = signal.SIGTERM
                yield item

        tracker.step = step  # type: ignore[method-assign]
        self.given = []
        with (
            SavedRun(files.path(".resume"), {}, frames, resume, every=0) as saved,
            TrackingOutputs(files, frames, ["red"], {}) as outputs,
        ):
            for frame_idx, image, objects in follow_through(
                steered, stop.frames(frames), saved, outputs, files, stop,
                backward_with=follower if self.go_back else None, progress=progress,
            ):  # fmt: skip
                outputs.write_picture(frame_idx, image, objects)
                self.given.append((frame_idx, sorted(objects.tracker_id.tolist())))

    def ids(self) -> list[list[int]]:
        """Of each frame, as the annotations have them."""
        by_frame = list(read_frame_annotations(self.folder / "clip.jsonl"))
        assert [frame.frame_idx for frame in by_frame] == list(range(len(by_frame)))
        found = [sorted(frame.detections.tracker_id.tolist()) for frame in by_frame]
        assert self.given == list(enumerate(found)) and len(open_frames(self.folder / "clip.mp4")) == len(found)
        assert [sorted(read_id_map(self.folder, index).tracker_id.tolist()) for index in range(len(found))] == found
        return found

    def files(self) -> dict[str, bytes]:
        paths = [path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module", params=[True, False], ids=["back", "only"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    whole = Run(tmp_path_factory.mktemp("whole"), request.param)
    whole.start()
    return whole


def test_what_is_found_late_is_followed_back(whole: Run) -> None:
    late = [[1, 2]] * 3
    assert whole.ids() == ([[1, 2]] * 3 if whole.go_back else [[1]] * 3) + late
    assert ("clip_forward.jsonl" in whole.files()) == ("clip_backward.jsonl" in whole.files()) == whole.go_back
    assert not [name for name in whole.files() if "partial" in name or "resume" in name]
    born = [
        (event.frame_idx, event.obj_id) for event in read_events(whole.folder / "events.jsonl") if event.kind == "born"
    ]
    assert born == [(0, 1), (3, 2)] and len(whole.said) == 1


@pytest.mark.parametrize("quit_at", [0, 4])
def test_a_person_ends_the_run_with_complete_files(whole: Run, tmp_path: Path, quit_at: int) -> None:
    run = Run(tmp_path, whole.go_back)
    run.start(quit_at=quit_at)
    expected = whole.ids() if quit_at >= 3 else [[1]]
    assert run.ids() == expected[: quit_at + 1]
    assert not [name for name in run.files() if "partial" in name or "resume" in name]


@pytest.mark.parametrize("stop_at", [("forwards", 2), ("forwards", 4), ("backwards", 1), ("writing", 3)])
def test_an_interrupted_run_goes_on_to_the_same_files(whole: Run, tmp_path: Path, stop_at: tuple[str, int]) -> None:
    if not whole.go_back:
        if stop_at[0] != "forwards":
            return
        stop_at = ("only", stop_at[1])
    run = Run(tmp_path, whole.go_back)
    with pytest.raises(StoppedError):
        run.start(stop_at=stop_at)
    assert "clip.resume" in run.files()
    run.start(resume=True)
    assert run.ids() == whole.ids() and run.files() == whole.files()


def test_a_run_that_a_person_ended_is_not_gone_on_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is interrupted on its way back: what was saved before would lead beyond the frame on which it was ended."""
    run = Run(tmp_path, go_back=True)
    with pytest.raises(StoppedError):
        run.start(quit_at=4, stop_at=("backwards", 1))
    assert "clip.resume" not in run.files() and "--resume" not in caplog.text
    run.start(resume=True)
    assert "there is no" in caplog.text and len(run.ids()) == len(FRAMES)


def test_a_live_source_says_that_it_has_no_way_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = Run(tmp_path, go_back=True)
    run.start(open_frames(iter(FRAMES)))
    assert run.ids() == [[1]] * 3 + [[1, 2]] * 3 and "clip_forward.jsonl" not in run.files()
    assert caplog.text.count("a live source is followed forwards only") == 1
