"""Find what a `type` in the configuration names: something built in, an entry point, or `package.module:Class`.

Used by the registries of the ports; no port and no plug-in is known here.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any, TypeVar

from scep_ra.errors import ConfigurationError

_Factory = TypeVar("_Factory")


def find_factory(type_name: str, *, built_in: Mapping[str, _Factory], group: str, noun: str) -> _Factory:
    """Return the factory of this type; raise ConfigurationError, with `noun` for what is sought.

    What is built in comes first, so that no installed package can take its place.
    """
    if type_name in built_in:
        return built_in[type_name]
    path = find_path(type_name, built_in=built_in, group=group, noun=noun)
    try:
        factory: Any = resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        mend = f"look at its type, and whether it is installed where {sys.executable} finds it"
        raise ConfigurationError(f'cannot import the {noun} "{path}": {error}; {mend}') from error
    if not callable(factory):
        raise ConfigurationError(f'the {noun} "{path}" is no class or function that makes one')
    return factory  # type: ignore[no-any-return]  # what a plug-in's callable takes shows only when it is called


def find_path(type_name: str, *, built_in: Collection[str], group: str, noun: str) -> str:
    """Return the `package.module:Class` of a plug-in without importing it; raise ConfigurationError."""
    installed = {entry.name: entry.value for entry in entry_points(group=group)}
    path = installed.get(type_name, type_name)
    if ":" not in path:
        known = sorted([*built_in, *installed])
        nearest = get_close_matches(type_name, known, n=1)
        hint = f'did you mean "{nearest[0]}"?' if nearest else f"there are: {', '.join(known)}, or package.module:Class"
        raise ConfigurationError(f'there is no {noun} of type "{type_name}"; {hint}')
    return path
