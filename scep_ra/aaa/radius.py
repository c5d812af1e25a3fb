"""Ask a RADIUS server whether a device may have a certificate, by the convention of Cisco PKI-AAA.

The device is the user, the password a word that everybody knows; an Access-Accept counts with the AV pair
pki:cert-application=all. Octets, sockets and failover are `scep_ra.radius`'s work.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from scep_ra.aaa.attributes import accept_from
from scep_ra.aaa.base import Accept, AccessRequest, Decision, MalformedAnswer, Reject
from scep_ra.aaa.templates import check_template, fill_template
from scep_ra.errors import ConfigurationError
from scep_ra.radius.packets import MAX_TEXT_OCTETS, Code, Packet, cisco_av_pairs
from scep_ra.radius.transport import Address, RadiusClient, Rules, SignatureRule
from scep_ra.secret_files import read_secret

_OUTBOUND: Final = 5  # Service-Type of users that only authorize something (RFC 2865 5.6)
_MAX_PASSWORD_OCTETS: Final = 128  # RFC 2865 5.2
# Any name does: a Reject proves as much about server and secret as an Accept.
_CHECK_NAME: Final = "scep-ra-check"
_OWN_PREFIX: Final = "scep-ra:"
_SERVER: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
# What the convention says about this device and certificate; the rest is passed on.
_APPLICATION: Final = "pki:cert-application"
_TRUSTPOINT: Final = "pki:cert-trustpoint"
_SERIAL: Final = "pki:cert-serial"
_LIFETIME_END: Final = "pki:cert-lifetime-end"
_CONVENTION: Final = frozenset({_APPLICATION, _TRUSTPOINT, _SERIAL, _LIFETIME_END})


@dataclass(frozen=True, slots=True, kw_only=True)
class RadiusSettings:
    """What an [aaa.NAME] of type "radius" says, and where its secret lies; raises ConfigurationError when made."""

    servers: tuple[Address, ...]
    secret_file: Path
    user_name: str = "{device.value}"
    password: str = field(default="cisco", repr=False)
    nas_identifier: str = "scep-ra"
    require_cert_application: bool = True
    trustpoint: str = ""
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        check_template(self.user_name)
        if len(self.password.encode()) > _MAX_PASSWORD_OCTETS:
            raise ConfigurationError(f"password is longer than {_MAX_PASSWORD_OCTETS} octets (RFC 2865 5.2)")


def radius_settings(options: Mapping[str, Any], *, data_directory: Path, timeout_s: float) -> RadiusSettings:
    """Return the settings that the keys of a table make; raise ConfigurationError.

    `timeout_s` is how long the answer is waited for: the last server's turn has to come before.
    """
    rest = dict(options)
    signature_rule: SignatureRule = rest.pop("require_message_authenticator")
    rules = Rules(
        **{name: rest.pop(name) for name in ("retransmit_s", "tries", "dead_s")},
        require_message_authenticator=signature_rule,
    )
    servers = tuple(_address(text) for text in rest.pop("servers"))
    if len(servers) > 1 and rules.longest_s * (len(servers) - 1) >= timeout_s:
        raise ConfigurationError(
            f"retransmit_s and tries give each server {rules.longest_s:.1f} s, so within timeout_s = {timeout_s:g} s "
            "the last server is never asked: lower tries or retransmit_s"
        )
    return RadiusSettings(servers=servers, secret_file=data_directory / rest.pop("secret_file"), rules=rules, **rest)


def _address(text: str) -> Address:
    found = _SERVER.fullmatch(text)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise ConfigurationError(f"servers: {text!r} is not ADDRESS:PORT or [ADDRESS]:PORT")
    return Address(host=found["v6"] or found["host"], port=int(found["port"]))


class RadiusAuthorizer:
    """aaa.base.Authorizer over RADIUS servers that share a secret."""

    def __init__(self, settings: RadiusSettings, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._now = now
        self._client: RadiusClient | None = None

    async def authorize(self, request: AccessRequest) -> Decision:
        """Return what the first server that answers decides; raise Unavailable, MalformedAnswer or Misconfigured."""
        user_name = fill_template(self._settings.user_name, request)
        if not 0 < len(user_name.encode()) <= MAX_TEXT_OCTETS:
            # Never cut: the shorter name may be somebody else's.
            return Reject(reason=f"the device ID makes a User-Name that is not of 1 to {MAX_TEXT_OCTETS} octets")
        return self._judge(await self._ask(user_name, source=request.source), request)

    async def check(self) -> None:
        """Verify that a server answers and has our secret; raise Unavailable or Misconfigured."""
        await self._ask(_CHECK_NAME, source="")

    async def close(self) -> None:
        """Close the sockets."""
        if self._client is not None:
            await self._client.close()

    async def _ask(self, user_name: str, *, source: str) -> Packet:
        if self._client is None:
            secret = await asyncio.to_thread(read_secret, self._settings.secret_file)
            # Another question may have been faster.
            self._client = self._client or RadiusClient(self._settings.servers, secret.encode(), self._settings.rules)
        calling = (("Calling-Station-Id", source),) if source else ()
        return await self._client.exchange(
            Packet(
                code=Code.ACCESS_REQUEST,
                attributes=(
                    ("User-Name", user_name),
                    ("User-Password", self._settings.password),
                    ("Service-Type", _OUTBOUND),
                    ("NAS-Identifier", self._settings.nas_identifier),
                    *calling,
                ),
            )
        )

    def _judge(self, reply: Packet, request: AccessRequest) -> Decision:
        match reply.code:
            case Code.ACCESS_ACCEPT:
                pairs = cisco_av_pairs(reply)
                denial = next(self._denials(pairs, request), None)
                return Reject(reason=denial) if denial else self._accept(reply, pairs)
            case Code.ACCESS_CHALLENGE:
                return Reject(reason=f"the RADIUS server asks back, and no device can answer it{_message(reply)}")
            case _:
                return Reject(reason=f"the RADIUS server said Access-Reject{_message(reply)}")

    def _denials(self, pairs: Mapping[str, Sequence[str]], request: AccessRequest) -> Iterator[str]:
        """Yield why an Access-Accept is none; raise MalformedAnswer where it cannot be read."""
        applications = [value.lower() for value in pairs.get(_APPLICATION, ())]
        if "none" in applications:
            yield f"the AAA entry says {_APPLICATION}=none"
        if self._settings.require_cert_application and "all" not in applications:
            yield f"the AAA entry lacks the Cisco-AVPair {_APPLICATION}=all"
        trustpoints = pairs.get(_TRUSTPOINT, ())
        if self._settings.trustpoint and trustpoints and self._settings.trustpoint not in trustpoints:
            yield f"the AAA entry is for {_TRUSTPOINT}={', '.join(trustpoints)}"
        # A first certificate has no serial yet that the entry could mean.
        serials = [_certificate_serial(text) for text in pairs.get(_SERIAL, ()) if request.renewal]
        if serials and request.certificate_serial not in serials:
            yield f"the AAA entry says {_SERIAL}={', '.join(pairs[_SERIAL])}, which is another certificate"

    def _accept(self, reply: Packet, pairs: Mapping[str, Sequence[str]]) -> Accept:
        attributes: dict[str, list[str]] = {}
        for name, values in pairs.items():
            if name not in _CONVENTION:
                attributes.setdefault(name.removeprefix(_OWN_PREFIX), []).extend(values)
        classes = [_class_text(value) for value in reply.values("Class") if isinstance(value, bytes)]
        accept = accept_from({**attributes, "class": [*attributes.get("class", ()), *classes]})
        ends = [accept.not_after, *map(_lifetime_end, pairs.get(_LIFETIME_END, ()))]
        session_s = reply.number("Session-Timeout")
        if session_s:  # 0 is how some servers write "none"
            ends.append(self._now() + timedelta(seconds=session_s))
        return replace(accept, not_after=min((end for end in ends if end is not None), default=None))


def _message(reply: Packet) -> str:
    message = " ".join(reply.texts("Reply-Message"))
    return f": {message!r}" if message else ""


def _certificate_serial(text: str) -> int:
    """Return the number that IOS writes as hexadecimal digits, with or without separators."""
    try:
        return int(re.sub(r"[: -]", "", text), 16)
    except ValueError:
        raise MalformedAnswer(f"the AAA entry says {_SERIAL}={text[:64]!r}: write hexadecimal digits") from None


def _lifetime_end(text: str) -> datetime:
    try:
        return datetime.strptime(" ".join(text.split()), "%H:%M %b %d, %Y").replace(tzinfo=UTC)
    except ValueError:
        raise MalformedAnswer(
            f"the AAA entry says {_LIFETIME_END}={text[:40]!r}: write hh:mm Mon dd, yyyy in UTC, such as "
            "18:00 Dec 31, 2027"
        ) from None


def _class_text(octets: bytes) -> str:
    """Return a Class as text, or as hexadecimal digits: it may be anything (RFC 2865 5.25)."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        text = ""
    return text if text.isprintable() and text else f"0x{octets.hex()}"
