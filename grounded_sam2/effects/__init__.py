"""What people do with a tracked video: blur, pixelate, cover or cut out chosen objects, or everything else.

    with TrackedVideo("outputs/parade.jsonl") as video:
        effect = Effect("blur", video.choose("person, car"))
        for num_done, num_total in make_effect(video, effect, "parade.mp4", log_path="parade.audit.json"):
            print(f"{num_done} of {num_total} frames")

`python -m grounded_sam2.effects` is the command. Frames are read once and in order, and no more than a few are held.
"""

from grounded_sam2.effects.animations import AnimationLimits
from grounded_sam2.effects.audit import gap_warnings
from grounded_sam2.effects.effect import Effect, Picture, annotated_frames, changed_frames, changed_image
from grounded_sam2.effects.make import FORMATS, OutputSettings, make_effect, make_pictures
from grounded_sam2.effects.tracks import TrackedObject, TrackedVideo

__all__ = [
    "FORMATS",
    "AnimationLimits",
    "Effect",
    "OutputSettings",
    "Picture",
    "TrackedObject",
    "TrackedVideo",
    "annotated_frames",
    "changed_frames",
    "changed_image",
    "gap_warnings",
    "make_effect",
    "make_pictures",
]
