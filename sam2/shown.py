"""What strangers wrote, as it may be shown: on one line, with nothing that a terminal obeys, and without secrets.

Names of files, prompts, answers of servers and messages of libraries reach terminals and logs. `shown` makes one line
of any text; `source_name` is what messages, files and events call a source of frames or weights.
"""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import PurePath

__all__ = ["file_stem", "is_url", "shown", "source_name", "visible", "without_secrets"]

# The counts have limits so that no text, however long, takes long to look through.
_PROTOCOL = r"[A-Za-z][A-Za-z0-9+.-]{0,30}://"
_URL_IN_TEXT = re.compile(rf"{_PROTOCOL}[^\s'\"<>|]+")
# a value after a name that says that it is secret, also in paths: cameras take "/user=admin&password=12345&channel=1"
_SECRET = re.compile(
    r"([\w-]{0,30}(?:pass(?:word|wd|phrase)?|pwd|token|secret|sig(?:nature)?|auth|credential|api[_-]?key|access[_-]?key)"
    r"[\w-]{0,30}=)[^&;/?#\s]*",
    re.IGNORECASE,
)
_JOINERS = "\u200c\u200d"  # marks of this kind that languages and emoji need
_LONGEST_STEM = 100  # characters; file systems allow 255 bytes, suffixes included


def is_url(location: str) -> bool:
    """Whether a location is "protocol://..." and not a path."""
    return re.match(_PROTOCOL, location) is not None


def shown(text: object) -> str:
    """Any text on one line: line breaks are blanks, and what would steer a terminal or hide text is spelled out."""
    return "".join(map(_visible, " ".join(without_secrets(str(text)).splitlines())))


def visible(text: str) -> str:
    """A name that somebody gave, on one line and without what nobody sees: it may hide text or turn what follows."""
    return "".join(character for character in " ".join(text.split()) if not _is_hidden(character))


def source_name(source: str | os.PathLike[str]) -> str:
    """What messages call a path or URL; a URL has no user, password or token in it, and no values in its query."""
    location = os.fspath(source)
    return shown(_without_query_values(location) if is_url(location) else location)


def without_secrets(text: str) -> str:
    """A text in which no URL has a user, a password or a token."""
    return _URL_IN_TEXT.sub(lambda match: _without_login(_SECRET.sub(r"\1***", match[0])), text)


def file_stem(source: str | os.PathLike[str]) -> str:
    """What files about a source are called: its name without folders, suffix, query or secrets."""
    location = os.fspath(source)
    if not is_url(location):
        return PurePath(location).stem
    path = re.split(r"[?#]", _without_login(_SECRET.sub(r"\1", location)).partition("://")[2])[0]
    stem = re.sub(r"[^\w.-]+", "_", PurePath(path).stem).strip("._")[:_LONGEST_STEM]
    return stem or "stream"


def _without_query_values(url: str) -> str:
    """Any value may be a key to the stream; numbers of channels and the like may not."""
    address, mark, query = _without_login(url).partition("?")
    return address + mark + re.sub(r"=(?!\d{1,5}(?:[&;#]|$))[^&;#]+", "=***", query)


def _without_login(url: str) -> str:
    protocol, _, rest = url.partition("://")
    authority = re.split(r"[/?#]", rest)[0]
    if "@" in rest and not authority.startswith("[") and re.search(r":(?!\d*$)", authority):
        return f"{protocol}://{rest.rpartition('@')[2]}"  # a password may have "@" and "/" in it
    return f"{protocol}://{rest[authority.rfind('@') + 1 :]}"


def _visible(character: str) -> str:
    if not _is_hidden(character):
        return character
    return " " if character == "\t" else character.encode("unicode_escape").decode("ascii")


def _is_hidden(character: str) -> bool:
    # Cc: control; Cf: marks that turn the direction of text and the like; Cs: bytes of names that are not UTF-8
    return unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in _JOINERS
