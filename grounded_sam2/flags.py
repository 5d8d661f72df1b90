"""The UPPER_CASE settings of a script, as typed command line flags and from a file.

A script keeps its settings as plain module constants, each with its meaning in a comment on the same line. One call in
its ``if __name__ == "__main__":`` block turns every setting into a flag of the same name and writes the values back::

    # input
    TEXT_PROMPT = "dog. red apple."                      # phrases, each ended by "."
    # output
    SIZE: tuple[int, int] | None = None                  # width and height in pixels; none: those of the source

    if __name__ == "__main__":
        override_from_flags(globals())                   # --text-prompt "cat." --size 640,360

A TOML file sets them for several scripts at once, ``--settings my.toml``::

    sam2_checkpoint = "checkpoints/sam2.1_hiera_large.pt"    # for every script that has this setting

    [grounded_sam2_tracking_demo]                            # for this script alone
    text_prompt = "person. red car."

Names are those of the settings, in lower or upper case; a name that no script has is an error. TOML has no word for
None, so ``"none"`` stands for it. A table named like a script holds for that script and wins over the rest of the file;
a name with a dot in it is quoted, ``["grounded_sam2_gd1.5_demo"]``. Flags win over the file.
"""

import argparse
import ast
import importlib
import inspect
import io
import math
import os
import re
import sys
import tokenize
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Union

from sam2.shown import shown

__all__ = ["override_from_flags", "setting_comments", "settings_of"]

_REPOSITORY = Path(__file__).resolve().parent.parent
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
# settings that had another name, which still works as a flag
_FORMER_NAMES = {"DETECT_EVERY": "STEP", "MAX_DETECT_EVERY": "MAX_STEP"}
# Settings with which the same run gives the same results: where things are and how the run is done. Sources are here
# because what they hold is looked at, and because an address may hold a password.
_INCIDENTAL = frozenset(
    {"API_TOKEN", "BATCH_SIZE", "CACHE_DIR", "CAMERA", "DDS_ENDPOINT", "DEVICE", "GALLERY", "IMAGES", "IMAGE_PATH"}
    | {"MAX_REQUESTS", "OUTPUT_DIR", "OVERWRITE", "RESUME", "SAVE_ANNOTATED", "SAVE_EVERY", "SHOW", "VIDEO_PATH"}
)
_HEADING = re.compile(r"# ([a-z][a-z ]*)")


def override_from_flags(namespace: dict[str, Any], argv: Sequence[str] | None = None) -> None:
    """Replace settings in `namespace` by the values given in a file of settings and on the command line.

    A setting is an UPPER_CASE name assigned at the top level of the script. Its type is its annotation, or else that of
    its value; str, bool, int, float, Path, Literal, ``X | None`` and tuples or lists of these are understood.
    ``--kebab-case`` and ``--snake_case`` spellings both work, a bool also as ``--name`` and ``--no-name``, a tuple as
    ``1,2`` or ``1 2``, and the word ``none`` stands for None where the type allows it. No number is NaN, and ``~/``
    begins a path in the home folder. A setting that was renamed is
    also known by its former name. ``--settings FILE`` names a file of settings, see this module; flags win over it.

    Args:
        namespace: the script's ``globals()``; changed in place.
        argv: flags to read, without the program name; the process's own by default.

    Raises:
        SystemExit: status 2 with one line on stderr for an unknown flag or name, a value of the wrong type, or a file
            that cannot be read; status 0 after ``--help``.
        TypeError: when a setting has a type that no flag can express.
    """
    path = Path(namespace["__file__"])
    source = path.read_text(encoding="utf-8")
    comments = setting_comments(source)
    kinds = _kinds(namespace, comments)

    parser = _OneLineErrorParser(
        prog=path.name,
        usage="%(prog)s [--settings FILE] [--SETTING VALUE ...]",
        description=namespace.get("__doc__"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--settings", type=Path, metavar="FILE", help="TOML file of settings, for this and other scripts; flags win"
    )
    headings = _setting_headings(source)
    groups = {heading: parser.add_argument_group(heading) for heading in dict.fromkeys(headings.values())}
    for name, comment in comments.items():
        group = groups[headings[name]] if name in headings else parser
        _add_flag(group.add_argument, _spellings(name, comments), kinds[name], namespace[name], comment)
    try:
        parser.set_defaults(**_settings_in_file(_settings_path(path.name, argv), path, kinds))
    except (ValueError, OSError) as problem:
        parser.exit(2, f"{path.name}: {shown(problem)}\n")
    given = parser.parse_args(argv)
    namespace.update({name: _at_home(getattr(given, name)) for name in comments})


def _at_home(value: Any) -> Any:
    """A path below "~/" as one below the home folder: a shell leaves the "~" of --output-dir=~/o as it is."""
    if isinstance(value, (str, Path)) and str(value).startswith("~/"):
        return type(value)(os.path.expanduser(value))
    return value


def settings_of(namespace: Mapping[str, Any], without: Collection[str] = ()) -> dict[str, Any]:
    """The settings of a script on which its results depend.

    Settings that say where things are (OUTPUT_DIR) or how the run is done (DEVICE) are left out, and so are tokens and
    addresses, which no file may hold.

    Args:
        namespace: the script's ``globals()``.
        without: names of more settings to leave out.

    Returns:
        name → value in the order of the file, paths as text.
    """
    names = setting_comments(Path(namespace["__file__"]).read_text(encoding="utf-8"))
    values = {name: namespace[name] for name in names if name not in _INCIDENTAL and name not in without}
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


def setting_comments(source: str) -> dict[str, str]:
    """Find the settings of a script and what it says about them.

    Args:
        source: the text of the script.

    Returns:
        name → comment on the setting's line ("" without one), in the order of the file.
    """
    comment_at_line = _comments_at_lines(source)
    comments: dict[str, str] = {}
    for name, first, last in _assigned(source):
        lines = [comment_at_line[line] for line in range(first, last + 1) if line in comment_at_line]
        comments[name] = lines[0].lstrip("#").strip() if lines else ""
    return comments


def _setting_headings(source: str) -> dict[str, str]:
    """Name of a setting → the heading that it stands under, such as "input"; settings under none are left out."""
    lines = enumerate(source.splitlines(), start=1)
    heading_at_line = {number: heading[1] for number, line in lines if (heading := _HEADING.fullmatch(line))}
    headings: dict[str, str] = {}
    for name, first, _ in _assigned(source):
        above = [line for line in heading_at_line if line < first]
        if above:
            headings[name] = heading_at_line[max(above)]
    return headings


def _comments_at_lines(source: str) -> dict[int, str]:
    """Line number, from 1 → the comment on it, with its mark."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}


def _assigned(source: str) -> Iterator[tuple[str, int, int]]:
    """The UPPER_CASE names that are assigned at the top level, with the first and last line of each, from 1."""
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper():
                yield target.id, statement.lineno, statement.end_lineno or statement.lineno


# ---- the file of settings ----


def _settings_path(program: str, argv: Sequence[str] | None) -> Path | None:
    """The file that ``--settings`` names on the command line."""
    parser = _OneLineErrorParser(prog=program, add_help=False, allow_abbrev=False)
    parser.add_argument("--settings", type=Path)
    settings_path: Path | None = _at_home(parser.parse_known_args(argv)[0].settings)
    return settings_path


def _settings_in_file(path: Path | None, script: Path, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a file has for the settings of one script.

    Args:
        path: of the TOML file; None: there is none.
        script: path of the script.
        kinds: name of each of its settings → type.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no TOML, holds a name or a table that no script has, or a value of the wrong type.
    """
    if path is None:
        return {}
    entries = _read_toml(path)
    shared = {name: entry for name, entry in entries.items() if not isinstance(entry, dict)}
    others = [other for other in _REPOSITORY.glob("grounded_sam2_*.py") if other.name != script.name]
    known = {*kinds, *(name for other in others for name in setting_comments(other.read_text(encoding="utf-8")))}
    values = {name: entry for name, entry in _named(shared, known, str(path), "no script has").items() if name in kinds}
    for table_name, table in entries.items():
        if isinstance(table, dict):
            places = [folder / f"{table_name}.py" for folder in (script.parent, _REPOSITORY)]
            place = next((place for place in places if place.is_file()), None)
            if place is None:
                raise ValueError(
                    f"{path}: there is no script {table_name}.py for [{table_name}] (a name with dots is quoted)"
                )
            is_own = place.name == script.name
            names = kinds if is_own else setting_comments(place.read_text(encoding="utf-8"))
            own = _named(table, names, f"{path}, [{table_name}]", "that script does not have")
            values.update(own if is_own else {})
    return {name: _read_entry(entry, kinds[name], f"{path}: {name}") for name, entry in values.items()}


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ModuleNotFoundError:
        raise ValueError(
            f"to read {path} with Python 3.10: pip install tomli (newer versions can by themselves)"
        ) from None
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a TOML file: it is a folder, a pipe or a device")
    try:
        entries: dict[str, Any] = toml.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # of TOML, or of text that is not UTF-8
        raise ValueError(f"{path} is not a TOML file: {error}") from error
    return entries


def _named(entries: Mapping[str, Any], known: Collection[str], place: str, complaint: str) -> dict[str, Any]:
    """The entries by the names of the settings, whatever their spelling."""
    names = {spelling: name for name in known for spelling in _spellings(name, known)}
    unknown = [key for key in entries if key.upper() not in names]
    if unknown:
        raise ValueError(f"{place} has {', '.join(unknown)}, which {complaint}")
    named: dict[str, Any] = {}
    for key, entry in entries.items():
        name = names[key.upper()]
        if name in named:
            raise ValueError(f"{place} sets {name} twice")
        named[name] = entry
    return named


def _read_entry(entry: Any, kind: Any, place: str) -> Any:
    """A value of TOML as the type of its setting, by the rules of flags."""
    kind, nullable = _without_none(kind)
    words = [_word(part) for part in entry] if isinstance(entry, list) else [_word(entry)]
    try:
        if _is_sequence(kind):
            return _read_sequence(words if isinstance(entry, list) else words[0].split(","), kind, nullable)
        if isinstance(entry, list):
            raise argparse.ArgumentTypeError(f"expected one value, got {len(entry)}")
        return _reader(kind, nullable)(words[0])
    except argparse.ArgumentTypeError as problem:
        raise ValueError(f"{place}: {problem}") from None


def _word(value: Any) -> str:
    """A value of TOML as it would be written on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- the command line ----


class _OneLineErrorParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line: the usage of a script with twenty settings would hide them."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {shown(message)} (--help lists the flags)\n")


def _kinds(namespace: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Name of a setting → its type: the annotation, or else that of the value."""
    annotations = _annotations(namespace)
    values = {name: namespace[name] for name in names}
    return {
        name: annotations.get(name, Path if isinstance(value, Path) else type(value)) for name, value in values.items()
    }


def _annotations(namespace: dict[str, Any]) -> dict[str, Any]:
    module = sys.modules.get(namespace.get("__name__", ""))
    if module is not None and vars(module) is namespace:
        return inspect.get_annotations(module, eval_str=True)
    raw = namespace.get("__annotations__", {})
    return {name: eval(kind, namespace) if isinstance(kind, str) else kind for name, kind in raw.items()}


def _spellings(name: str, known: Collection[str]) -> list[str]:
    """A setting's name, and the one that it had before unless another setting has that now."""
    former = _FORMER_NAMES.get(name)
    return [name] if former is None or former in known else [name, former]


def _add_flag(add: Callable[..., Any], names: Sequence[str], kind: Any, default: Any, comment: str) -> None:
    """Add the flag of one setting, by its name and the names it had before, with a parser's `add_argument`."""
    name = names[0]
    words = [(each.lower().replace("_", "-"), each.lower()) for each in names]  # in kebab and snake case
    spellings = list(dict.fromkeys(f"--{word}" for pair in words for word in pair))
    shown_default = ",".join(map(str, default)) if isinstance(default, (tuple, list)) else default
    shown_default = "none" if default is None else shown_default
    if name.endswith("TOKEN") and default is not None:
        shown_default = "as in the file"  # a secret that the help must not print
    about = f"{comment} (default: {shown_default})".strip().replace("%", "%%")
    kind, nullable = _without_none(kind)
    options: dict[str, Any] = {"dest": name, "default": default}
    if kind is bool:
        options |= {"nargs": "?", "const": True, "type": _reader(bool, nullable), "metavar": "true|false"}
        negated = [f"--no{mark}{word}" for pair in words for mark, word in zip("-_", pair, strict=True)]
        add(*negated, dest=name, default=default, action="store_const", const=False, help=argparse.SUPPRESS)
    elif _is_sequence(kind):
        options |= {"nargs": "+", "action": _ReadSequence, "kind": kind, "nullable": nullable, "metavar": "VALUE"}
    else:
        choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else None
        metavar = "|".join(map(str, choices)) if choices else getattr(kind, "__name__", str(kind)).upper()
        options |= {"type": _reader(kind, nullable), "metavar": metavar}
    shown, *others = spellings  # the help has one of them
    add(shown, help=about, **options)
    if others:
        add(*others, help=argparse.SUPPRESS, **options)


def _without_none(kind: Any) -> tuple[Any, bool]:
    """Split ``X | None`` in X and whether None is allowed; a None without annotation takes any text."""
    if kind in (None, type(None)):
        return str, True
    if typing.get_origin(kind) in (Union, types.UnionType):
        members = typing.get_args(kind)
        others = tuple(member for member in members if member is not type(None))
        return (others[0] if len(others) == 1 else Union[others]), len(others) < len(members)  # noqa: UP007
    return kind, False


def _reader(kind: Any, nullable: bool) -> Callable[[str], Any]:
    """Make the function that reads one word of the command line as `kind`."""
    read: Callable[[str], Any]
    if typing.get_origin(kind) is Literal:
        legal = typing.get_args(kind)

        def read(word: str) -> Any:
            for value in legal:
                if word == str(value):
                    return value
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(map(str, legal))}, got {word!r}")

    elif typing.get_origin(kind) in (Union, types.UnionType):
        readers = [_reader(member, False) for member in typing.get_args(kind)]

        def read(word: str) -> Any:
            for reader in readers:
                try:
                    return reader(word)
                except (ValueError, argparse.ArgumentTypeError):
                    continue
            names = " or ".join(member.__name__ for member in typing.get_args(kind))
            raise argparse.ArgumentTypeError(f"expected {names}, got {word!r}")

    elif kind is bool:

        def read(word: str) -> bool:
            if word.lower() in _TRUE + _FALSE:
                return word.lower() in _TRUE
            raise argparse.ArgumentTypeError(f"expected true or false, got {word!r}")

    elif kind in (int, float):

        def read(word: str) -> float:
            try:
                number: float = kind(word)
                if math.isnan(number):
                    raise ValueError
                return number
            except ValueError:
                expected = "a whole number" if kind is int else "a number"
                raise argparse.ArgumentTypeError(f"expected {expected}, got {word!r}") from None

    elif kind in (str, Path):
        read = kind
    else:
        raise TypeError(f"a setting of type {kind!r} cannot be given as a flag")

    if not nullable:
        return read
    return lambda word: None if word.lower() == "none" else read(word)


class _ReadSequence(argparse.Action):
    """Reads ``--size 640 360`` and ``--size 640,360`` alike as the annotated tuple or list."""

    def __init__(self, *, kind: Any, nullable: bool, **kwargs: Any) -> None:
        self.kind, self.nullable = kind, nullable
        super().__init__(**kwargs)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, words: Any, option: str | None = None
    ) -> None:
        words = [part.strip() for word in words for part in word.split(",") if part.strip()]
        try:
            setattr(namespace, self.dest, _read_sequence(words, self.kind, self.nullable))
        except argparse.ArgumentTypeError as problem:
            parser.error(f"argument {option}: {problem}")


def _is_sequence(kind: Any) -> bool:
    return typing.get_origin(kind) in (tuple, list) or kind in (tuple, list)


def _read_sequence(words: Sequence[str], kind: Any, nullable: bool) -> Any:
    """The words as a tuple or a list; "none" by itself as None where that is allowed."""
    if nullable and [word.lower() for word in words] == ["none"]:
        return None
    container = typing.get_origin(kind) or kind
    members = typing.get_args(kind) or (str, ...)
    if container is list:
        members = (members[0], ...)
    if len(members) == 2 and members[1] is ...:
        kinds = [members[0]] * len(words)
    elif len(members) == len(words):
        kinds = list(members)
    else:
        raise argparse.ArgumentTypeError(f"expected {len(members)} values, got {len(words)}")
    return container(_reader(kind, False)(word) for kind, word in zip(kinds, words, strict=True))
