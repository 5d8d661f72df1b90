"""Blur, cover or cut out what was tracked in a video, or everything else.

First track something, for example with grounded_sam2_tracking_demo.py: that writes the annotations, a .jsonl file.
Then choose what to do with whom:

    python -m grounded_sam2.effects outputs/clip.jsonl --blur person --keep-sound
    python -m grounded_sam2.effects outputs/clip.jsonl --pixelate "person, license plate"
    python -m grounded_sam2.effects outputs/clip.jsonl --cover "#3, #7" --color white
    python -m grounded_sam2.effects outputs/clip.jsonl --blur "#3" --invert          all but object 3 is blurred
    python -m grounded_sam2.effects outputs/clip.jsonl --remove-background dog --color green
    python -m grounded_sam2.effects outputs/clip.jsonl --cutout dog --format webm    see-through, for a web page
    python -m grounded_sam2.effects outputs/clip.jsonl --annotate --format gif

NAMES are classes ("person"), names that objects were given, or ids ("#3"), with commas between them; without NAMES, all
objects are meant. Files go beside the annotations: the result, and an audit log that says what was changed on which
frames, and on which frames to look again. Your video is never changed.

To make people unrecognisable: an effect falls on what was tracked and on nothing else, so watch the whole result.
--cover is the safest, since nothing of a face is left; of a blurred one, many frames together show more than each.
"""

from __future__ import annotations

import argparse
import logging
from contextlib import closing
from functools import partial
from pathlib import Path

from tqdm import tqdm

from grounded_sam2.effects.animations import AnimationLimits
from grounded_sam2.effects.audit import gap_warnings
from grounded_sam2.effects.effect import Effect, Kind, annotated_frames, rgb_of
from grounded_sam2.effects.make import FORMATS, OutputSettings, make_effect, make_pictures
from grounded_sam2.effects.tracks import TrackedVideo, source_files
from grounded_sam2.owned import OutputFiles
from grounded_sam2.render import annotate
from grounded_sam2.script import script_errors, stop_on_signals
from sam2.shown import shown

# option → kind of effect, whether the named objects are kept, what results are called
ACTIONS: dict[str, tuple[Kind, bool, str]] = {
    "blur": ("blur", False, "blurred"),
    "pixelate": ("pixelate", False, "pixelated"),
    "cover": ("cover", False, "covered"),
    "remove_background": ("cover", True, "no-background"),
    "cutout": ("cutout", True, "cutout"),
}
MOST_WARNINGS = 5  # that are printed; the log has all


def main() -> None:
    """Read the command line and write the files."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    with script_errors("grounded_sam2.effects"):
        limits = AnimationLimits(options.max_side, options.max_fps)
        [action] = [name for name in [*ACTIONS, "annotate"] if getattr(options, name) is not None]
        settings = OutputSettings(
            options.format or ("png" if action == "cutout" else "mp4"), options.keep_sound, limits
        )
        settings.check(has_alpha=action == "cutout")
        source = None if options.video_path is None else options.video_path.expanduser()
        with TrackedVideo(options.annotations.expanduser(), source) as video:
            _make(video, action, settings, options)


def _make(video: TrackedVideo, action: str, settings: OutputSettings, options: argparse.Namespace) -> None:
    chosen = video.choose(getattr(options, action))
    if action == "annotate":
        drawn = [obj_id for obj_id in video.objects if (obj_id in chosen) != options.invert]
        files = _files(video, [f".annotated{FORMATS[settings.format]}"], options.output_dir)
        steps = make_pictures(video, partial(annotated_frames, video, drawn, annotate), files.paths[0], settings)
        messages = []
    else:
        kind, keeps_objects, called = ACTIONS[action]
        more = (options.strength, options.margin, rgb_of(options.color), options.bridge)
        effect = Effect(kind, chosen, keeps_objects != options.invert, *more)
        messages = [shown(warning["message"]) for warning in gap_warnings(video, effect)]
        files = _files(video, [f".{called}{FORMATS[settings.format]}", f".{called}.audit.json"], options.output_dir)
        steps = make_effect(video, effect, files.paths[0], settings, files.paths[1])
    with stop_on_signals() as stop, closing(steps), tqdm(total=len(video.frames), unit="frame") as bar:
        for num_done, _ in stop.guard(steps):
            bar.update(num_done - bar.n)
    print(f"wrote {', '.join(map(str, files.paths))}")
    for message in messages[:MOST_WARNINGS]:
        print(f"look again: {message}")
    if len(messages) > MOST_WARNINGS:
        print(f"look again: {len(messages) - MOST_WARNINGS} more places, see the audit log")


def _files(video: TrackedVideo, suffixes: list[str], folder: Path | None) -> OutputFiles:
    """Where results go, called after the annotations."""
    annotations, frames = video.annotations.path, source_files(video.frames)
    source = frames[0] if len(frames) == 1 else frames[0].parent
    return OutputFiles(folder or annotations.parent, source, suffixes, annotations.stem)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m grounded_sam2.effects",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s ANNOTATIONS.jsonl --blur [NAMES] (or another effect) [more options]",
    )
    parser.add_argument("annotations", type=Path, metavar="ANNOTATIONS.jsonl", help="what a tracking script wrote")
    group = parser.add_argument_group("effects, one of them")
    effects = group.add_mutually_exclusive_group(required=True)
    for name, text in (
        ("blur", "blur objects into a few soft patches of colour"),
        ("pixelate", "the same with coarse squares"),
        ("cover", "paint objects over with one colour"),
        ("remove-background", "paint over everything but the objects"),
        ("cutout", "make everything but the objects transparent"),
        ("annotate", "draw objects in, with their names, and change nothing else"),
    ):
        effects.add_argument(f"--{name}", nargs="?", const="", metavar="NAMES", help=text)
    group = parser.add_argument_group("what the effect falls on")
    group.add_argument("--invert", action="store_true", help="exchange the objects and everything else")
    group.add_argument(
        "--strength",
        type=float,
        metavar="SHARE",
        help="of --blur and --pixelate: size of what remains visible, as a share of the object's longer side, up to 1; "
        "more hides more (default: 0.2; with --invert 0.05 of the picture's longer side)",
    )
    group.add_argument(
        "--margin",
        type=float,
        metavar="SHARE",
        help="how far around an object it reaches, as a share of the object's longer side (default: 0.05, and at least "
        "2 pixels, where objects are changed; 0 where they are kept)",
    )
    group.add_argument(
        "--bridge",
        type=int,
        metavar="FRAMES",
        help="where an object is missing for up to so many frames, change the places where it was before and is after "
        "them; 0: do not (default: however long it is missing; with objects that are kept 0)",
    )
    group.add_argument(
        "--color",
        default="black",
        help='of --cover and --remove-background: a name or "#rrggbb" (default: %(default)s)',
    )
    group = parser.add_argument_group("what is written")
    group.add_argument(
        "--format",
        choices=list(FORMATS),
        help="mp4 (H.264); with --cutout: png (a zip of one picture a frame), webm (VP9, web pages), prores (ProRes "
        "4444, video editors); with any effect: png, gif, webp (animated) (default: mp4, of --cutout png)",
    )
    group.add_argument("--keep-sound", action="store_true", help="of the video, in mp4; a voice tells who is speaking")
    defaults = AnimationLimits()
    group.add_argument(
        "--max-side",
        type=int,
        default=defaults.max_side,
        metavar="PIXELS",
        help="longer side of a gif or webp (default: %(default)s)",
    )
    group.add_argument(
        "--max-fps",
        type=float,
        default=defaults.max_fps,
        metavar="FPS",
        help="frames per second of a gif or webp (default: %(default)s)",
    )
    group.add_argument("--output-dir", type=Path, metavar="FOLDER", help="default: beside the annotations")
    group.add_argument(
        "--video-path",
        type=Path,
        metavar="VIDEO",
        help="video file or folder of frames; default: as the annotations say",
    )
    return parser


if __name__ == "__main__":
    main()
