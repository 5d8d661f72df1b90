"""The files that people take away from a session, each made beside the work on it: one list for a page and a library.

    with lock_of_the_session:
        taken = snapshot(session, "work/results")             # quick: no mask is decoded
    for num_done, num_total in make_result(taken, "blur", "work/results", obj_ids=[3]):
        print(f"{num_done} of {num_total}")
    print(result_path(taken, "blur", "work/results"))          # one file: what is more than one is in a zip

`RESULTS` says what there is. A snapshot holds everything but the video, of which it knows where it is; the session may
be edited, and closed, while files are made of it. Its folder has to stay where it is until then.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Container, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePath

from grounded_sam2.effects import (
    AnimationLimits,
    Effect,
    OutputSettings,
    Picture,
    TrackedVideo,
    annotated_frames,
    make_effect,
    make_pictures,
)
from grounded_sam2.effects.effect import Kind, rgb_of
from grounded_sam2.effects.make import working_folder
from grounded_sam2.export.formats import FORMATS, write_yolo
from grounded_sam2.files import replace_file, replacing, writing_to
from grounded_sam2.owned import RECORD_NAME, OwnedFolder
from grounded_sam2.session.results import drawn, write_annotations
from grounded_sam2.session.session import Session

__all__ = ["RESULTS", "ResultKind", "Snapshot", "load_snapshot", "make_result", "result_path", "snapshot"]

SNAPSHOT_NAME, ANNOTATIONS_NAME = "snapshot.json", "annotations.jsonl"


@dataclass(frozen=True)
class ResultKind:
    """One kind of file that a session gives.

    Attributes:
        label: what it is, for people.
        file_name: what its name ends with, behind that of the video: "-blurred.zip".
        takes_objects: whether `obj_ids` and `everything_else` choose what it is about.
        hint: one sentence about what it is good for.
    """

    label: str
    file_name: str
    takes_objects: bool = False
    hint: str = ""


RESULTS: dict[str, ResultKind] = {
    "video": ResultKind("Annotated video (MP4)", "-annotated.mp4", hint="Objects drawn in, with the video's sound."),
    "gif": ResultKind("Annotated GIF", "-annotated.gif", hint="Small, plays everywhere, no sound."),
    "webp": ResultKind("Annotated WebP", "-annotated.webp", hint="As the GIF, with all colours."),
    "cutout_png": ResultKind("Cut-out, PNG for each frame (zip)", "-cutout-png.zip", True, "Exact transparency."),
    "cutout_webm": ResultKind("Cut-out, WebM with transparency", "-cutout.webm", True, "For web pages (VP9)."),
    "cutout_prores": ResultKind("Cut-out, ProRes 4444", "-cutout.mov", True, "For video editors; large."),
    "cutout_gif": ResultKind("Cut-out, GIF", "-cutout.gif", True, "Small, with hard edges."),
    "cutout_webp": ResultKind("Cut-out, WebP", "-cutout.webp", True, "Small, with transparency."),
    "blur": ResultKind("Blurred video with audit log (zip)", "-blurred.zip", True, "Coarse and smooth."),
    "pixelate": ResultKind("Pixelated video with audit log (zip)", "-pixelated.zip", True, "Coarse squares."),
    "cover": ResultKind("Covered video with audit log (zip)", "-covered.zip", True, "Safest: one colour."),
    "remove_background": ResultKind(
        "Video without background, with audit log (zip)", "-no-background.zip", True, "All but the objects is covered."
    ),
    "masks": ResultKind("Masks, palette PNG for each frame (DAVIS, zip)", "-masks.zip", hint="Pixels are object ids."),
    "jsonl": ResultKind("Annotations (JSON lines)", ".jsonl", hint="All that is known; what our own tools read."),
    "coco": ResultKind("COCO (JSON)", "-coco.json", hint="An image for each frame, with track_id."),
    "youtube_vis": ResultKind("YouTube-VIS (JSON)", "-youtube-vis.json", hint="One annotation for each object."),
    "mot": ResultKind("MOTChallenge boxes (text)", "-mot.txt"),
    "mots": ResultKind("MOTS masks (text)", "-mots.txt", hint="Without overlaps."),
    "yolo": ResultKind("YOLO segmentation data set (zip)", "-yolo.zip", hint="Trains as it is: images and labels."),
}
CUTOUT_FORMATS = {key: key.removeprefix("cutout_") for key in RESULTS if key.startswith("cutout_")}
EFFECTS: dict[str, Kind] = {"blur": "blur", "pixelate": "pixelate", "cover": "cover", "remove_background": "cover"}


@dataclass(frozen=True)
class Snapshot:
    """A session as it was at one moment; made by `snapshot`.

    Attributes:
        annotations_path: all frames and objects, as JSON lines.
        video_path: the session's own copy of the video.
        name: of the video, for people.
        colors: object id → "#rrggbb".
        hidden: ids of the objects that are not drawn.
    """

    annotations_path: str
    video_path: str
    name: str
    colors: dict[int, str]
    hidden: tuple[int, ...]

    @property
    def stem(self) -> str:
        """What files about it are called."""
        return re.sub(r"[^\w. -]+", "_", PurePath(self.name).stem).strip("._ ")[:80] or "video"


def snapshot(session: Session, folder: str | os.PathLike[str]) -> Snapshot:
    """Keep what a session is at this moment, to make files of later. Takes a moment; no model and no frame is needed.

    Args:
        session: nobody may edit it meanwhile.
        folder: of this snapshot alone; `annotations.jsonl` and `snapshot.json` are written there.

    Raises:
        OSError: they cannot be written.
    """
    place = Path(folder).absolute()
    write_annotations(session, place / ANNOTATIONS_NAME)
    taken = Snapshot(
        annotations_path=str(place / ANNOTATIONS_NAME),
        video_path=str(session.source.absolute()),
        name=session.name,
        colors={obj_id: obj.color for obj_id, obj in session.objects.items()},
        hidden=tuple(obj_id for obj_id, obj in session.objects.items() if obj.is_hidden),
    )
    with replacing(place / SNAPSHOT_NAME) as temporary:
        temporary.write_text(json.dumps(asdict(taken), indent=1) + "\n", encoding="utf-8")
    return taken


def load_snapshot(folder: str | os.PathLike[str]) -> Snapshot:
    """The snapshot that `snapshot` wrote to a folder, for another process.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path = Path(folder) / SNAPSHOT_NAME
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))
        colors = {int(obj_id): str(color) for obj_id, color in entry.pop("colors").items()}
        return Snapshot(**entry | {"colors": colors, "hidden": tuple(entry["hidden"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no snapshot of a session: {error!r}") from error


def result_path(snapshot: Snapshot, kind: str, folder: str | os.PathLike[str]) -> Path:
    """Where `make_result` puts a file; ValueError for an unknown kind."""
    if kind not in RESULTS:
        raise ValueError(f"expected a result of {', '.join(RESULTS)}, got {kind!r}")
    return Path(folder) / f"{snapshot.stem}{RESULTS[kind].file_name}"


def make_result(
    snapshot: Snapshot,
    kind: str,
    folder: str | os.PathLike[str],
    *,
    obj_ids: Sequence[int] | None = None,
    everything_else: bool = False,
    strength: float | None = None,
    margin: float | None = None,
    color: str = "#000000",
    keep_sound: bool = False,
    limits: AnimationLimits | None = None,
) -> Generator[tuple[int, int]]:
    """Make one file, `result_path(snapshot, kind, folder)`; an earlier one of this name is replaced.

    Closing the iterator early cancels, and leaves nothing; so does an error. A kill leaves a hidden folder.

    Args:
        kind: a key of `RESULTS`.
        folder: of one's own; is made if it is not there.
        obj_ids: the chosen objects, where the kind takes them; None: all.
        everything_else: the other pixels are blurred, pixelated, covered, cut out or shown, instead of the objects.
        strength: of "blur" and "pixelate", above 0 up to 1: the more, the less can be recognised. None: a safe one.
        margin: how far around an object its surroundings belong to it, as a share of its longer side; None: a safe one.
        color: "#rrggbb" or a name, of "cover" and "remove_background".
        keep_sound: of the video in "blur" and its like; a voice tells who is speaking. "video" always has it.
        limits: to the size of a GIF or WebP.

    Yields:
        How much of how much is done; the last time, with both equal, when the file is there.

    Raises:
        ValueError: from the iterator, as all of these; an unknown kind or object, a file of others in the place, or a
            format that cannot hold the objects, which its message says.
        FileNotFoundError: the video is gone.
        OSError: a full disk.
    """
    name = result_path(snapshot, kind, folder).name
    owned = OwnedFolder(folder, snapshot.annotations_path, snapshot.video_path)
    path = owned.claim(name)
    limits = limits or AnimationLimits()
    if kind in ("video", "gif", "webp"):
        settings = OutputSettings("mp4" if kind == "video" else kind, kind == "video", limits)
        with _opened(snapshot) as video:
            yield from make_pictures(video, partial(_annotated, snapshot, video), path, settings)
    elif RESULTS[kind].takes_objects:
        with _opened(snapshot) as video:
            chosen = _chosen(snapshot, video, obj_ids)
            keeps = (kind in CUTOUT_FORMATS or kind == "remove_background") != everything_else
            effect = Effect(EFFECTS.get(kind, "cutout"), chosen, keeps, strength, margin, rgb_of(color))
            if kind in CUTOUT_FORMATS:
                yield from make_effect(video, effect, path, OutputSettings(CUTOUT_FORMATS[kind], limits=limits))
            else:
                yield from _with_log(snapshot, video, effect, path, keep_sound)
    else:
        yield from _exported(snapshot, kind, path)
    owned.close()


def _opened(snapshot: Snapshot) -> TrackedVideo:
    return TrackedVideo(snapshot.annotations_path, snapshot.video_path)


def _chosen(snapshot: Snapshot, video: TrackedVideo, obj_ids: Sequence[int] | None) -> list[int]:
    """The chosen objects that are seen on any frame."""
    unknown = [obj_id for obj_id in obj_ids or () if obj_id not in snapshot.colors]
    if unknown:
        raise ValueError(f"expected some of the objects {list(snapshot.colors)}, got {unknown[0]}")
    return [obj_id for obj_id in video.objects if obj_ids is None or obj_id in obj_ids]


def _annotated(snapshot: Snapshot, video: TrackedVideo, wanted: Container[int] | None) -> Iterator[Picture]:
    seen = [obj_id for obj_id in video.objects if obj_id not in snapshot.hidden]
    return annotated_frames(video, seen, partial(drawn, colors=snapshot.colors), wanted)


def _with_log(
    snapshot: Snapshot, video: TrackedVideo, effect: Effect, path: Path, keep_sound: bool
) -> Generator[tuple[int, int]]:
    """A zip of an MP4 and of the log of what was changed in it."""
    with working_folder(path) as work:
        mp4, log = work / f"{path.stem}.mp4", work / f"{path.stem}.audit.json"
        settings = OutputSettings("mp4", keep_sound)
        for progress in make_effect(video, effect, mp4, settings, log, snapshot.name):
            if progress[0] < progress[1]:
                yield progress
        with writing_to(path):
            _zip([mp4, log], work, work / "result.zip")
            replace_file(work / "result.zip", path)
    yield len(video.frames), len(video.frames)


def _exported(snapshot: Snapshot, kind: str, path: Path) -> Generator[tuple[int, int]]:
    """A file that another program reads, or the zip of a folder of them."""
    yield 0, 1
    with working_folder(path) as work, writing_to(path):
        made = work / path.name
        if kind == "jsonl":
            shutil.copyfile(snapshot.annotations_path, made)
        elif kind == "yolo":
            write_yolo(snapshot.annotations_path, work / "yolo", snapshot.video_path)
            _zip(_files_in(work / "yolo"), work / "yolo", made)
        else:
            write, _ = FORMATS["davis" if kind == "masks" else kind]
            if path.suffix == ".zip":
                write(snapshot.annotations_path, work / "files")
                _zip(_files_in(work / "files"), work / "files", made)
            else:
                write(snapshot.annotations_path, made)
        replace_file(made, path)
    yield 1, 1


def _files_in(folder: Path) -> list[Path]:
    """All files of a folder but the one that notes whose the folder is."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD_NAME)


def _zip(paths: Sequence[Path], folder: Path, target: Path) -> None:
    """Files in a zip, called as they are within `folder`. Those that grow no smaller, pictures, are not packed."""
    with zipfile.ZipFile(target, "w") as archive:
        for path in paths:
            is_packed = path.suffix.lower() in (".png", ".jpg", ".jpeg", ".mp4")
            packing = zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED
            archive.write(path, path.relative_to(folder).as_posix(), packing)
