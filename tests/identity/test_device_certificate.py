"""Claims about the device that an IDevID names, and about requests that speak of the same one or of another."""

from __future__ import annotations

import pytest

from scep_ra.identity.device_certificate import check_same_device, device_certificate_claims
from scep_ra.identity.errors import IdentityError, InvalidDeviceID, NoIdentity, UnreadableIdentity
from scep_ra.identity.extract import ConflictingIdentity, IdentityClaim, choose_device_id
from scep_ra.identity.types import parse_device_id
from scep_ra.pki import der, oids
from scep_ra.pki.names import parse_name
from tests.support.manufacturer import HARDWARE_TYPE, hardware_module_name, make_idevid, san

SERIAL = "signer.subject.serialNumber"
MODULE = "signer.san.hardwareModuleName"
PERMANENT = "signer.san.permanentIdentifier"
CLOUD_ID = "Q5CA-4AQR-L9YS"


def permanent_identifier(value: str) -> bytes:
    identifier = der.sequence(der.element(der.UTF8_STRING, value.encode()))
    return san(der.explicit(0, der.oid(oids.PERMANENT_IDENTIFIER) + der.explicit(0, identifier)))


def claims(subject: str, *extensions: bytes) -> list[tuple[str, str]]:
    """Return sources and identifiers of an IDevID."""
    found = device_certificate_claims(make_idevid(parse_name(subject), extensions=extensions))
    return [(claim.source, str(claim.device_id)) for claim in found]


def claim(text: str, source: str = "subject.serialNumber") -> IdentityClaim:
    return IdentityClaim(device_id=parse_device_id(text), source=source)


# --- what it names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "subject",
    [
        "serialNumber=PID:TST-1000 SN:FTX1234ABCD,O=Acme Mfg,OU=ACT-2 Lite SUDI,CN=TST-1000",
        "CN=TST-1000-0011223344FF,serialNumber=SN:FTX1234ABCD PID:TST-1000",
        "serialNumber=FTX1234ABCD",
        "serialNumber=PID:TST-1000-   SN:ftx1234abcd",
        "O=Acme Mfg+serialNumber=PID:TST-1000 SN:FTX1234ABCD+CN=router",
        f"CN={CLOUD_ID},serialNumber=PID:TST-1000 SN:FTX1234ABCD,O=Acme Mfg",
        f"serialNumber=PID:TST-1000 SN:FTX1234ABCD,O=Acme Mfg,CN={CLOUD_ID}",
    ],
)
def test_the_serial_is_found_by_its_type_wherever_it_stands(subject: str) -> None:
    """R-13: any order of RDNs, several attributes in one, one alone, PID in front or behind or missing."""
    assert claims(subject) == [(SERIAL, "serial:FTX1234ABCD")]


@pytest.mark.parametrize("subject", [f"CN={CLOUD_ID}", "CN=FTX1234ABCD,O=Acme Mfg", "UID=FTX1234ABCD"])
def test_other_names_never_become_the_identity(subject: str) -> None:
    """A cloud ID in CN keyed devices on the wrong value elsewhere."""
    with pytest.raises(NoIdentity, match="names no device"):
        claims(subject)


def test_an_empty_subject_leaves_the_hardware_module() -> None:
    """Smart meters have nothing else."""
    assert claims("", hardware_module_name()) == [(MODULE, f"hwmodule:{HARDWARE_TYPE}:FTX1234ABCD")]


def test_a_permanent_identifier_is_an_identity() -> None:
    """RFC 4043."""
    assert claims("", permanent_identifier("A-17")) == [(PERMANENT, "permanent::A-17")]


def test_both_names_of_one_device_are_reported_and_the_serial_comes_first() -> None:
    """802.1AR: hwSerialNum is the subject's serialNumber."""
    found = device_certificate_claims(make_idevid())
    assert [claim.source for claim in found] == [SERIAL, MODULE]
    assert str(choose_device_id(found)) == "serial:FTX1234ABCD"


@pytest.mark.parametrize(
    ("subject", "extension"),
    [
        ("serialNumber=FTX1234ABCD", hardware_module_name("FTX9999ZZZZ")),
        ("serialNumber=FTX1234ABCD,serialNumber=FTX9999ZZZZ", hardware_module_name()),
    ],
)
def test_an_idevid_of_two_devices_is_of_none(subject: str, extension: bytes) -> None:
    """Both values are in the error."""
    found = device_certificate_claims(make_idevid(parse_name(subject), extensions=(extension,)))
    with pytest.raises(ConflictingIdentity, match=r"FTX1234ABCD.*FTX9999ZZZZ"):
        choose_device_id(found)


@pytest.mark.parametrize(
    ("extensions", "error"),
    [
        ((san(b"\xa0\x00"),), UnreadableIdentity),
        ((hardware_module_name("00000000"),), InvalidDeviceID),
        ((permanent_identifier("\t"),), InvalidDeviceID),
    ],
)
def test_names_that_are_none_are_errors(extensions: tuple[bytes, ...], error: type[IdentityError]) -> None:
    """A trusted signature makes a placeholder no serial."""
    with pytest.raises(error):
        claims("serialNumber=FTX1234ABCD", *extensions)


# --- what the request says -----------------------------------------------------------------------------------------

BOTH = device_certificate_claims(make_idevid())
SERIAL_ONLY = BOTH[:1]
MODULE_ONLY = BOTH[1:]
ROUTER = f"hwmodule:{HARDWARE_TYPE}:FTX1234ABCD"
OTHER_MODULE = "hwmodule:1.3.6.1.4.1.99999.2:FTX1234ABCD"


@pytest.mark.parametrize(
    ("signer", "said"),
    [
        (BOTH, []),
        (BOTH, [claim("ftx1234abcd"), claim(ROUTER, "san.hardwareModuleName")]),
        (SERIAL_ONLY, [claim("FTX1234ABCD")]),
        (SERIAL_ONLY, [claim(ROUTER, "san.hardwareModuleName")]),
        (MODULE_ONLY, [claim("FTX1234ABCD")]),
        (MODULE_ONLY, [claim(ROUTER, "san.hardwareModuleName")]),
        (BOTH, [claim("router-7", "subject.commonName"), claim("r7.example", "subject.unstructuredName")]),
        ([claim("00:11:22:33:44:55", SERIAL)], [claim("mac:001122334455")]),
    ],
)
def test_a_request_may_repeat_what_the_certificate_proves(
    signer: list[IdentityClaim], said: list[IdentityClaim]
) -> None:
    """In any of its forms, beside names that people choose, or not at all."""
    check_same_device(signer, said)


@pytest.mark.parametrize(
    ("signer", "said", "nearest"),
    [
        (BOTH, claim("FTX9999ZZZZ"), SERIAL),
        (BOTH, claim("hwmodule:1.3.6.1.4.1.99999.1:FTX9999ZZZZ", "san.hardwareModuleName"), MODULE),
        (BOTH, claim(OTHER_MODULE, "san.hardwareModuleName"), MODULE),
        (SERIAL_ONLY, claim("hwmodule:1.2.3:FTX9999ZZZZ", "san.hardwareModuleName"), SERIAL),
        (MODULE_ONLY, claim("FTX9999ZZZZ"), MODULE),
        (BOTH, claim("imei:490154203237518", "san.uri"), SERIAL),
    ],
)
def test_a_request_that_says_more_or_else_is_in_conflict(
    signer: list[IdentityClaim], said: IdentityClaim, nearest: str
) -> None:
    """R-15: what the certificate does not prove is not certified; both values are in the error."""
    with pytest.raises(ConflictingIdentity) as conflict:
        check_same_device(signer, [claim("FTX1234ABCD"), said])
    assert [each.source for each in conflict.value.claims] == [nearest, said.source]
