"""Studio: editing sessions in a web page; `build_app` makes the server, `serve` runs it, `grounded_sam2_app.py` both.

The page is a thin layer over `grounded_sam2.session`: what a person does is a command there, and is on disk when it is
answered. `routes` says which addresses there are, `page` which of them `gradio_client` users have.
"""

from studio.app import build_app, serve
from studio.detectors import named_detectors
from studio.guard import read_auth
from studio.limits import Limits
from studio.models import Models

__all__ = ["Limits", "Models", "build_app", "named_detectors", "read_auth", "serve"]
