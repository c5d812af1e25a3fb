"""Claims about what stands in certificates: what profile and AAA decide, and that a request only claims."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

import pytest

from scep_ra.aaa.base import Accept
from scep_ra.enrollment.errors import NameNotVouched, NamingImpossible, NotAuthorized
from scep_ra.enrollment.naming import NamingRules
from scep_ra.enrollment.rules import CertificateRules
from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Extension
from scep_ra.pki.general_names import parse_general_names
from scep_ra.pki.names import format_name, parse_name
from scep_ra.pki.profiles import CertificateProfile, ExtendedKeyUsage
from tests.support.enrollment import (
    DAY,
    Clock,
    Office,
    ScriptedAuthorizer,
    ScriptedCA,
    granted,
    make_request,
    subject_of,
)

VOUCHED: Final = Accept(attributes={"O": "Test", "CN": "router-1"})
SECOND: Final = timedelta(seconds=1)


def dns(*texts: str) -> tuple[Extension, ...]:
    """Return a subjectAltName to ask for."""
    names = [der.element(der.context(2, constructed=False), text.encode()) for text in texts]
    return (Extension(oid=oids.SUBJECT_ALT_NAME, critical=False, value=der.sequence(*names)),)


@pytest.fixture
def sceptic(office: Office) -> Office:
    """Return a profile that believes no name which nobody vouches for."""
    return office.with_contents(naming=NamingRules.compile(subject_alt_name=["csr"]))


def templated(office: Office, subject: str) -> Office:
    return office.with_contents(naming=NamingRules.compile(subject=subject))


# --- names ---------------------------------------------------------------------------------------------------------


async def test_a_name_that_nobody_vouches_for_is_refused_before_anything_is_spent(
    sceptic: Office, aaa: ScriptedAuthorizer, ca: ScriptedCA
) -> None:
    """CERT VU#971035: the challenge proves the device, not what it calls itself; AAA's word mends it."""
    request = await sceptic.request()

    with pytest.raises(NameNotVouched, match="'Test' is not vouched for") as refusal:
        await sceptic.submit(request)

    assert refusal.value.code == "subject"
    assert ca.orders == []
    aaa.script = [VOUCHED]
    assert granted(await sceptic.submit(request)).subject == subject_of()


async def test_the_device_id_vouches_for_itself(sceptic: Office) -> None:
    """A subject of nothing but the identifier needs nobody's word."""
    subject = parse_name("serialNumber=FOC1234X0AB")

    assert (await sceptic.enroll(subject=subject)).subject == subject


async def test_alternative_names_that_aaa_does_not_assert_are_left_out(
    sceptic: Office, aaa: ScriptedAuthorizer
) -> None:
    """N-39 for names: the others are certified."""
    aaa.script = [replace(VOUCHED, attributes={**VOUCHED.attributes, "dns": "router-1.example.com"})]

    certificate = await sceptic.enroll(extensions=dns("router-1.example.com", "vpn.example.com"))

    names = parse_general_names(certificate.extension(oids.SUBJECT_ALT_NAME) or b"")
    assert [name.text for name in names] == ["router-1.example.com"]


async def test_a_template_makes_the_name_whatever_the_request_says(office: Office, aaa: ScriptedAuthorizer) -> None:
    """SR-14: from the device ID and AAA's attributes."""
    aaa.script = [Accept(attributes={"site": "Bern"})]
    office = templated(office, "CN={device.value},OU={attribute.site},O=Example")

    certificate = await office.enroll(subject=parse_name("serialNumber=FOC1234X0AB,CN=admin,O=Root"))

    assert format_name(certificate.subject) == "CN=FOC1234X0AB,OU=Bern,O=Example"


async def test_a_template_without_its_value_refuses_before_anything_is_spent(
    office: Office, aaa: ScriptedAuthorizer
) -> None:
    """An attribute that AAA does not give yet; the same request is granted when it does."""
    office = templated(office, "CN={device.value},OU={attribute.site}")
    request = await office.request()

    with pytest.raises(NamingImpossible, match="site"):
        await office.submit(request)
    aaa.script = [Accept(attributes={"site": "Bern"})]
    assert granted(await office.submit(request))


async def test_a_renewal_gets_the_name_that_the_template_makes(office: Office) -> None:
    """A device that asks with its old subject, with that of its certificate, or with none."""
    office = templated(office, "CN={device.value}")
    certificate = await office.enroll()

    for number, subject in enumerate((subject_of(), certificate.subject, parse_name("O=Test"))):
        request = make_request(
            owner=f"key {number}", subject=subject, signed_with=certificate, transaction_id=f"TX{number}"
        )
        certificate = granted(await office.submit(request))
        assert format_name(certificate.subject) == "CN=FOC1234X0AB"


async def test_a_renewal_does_not_add_names(sceptic: Office, aaa: ScriptedAuthorizer) -> None:
    """R-10."""
    aaa.script = [VOUCHED]
    old = await sceptic.enroll()

    new = granted(
        await sceptic.submit(make_request(owner="new key", signed_with=old, extensions=dns("admin.example.com")))
    )

    assert new.extension(oids.SUBJECT_ALT_NAME) is None


# --- validity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "lasts_days"), [(30, 30), (365, 365), (1000, 365)])
async def test_aaa_can_shorten_validity_and_not_lengthen_it(
    office: Office, aaa: ScriptedAuthorizer, clock: Clock, days: int, lasts_days: int
) -> None:
    """The patent's instant disconnect: a contract that ends, ends the certificate."""
    aaa.script = [Accept(not_after=clock() + days * DAY)]

    assert (await office.enroll()).not_after == clock() + lasts_days * DAY


@pytest.mark.parametrize("late_by", [timedelta(0), SECOND])
async def test_a_device_whose_time_is_over_gets_nothing(
    office: Office, aaa: ScriptedAuthorizer, clock: Clock, late_by: timedelta
) -> None:
    """Nor is its challenge spent."""
    aaa.script = [Accept(not_after=clock() - late_by)]
    request = await office.request()

    with pytest.raises(NotAuthorized, match="too late"):
        await office.submit(request)
    aaa.script = [Accept(not_after=clock() + SECOND)]
    assert granted(await office.submit(request)).not_after == clock() + SECOND


# --- contents of another profile -----------------------------------------------------------------------------------

GUEST: Final = CertificateRules(
    extensions=CertificateProfile(extended_key_usage=(ExtendedKeyUsage.IPSEC_IKE,)),
    validity=7 * DAY,
    naming=NamingRules.compile(subject="CN={device.value},OU=Guests"),
)


@pytest.fixture
def hotel(office: Office) -> Office:
    """Return a profile beside which AAA can choose another one."""
    return office.other(other_contents={"guest": GUEST, "default": GUEST})


async def test_aaa_can_choose_what_a_certificate_holds(hotel: Office, aaa: ScriptedAuthorizer, clock: Clock) -> None:
    """Names, extensions and validity are the other profile's; certificate and renewal stay with this one."""
    aaa.script = [Accept(profile="guest")]

    certificate = await hotel.enroll()

    assert format_name(certificate.subject) == "CN=FOC1234X0AB,OU=Guests"
    assert certificate.not_after == clock() + 7 * DAY
    assert certificate.extension(oids.EXTENDED_KEY_USAGE) == der.sequence(der.oid(ExtendedKeyUsage.IPSEC_IKE.oid))
    (row,) = await hotel.store.list_certificates()
    assert row.profile == "default"


@pytest.mark.parametrize("name", ["", "default"])
async def test_a_profile_that_is_asked_by_its_own_name_is_itself(
    hotel: Office, aaa: ScriptedAuthorizer, name: str
) -> None:
    """Whatever the list of others says."""
    aaa.script = [Accept(profile=name)]

    assert (await hotel.enroll()).subject == subject_of()


async def test_a_profile_that_is_not_there_is_a_refusal(hotel: Office, aaa: ScriptedAuthorizer) -> None:
    """A typing error in AAA must not give some certificate or other."""
    aaa.script = [Accept(profile="gest")]
    request = await hotel.request()

    with pytest.raises(NotAuthorized, match=r"profile 'gest', which CA 'default' does not serve"):
        await hotel.submit(request)
    aaa.script = [Accept(profile="guest")]
    assert granted(await hotel.submit(request))


# --- services ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demanded", "allowed", "is_granted"),
    [("", (), True), ("vpn", ("wlan", "vpn"), True), ("vpn", (), False), ("vpn", ("wlan", "VPN", "vpn2"), False)],
)
async def test_a_profile_can_be_for_devices_with_a_service(
    office: Office, aaa: ScriptedAuthorizer, demanded: str, allowed: tuple[str, ...], *, is_granted: bool
) -> None:
    """Any other device is as unknown here as one that does not exist."""
    aaa.script = [Accept(services=frozenset(allowed))]
    office = office.with_rules(service=demanded)
    request = await office.request()

    if is_granted:
        assert granted(await office.submit(request))
        return
    with pytest.raises(NotAuthorized, match="does not grant the device service 'vpn'") as refusal:
        await office.submit(request)
    assert refusal.value.code == "not_authorized"


async def test_a_template_that_leaves_no_name_is_a_refusal_with_a_reason(office: Office) -> None:
    """RFC 5280 4.1.2.6: subject and subjectAltName cannot both be empty."""
    office = templated(office, "CN={attribute.site?}")

    with pytest.raises(NamingImpossible, match="would both be empty"):
        await office.enroll()
