"""The RADIUS authorizer reads Cisco's PKI-AAA convention, against a server whose every answer a test chooses."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from scep_ra.aaa import registry
from scep_ra.aaa.base import Accept, AccessRequest, Authorizer, Decision, MalformedAnswer, Reject
from scep_ra.aaa.radius import RadiusAuthorizer, radius_settings
from scep_ra.aaa.registry import Parts, load_authorizer
from scep_ra.errors import ConfigurationError, Misconfigured, Unavailable
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.radius.packets import Code, Packet, Value, decode_request, encode_reply
from scep_ra.storage.sql import SqlStore
from tests.support.radius_server import SECRET, FakeServer, fake_server
from tests.support.records import HOUR, NOW

OPTIONS: dict[str, Any] = {
    "servers": ("127.0.0.1:1812",),
    "secret_file": "radius.secret",
    "user_name": "{device.value}",
    "password": "cisco",
    "nas_identifier": "ra1",
    "require_message_authenticator": "yes",
    "require_cert_application": True,
    "trustpoint": "",
    "retransmit_s": 5.0,
    "tries": 1,
    "dead_s": 30.0,
}
ALL = "pki:cert-application=all"
CLASS = b"\x00\xff"


def request(value: str = "SN1", *, serial: int | None = None) -> AccessRequest:
    return AccessRequest(
        device_id=DeviceID(kind=DeviceIDKind.SERIAL, value=value),
        profile="vpn",
        source="192.0.2.7",
        renewal=serial is not None,
        certificate_serial=serial,
    )


@asynccontextmanager
async def backend(
    directory: Path, *attributes: tuple[str, Value], code: Code = Code.ACCESS_ACCEPT, **options: Any
) -> AsyncIterator[tuple[Authorizer, FakeServer]]:
    """Make an authorizer whose server gives always this answer."""

    def script(octets: bytes, _count: int) -> Sequence[bytes]:
        return [encode_reply(Packet(code=code, attributes=attributes), decode_request(octets, SECRET), SECRET)]

    write_secret(directory)
    async with fake_server(script) as server:
        settings = radius_settings(
            {**OPTIONS, "servers": (str(server.address),), **options}, data_directory=directory, timeout_s=9
        )
        authorizer = RadiusAuthorizer(settings, lambda: NOW)
        try:
            yield authorizer, server
        finally:
            await authorizer.close()


def write_secret(directory: Path, secret: bytes = SECRET) -> None:
    file = directory / "radius.secret"
    file.touch(mode=0o600)
    file.write_bytes(secret + b"\n")


def pairs(*texts: str) -> tuple[tuple[str, Value], ...]:
    return tuple(("Cisco-AVPair", text) for text in texts)


def unproved(octets: bytes) -> Packet:
    """Return as much of a request as an answer needs, whatever secret it was made with."""
    return Packet(code=Code.ACCESS_REQUEST, identifier=octets[1], authenticator=octets[4:20])


async def decide(directory: Path, *texts: str, serial: int | None = None, **options: Any) -> Decision:
    """Return what follows from an Access-Accept with these AV pairs."""
    async with backend(directory, *pairs(*texts), **options) as (authorizer, _):
        return await authorizer.authorize(request(serial=serial))


# --- the question --------------------------------------------------------------------------------------------------


async def test_the_question_has_the_attributes_of_the_convention(tmp_path: Path) -> None:
    """And is signed."""
    async with backend(tmp_path, *pairs(ALL), user_name="{device}@{profile}") as (authorizer, server):
        await authorizer.authorize(request())
    asked = decode_request(server.received[0], SECRET)
    assert asked.attributes[1:] == (
        ("User-Name", "serial:SN1@vpn"),
        ("User-Password", "cisco"),
        ("Service-Type", 5),
        ("NAS-Identifier", "ra1"),
        ("Calling-Station-Id", "192.0.2.7"),
    )


async def test_an_id_that_does_not_fit_is_refused_without_asking(tmp_path: Path) -> None:
    """Cut to size it could be the name of another device."""
    async with backend(tmp_path, *pairs(ALL), user_name="{device.value}" * 5) as (authorizer, server):
        fits = await authorizer.authorize(request("A1" * 25))
        too_long = await authorizer.authorize(request("A1" * 25 + "B"))
    assert isinstance(fits, Accept)
    assert too_long == Reject(reason="the device ID makes a User-Name that is not of 1 to 253 octets")
    assert len(server.received) == 1


async def test_an_empty_name_is_refused_without_asking(tmp_path: Path) -> None:
    """RFC 2865 5 has no empty attributes."""
    async with backend(tmp_path, *pairs(ALL), user_name="") as (authorizer, server):
        assert isinstance(await authorizer.authorize(request()), Reject)
    assert not server.received


@pytest.mark.parametrize("value", ["*)(CN=*", "SN1\\0", "' OR 1=1 --", "%{USER-PASSWORD}", "SN1/../SN2", '"; REJECT'])
async def test_no_device_id_leaves_its_attribute(tmp_path: Path, value: str) -> None:
    """Whatever it is written in, it arrives as one User-Name."""
    async with backend(tmp_path, *pairs(ALL)) as (authorizer, server):
        await authorizer.authorize(request(value))
    asked = decode_request(server.received[0], SECRET)
    assert asked.texts("User-Name") == (request(value).device_id.value,)
    assert [name for name, _ in asked.attributes[2:]] == [
        "User-Password",
        "Service-Type",
        "NAS-Identifier",
        "Calling-Station-Id",
    ]


# --- the answer ----------------------------------------------------------------------------------------------------


async def test_an_accept_with_the_permit_is_a_yes(tmp_path: Path) -> None:
    """The convention itself becomes no attribute."""
    assert await decide(tmp_path, ALL, "pki:cert-trustpoint=RA", "pki:cert-serial=0A") == Accept()


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        ((), "the AAA entry lacks the Cisco-AVPair pki:cert-application=all"),
        (("pki:cert-application=some",), "the AAA entry lacks the Cisco-AVPair pki:cert-application=all"),
        (("pki:cert-application=none", ALL), "the AAA entry says pki:cert-application=none"),
        ((ALL, "pki:cert-trustpoint=LAB"), "the AAA entry is for pki:cert-trustpoint=LAB"),
    ],
)
async def test_an_accept_without_permit_is_a_no(tmp_path: Path, texts: tuple[str, ...], reason: str) -> None:
    """A user of some other service must not get a certificate."""
    assert await decide(tmp_path, *texts, trustpoint="VPN") == Reject(reason=reason)


@pytest.mark.parametrize(
    "texts", [(), ("pki:cert-trustpoint=VPN",), ("pki:cert-trustpoint=LAB", "pki:cert-trustpoint=VPN")]
)
async def test_the_permit_holds_for_our_trustpoint_or_for_all(tmp_path: Path, texts: tuple[str, ...]) -> None:
    """An entry need not name any."""
    assert await decide(tmp_path, ALL, *texts, trustpoint="VPN") == Accept()


async def test_the_permit_need_not_be_there_where_the_option_says_so(tmp_path: Path) -> None:
    """But "none" stays a no."""
    assert await decide(tmp_path, require_cert_application=False) == Accept()
    denied = await decide(tmp_path, "pki:cert-application=none", require_cert_application=False)
    assert isinstance(denied, Reject)


@pytest.mark.parametrize("text", ["0A1B", "0x0a1b", "0a:1b", "A1B"])
async def test_a_renewal_has_to_be_of_the_certificate_that_the_entry_names(tmp_path: Path, text: str) -> None:
    """However the serial is written; a first enrollment has none to compare."""
    pair = f"pki:cert-serial={text}"
    assert await decide(tmp_path, ALL, pair, serial=0x0A1B) == Accept()
    assert await decide(tmp_path, ALL, pair) == Accept()
    assert await decide(tmp_path, ALL, pair, serial=0x0A1C) == Reject(
        reason=f"the AAA entry says pki:cert-serial={text}, which is another certificate"
    )


async def test_the_certificate_ends_when_the_entry_says(tmp_path: Path) -> None:
    """By the convention, by our own attribute, by the session; the earliest holds."""
    end = "pki:cert-lifetime-end=20:00 Jan 05, 2027"
    own = "scep-ra:valid_until=2027-01-04T00:00:00Z"
    assert await decide(tmp_path, ALL, end) == Accept(not_after=datetime.fromisoformat("2027-01-05T20:00:00Z"))
    assert await decide(tmp_path, ALL, end, own) == Accept(not_after=datetime.fromisoformat("2027-01-04T00:00:00Z"))
    async with backend(tmp_path, *pairs(ALL, end, own), ("Session-Timeout", 3600)) as (authorizer, _):
        assert await authorizer.authorize(request()) == Accept(not_after=NOW + HOUR)
    async with backend(tmp_path, *pairs(ALL), ("Session-Timeout", 0)) as (authorizer, _):
        assert await authorizer.authorize(request()) == Accept()


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ("pki:cert-lifetime-end=2027-01-05", "write hh:mm Mon dd, yyyy in UTC"),
        ("pki:cert-serial=xyz", "write hexadecimal digits"),
        ("scep-ra:approval=perhaps", "write true or false"),
    ],
)
async def test_what_cannot_be_read_is_no_answer(tmp_path: Path, pair: str, reason: str) -> None:
    """Neither a yes nor a no: somebody meant something by it."""
    with pytest.raises(MalformedAnswer, match=reason):
        await decide(tmp_path, ALL, pair, serial=1)


async def test_pairs_become_attributes(tmp_path: Path) -> None:
    """Ours without their prefix, those of others as they are, several values as lines."""
    decision = await decide(
        tmp_path,
        ALL,
        "scep-ra:user=alice",
        "scep-ra:profile=long",
        "scep-ra:services=vpn,wifi",
        "scep-ra:approval=yes",
        "scep-ra:dns=a.example",
        "scep-ra:dns=b.example",
        "ip:addr-pool=phones",
    )
    assert decision == Accept(
        attributes={"user": "alice", "dns": "a.example\nb.example", "ip:addr-pool": "phones"},
        profile="long",
        services=frozenset({"vpn", "wifi"}),
        approval=True,
    )


@pytest.mark.parametrize(
    ("octets", "text"), [(b"sales", "sales"), (b"\x00\xff", "0x00ff"), (b"a\nb", "0x610a62"), (b"", "0x")]
)
async def test_the_class_is_kept(tmp_path: Path, octets: bytes, text: str) -> None:
    """As text where it is some."""
    async with backend(tmp_path, *pairs(ALL), ("Class", octets)) as (authorizer, _):
        assert await authorizer.authorize(request()) == Accept(attributes={"class": text})


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (Code.ACCESS_REJECT, "the RADIUS server said Access-Reject"),
        (Code.ACCESS_CHALLENGE, "the RADIUS server asks back, and no device can answer it"),
    ],
)
async def test_a_no_is_passed_on_with_its_message(tmp_path: Path, code: Code, reason: str) -> None:
    """Even with a permit beside it; what the server wrote is quoted."""
    async with backend(tmp_path, *pairs(ALL), code=code) as (authorizer, _):
        assert await authorizer.authorize(request()) == Reject(reason=reason)
    async with backend(tmp_path, ("Reply-Message", "lost\nphone"), code=code) as (authorizer, _):
        assert await authorizer.authorize(request()) == Reject(reason=f"{reason}: 'lost\\nphone'")


# --- server and secret ---------------------------------------------------------------------------------------------


async def test_the_check_is_content_with_any_answer(tmp_path: Path) -> None:
    """A Reject proves that server and secret are right."""
    async with backend(tmp_path, code=Code.ACCESS_REJECT) as (authorizer, server):
        await authorizer.check()
    assert decode_request(server.received[0], SECRET).text("User-Name") == "scep-ra-check"


async def test_questions_share_a_socket(tmp_path: Path) -> None:
    """Those that come first at the same time, too."""
    async with backend(tmp_path, *pairs(ALL)) as (authorizer, server):
        await asyncio.gather(*(authorizer.authorize(request()) for _ in range(3)))
        await authorizer.authorize(request())
    assert len(set(server.senders)) == 1


async def test_a_wrong_secret_is_no_answer(tmp_path: Path) -> None:
    """And nothing that the server says with it is believed."""
    async with backend(tmp_path, *pairs(ALL), retransmit_s=0.05) as (authorizer, server):
        write_secret(tmp_path, b"Tr0ub4dor")
        yes = Packet(code=Code.ACCESS_ACCEPT, attributes=pairs(ALL))
        server.script = lambda octets, _count: [encode_reply(yes, unproved(octets), SECRET)]
        with pytest.raises(
            Unavailable, match="the last because the authenticators are wrong: another secret"
        ) as caught:
            await authorizer.authorize(request())
    assert "Tr0ub4dor" not in str(caught.value)


async def test_without_its_secret_a_backend_needs_a_person(tmp_path: Path) -> None:
    """And works when the file is there; nothing was opened, so nothing is to be closed."""
    settings = radius_settings(OPTIONS, data_directory=tmp_path, timeout_s=9)
    authorizer = RadiusAuthorizer(settings, lambda: NOW)
    with pytest.raises(Misconfigured, match=r"radius\.secret should hold a secret"):
        await authorizer.check()
    await authorizer.close()


# --- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"servers": ("radius",)}, "servers: 'radius' is not ADDRESS:PORT"),
        ({"servers": ("radius:0",)}, "servers: 'radius:0' is not"),
        ({"servers": ("radius:65536",)}, "servers: 'radius:65536' is not"),
        ({"servers": ("2001:db8::1:1812",)}, "servers: '2001:db8::1:1812' is not"),
        ({"user_name": "{serial}"}, r"\{serial\} is no variable"),
        ({"password": "x" * 129}, "password is longer than 128 octets"),
        (
            {"servers": ("a:1", "b:1"), "retransmit_s": 1.0, "tries": 3},
            r"each server 8\.3 s, so within timeout_s = 5 s the last server is never asked",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, options: dict[str, object], reason: str) -> None:
    """Before anything is served."""
    with pytest.raises(ConfigurationError, match=reason):
        radius_settings({**OPTIONS, **options}, data_directory=tmp_path, timeout_s=5)


def test_servers_are_names_or_addresses(tmp_path: Path) -> None:
    """IPv6 in brackets."""
    servers = ("radius.example:1812", "[2001:db8::1]:1645")
    settings = radius_settings(
        {**OPTIONS, "servers": servers, "retransmit_s": 1.0}, data_directory=tmp_path, timeout_s=5
    )
    assert tuple(map(str, settings.servers)) == servers


def test_the_password_is_not_shown(tmp_path: Path) -> None:
    """It is no secret by convention, and one at some sites."""
    settings = radius_settings({**OPTIONS, "password": "Tr0ub4dor"}, data_directory=tmp_path, timeout_s=5)
    assert "Tr0ub4dor" not in repr(settings)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(devices=SqlStore.__new__(SqlStore), now=lambda: NOW, name="acs", data_directory=tmp_path)


def test_the_registry_makes_one(parts: Parts) -> None:
    """By its type."""
    assert isinstance(load_authorizer("radius", parts, OPTIONS), RadiusAuthorizer)


def test_a_missing_library_is_named_with_its_cure(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not everybody installs it."""
    monkeypatch.setitem(sys.modules, "scep_ra.aaa.radius", None)
    with pytest.raises(Misconfigured, match=r'\[aaa\.acs\] needs .*: run pip install "scep-ra\[radius\]"'):
        registry.load_authorizer("radius", parts, OPTIONS)
