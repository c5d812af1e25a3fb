"""Claims about the subjectAltName entries of a profile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.enrollment.alternative_names import DirectoryEntry, RequestedNames, TextEntry, read_entry
from scep_ra.enrollment.errors import NamingImpossible
from scep_ra.identity.types import parse_device_id
from scep_ra.pki import der
from scep_ra.pki.general_names import encode_general_name, parse_general_names, read_general_name
from tests.support.naming import SERIAL

MAC = "mac:00:24:be:80:4f:f1"


def made(entry: str, value: str | None = None, *, device: str = SERIAL) -> bytes | None:
    """Fill every variable with the value, or with that of the device."""
    read, device_id = read_entry(entry), parse_device_id(device)
    if isinstance(read, DirectoryEntry):
        return read.fill(lambda _: value)
    assert isinstance(read, TextEntry)
    return read.fill(lambda variable: device_id.value if variable.name == "device.value" else value, device_id)


@pytest.mark.parametrize(
    ("entry", "value", "expected"),
    [
        ("dns:{attribute.x}", "router1.example.com", "dns:router1.example.com"),
        ("dns:{attribute.x}.example.com", "router1", "dns:router1.example.com"),
        ("dns:*.{attribute.x}", "example.com", "dns:*.example.com"),
        ("dns:*.example.com", None, "dns:*.example.com"),
        ("email:{attribute.x}", "a.b+c@example.com", "email:a.b+c@example.com"),
        ("ip:{attribute.x}", "2001:DB8::1", "ip:2001:db8::1"),
        ("upn:{user}@example.com", "josé", "upn:josé@example.com"),
        ("uri:{attribute.x}", "https://example.com/a?b=c#d", "uri:https://example.com/a?b=c#d"),
        ("uri:urn:device:{attribute.x}", "a/b?c#d@é", "uri:urn:device:a%2Fb%3Fc%23d%40%C3%A9"),
        ("uri:https://{attribute.x}.example.com/", "evil.com:80/", "uri:https://evil.com%3A80%2F.example.com/"),
        ("directory:CN={attribute.x},O=Example", "a,O=b", r"directory:CN=a\,O\=b,O=Example"),
    ],
)
def test_an_entry_becomes_a_name_of_its_kind(entry: str, value: str | None, expected: str) -> None:
    """What goes into a URI is percent-encoded, unless it is the whole URI."""
    name = made(entry, value)
    assert name is not None
    assert tuple(map(str, parse_general_names(der.sequence(name)))) == (expected,)


@pytest.mark.parametrize(
    ("entry", "device", "expected"),
    [
        ("uri:urn:device:{device.value}", MAC, "uri:urn:device:00:24:be:80:4f:f1"),
        ("hardware-module:{device.value}", "hwmodule:1.3.6.1.4.1.9.21:FTX1", "hardware-module:1.3.6.1.4.1.9.21:FTX1"),
        ("hardware-module:1.2.3:{device.value}", SERIAL, f"hardware-module:1.2.3:{SERIAL}"),
        ("permanent-identifier:{device.value}", SERIAL, f"permanent-identifier::{SERIAL}"),
        ("permanent-identifier:{device.value}", MAC, "permanent-identifier::00:24:be:80:4f:f1"),
        ("permanent-identifier:{device.value}", "permanent:1.2.3:box", "permanent-identifier:1.2.3:box"),
        ("permanent-identifier:1.2.3:{device.value}", SERIAL, f"permanent-identifier:1.2.3:{SERIAL}"),
    ],
)
def test_device_ids_take_the_form_of_their_rfc(entry: str, device: str, expected: str) -> None:
    """RFC 4108 5 and RFC 4043 2."""
    assert made(entry, device=device) == encode_general_name(read_general_name(expected))


def test_a_value_of_aaa_cannot_choose_the_assigner() -> None:
    """Only the template, or a device ID that has one."""
    assert made("permanent-identifier:{attribute.x}", "1.2.3:admin") == encode_general_name(
        read_general_name("permanent-identifier::1.2.3:admin")
    )


@pytest.mark.parametrize("entry", ["dns:{attribute.x?}", "uri:urn:x:{attribute.x?}", "directory:CN={attribute.x?}"])
def test_an_entry_without_its_optional_value_is_left_out(entry: str) -> None:
    """Not every device has every name."""
    assert made(entry) is None


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("dns:{attribute.x}", "*.example.com"),
        ("dns:{attribute.x}", "a_b.example.com"),
        ("dns:{attribute.x}", "-a.example.com"),
        ("dns:{attribute.x}", "a..example.com"),
        ("dns:{attribute.x}", "example.com."),
        ("dns:{attribute.x}", "192.0.2.1"),
        ("dns:{attribute.x}", "a" * 64),
        ("dns:{attribute.x}", ".".join(["a" * 60] * 5)),
        ("dns:{attribute.x}", "bücher.example"),
        ("dns:{attribute.x}.example.com", "evil.com/"),
        ("dns:{attribute.x}", "a.example\0.evil"),
        ("dns:*.{attribute.x}", "*.com"),
        ("ip:{attribute.x}", "192.0.2.1/24"),
        ("email:{attribute.x}", "alice"),
        ("email:{attribute.x}", "a@b@c"),
        ("email:{attribute.x}", "a b@example.com"),
        ("email:{attribute.x}", "jos\u00e9@example.com"),
        ("upn:{user}@example.com", "admin@corp"),
        ("upn:{user}@example.com", "a b"),
        ("uri:{attribute.x}", "example.com/a"),
        ("uri:{attribute.x}", "https://a b"),
        ("uri:{attribute.x}", "https://example.com/%zz"),
        ("hardware-module:{attribute.x}", "FTX1"),
        ("permanent-identifier:x:{attribute.x}", "a"),
    ],
)
def test_a_value_that_its_kind_does_not_allow_is_refused(entry: str, value: str) -> None:
    """Rather than read differently by some relying party."""
    with pytest.raises(NamingImpossible, match=r"^subjectAltName "):
        made(entry, value)


@given(value=st.text(max_size=30))
def test_a_value_in_a_uri_stays_in_its_place(value: str) -> None:
    """It can neither end the host nor begin a path, query or fragment."""
    name = made("uri:https://{attribute.x}.example.com/", value)
    assert name is not None
    ((uri,),) = (parse_general_names(der.sequence(name)),)
    middle = uri.text.removeprefix("https://").removesuffix(".example.com/")
    assert not set("/?#@:[]") & set(middle)


@pytest.mark.parametrize(
    ("entry", "pattern"),
    [
        ("router1", "'router1': write \"csr\", or KIND:TEMPLATE with KIND one of email, dns, uri, ip, upn, directory"),
        ("dns:", "'dns:': write"),
        ("CSR", 'write "csr"'),
        ("dns:{host}", r"there is no variable \{host\}"),
        ("dns:a_b", "'dns:a_b' is not a host name"),
        ("ip:192.0.2", "not an IPv4"),
        ("directory:router1", "write KEY=value"),
    ],
)
def test_an_entry_that_cannot_be_read_says_what_is_allowed(entry: str, pattern: str) -> None:
    """At start; constant names are checked there, too."""
    with pytest.raises(ValueError, match=pattern):
        read_entry(entry)


def test_csr_stands_for_the_names_of_the_request() -> None:
    """`naming` carries it out."""
    assert read_entry("csr") == RequestedNames()
