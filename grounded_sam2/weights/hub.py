"""Models of transformers, from a local folder with no network access at all, or from a hub."""

import contextlib
import logging
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from huggingface_hub import constants
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging as transformers_logging

logger = logging.getLogger(__name__)

_OF_A_LAYER = re.compile(r"(?:encoder|decoder)\.layers?\.\d+\..*\.weight$")


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


def hub_token(endpoint: str | None = None) -> Literal[False] | None:
    """Who may know the user's token for the Hugging Face hub (HF_TOKEN): the hub, and nobody over plain http.

    Args:
        endpoint: a mirror; None is the hub, which HF_ENDPOINT may name.

    Returns:
        What the hub's client takes as `token`: None, its own choice, or False, none.
    """
    own = urlsplit(constants.ENDPOINT)
    address = own if endpoint is None else urlsplit(endpoint)
    is_hub = address.hostname in ("huggingface.co", "hf.co") or (endpoint is None and address.hostname is not None)
    return None if is_hub and address.scheme == "https" else False


@contextlib.contextmanager
def reading_model(name: str, kind: str, is_folder: bool, cure: str) -> Iterator[None]:
    """Turn whatever transformers raises about files that it cannot read into one line with the model's name.

    Args:
        name: folder or hub id.
        kind: of model, for messages: "detector".
        is_folder: whether `name` is a folder.
        cure: the command that brings the model.

    Raises:
        FileNotFoundError: files are missing, or the hub cannot be reached.
        ValueError: they are damaged, do not fit each other, or need code of their own.
        MemoryError: there is no room for them.
    """
    try:
        yield
    except MemoryError:
        raise
    except OSError as problem:
        if is_folder:
            raise FileNotFoundError(f"{name} is not a complete {kind} folder: {first_line(problem)}") from problem
        raise FileNotFoundError(
            f"the {kind} {name!r} is no local folder and could not be read from the hub ({first_line(problem)}); "
            f"where there is a network, run: {cure}"
        ) from problem
    except Exception as problem:  # of transformers, tokenizers, safetensors, pickle and json
        reason = first_line(problem)
        if "memory" in reason.lower():
            raise
        if "trust_remote_code" in str(problem):
            raise ValueError(f"{name} needs code of its own, which is not run here") from problem
        if isinstance(problem, ValueError) and name in reason:
            raise
        raise ValueError(f"{name} is no {kind} that can be read: {type(problem).__name__}: {reason[:300]}") from problem


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
        ValueError: tensors or layers are missing, or of another shape; names them.
    """
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(f"the weights in {name} lack {len(missing)} tensors of the model: {', '.join(missing[:8])} …")
    mismatched = sorted(str(key[0] if isinstance(key, tuple) else key) for key in loading.get("mismatched_keys", ()))
    if mismatched:
        raise ValueError(f"the weights in {name} do not fit its config.json: {', '.join(mismatched[:8])} …")
    surplus = sorted(filter(_OF_A_LAYER.search, loading["unexpected_keys"]))
    if surplus:
        raise ValueError(f"the weights in {name} have layers that its config.json lacks: {', '.join(surplus[:8])} …")
    if loading["unexpected_keys"]:
        logger.info("unused tensors in %s: %s", name, ", ".join(sorted(loading["unexpected_keys"])))
