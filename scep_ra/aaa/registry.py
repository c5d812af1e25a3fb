"""Find an authorizer by the `type` of an [aaa.NAME] table: built in, an entry point, or `package.module:Class`.

Each type is a factory: called with the Parts and the table's other keys, it returns an Authorizer or raises
ConfigurationError. A class whose __init__ takes these two is a factory. No authorizer is implemented here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from scep_ra.aaa.accept_all import AcceptAll
from scep_ra.aaa.base import Authorizer
from scep_ra.aaa.command import CommandAuthorizer, command_settings
from scep_ra.aaa.embedded import RegistryAuthorizer
from scep_ra.aaa.ldap import LdapAuthorizer, ldap_settings
from scep_ra.aaa.sql import SqlAuthorizer, sql_settings
from scep_ra.aaa.sql_sqlite import SqliteSource
from scep_ra.errors import ConfigurationError, Misconfigured, ScepRaError
from scep_ra.plugins import find_factory, find_path
from scep_ra.storage.base import DeviceStore

ENTRY_POINT_GROUP: Final = "scep_ra.authorizers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the running server lends to an authorizer; a new part is a new field, so factories keep working."""

    devices: DeviceStore
    now: Callable[[], datetime]
    name: str = ""  # of the table [aaa.NAME], for messages
    data_directory: Path = Path()  # what file names in options are relative to
    timeout_s: float = 5.0  # after this nobody waits for the answer any more


Options = Mapping[str, object]
AuthorizerFactory = Callable[[Parts, Options], Authorizer]


def _make_registry(parts: Parts, options: Options) -> Authorizer:
    if options:
        raise ConfigurationError(f'an authorizer of type "registry" takes no options: remove {", ".join(options)}')
    return RegistryAuthorizer(parts.devices, parts.now)


def _make_accept_all(_parts: Parts, options: Options) -> Authorizer:
    if options:
        raise ConfigurationError(f'an authorizer of type "accept-all" takes no options: remove {", ".join(options)}')
    return AcceptAll()


def _make_radius(parts: Parts, options: Options) -> Authorizer:
    try:
        from scep_ra.aaa.radius import RadiusAuthorizer, radius_settings  # noqa: PLC0415 - its library is an extra
    except ModuleNotFoundError as error:
        raise _lacking(parts, error, extra="radius") from error
    settings = radius_settings(options, data_directory=parts.data_directory, timeout_s=parts.timeout_s)
    return RadiusAuthorizer(settings, parts.now)


def _make_http(parts: Parts, options: Options) -> Authorizer:
    # The client takes longer to import than a command may take to start.
    from scep_ra.aaa.http import HttpAuthorizer, http_settings  # noqa: PLC0415

    settings = http_settings(options, data_directory=parts.data_directory, timeout_s=parts.timeout_s)
    return HttpAuthorizer(settings, parts.now)


def _make_ldap(parts: Parts, options: Options) -> Authorizer:
    return LdapAuthorizer(ldap_settings(options, data_directory=parts.data_directory, timeout_s=parts.timeout_s))


def _make_sql(parts: Parts, options: Options) -> Authorizer:
    settings = sql_settings(options, data_directory=parts.data_directory, timeout_s=parts.timeout_s)
    if not settings.dsn:
        return SqlAuthorizer(settings, SqliteSource(settings))
    try:
        from scep_ra.aaa.sql_postgresql import PostgresqlSource  # noqa: PLC0415 - its library is an extra
    except ModuleNotFoundError as error:
        raise _lacking(parts, error, extra="postgresql") from error
    return SqlAuthorizer(settings, PostgresqlSource(settings))


def _make_command(parts: Parts, options: Options) -> Authorizer:
    return CommandAuthorizer(command_settings(options, data_directory=parts.data_directory))


def _lacking(parts: Parts, error: ModuleNotFoundError, *, extra: str) -> Misconfigured:
    return Misconfigured(f'[aaa.{parts.name}] needs {error.name}: run pip install "scep-ra[{extra}]"')


_BUILT_IN: Final[Mapping[str, AuthorizerFactory]] = {
    "accept-all": _make_accept_all,
    "command": _make_command,
    "http": _make_http,
    "ldap": _make_ldap,
    "radius": _make_radius,
    "registry": _make_registry,
    "sql": _make_sql,
}


def load_authorizer(type_name: str, parts: Parts, options: Options) -> Authorizer:
    """Make the authorizer of this type; raise ConfigurationError when there is none or it refuses its options."""
    factory = find_factory(type_name, built_in=_BUILT_IN, group=ENTRY_POINT_GROUP, noun="authorizer")
    try:
        return factory(parts, options)
    except ConfigurationError as error:
        raise ConfigurationError(f"[aaa.{parts.name}]: {error}") from error
    except ScepRaError:
        raise
    except Exception as error:
        # Above all a plug-in that takes other arguments. Its text may quote options, and these a secret.
        raise ConfigurationError(
            f'the authorizer "{type_name}" of [aaa.{parts.name}] cannot be made: {type(error).__name__}; -v shows more'
        ) from error


def check_type(type_name: str, known: Collection[str]) -> None:
    """Check that a plug-in has this name or that it is a path; `known` types are for the message.

    Nothing is imported. Raise ConfigurationError.
    """
    find_path(type_name, built_in=known, group=ENTRY_POINT_GROUP, noun="authorizer")
