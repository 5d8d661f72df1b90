"""Fetch named checkpoints: resumed after an interruption, checked, put in place only when complete.

    python -m grounded_sam2.download --list
    python -m grounded_sam2.download sam2.1-large
    python -m grounded_sam2.download sam2.1-tiny groundingdino-swint --folder weights --mirror https://mirror.example/sam
    python -m grounded_sam2.download IDEA-Research/grounding-dino-tiny
    python -m grounded_sam2.download sam2.1-large --check

A mirror is any web address under which the files lie by their names; it can also stand in the environment variable
GROUNDED_SAM2_MIRROR. For Hugging Face repositories it is the address of a hub (as in HF_ENDPOINT).
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grounded_sam2.files import check_writable
from grounded_sam2.weights.transfer import check_address, check_sha256, download_url, sha256_of
from sam2.shown import shown, source_name

__all__ = ["CHECKPOINTS", "Checkpoint", "download", "find_checkpoint", "is_present", "main"]

MIRROR_VARIABLE = "GROUNDED_SAM2_MIRROR"
OFFLINE_VARIABLES = ("GROUNDED_SAM2_OFFLINE", "HF_HUB_OFFLINE")

SAM2_URL = "https://dl.fbaipublicfiles.com/segment_anything_2"
EDGETAM_URL = "https://github.com/facebookresearch/EdgeTAM/raw/main/checkpoints/edgetam.pt"
GROUNDING_DINO_URL = "https://github.com/IDEA-Research/GroundingDINO/releases/download"
BERT_TOKENIZER_URL = "https://huggingface.co/google-bert/bert-base-uncased/resolve/main/tokenizer.json"


@dataclass(frozen=True)
class Checkpoint:
    """Where a named model comes from and where it goes.

    Attributes:
        name: as on the command line.
        source: the URL of a file, or `owner/name` of a Hugging Face repository.
        folder: where it belongs by default.
        sha256: of the file, in hexadecimal; None where none is known for sure.
    """

    name: str
    source: str
    folder: str
    sha256: str | None = None

    @property
    def is_repository(self) -> bool:
        """Whether `source` names a Hugging Face repository and not a file."""
        return "://" not in self.source

    @property
    def file_name(self) -> str:
        """Of the file, or of the folder that a repository becomes."""
        return self.source.rsplit("/", 1)[-1]


# As several public repositories that use these files state them.
_SHA256 = {
    "sam2-tiny": "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
    "sam2-small": "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
    "sam2-base-plus": "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
    "sam2-large": "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
    "sam2.1-tiny": "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    "sam2.1-small": "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    "sam2.1-base-plus": "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    "sam2.1-large": "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    "groundingdino-swint": "3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799",
    "groundingdino-swinb": "46270f7a822e6906b655b729c90613e48929d0f2bb8b9b76fd10a856f3ac6ab7",
}


def _known_checkpoints() -> dict[str, Checkpoint]:
    checkpoints = []
    for family, date in (("sam2", "072824"), ("sam2.1", "092824")):
        for size in ("tiny", "small", "base_plus", "large"):
            url = f"{SAM2_URL}/{date}/{family}_hiera_{size}.pt"
            name = f"{family}-{size.replace('_', '-')}"
            checkpoints.append(Checkpoint(name, url, "checkpoints", _SHA256[name]))
    checkpoints.append(Checkpoint("edgetam", EDGETAM_URL, "checkpoints"))
    for name, path in (
        ("groundingdino-swint", "v0.1.0-alpha/groundingdino_swint_ogc.pth"),
        ("groundingdino-swinb", "v0.1.0-alpha2/groundingdino_swinb_cogcoor.pth"),
    ):
        checkpoints.append(Checkpoint(name, f"{GROUNDING_DINO_URL}/{path}", "gdino_checkpoints", _SHA256[name]))
    # what the text encoder of both reads; it is looked for beside their weights
    checkpoints.append(Checkpoint("bert-tokenizer", BERT_TOKENIZER_URL, "gdino_checkpoints"))
    for size in ("tiny", "base"):
        name = f"grounding-dino-{size}"
        checkpoints.append(Checkpoint(name, f"IDEA-Research/{name}", "gdino_checkpoints"))
    for variant in ("base", "base-ft", "large", "large-ft"):
        repository = f"florence-community/Florence-2-{variant}"
        checkpoints.append(Checkpoint(f"florence-2-{variant}", repository, "gdino_checkpoints"))
    return {checkpoint.name: checkpoint for checkpoint in checkpoints}


CHECKPOINTS: dict[str, Checkpoint] = _known_checkpoints()


def find_checkpoint(name: str) -> Checkpoint:
    """The checkpoint of a name; `owner/name` is any Hugging Face repository.

    Raises:
        ValueError: an unknown name; the message says which ones are close.
    """
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    by_file = {checkpoint.file_name: checkpoint for checkpoint in CHECKPOINTS.values()}
    if name in by_file:
        return by_file[name]
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII):
        return Checkpoint(name, name, "gdino_checkpoints")
    close = difflib.get_close_matches(name, CHECKPOINTS) or sorted(CHECKPOINTS)
    raise ValueError(f"unknown checkpoint {name!r}: expected one of {', '.join(close)}, or a repository owner/name")


def download(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    mirror: str | None = None,
    sha256: str | None = None,
    progress: bool = True,
) -> Path:
    """Make sure that a named checkpoint is in `folder`, fetching it when it is missing.

    Args:
        name: a key of `CHECKPOINTS`, its file name, or `owner/name` of a Hugging Face repository.
        folder: where to; by default `checkpoints/` or `gdino_checkpoints/`.
        mirror: base address to use in place of the publisher's; by default what GROUNDED_SAM2_MIRROR holds (files
            only).
        sha256: that the file must have, in hexadecimal; by default the one in `CHECKPOINTS`, where there is one.
        progress: show a progress bar on stderr.

    Returns:
        The path of the file, or of the folder of a repository.

    Raises:
        ValueError: an unknown name, or a file whose content is not what it should be.
        ConnectionError: the network is off, or the server cannot be reached or keeps failing.
        OSError: the file is not there (404) or cannot be written.
    """
    checkpoint = find_checkpoint(name)
    target = Path(folder if folder is not None else checkpoint.folder) / checkpoint.file_name
    if checkpoint.is_repository:
        return _download_repository(checkpoint, target, mirror)
    expected = sha256 or checkpoint.sha256
    if target.is_file():
        if expected is not None:
            check_sha256(target, expected, cure=f"move {target} away and download again")
        return target
    _refuse_offline(checkpoint.name, target)
    mirror = mirror or os.environ.get(MIRROR_VARIABLE)
    if mirror:
        check_address(mirror)
    url = f"{mirror.rstrip('/')}/{checkpoint.file_name}" if mirror else checkpoint.source
    return download_url(url, target, sha256=expected, progress=progress)


def is_present(checkpoint: Checkpoint, target: Path) -> bool:
    """Whether a checkpoint is at `target`, complete as far as that shows without reading it."""
    if not checkpoint.is_repository:
        return target.is_file()
    weights = [path for path in target.glob("*") if path.suffix in (".safetensors", ".bin")]
    return (target / "config.json").is_file() and bool(weights)


def _refuse_offline(name: str, target: Path) -> None:
    """ConnectionError where the environment says that there is no network."""
    for variable in OFFLINE_VARIABLES:
        if os.environ.get(variable, "").lower() in ("1", "true", "yes", "on"):
            raise ConnectionError(
                f"{target} is missing and {variable} says that the network is off: copy {name} there from another "
                f"machine, or unset {variable} and run `python -m grounded_sam2.download {name}`"
            )


def _download_repository(checkpoint: Checkpoint, target: Path, endpoint: str | None) -> Path:
    """A Hugging Face repository as a plain folder, without the weights in other frameworks' formats."""
    if is_present(checkpoint, target):
        return target
    _refuse_offline(checkpoint.name, target)
    if endpoint is not None:
        check_address(endpoint)
    hub = source_name(endpoint) if endpoint else "huggingface.co"
    check_writable(target / "config.json")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        snapshot_download(
            checkpoint.source,
            local_dir=target,
            endpoint=endpoint,
            allow_patterns=["*.json", "*.txt", "*.safetensors", "*.model"],
            token=_hub_token(endpoint),
        )
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, HfHubHTTPError):  # the hub did answer
            raise OSError(f"cannot download {checkpoint.source}: {_first_line(error.__cause__)}") from error
        raise ConnectionError(
            f"{target} is missing and {hub} cannot be reached; the network seems to be off: "
            f"copy the folder of {checkpoint.source} there from another machine, or name another hub with --mirror"
        ) from error
    except HfHubHTTPError as error:
        raise OSError(f"cannot download {checkpoint.source}: {_first_line(error)}") from error
    if not is_present(checkpoint, target):
        raise ValueError(f"{checkpoint.source} holds no config.json with .safetensors weights")
    return target


def _hub_token(endpoint: str | None) -> Literal[False] | None:
    from grounded_sam2.weights.hub import hub_token

    return hub_token(endpoint)


def _first_line(error: BaseException) -> str:
    return shown(str(error).strip().partition("\n")[0])


# ---- command line ----


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m grounded_sam2.download",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="checkpoints, see --list; or owner/name on a hub")
    parser.add_argument("--folder", help="where to (default: checkpoints or gdino_checkpoints, see --list)")
    parser.add_argument("--mirror", help=f"base address to fetch from (default: ${MIRROR_VARIABLE})")
    parser.add_argument("--sha256", help="the file must have this sha256 (one NAME only)")
    parser.add_argument("--list", action="store_true", help="show the known names and end")
    parser.add_argument("--check", action="store_true", help="only say what is there; uses no network")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0, or 2 with one line on stderr."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.list:
        _list()
        return 0
    if not options.names:
        parser.error("name at least one checkpoint, or use --list")
    if options.sha256 and len(options.names) > 1:
        parser.error(f"--sha256 fits one checkpoint, got {len(options.names)} names")
    try:
        if options.check:
            return _check(options.names, options.folder)
        for name in options.names:
            path = download(name, options.folder, options.mirror, options.sha256, progress=not options.quiet)
            print(shown(f"{path}  sha256 {sha256_of(path)}" if path.is_file() else path))
    except (ValueError, OSError) as error:
        print(f"error: {shown(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _list() -> None:
    try:
        for checkpoint in CHECKPOINTS.values():
            print(f"{checkpoint.name:22} {checkpoint.folder}/{checkpoint.file_name:32} {checkpoint.source}")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads it has read enough, as in "--list | head"; nothing is left to be flushed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check(names: Sequence[str], folder: str | None) -> int:
    """Say which checkpoints are there and, for those that are not, the command that gets them."""
    missing = []
    for name in names:
        checkpoint = find_checkpoint(name)
        target = Path(folder if folder is not None else checkpoint.folder) / checkpoint.file_name
        if is_present(checkpoint, target):
            print(f"{name}: {target}")
        else:
            missing.append(name)
            print(f"{name}: missing, expected {target}")
    if missing:
        where = f" --folder {folder}" if folder is not None else ""
        print(f"run: python -m grounded_sam2.download {' '.join(missing)}{where}", file=sys.stderr)
    return 2 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
