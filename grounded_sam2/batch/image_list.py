"""Many images and what to look for in each: a folder, a pattern or a list file.

| source | images | prompts |
|---|---|---|
| `photos` | the image files of the folder | one for all |
| `photos/**/*.jpg` | those the pattern matches | one for all |
| `photo.jpg` | the one | one for all |
| `list.txt` | one path a line; `#` starts a comment line | one for all, or after a tab the image's own |
| `list.csv` | column `image` | column `prompt`, if there is one |
| `list.json` | `["a.jpg", …]` or `{"a.jpg": "dog. tree.", …}` | the image's own |

Paths in a list are relative to its folder. An image without a prompt of its own has the one for all; one that is listed
several times has all its prompts together.
"""

from __future__ import annotations

import csv
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from grounded_sam2 import plain_json
from grounded_sam2.images import IMAGE_SUFFIXES
from grounded_sam2.prompts import Prompt, TextPrompt, merge_prompts, read_prompt

__all__ = ["ListedImage", "all_phrases", "list_images"]

_OwnPrompt = str | Sequence[str] | None


@dataclass(frozen=True)
class ListedImage:
    """One image and what to look for in it.

    Attributes:
        path: of the file, which may not be there or be no image.
        name: its path within the folder that holds all listed images, with "/"; unique.
        stem: what files about it are called, unique also in lower case: `name` without its suffix, or with it where
            that alone tells two apart.
        prompt: what to look for.
    """

    path: Path
    name: str
    stem: str
    prompt: Prompt

    @property
    def phrases(self) -> tuple[str, ...]:
        """What is wanted of the prompt; `class_id` is the index here."""
        return self.prompt.phrases


def list_images(source: str | os.PathLike[str], text_prompt: TextPrompt) -> list[ListedImage]:
    """List images; none of them is opened.

    Args:
        source: a folder, a pattern, an image or a list file; see this module.
        text_prompt: for images that have none of their own.

    Returns:
        At least one image, in the order of the list, or sorted by path.

    Raises:
        FileNotFoundError: there is nothing of that name, or no image.
        ValueError: the list cannot be read, or a prompt names nothing.
    """
    folder = Path(source) if Path(source).is_dir() else None
    prompts: dict[Path, Prompt] = {}
    for path, own_prompt in _entries(Path(source), os.fspath(source)):
        try:
            if not isinstance(own_prompt, (str, list, type(None))):
                raise TypeError(f"expected text or a list of phrases, got {type(own_prompt).__name__}")
            prompt = read_prompt(text_prompt if own_prompt is None else own_prompt)
            prompts[path] = merge_prompts([prompts[path], prompt]) if path in prompts else prompt
        except (ValueError, TypeError) as error:
            raise ValueError(f"{source}, prompt of {path}: {error}") from error
    if not prompts:
        raise FileNotFoundError(
            f"no images in {source}: expected a folder of images, a pattern such as 'photos/*.jpg', or a list of "
            "paths (.txt, .csv, .json)"
        )
    root = folder or os.path.commonpath([os.path.abspath(path.parent) for path in prompts])
    names = {path: Path(os.path.relpath(path, root)).as_posix() for path in prompts}
    stems = _unique_stems(list(names.values()))
    return [ListedImage(path, names[path], stems[names[path]], prompt) for path, prompt in prompts.items()]


def _unique_stems(names: Sequence[str]) -> dict[str, str]:
    """Name → stem, by which no two files are one, also where a file system takes "A" and "a" for one."""
    short = {name: name.removesuffix(Path(name).suffix) for name in names}
    counts = Counter(stem.lower() for stem in short.values())
    taken = {name.lower() for name in names}  # "a.jpg" is a name, so that "a.jpg.png" is not called that
    stems: dict[str, str] = {}
    used: set[str] = set()
    for name in names:
        stem = name if counts[short[name].lower()] > 1 or short[name].lower() in taken else short[name]
        free, number = stem, 1
        while free.lower() in used:
            number += 1
            free = f"{stem}-{number}"
        used.add(free.lower())
        stems[name] = free
    return stems


def all_phrases(images: Sequence[ListedImage]) -> list[str]:
    """Every phrase that is wanted in any of the images, in the order of first appearance."""
    return list(dict.fromkeys(phrase for image in images for phrase in image.phrases))


def _entries(path: Path, source: str) -> Iterator[tuple[Path, _OwnPrompt]]:
    """Paths of images with their own prompts, if they have any."""
    if path.is_dir():
        yield from ((file, None) for file in sorted(path.iterdir()) if _is_named_like_an_image(file))
    elif not path.is_file():
        matches = sorted(Path(match) for match in glob.glob(source, recursive=True))
        yield from ((file, None) for file in matches if _is_named_like_an_image(file))
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        yield path, None
    else:
        readers = {".txt": _lines, ".csv": _rows, ".json": _members}
        if path.suffix.lower() not in readers:
            raise ValueError(f"expected a list of images (.txt, .csv, .json) or an image, got {source}")
        try:
            text = path.read_text(encoding="utf-8-sig")
            for name, prompt in readers[path.suffix.lower()](text):
                yield path.parent / name, prompt
        except (ValueError, csv.Error, KeyError, TypeError) as error:
            raise ValueError(f"{source} is no list of images: {error!r}") from error


def _is_named_like_an_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def _lines(text: str) -> Iterator[tuple[str, _OwnPrompt]]:
    for line in text.splitlines():
        name, _, prompt = line.partition("\t")
        if name.strip() and not name.startswith("#"):
            yield name.strip(), prompt.strip() or None


def _rows(text: str) -> Iterator[tuple[str, _OwnPrompt]]:
    for row in csv.DictReader(text.splitlines(), skipinitialspace=True):
        yield row["image"], row.get("prompt") or None


def _members(text: str) -> Iterator[tuple[str, _OwnPrompt]]:
    listed = plain_json.loads(text)
    if isinstance(listed, list) and all(isinstance(name, str) for name in listed):
        yield from ((name, None) for name in listed)
    elif isinstance(listed, dict):
        yield from listed.items()
    else:
        raise KeyError("expected a list of paths, or an object of paths and prompts")
