"""Tensors out of a checkpoint, whatever a training left around them.

Trainings wrap a model (`module.` of data parallelism, `_orig_mod.` of `torch.compile`, `model.` of Lightning), put its
weights under a key, and save things beside them: command lines, NumPy numbers, optimizers, whole pickled modules. Here
the tensors are found among all that. Objects of classes that PyTorch does not hold for data are never made: something
that only has their name stands in for them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import pickle
import pickletools
import threading
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

__all__ = ["check_numbers", "read_index", "read_tensors"]

logger = logging.getLogger(__name__)

# Where trainings keep the weights of a model, the surest first.
_WEIGHT_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "module", "net", "network", "weights")
_COMPILED = "_orig_mod."  # what torch.compile puts before the names of a module, anywhere in them
_LEGACY_PICKLES = 5  # a file from before PyTorch 1.6: marker, version, machine, content, list of tensors
_STAND_INS = threading.Lock()  # PyTorch's list of safe names belongs to the whole process


class _StandIn:
    """In the place of an object of a class that is not made: takes whatever its pickle gives it, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _StandIn:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read_tensors(file: Path, anchors: Collection[str]) -> dict[str, Tensor]:
    """The weights of one model in a file, under the names that they have in the model.

    Args:
        file: `.safetensors`, or what `torch.save` wrote of tensors by name, alone or under a key such as "model" or
            "state_dict".
        anchors: the name of one tensor that every model of this kind has, in each layout. What stands before it in
            the file is what a training wrapped around the model: it is taken off all names, and tensors without it
            are left out.

    Returns:
        CPU tensors in the precision of the file. Where no anchor is found, all of them as they are.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is damaged, of another kind, holds no tensors by name, or several such models; says what it is.
    """
    if file.suffix == ".safetensors":
        content = _read_safetensors(file)
    else:
        content = _read_pickled(file)
    found = _weights_in(content)
    if found is None:
        raise ValueError(
            f"{file} holds no weights: expected tensors by name, or those under the key 'model' or 'state_dict', "
            f"found {_description(content)}"
        )
    return _unwrapped({name.replace(_COMPILED, ""): tensor for name, tensor in found.items()}, anchors, file)


def check_numbers(tensors: Mapping[str, Tensor], source: str) -> None:
    """Make sure that weights are numbers: one NaN among them, and a model finds nothing, without a word.

    Raises:
        ValueError: some are NaN or infinite; names them.
    """
    # of a sum, which any NaN or infinity spoils, as it takes no room; float16 sums would overflow
    kinds = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
    strange = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not tensor.sum(dtype=kinds.get(tensor.dtype)).isfinite()
    ]
    if strange:
        names = ", ".join(strange[:8]) + (f" and {len(strange) - 8} more" if len(strange) > 8 else "")
        raise ValueError(f"{source} holds weights that are no numbers (NaN or infinite): {names}")


def read_index(index: Path) -> list[Path]:
    """The files, next to a `*.index.json`, that hold the weights which it lists.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no such list, or names files elsewhere.
    """
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        if not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise ValueError("expected names of files beside it")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{index} is not an index of weights: {error!r:.200}") from error
    return sorted(index.with_name(name) for name in names)


def _weights_in(content: Any) -> dict[str, Tensor] | None:
    """The tensors by name in what a file holds; None where there are none."""
    if not isinstance(content, Mapping):
        return None
    places = [place for place in (*map(content.get, _WEIGHT_KEYS), content) if isinstance(place, Mapping)]
    for place in places:
        tensors = {name: value for name, value in place.items() if isinstance(value, Tensor)}
        if tensors and all(isinstance(name, str) for name in tensors):
            return tensors
    return {} if any(not place for place in places) else None


def _unwrapped(tensors: dict[str, Tensor], anchors: Collection[str], file: Path) -> dict[str, Tensor]:
    ends = [(name, anchor) for anchor in anchors for name in tensors if f".{name}".endswith(f".{anchor}")]
    wrappers = sorted({name[: -len(anchor)] for name, anchor in ends})
    if len(wrappers) > 1:
        places = ", ".join(repr(wrapper) for wrapper in wrappers)
        raise ValueError(f"{file} holds {len(wrappers)} models, under {places}: save the weights of one of them")
    if not wrappers or wrappers == [""]:
        return tensors
    (wrapper,) = wrappers
    kept = {name[len(wrapper) :]: tensor for name, tensor in tensors.items() if name.startswith(wrapper)}
    if len(kept) < len(tensors):
        logger.info("%s: %d tensors beside those of %r are left out", file, len(tensors) - len(kept), wrapper)
    return kept


# ---- safetensors ----


def _read_safetensors(file: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{file} cannot be read as a safetensors file; it may be cut off ({reason})") from error


# ---- what torch.save wrote ----


def _read_pickled(file: Path) -> Any:
    try:
        _refuse_programs(file)
        with contextlib.suppress(pickle.UnpicklingError):
            return torch.load(file, map_location="cpu", weights_only=True)
        with _standing_in(_foreign_names(file)):
            return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises nearly everything
        raise ValueError(f"{file} {_what_is_wrong(file, error)}") from error


def _refuse_programs(file: Path) -> None:
    """PyTorch would hand a TorchScript archive to another reader."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                raise pickle.UnpicklingError("a TorchScript program, expected model.state_dict()")


def _foreign_names(file: Path) -> set[tuple[str, str]]:
    """Module and name of everything that the pickles in a file ask to import; nothing is imported."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
            if name is None:
                return set()
            with archive.open(name) as content:
                return set(_imports(content))
    with file.open("rb") as content:
        return {found for _ in range(_LEGACY_PICKLES) for found in _imports(content)}


def _imports(content: Any) -> Iterator[tuple[str, str]]:
    stream: BinaryIO = content
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name == "GLOBAL":
            module, _, name = str(argument).partition(" ")
            # in the protocol that torch.save writes, names are those of Python 2
            yield NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))


@contextlib.contextmanager
def _standing_in(names: Collection[tuple[str, str]]) -> Iterator[None]:
    """Let PyTorch read a pickle that asks for these names, each of them a `_StandIn`."""
    serialization = torch.serialization
    with _STAND_INS:
        former = serialization.get_safe_globals()
        serialization.add_safe_globals([_stand_in(module, name) for module, name in names])
        try:
            yield
        finally:
            serialization.clear_safe_globals()
            serialization.add_safe_globals(former)


def _stand_in(module: str, name: str) -> Any:
    """A class, or for dictionaries that PyTorch does not fill a function that makes one, of a name."""
    if (module, name) == ("collections", "defaultdict"):

        def empty(*_: Any) -> dict[Any, Any]:
            return {}

        empty.__module__, empty.__name__, empty.__qualname__ = module, name, name
        return empty
    return type(name, (_StandIn,), {"__module__": module, "__qualname__": name})


def _what_is_wrong(file: Path, error: Exception) -> str:
    """Why a file is not read. One that is whole is never said to be cut off."""
    with file.open("rb") as content:
        head = content.read(16)
    if zipfile.is_zipfile(file):
        damaged = _damaged_member(file)
        if damaged is not None:
            return f"is damaged: {damaged} is not as it was written"
        return f"is whole, but not read as weights: {_reason(file, error)}"
    if head.startswith(b"\x80") and isinstance(error, pickle.UnpicklingError):
        return f"is not read as weights: {_reason(file, error)}"
    if head and not head.startswith((b"\x80", b"PK")):
        return f"cannot be read as a PyTorch file of weights: it begins with {head!r}"
    return "cannot be read as a PyTorch file of weights; it may be cut off"


def _damaged_member(file: Path) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip()
    except Exception:  # as other damaged archives, nearly everything
        return "its directory"


def _reason(file: Path, error: Exception) -> str:
    """What PyTorch says, without its advice, and the classes that the file asks for."""
    advice = ("Weights only load failed", "Please file an issue", "Check the documentation")
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith(advice)]
    reason = _printable(" ".join(lines))[:200] or type(error).__name__
    with contextlib.suppress(Exception):  # the file is not read; this is about the words
        known = ("torch.", "collections.", "builtins.")
        names = sorted(".".join(name) for name in _foreign_names(file))
        foreign = [name for name in names if not name.startswith(known)]
        return f"{reason}; it asks for {_printable(', '.join(foreign[:4]))[:200]}" if foreign else reason
    return reason


def _printable(text: str) -> str:
    """Names in a file are anybody's: what would steer a terminal is spelled out."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _description(content: Any) -> str:
    if isinstance(content, _StandIn):
        return f"{_kind(content)}: save its state_dict()"
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    members = [f"{str(key)!r:.60} ({_kind(value)})" for key, value in list(content.items())[:6]]
    return ", ".join(members) or "nothing"


def _kind(value: Any) -> str:
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"a pickled {_printable(name)}" if isinstance(value, _StandIn) else type(value).__name__
