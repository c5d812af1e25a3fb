"""Claims about what certificates are called, docs/naming.md included."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.enrollment.errors import NameNotVouched, NamingImpossible
from scep_ra.enrollment.naming import CertificateNames, NamingFacts, NamingRules
from scep_ra.enrollment.vouching import NamingFacts as SameFacts
from scep_ra.identity.extract import choose_device_id, extract_claims
from scep_ra.identity.types import DeviceIDKind
from scep_ra.pki import der, oids
from scep_ra.pki.general_names import encode_general_names, parse_general_names, read_general_name
from scep_ra.pki.names import format_name, parse_name, rdns
from tests.support.naming import SERIAL, facts

IMEI = "490154203237518"
IOS_SUBJECT = f"serialNumber={SERIAL}+unstructuredName=router1.example.com,CN=router1"


def alternatives(names: CertificateNames) -> tuple[str, ...]:
    return () if names.subject_alt_name is None else tuple(map(str, parse_general_names(names.subject_alt_name)))


def replaced(known: NamingFacts, *, subject: bytes | None = None, alternative: bytes | None = None) -> NamingFacts:
    return NamingFacts(
        device_id=known.device_id,
        profile=known.profile,
        attributes=known.attributes,
        csr_subject=known.csr_subject if subject is None else subject,
        csr_subject_alt_name=known.csr_subject_alt_name if alternative is None else alternative,
    )


def test_the_facts_are_had_from_here() -> None:
    """Callers need this module only."""
    assert NamingFacts is SameFacts


# --- the subject of the request ------------------------------------------------------------------------------------


def test_the_subject_of_ios_is_kept_to_the_octet() -> None:
    """P-29: one RDN with serialNumber and unstructuredName; the router looks for exactly this subject."""
    known = facts(IOS_SUBJECT, unstructuredName="Router1.example.com", cn="router1")
    # BMPString for the name: another writer would choose another string type.
    odd = der.sequence(der.oid(oids.COMMON_NAME), der.element(der.BMP_STRING, "router1".encode("utf-16-be")))
    subject = der.sequence(*(der.set_of([pair]) for pair in (odd,)))
    assert NamingRules.compile().names(known).subject == known.csr_subject
    assert NamingRules.compile().names(replaced(known, subject=subject)).subject == subject


def test_a_name_that_nobody_vouches_for_ends_the_request() -> None:
    """Each attribute of a multi-valued RDN counts."""
    with pytest.raises(NameNotVouched, match=r"unstructuredName 'router1\.example\.com' is not vouched for"):
        NamingRules.compile().names(facts(IOS_SUBJECT, cn="router1"))


def test_a_profile_may_allow_or_believe_names() -> None:
    """By pattern, or all of them."""
    known = facts(IOS_SUBJECT)
    allowing = NamingRules.compile(subject_allowed=["CN=router*", "unstructuredName=*.example.com"])
    assert allowing.names(known).subject == known.csr_subject
    assert NamingRules.compile(subject_unchecked=True).names(known).subject == known.csr_subject


@pytest.mark.parametrize("subject", [b"\x30\x02\x31\x00", b"\x30\x02\x31\x05", b"\x30\x04\x31\x02\x30\x00"])
def test_a_subject_that_is_no_name_is_refused_though_the_profile_believes_all(subject: bytes) -> None:
    """An empty RDN or octets that are none would go into a certificate as they are."""
    with pytest.raises(NameNotVouched, match="CSR's subject"):
        NamingRules.compile(subject_unchecked=True).names(replaced(facts(), subject=subject))


def test_without_subject_and_alternative_name_there_is_no_certificate() -> None:
    """RFC 5280 4.1.2.6; with one of them there is."""
    with pytest.raises(NamingImpossible, match=r"both be empty: write a template in profile\.vpn\.subject"):
        NamingRules.compile(subject_alt_name=["dns:{attribute.fqdn?}"]).names(facts())
    names = NamingRules.compile(subject_alt_name=["permanent-identifier:{device.value}"]).names(facts())
    assert names.subject == der.sequence()
    assert names.subject_alt_name is not None


# --- templates -----------------------------------------------------------------------------------------------------


def test_every_variable_has_its_value() -> None:
    """Device, profile, AAA's word, and what the device claims."""
    rules = NamingRules.compile(
        subject="dnQualifier={device},title={device.kind},serialNumber={device.value},OU={profile},"
        "UID={user},O={attribute.company},CN={csr.commonName},L={attribute.site?}",
        subject_allowed=["CN=router*"],
    )
    names = rules.names(facts("CN=router1,OU=ignored", user="alice", company="R&D, Inc."))
    assert format_name(names.subject) == (
        f"dnQualifier=serial:{SERIAL},title=serial,serialNumber={SERIAL},OU=vpn,UID=alice,O=R&D\\, Inc.,CN=router1"
    )
    assert names.subject_alt_name is None


@pytest.mark.parametrize(
    ("template", "pattern"),
    [
        (
            "CN={user}",
            r"\{user\} has no value \(attributes in the AAA answer: blank, lines\).*write \{user\?\} in profile",
        ),
        ("CN={attribute.blank}", r"\{attribute.blank\} has no value"),
        ("CN={attribute.lines}", r"\{attribute.lines\} has several values.*'a\\nb'"),
        ("CN={attribute.lines?}", "has several values"),
        ("CN={csr.OU}", r"\{csr.OU\} stands for one value, and the CSR's subject has 2"),
        ("CN={csr.L}", r"\{csr.L\} has no value"),
    ],
)
def test_a_value_that_is_missing_or_none_refuses_the_request(template: str, pattern: str) -> None:
    """With the way out: give AAA the attribute, or make it optional."""
    rules = NamingRules.compile(subject=template, subject_allowed=["OU=*"])
    with pytest.raises(NamingImpossible, match=pattern):
        rules.names(facts("OU=a,OU=b", blank=" ", lines="a\nb"))


def test_an_answer_without_attributes_is_told() -> None:
    """So that nobody looks for a misspelling."""
    with pytest.raises(NamingImpossible, match=r"\(attributes in the AAA answer: none\)"):
        NamingRules.compile(subject="CN={user}").names(facts())


def test_a_claim_in_a_template_is_vouched_for_like_any_other() -> None:
    """VU#971035 by another door."""
    rules = NamingRules.compile(subject="serialNumber={device.value},CN={csr.CN?}")
    with pytest.raises(NameNotVouched, match="commonName 'admin'"):
        rules.names(facts("CN=admin"))
    assert format_name(rules.names(facts("CN=router1", CN="router1")).subject) == f"serialNumber={SERIAL},CN=router1"
    assert format_name(rules.names(facts("O=ignored")).subject) == f"serialNumber={SERIAL}"


@given(value=st.text(max_size=64), other=st.text(max_size=64))
def test_whatever_aaa_and_device_say_the_name_has_the_shape_of_the_template(value: str, other: str) -> None:
    """Or the request is refused; nothing in between, and the same every time."""
    rules = NamingRules.compile(
        subject="serialNumber={device.value}+OU={attribute.x},CN={csr.CN},O=Example",
        subject_unchecked=True,
        subject_alt_name=["dns:{attribute.x}.example.com", "csr"],
    )
    known = facts(x=value)
    subject = der.sequence(der.set_of([der.sequence(der.oid(oids.COMMON_NAME), der.directory_string(other))]))
    try:
        names = rules.names(replaced(known, subject=subject))
    except NamingImpossible:
        return
    first, (common_name,), (organization,) = rdns(names.subject)
    assert {each.text for each in first} == {SERIAL, value.strip(" ")}
    assert (common_name.text, organization.text) == (other.strip(" "), "Example")
    assert len(alternatives(names)) == 1
    assert rules.names(replaced(known, subject=subject)) == names


# --- alternative names ---------------------------------------------------------------------------------------------


def test_alternative_names_stand_in_the_order_of_the_profile_once_each() -> None:
    """What is missing and optional is left out."""
    rules = NamingRules.compile(
        subject="CN={device.value}",
        subject_alt_name=[
            "dns:{attribute.fqdn}",
            "email:{attribute.mail?}",
            "directory:UID={attribute.uid?}",
            "directory:CN={device.value}",
            "dns:router1.example.com",
            "ip:{attribute.address}",
        ],
    )
    names = rules.names(facts(fqdn="router1.example.com", address="192.0.2.1"))
    assert alternatives(names) == ("dns:router1.example.com", f"directory:CN={SERIAL}", "ip:192.0.2.1")


def test_names_of_the_request_are_kept_where_something_vouches_for_them_and_told_where_not() -> None:
    """What is dropped stands in the decision record."""
    rules = NamingRules.compile(subject="CN={device.value}", subject_alt_name=["csr"])
    wanted = ("dns:router1.example.com", f"uri:urn:imei:{IMEI}", "dns:admin.example.com", "upn:admin@example.com")
    names = rules.names(facts("", *wanted, device=f"imei:{IMEI}", fqdn="ROUTER1.example.com"))
    assert alternatives(names) == wanted[:2]
    assert names.dropped == wanted[2:]


def test_device_identifiers_in_other_names_are_kept_to_the_octet() -> None:
    """The forms that `identity` reads: hardwareModuleName here."""
    wanted = "hardware-module:1.3.6.1.4.1.9.21:ftx1"
    rules = NamingRules.compile(subject="CN=x", subject_alt_name=["csr"])
    known = facts("", wanted, device="hwmodule:1.3.6.1.4.1.9.21:FTX1")
    assert rules.names(known).subject_alt_name == known.csr_subject_alt_name


@pytest.mark.parametrize(
    ("element", "told"),
    [
        (der.element(der.context(7, constructed=False), b"abc"), "unreadable:8703616263"),
        (der.element(der.context(2, constructed=False), b"a\0b"), "'dns:a\\x00b'"),
        (der.element(der.context(2, constructed=False), b"*.example.com"), "dns:*.example.com"),
        (der.element(der.context(2, constructed=False), b"a" * 300), f"dns:{'a' * 251}"),
        (der.element(der.context(0), der.oid("1.2.3") + der.explicit(0, der.NULL)), "other:1.2.3=a0020500"),
    ],
    ids=["unreadable", "NUL", "wildcard", "long", "other"],
)
def test_names_that_no_certificate_should_have_are_dropped_though_aaa_has_them(element: bytes, told: str) -> None:
    """And are told in text that is safe to show."""
    rules = NamingRules.compile(subject="CN=x", subject_alt_name=["csr"])
    known = facts(dns="a\0b\n*.example.com\n" + "a" * 300)
    names = rules.names(replaced(known, alternative=der.sequence(element)))
    assert names.subject_alt_name is None
    assert names.dropped == (told,)


def test_alternative_names_that_cannot_be_taken_apart_end_the_request() -> None:
    """When the profile wants them, and only then."""
    known = replaced(facts(), alternative=b"\x30\x03\x82\x05a")
    with pytest.raises(NameNotVouched, match="subjectAltName cannot be read"):
        NamingRules.compile(subject="CN=x", subject_alt_name=["csr"]).names(known)
    assert NamingRules.compile(subject="CN=x").names(known).subject_alt_name is None


def test_a_request_without_alternative_names_gets_none() -> None:
    """The entry `csr` makes nothing up."""
    names = NamingRules.compile(subject="CN=x", subject_alt_name=["csr"]).names(facts())
    assert names == CertificateNames(subject=parse_name("CN=x"), subject_alt_name=None)


# --- the page ------------------------------------------------------------------------------------------------------

PAGE: Final = (Path(__file__).parent.parent.parent / "docs" / "naming.md").read_text("utf-8")
# A profile in TOML, followed by the facts and the outcome as `key: value` lines.
EXAMPLES: Final = dict(
    re.findall(r"^### (.+?)$.*?^```toml\n(.*?^```\n\n```text\n.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
)


def test_the_page_has_an_example_for_every_kind_of_client() -> None:
    """What an operator looks for."""
    titles = " ".join(EXAMPLES)
    assert all(word in titles for word in ("IOS", "Apple", "Windows", "802.1X"))
    assert PAGE.count("```toml") == len(EXAMPLES)


@pytest.mark.parametrize("title", EXAMPLES)
def test_an_example_of_the_page_is_true(title: str) -> None:
    """Its request names its device, and its profile makes of that and of AAA's answer what it shows."""
    options, _, outcome = EXAMPLES[title].partition("```\n\n```text\n")
    rules = NamingRules.compile(**tomllib.loads(options)["profile"]["default"])
    lines: dict[str, list[str]] = {}
    for line in outcome.splitlines():
        key, _, value = line.partition(":")
        lines.setdefault(key.strip(), []).append(value.strip())
    known = facts(
        "".join(lines["CSR subject"]),
        *lines.get("CSR name", ()),
        device="".join(lines["device"]),
        profile="default",
        **dict(each.split("=", 1) for each in lines.get("AAA", ())),
    )
    if known.device_id.kind is not DeviceIDKind.HARDWARE_MODULE:  # which the manufacturer's certificate says
        claims = extract_claims(
            subject=known.csr_subject,
            subject_alt_name=known.csr_subject_alt_name,
            rules=("subject.serialNumber", "subject.userId", "san", "subject.commonName"),
        )
        assert choose_device_id(claims) == known.device_id
    if "refused" in lines:
        with pytest.raises((NameNotVouched, NamingImpossible)) as refusal:
            rules.names(known)
        assert str(refusal.value) == " ".join(lines["refused"])
        return
    names = rules.names(known)
    assert format_name(names.subject) == "".join(lines["subject"])
    assert names.subject_alt_name == (
        encode_general_names(map(read_general_name, lines["name"])) if "name" in lines else None
    )
    assert list(names.dropped) == lines.get("dropped", [])
