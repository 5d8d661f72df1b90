"""Models of transformers, from a local folder with no network access at all, or from a hub."""

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging as transformers_logging

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def without_progress() -> Iterator[None]:
    """Without transformers' progress bars, which a folder read in a second does not need."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


@contextlib.contextmanager
def without_retry_messages() -> Iterator[None]:
    """Without the hub client's line for each attempt to reach a hub; its error says once that it cannot."""
    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)


def reads_as_path(name: str) -> bool:
    """Whether a name that is no folder was meant as one: a hub id is `owner/name`, its owner no folder here."""
    parts = Path(name).parts
    return name.startswith((".", "/", "~")) or name.endswith("/") or len(parts) > 2 or Path(parts[0]).is_dir()


def first_line(problem: BaseException) -> str:
    """What an error says, without what follows its first line."""
    lines = str(problem).strip().splitlines()
    return lines[0] if lines else type(problem).__name__


def check_weights(name: str, loading: Mapping[str, Collection[str]]) -> None:
    """Make sure that all of a model was in its weights; tensors that it has no use for are logged.

    Args:
        name: folder or hub id.
        loading: what `from_pretrained(…, output_loading_info=True)` says besides the model.

    Raises:
        ValueError: tensors are missing; names them.
    """
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(f"the weights in {name} lack {len(missing)} tensors of the model: {', '.join(missing[:8])} …")
    if loading["unexpected_keys"]:
        logger.info("unused tensors in %s: %s", name, ", ".join(sorted(loading["unexpected_keys"])))
