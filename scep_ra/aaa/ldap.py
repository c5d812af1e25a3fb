"""Authorize by an LDAP directory: a device that has one entry may have a certificate.

The questions go over `scep_ra.ldap`; what attributes mean says `attributes`. Nothing is ever written.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scep_ra.aaa.attributes import accept_from
from scep_ra.aaa.base import AccessRequest, Decision, MalformedAnswer, Reject
from scep_ra.aaa.pool import Pool
from scep_ra.aaa.templates import check_template, fill_template
from scep_ra.errors import ConfigurationError
from scep_ra.ldap.connection import Address, Disconnected, Found, LdapConnection, Security
from scep_ra.ldap.filters import encode_filter, escape_value
from scep_ra.ldap.messages import Entry, Scope, Search
from scep_ra.secret_files import read_secret

_SCOPES: Final = {"one": Scope.ONE, "sub": Scope.SUB}
# One more than there may be: enough to see that there are several.
_MAX_ENTRIES: Final = 2
_NO_ATTRIBUTES: Final = "1.1"  # RFC 4511 4.5.1.8
# What servers drop, fold or replace before they compare (RFC 4518 2): a full-width SN1 would find the entry of SN1.
_AMBIGUOUS: Final = re.compile(r"[^ -~]|^ | $|  |^$")
_ANYTHING: Final = encode_filter("(objectClass=*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LdapSettings:
    """What an [aaa.NAME] of type "ldap" says; raises ConfigurationError when made."""

    address: Address
    tls: ssl.SSLContext = field(repr=False)
    bind_dn: str = ""
    password_file: Path | None = None
    base: str
    scope: Scope = Scope.SUB
    filter: str
    attributes: Mapping[str, str] = field(default_factory=dict)  # ours -> LDAP's
    accept_if: Mapping[str, Sequence[str]] = field(default_factory=dict)  # LDAP's -> one of these values
    pool_size: int = 4
    time_limit_s: int = 5  # for the server; ours is the caller's

    def __post_init__(self) -> None:
        check_template(self.filter)
        encode_filter(self.filter.translate(_NO_BRACES))
        # RFC 4513 5.1.2: a name without a password is an anonymous bind that looks like a success.
        if bool(self.bind_dn) != (self.password_file is not None):
            raise ConfigurationError("bind_dn and password_file go together: set both, or none to be anonymous")


# A variable stands for a value: without its braces the text is a filter already.
_NO_BRACES: Final = str.maketrans("", "", "{}")


def ldap_settings(options: Mapping[str, Any], *, data_directory: Path, timeout_s: float) -> LdapSettings:
    """Return the settings that the keys of a table make; raise ConfigurationError."""
    rest = dict(options)
    address = Address.from_url(rest.pop("url"), start_tls=rest.pop("start_tls"))
    if not (rest.pop("insecure_plaintext") or _is_protected(address)):
        raise ConfigurationError(
            f"{address.url} would carry questions and password in clear: use ldaps://, or set start_tls = true; "
            "insecure_plaintext = true allows it where something else protects the way"
        )
    password_file = rest.pop("password_file")
    return LdapSettings(
        address=address,
        tls=_tls(rest.pop("ca_file"), data_directory),
        password_file=data_directory / password_file if password_file else None,
        scope=_SCOPES[rest.pop("scope")],
        time_limit_s=max(1, round(timeout_s)),
        **rest,
    )


def _is_protected(address: Address) -> bool:
    """Return whether nobody on the way can read or change what is said."""
    if address.security is not Security.NONE or address.path or address.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(address.host).is_loopback
    except ValueError:
        return False


def _tls(ca_file: str, data_directory: Path) -> ssl.SSLContext:
    """Return a context that verifies chain and name, of TLS 1.2 or newer; there is none that does not."""
    try:
        return ssl.create_default_context(cafile=data_directory / ca_file if ca_file else None)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(
            f"ca_file {data_directory / ca_file} is no file of PEM certificates: {error}"
        ) from error


class LdapAuthorizer:
    """aaa.base.Authorizer over a directory."""

    def __init__(self, settings: LdapSettings) -> None:
        self._settings = settings
        self._pool = Pool(settings.pool_size, self._connect, broken=Disconnected)
        wanted = {name.lower(): None for name in (*settings.attributes.values(), *settings.accept_if)}
        self._wanted = tuple(wanted) or (_NO_ATTRIBUTES,)

    async def authorize(self, request: AccessRequest) -> Decision:
        """Accept a device that has one entry; raise Unavailable, MalformedAnswer or Misconfigured."""
        if _AMBIGUOUS.search(request.device_id.value):
            return Reject(
                reason="directories take the device ID for others: not ASCII, or with blanks that do not count"
            )
        text = fill_template(self._settings.filter, request, escape=escape_value)
        found = await self._search(self._settings.base, self._settings.scope, encode_filter(text), self._wanted)
        match found.entries:
            case ():
                elsewhere = f"; it refers to {', '.join(found.references)}, not followed" if found.references else ""
                return Reject(reason=f"the directory has no entry for the device{elsewhere}")
            case (entry,):
                return self._judge(entry)
            case _:
                listed = " and ".join(entry.dn for entry in found.entries)
                return Reject(reason=f"the directory has several entries for the device, such as {listed}")

    async def check(self) -> None:
        """Verify that we can bind and that the base is there; raise Unavailable or Misconfigured."""
        await self._search(self._settings.base, Scope.BASE, _ANYTHING, (_NO_ATTRIBUTES,))

    async def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    async def _search(self, base: str, scope: Scope, encoded: bytes, attributes: tuple[str, ...]) -> Found:
        search = Search(
            base=base,
            scope=scope,
            filter=encoded,
            attributes=attributes,
            max_entries=_MAX_ENTRIES,
            time_limit_s=self._settings.time_limit_s,
        )
        return await self._pool.ask(lambda connection: connection.search(search))

    async def _connect(self) -> LdapConnection:
        settings = self._settings
        # Read for each connection, so that the password can be changed while we run.
        password = await asyncio.to_thread(read_secret, settings.password_file) if settings.password_file else ""
        return await LdapConnection.open(settings.address, settings.tls, bind_dn=settings.bind_dn, password=password)

    def _judge(self, entry: Entry) -> Decision:
        for name, allowed in self._settings.accept_if.items():
            values = _values(entry, name)
            if not set(values) & set(allowed):
                said = ", ".join(values) or "nothing"
                return Reject(reason=f"the entry {entry.dn} says {name}: {said}; wanted: {' or '.join(allowed)}")
        return accept_from({ours: _values(entry, theirs) for ours, theirs in self._settings.attributes.items()})


def _values(entry: Entry, name: str) -> list[str]:
    """Return the values of an attribute as the text that they are: IDs of digits and TRUE stay so."""
    try:
        return [value.decode() for value in entry.attributes.get(name.lower(), ())]
    except UnicodeDecodeError:
        raise MalformedAnswer(f"attribute {name} of {entry.dn} is no text: do not map it") from None
