"""A session by hand: what clicks, boxes, keys and typed lines do to it, and the picture that is shown.

Nothing here needs a window: events come from `grounded_sam2.video.window`, or from a test.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import supervision as sv

from grounded_sam2.detectors.base import Detector
from grounded_sam2.images import RGBImage
from grounded_sam2.session.edits import accept, add_object, find, refine, remove, set_search
from grounded_sam2.session.objects import Command
from grounded_sam2.session.picture import with_lines, with_selection
from grounded_sam2.session.playback import Playback
from grounded_sam2.session.results import annotated, write_annotations
from grounded_sam2.session.session import Session
from grounded_sam2.video.video_writer import VideoWriter
from grounded_sam2.video.window import Click, Drag, Event, Key

__all__ = ["HELP", "Interaction"]

HELP = """\
ctrl + left click  point on an object: corrects the one that is there; elsewhere, adds to the selected one if that was
                   begun by a point or clicked on here, or is not seen; or else begins a new one
left drag          box around a new object
right click        point beside the selected object: not that
left click         select the object that is there
n                  the next ctrl + click begins a new object
typed + Enter      (on the terminal) look for what the line names on this frame: owl. red car.
space              play, pause
left, right  , .   one frame back, one frame on
b                  track backward too: now, or while it plays, at the end; again to stop
u                  undo
x                  remove the selected object
s                  save the annotated video and the annotations
?                  this list
q                  save and quit"""
HINT = "ctrl+click: point  drag: box  right: not that  space: play  u: undo  x: remove  b: backward  ?: help  q: quit"
MESSAGE_SECONDS = 3.0  # for which a message stays while frames go by


class Interaction:
    """One person at one session.

    Args:
        session: is changed.
        detector: looks for what is typed; None: typed lines are refused.
        results: paths of the annotated video and of the annotations.
        say: tells the person what happened.

    Attributes:
        playback: which frame is shown, and how it goes on.
        selected: id of the object that keys and right clicks mean; None: none is.
        message: what happened last.
        has_quit: it is over.
    """

    def __init__(
        self,
        session: Session,
        detector: Detector | None,
        results: Sequence[Path],
        say: Callable[[str], object] = print,
    ) -> None:
        self.session = session
        self.playback = Playback(session, self.say)
        self.selected: int | None = None
        self.message, self._said_at = "", 0.0
        self.has_quit = False
        self._open: tuple[int, int] | None = None  # the object that takes further points, and on which frame
        self._detector = detector
        self._results = results
        self._print = say
        self._drawn: tuple[object, RGBImage] | None = None
        self._keys: dict[str, Callable[[], None]] = {
            "u": self._undo, "x": self._remove, "n": self._begin_anew, "s": self._save_and_say, "?": self._help,
            "q": self._quit, "escape": self._quit, "space": self.playback.toggle, "b": self.playback.toggle_backward,
            **dict.fromkeys(["left", ","], lambda: self.playback.step(-1)),
            **dict.fromkeys(["right", "."], lambda: self.playback.step(1)),
        }  # fmt: skip

    @property
    def frame_idx(self) -> int:
        """The frame that is shown."""
        return self.playback.frame_idx

    @property
    def is_open(self) -> bool:
        """Whether points go to the selected object wherever they lie: it was begun by a point, or clicked on, here."""
        return self.selected is not None and self._open == (self.selected, self.frame_idx)

    # ---- events ----

    def handle(self, event: Event) -> None:
        """Do what a click, a box or a key asks for; what cannot be done is said.

        Raises:
            OSError: a full disk; nothing is done.
        """
        try:
            if isinstance(event, Key):
                if event.name in self._keys:
                    self._keys[event.name]()
            elif isinstance(event, Drag):
                self._draw_box(event)
            elif 0 <= event.x < self.session.size[0] and 0 <= event.y < self.session.size[1]:
                self._click(event)
        except ValueError as error:
            self.say(str(error))

    def look_for(self, line: str) -> None:
        """Look for what a typed line names on the frame that is shown; what is new becomes objects."""
        if not line.strip():
            return
        if self._detector is None:
            self.say("there is no detector to look for that")
            return
        self.playback.stop_backward()
        try:
            set_search(self.session, text_prompt=line.strip())
            found = find(self.session, self._detector, self.frame_idx)
            is_known = np.asarray(found.data["known_as"]) != 0
            obj_ids = accept(self.session, self.frame_idx, cast(sv.Detections, found[~is_known]))
        except ValueError as error:
            self.say(str(error))
            return
        names = ", ".join(self.session.object(obj_id).name for obj_id in obj_ids)
        known = f"; {is_known.sum()} known already" if is_known.any() else ""
        self.say(f'"{line.strip()}" on frame {self.frame_idx}: {names or "nothing new"}{known}')

    def say(self, message: str) -> None:
        """Tell the person, in the window and on the terminal."""
        self.message, self._said_at = message, time.monotonic()
        self._print(message)

    def _click(self, click: Click) -> None:
        there = self._object_at(click.x, click.y)
        point = [[click.x, click.y]]
        if click.is_right or click.with_ctrl:
            self.playback.stop_backward()
        if click.is_right:
            self._select(there if self.selected is None else self.selected)
            self._correct(point, 0)
        elif not click.with_ctrl:
            self._select(there)
            self._open = None if there is None else (there, self.frame_idx)
            self.say("nothing selected" if there is None else f"selected {self._name()}")
        elif there is None and not self.is_open and not self._is_lost():
            self._begin(obj_id := add_object(self.session, self.frame_idx, points=point))
            self._open = (obj_id, self.frame_idx)
        else:
            self._select(self.selected if there is None else there)
            self._correct(point, 1)

    def _draw_box(self, drag: Drag) -> None:
        self.playback.stop_backward()
        size = np.array([*self.session.size, *self.session.size])
        box = np.clip(np.asarray(drag.xyxy, float), 0, size)
        if (box[2:] - box[:2] < 1).any():
            return
        self._begin(add_object(self.session, self.frame_idx, box=box))

    def _begin(self, obj_id: int) -> None:
        self._select(obj_id)
        self.say(f"added {self._name()} on frame {self.frame_idx}")

    def _correct(self, point: list[list[float]], label: int) -> None:
        if self.selected is None:
            self.say("no object is selected: click on one first")
            return
        mask = self.session.mask(self.selected, self.frame_idx)
        if label == 0 and (mask is None or not mask.any()):
            self.say(f"{self._name()} is not seen on this frame: ctrl + click on it first")
            return
        refine(self.session, self.selected, self.frame_idx, point, [label])
        has_before = self.session.given_frames(self.selected)[0] < self.frame_idx
        before = ", b tracks the frames before it again" if has_before else ""
        self.say(f"corrected {self._name()} on frame {self.frame_idx}: space follows it on{before}")

    def _object_at(self, x: float, y: float) -> int | None:
        """The object in whose mask a place lies: the selected one, or else that with the smallest mask."""
        areas = {}
        for obj_id, obj in self.session.objects.items():
            mask = None if obj.is_hidden else self.session.mask(obj_id, self.frame_idx)
            if mask is not None and mask[int(y), int(x)]:
                areas[obj_id] = int(mask.sum())
        if self.selected in areas:
            return self.selected
        return min(areas, key=lambda obj_id: areas[obj_id], default=None)

    def _is_lost(self) -> bool:
        """Whether the selected object was followed onto this frame and is not seen on it."""
        mask = None if self.selected is None else self.session.mask(self.selected, self.frame_idx)
        return mask is not None and not mask.any()

    def _select(self, obj_id: int | None) -> None:
        if obj_id != self.selected:
            self.selected, self._open = obj_id, None

    def _name(self) -> str:
        assert self.selected is not None
        return self.session.object(self.selected).name

    # ---- keys ----

    def _undo(self) -> None:
        """Take back what the person did last, with what was tracked after it as it played."""
        self.playback.stop_backward()
        done = self.session.history.done
        own = next((command for command in reversed(done) if not _is_incidental(command)), None)
        if own is None:
            self.say("nothing to undo")
            return
        while done[-1] is not own:
            self.session.undo()
        self.session.undo()
        self.playback.show(own.args.get("frame_idx", self.frame_idx))
        if self.selected not in self.session.objects:
            self.selected = None
        self.say(f"undone: {own.kind} on frame {self.frame_idx}" if "frame_idx" in own.args else f"undone: {own.kind}")

    def _remove(self) -> None:
        self.playback.stop_backward()
        if self.selected is None:
            self.say("no object is selected: click on one first")
            return
        name = self._name()
        remove(self.session, self.selected)
        self._select(None)
        self.say(f"removed {name}")

    def _begin_anew(self) -> None:
        self._select(None)
        self.say("ctrl + click on the next object")

    def _help(self) -> None:
        for line in HELP.splitlines():
            self._print(line)

    def _save_and_say(self) -> None:
        self.say(f"wrote {', '.join(map(str, self.save()))}")

    def _quit(self) -> None:
        self.playback.stop_backward()
        self.has_quit = True

    # ---- results ----

    def save(self) -> list[Path]:
        """Write the annotated video and the annotations; returns the files.

        Raises:
            OSError: a full disk.
        """
        frames, (video, annotations) = self.session.frames, self._results
        with VideoWriter(video, frames.fps, frames.size, like=frames) as writer:
            for frame_idx in range(self.session.num_frames):
                writer.write(annotated(self.session, frame_idx))
        write_annotations(self.session, annotations)
        return [video, annotations]

    # ---- the picture ----

    def picture(self, box: tuple[float, float, float, float] | None = None) -> RGBImage:
        """The frame with its objects, the selected one in a white outline, and two lines of text below it.

        Args:
            box: (4,) xyxy that is being drawn with the mouse.

        Returns:
            (H + 2 S, W, 3) uint8 RGB: a pixel of the frame is where it is in the video.
        """
        history = self.session.history
        state = (self.frame_idx, self.session.cells.num_records, history.done[-1].seq if history.done else 0)
        if self._drawn is None or self._drawn[0] != state:
            self._drawn = (state, annotated(self.session, self.frame_idx))
        mask = None if self.selected is None else self.session.mask(self.selected, self.frame_idx)
        is_old = self.playback.goal is not None and time.monotonic() > self._said_at + MESSAGE_SECONDS
        line = self.playback.progress or ("" if is_old else self.message) or HINT
        return with_lines(with_selection(self._drawn[1], mask, box), [self.status(), line])

    def status(self) -> str:
        """Where the person is: "frame 3 of 70 | playing | selected: owl 1"."""
        selected = "nothing selected" if self.selected is None else f"selected: {self._name()}"
        hint = " (ctrl + click adds to it; n: a new one)" if self.is_open else ""
        hint = " (not seen here: ctrl + click shows it; n: a new one)" if self._is_lost() else hint
        return f"frame {self.frame_idx} of {self.session.num_frames} | {self.playback.describe()} | {selected}{hint}"


def _is_incidental(command: Command) -> bool:
    """Whether a command was not the person's: what was tracked as it played, and the search that a line set."""
    is_played = command.kind == "propagate" and command.args["direction"] == "forward"
    return is_played or command.kind == "search"
