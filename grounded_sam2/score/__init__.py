"""How well a run tracked, by a truth: HOTA, CLEAR, IDF1, J&F, average precision; or, without one, where to look.

    [open_truth] = open_videos(Path("DAVIS/Annotations/480p/dog"), is_truth=True).openers.values()
    [open_run] = open_videos(Path("outputs/dog.jsonl")).openers.values()
    print(compare(open_truth(), open_run())[""].scores()["HOTA"])

The command `python -m grounded_sam2.score RUN TRUTH` says what is read and written.
"""

from grounded_sam2.score.compare import Comparison, compare
from grounded_sam2.score.doubtful import doubtful_frames
from grounded_sam2.score.formats import FORMATS, open_videos
from grounded_sam2.score.video import FrameObjects, Video, video_of

__all__ = ["FORMATS", "Comparison", "FrameObjects", "Video", "compare", "doubtful_frames", "open_videos", "video_of"]
