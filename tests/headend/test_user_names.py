"""Claims about the names by which headends ask: one device, whatever the spelling, or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.headend.user_names import MAX_CHARACTERS, read_user_name
from scep_ra.identity.errors import IdentityError
from scep_ra.identity.types import DeviceID

SERIAL = "serial:FTX1234ABCD"


def likeliest(user_name: str) -> str:
    return str(read_user_name(user_name)[0])


@pytest.mark.parametrize(
    "user_name",
    [
        "FTX1234ABCD",
        " ftx1234abcd ",
        "serial:FTX1234ABCD",
        "Serial: ftx1234abcd",
        "PID:C9350-48HX SN:FTX1234ABCD",
        "SN:FTX1234ABCD",
        "serialNumber=FTX1234ABCD,O=Example,C=DE",
        "C=DE, O=Example, serialNumber=FTX1234ABCD",
        "/C=DE/O=Example/CN=router1/serialNumber=FTX1234ABCD",
        "/serialNumber=PID:C9350-48HX SN:FTX1234ABCD/O=Cisco/OU=ACT-2 Lite SUDI/CN=Q5CA-4AQR-L9YS",
        "hostname=router1.example.com+serialNumber=FTX1234ABCD,cn=router1",
        "2.5.4.5=FTX1234ABCD,E=a@example.com,EMAIL=b@example.com",
        r"O=Example\, Inc.,serialNumber=FTX1234ABCD",
        "O=Ex, CN=device1, serialNumber=FTX1234ABCD",
        "CN=FTX1234ABCD,O=Example",
        "O=Example,CN=FTX1234ABCD",
        "UID=FTX1234ABCD,CN=somebody",
        "hostname=FTX1234ABCD",
        "CN=FTX1234ABCD,CN=ftx1234abcd",
    ],
)
def test_every_spelling_means_the_same_device(user_name: str) -> None:
    """Its value, its kind and value, Cisco's form, and its certificate's subject in either order."""
    assert likeliest(user_name) == SERIAL


def test_a_name_of_several_sources_means_the_strongest() -> None:
    """As when the certificate was asked for: serialNumber before UID before CN, wherever they stand."""
    parts = ["serialNumber=SN1", "UID=SN1", "CN=SN3"]
    assert {likeliest(",".join(order)) for order in (parts, parts[::-1])} == {"serial:SN1"}


@pytest.mark.parametrize(
    ("user_name", "others"),
    [
        ("490154203237518", {"imei:490154203237518"}),
        ("02005e100001", {"mac:02:00:5e:10:00:01"}),
        ("imei:490154203237518", set[str]()),
        ("CN=49015420323751", {"imei:490154203237518"}),
    ],
)
def test_a_value_can_be_of_several_kinds(user_name: str, others: set[str]) -> None:
    """Only a kind before it tells."""
    assert set(map(str, read_user_name(user_name)[1:])) == others


@pytest.mark.parametrize(
    ("user_name", "reason"),
    [
        ("", "is empty"),
        ("x" * (MAX_CHARACTERS + 1), "characters"),
        ("SN" + "1" * 300, "more than 255"),
        ("SN1\x00", "unprintable"),
        ("SN1\nSN2", "unprintable"),
        ("imei:123", "IMEI"),
        ("O=Example,C=DE", "no identifier"),
        ("serialNumber=", "is empty"),
        ("serialNumber=SN1,", "ends with"),
        ("favourite colour=blue", "cannot read the name"),
        ("nosuchkey=1", "nosuchkey"),
        ("/CN=a/serialNumber=SN1/serialNumber=SN2", "SN2"),
        ("serialNumber=SN1,UID=SN2", "SN2"),
        ("CN=PC1,CN=Computers,DC=example", "COMPUTERS"),
        ("CN=Computers,CN=PC1", "PC1"),
        ("serialNumber=DEFAULT STRING", "placeholder"),
    ],
)
def test_a_name_that_means_no_single_device_is_refused(user_name: str, reason: str) -> None:
    """With a reason for the log."""
    with pytest.raises(IdentityError, match=f"(?i){reason}"):
        read_user_name(user_name)


@given(st.text(max_size=80) | st.from_regex(r"[/,]?(CN|serialNumber|O)=.{0,20}([,/+;](CN|UID)=.{0,20})?"))
def test_hostile_text_is_a_device_id_or_an_identity_error(user_name: str) -> None:
    """Whatever a device managed to have written into its certificate."""
    try:
        found = read_user_name(user_name)
    except IdentityError:
        return
    assert all(DeviceID(kind=each.kind, value=each.value) == each for each in found)
