"""Find an authorizer by the `type` of an [aaa.NAME] table: built in, an entry point, or `package.module:Class`.

Each type is a factory: called with the Parts and the table's other keys, it returns an Authorizer or raises
ConfigurationError. A class whose __init__ takes these two is a factory. No authorizer is implemented here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import entry_points
from pkgutil import resolve_name
from typing import Any, Final

from scep_ra.aaa.base import Authorizer
from scep_ra.aaa.embedded import RegistryAuthorizer
from scep_ra.errors import ConfigurationError
from scep_ra.storage.base import DeviceStore

ENTRY_POINT_GROUP: Final = "scep_ra.authorizers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the running server lends to an authorizer; a new part is a new field, so factories keep working."""

    devices: DeviceStore


Options = Mapping[str, object]
AuthorizerFactory = Callable[[Parts, Options], Authorizer]


def _make_registry(parts: Parts, options: Options) -> Authorizer:
    if options:
        raise ConfigurationError(f'an authorizer of type "registry" takes no options: remove {", ".join(options)}')
    return RegistryAuthorizer(parts.devices)


_BUILT_IN: Final[Mapping[str, AuthorizerFactory]] = {"registry": _make_registry}


def load_authorizer(type_name: str, parts: Parts, options: Options) -> Authorizer:
    """Make the authorizer of this type; raise ConfigurationError when there is none or it refuses its options."""
    return _find_factory(type_name)(parts, options)


def _find_factory(type_name: str) -> AuthorizerFactory:
    # What is built in comes first, so that no installed package can take its place.
    if type_name in _BUILT_IN:
        return _BUILT_IN[type_name]
    installed = {entry.name: f"{entry.module}:{entry.attr}" for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if type_name in installed:
        return _import_factory(installed[type_name])
    if ":" in type_name:
        return _import_factory(type_name)
    known = sorted([*_BUILT_IN, *installed])
    nearest = get_close_matches(type_name, known, n=1)
    hint = f'did you mean "{nearest[0]}"?' if nearest else f"there are: {', '.join(known)}, or package.module:Class"
    raise ConfigurationError(f'there is no authorizer of type "{type_name}"; {hint}')


def _import_factory(path: str) -> AuthorizerFactory:
    try:
        factory: Any = resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f'cannot import the authorizer "{path}": {error}') from error
    if not callable(factory):
        raise ConfigurationError(f'the authorizer "{path}" is no class or function that makes one')
    return factory  # type: ignore[no-any-return]  # what a plugin's callable takes shows only when it is called
