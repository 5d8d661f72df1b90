"""Objects whose facts are also read and written under the keys that facebookresearch/sam2's dictionaries have."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, ClassVar


class Keyed(MutableMapping[str, Any]):
    """A mapping over an object's attributes: `get`, `in`, `keys`, `[...] =` and the rest work as on a dictionary.

    Attributes:
        keys_of_attributes: key → attribute, read and written.
        keys_computed: key → function of the object. What is written under such a key hides what would be computed.
        extra: what was written under any other key.
    """

    keys_of_attributes: ClassVar[Mapping[str, str]] = {}
    keys_computed: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    extra: dict[str, Any]

    def __getitem__(self, key: str) -> Any:
        if key in self.keys_of_attributes:
            return getattr(self, self.keys_of_attributes[key])
        if key in self.extra:
            return self.extra[key]
        if key in self.keys_computed:
            return self.keys_computed[key](self)
        raise KeyError(key)

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self.keys_of_attributes:
            setattr(self, self.keys_of_attributes[key], value)
        else:
            self.extra[key] = value

    def __delitem__(self, key: str) -> None:
        del self.extra[key]

    def __contains__(self, key: object) -> bool:
        return key in self.keys_of_attributes or key in self.keys_computed or key in self.extra

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self.keys_of_attributes, *self.keys_computed, *self.extra)))

    def __len__(self) -> int:
        return len({*self.keys_of_attributes, *self.keys_computed, *self.extra})

    def __bool__(self) -> bool:
        return True

    def copy(self) -> dict[str, Any]:
        """A dictionary of all keys and what they hold now."""
        return dict(self)
