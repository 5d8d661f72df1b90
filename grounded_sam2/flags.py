"""The UPPER_CASE settings of a script, as typed command line flags.

A script keeps its settings as plain module constants, each with its meaning in a comment on the same line. One call in
its ``if __name__ == "__main__":`` block turns every setting into a flag of the same name and writes the values back::

    TEXT_PROMPT = "dog. red apple."                      # phrases, each ended by "."
    SIZE: tuple[int, int] | None = None                  # width and height in pixels, None keeps the source's

    if __name__ == "__main__":
        override_from_flags(globals())                   # --text-prompt "cat." --size 640,360
"""

import argparse
import ast
import inspect
import io
import sys
import tokenize
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Union

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
# settings that had another name, which still works as a flag
_FORMER_NAMES = {"DETECT_EVERY": "STEP", "MAX_DETECT_EVERY": "MAX_STEP"}


def override_from_flags(namespace: dict[str, Any], argv: Sequence[str] | None = None) -> None:
    """Replace settings in `namespace` by the values given on the command line.

    A setting is an UPPER_CASE name assigned at the top level of the script. Its type is its annotation, or else that of
    its value; str, bool, int, float, Path, Literal, ``X | None`` and tuples or lists of these are understood.
    ``--kebab-case`` and ``--snake_case`` spellings both work, a bool also as ``--name`` and ``--no-name``, a tuple as
    ``1,2`` or ``1 2``, and the word ``none`` stands for None where the type allows it. A setting that was renamed is
    also known by its former name.

    Args:
        namespace: the script's ``globals()``; changed in place.
        argv: flags to read, without the program name; the process's own by default.

    Raises:
        SystemExit: status 2 with one line on stderr for an unknown flag or a value of the wrong type; status 0 after
            ``--help``.
        TypeError: when a setting has a type that no flag can express.
    """
    source = Path(namespace["__file__"]).read_text(encoding="utf-8")
    comments = setting_comments(source)
    annotations = _annotations(namespace)

    parser = _OneLineErrorParser(
        prog=Path(namespace["__file__"]).name,
        description=namespace.get("__doc__"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, comment in comments.items():
        default = namespace[name]
        kind = annotations.get(name, Path if isinstance(default, Path) else type(default))
        former = _FORMER_NAMES.get(name)
        names = [name] if former is None or former in comments else [name, former]
        _add_flag(parser, names, kind, default, comment)
    given = parser.parse_args(argv)
    namespace.update({name: getattr(given, name) for name in comments})


def setting_comments(source: str) -> dict[str, str]:
    """Find the settings of a script and what it says about them.

    Args:
        source: the text of the script.

    Returns:
        name → comment on the setting's line ("" without one), in the order of the file.
    """
    comment_at_line = {
        token.start[0]: token.string.lstrip("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    comments: dict[str, str] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets = [statement.target]
        else:
            continue
        first, last = statement.lineno, statement.end_lineno or statement.lineno
        comment = next((comment_at_line[line] for line in range(first, last + 1) if line in comment_at_line), "")
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper():
                comments[target.id] = comment
    return comments


class _OneLineErrorParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line: the usage of a script with twenty settings would hide them."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help lists the flags)\n")


def _annotations(namespace: dict[str, Any]) -> dict[str, Any]:
    module = sys.modules.get(namespace.get("__name__", ""))
    if module is not None and vars(module) is namespace:
        return inspect.get_annotations(module, eval_str=True)
    raw = namespace.get("__annotations__", {})
    return {name: eval(kind, namespace) if isinstance(kind, str) else kind for name, kind in raw.items()}


def _add_flag(parser: argparse.ArgumentParser, names: Sequence[str], kind: Any, default: Any, comment: str) -> None:
    """Add the flag of one setting: its name, and the names it had before."""
    name = names[0]
    words = [(each.lower().replace("_", "-"), each.lower()) for each in names]  # in kebab and snake case
    spellings = list(dict.fromkeys(f"--{word}" for pair in words for word in pair))
    shown_default = ",".join(map(str, default)) if isinstance(default, (tuple, list)) else default
    if name.endswith("TOKEN") and default is not None:
        shown_default = "as in the file"  # a secret that the help must not print
    about = f"{comment} (default: {shown_default})".strip().replace("%", "%%")
    kind, nullable = _without_none(kind)

    if kind is bool:
        parser.add_argument(
            *spellings,
            dest=name,
            default=default,
            nargs="?",
            const=True,
            type=_reader(bool, nullable),
            help=about,
            metavar="true|false",
        )
        negated = [f"--no{mark}{word}" for pair in words for mark, word in zip("-_", pair, strict=True)]
        parser.add_argument(*negated, dest=name, action="store_const", const=False, help=argparse.SUPPRESS)
    elif typing.get_origin(kind) in (tuple, list) or kind in (tuple, list):
        parser.add_argument(
            *spellings,
            dest=name,
            default=default,
            nargs="+",
            action=_ReadSequence,
            kind=kind,
            nullable=nullable,
            help=about,
            metavar="VALUE",
        )
    else:
        choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else None
        metavar = "|".join(map(str, choices)) if choices else getattr(kind, "__name__", str(kind)).upper()
        parser.add_argument(
            *spellings, dest=name, default=default, type=_reader(kind, nullable), help=about, metavar=metavar
        )


def _without_none(kind: Any) -> tuple[Any, bool]:
    """Split ``X | None`` in X and whether None is allowed; an unannotated None may be any text."""
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
                return kind(word)
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
        if self.nullable and [word.lower() for word in words] == ["none"]:
            setattr(namespace, self.dest, None)
            return
        words = [part.strip() for word in words for part in word.split(",") if part.strip()]
        container = typing.get_origin(self.kind) or self.kind
        members = typing.get_args(self.kind) or (str, ...)
        if container is list:
            members = (members[0], ...)
        if len(members) == 2 and members[1] is ...:
            kinds = [members[0]] * len(words)
        elif len(members) == len(words):
            kinds = list(members)
        else:
            parser.error(f"argument {option}: expected {len(members)} values, got {len(words)}")
        try:
            values = [_reader(kind, False)(word) for kind, word in zip(kinds, words, strict=True)]
        except argparse.ArgumentTypeError as problem:
            parser.error(f"argument {option}: {problem}")
        setattr(namespace, self.dest, container(values))
