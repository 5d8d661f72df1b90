"""Configuration files as upstream's scripts read them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grounding_dino.groundingdino.configuration import read_settings


class SLConfig(dict[str, Any]):
    """Settings by key or attribute; dictionaries in it too."""

    @staticmethod
    def fromfile(filename: str | Path) -> SLConfig:
        """Read a configuration file, or the one of the official models that has its name.

        The literal values that a Python file assigns are read; it is never executed.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a configuration file.
        """
        return SLConfig(read_settings(filename))

    def __init__(self, cfg_dict: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        for key, value in (cfg_dict or {}).items():
            self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        is_plain = isinstance(value, Mapping) and not isinstance(value, SLConfig)
        super().__setitem__(key, SLConfig(value) if is_plain else value)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the config has no setting {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def merge_from_dict(self, options: Mapping[str, Any]) -> None:
        """Set values by keys that may have dots in them, `{"model.backbone": …}`."""
        for key, value in options.items():
            *path, last = key.split(".")
            place = self
            for name in path:
                place = place.setdefault(name, SLConfig())
            place[last] = value
