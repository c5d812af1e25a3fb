"""The grammar of each kind of identifier: text in, its one normal form out, InvalidDeviceID otherwise.

Two texts for the same device become the same string here, so that everybody after compares with `==`.
Every function is idempotent. Where an identifier is found in a request is not decided here.
"""

from __future__ import annotations

import re
import unicodedata
from string import ascii_lowercase, ascii_uppercase
from typing import Final

from scep_ra.identity.errors import InvalidDeviceID

_MAX_CHARACTERS: Final = 255  # longer than any identifier; a RADIUS attribute ends at 253 octets
_HEX: Final = "[0-9A-Fa-f]"
_OID: Final = r"[012](?:\.(?:0|[1-9][0-9]*))+"
# Only ASCII letters change case: Unicode's mapping would merge letters (dotless i with I, the ligature ff with FF).
_UPPER: Final = str.maketrans(ascii_lowercase, ascii_uppercase)

UDID: Final = re.compile(rf"{_HEX}{{40}}|{_HEX}{{8}}-{_HEX}{{16}}")
UUID: Final = re.compile(rf"{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}}")
SEPARATED_MAC: Final = re.compile(
    rf"{_HEX}{{2}}(?::{_HEX}{{2}}){{5}}|{_HEX}{{2}}(?:-{_HEX}{{2}}){{5}}|{_HEX}{{4}}(?:\.{_HEX}{{4}}){{2}}"
)
_BARE_MAC: Final = re.compile(rf"{_HEX}{{12}}")
_BARE_UDID: Final = re.compile(rf"({_HEX}{{8}})({_HEX}{{16}})")
_IMEI: Final = re.compile(r"[0-9]{14,16}")
# 3GPP2 gives A0 to FF to MEIDs with hex digits; 99 begins the decimal ones shared with the IMEI range.
_MEID: Final = re.compile(r"([A-F][0-9A-F]{13}|99[0-9]{12})([0-9A-F]?)")
_DECIMAL_MEID: Final = re.compile(r"([0-9]{10})([0-9]{8})")
_CISCO: Final = re.compile(r"(?:PID: *\S+ +)?SN: *([0-9A-Z-]+)(?: +PID: *\S+)?")
_HARDWARE_MODULE: Final = re.compile(rf"({_OID}):(.+)")
_PERMANENT: Final = re.compile(rf"((?:{_OID})?):(.+)")

# What firmware reports when nobody set a serial; thousands of machines share each.
_PLACEHOLDER_SERIALS: Final = frozenset(
    {
        "0",
        "0123456789ABCDEF",
        "123456789",
        "9774D56D682E549C",  # the ANDROID_ID of a well-known bad Android 2.2 build
        "CHASSIS SERIAL NUMBER",
        "DEFAULT STRING",
        "INVALID",
        "N/A",
        "NONE",
        "NOT APPLICABLE",
        "NOT SPECIFIED",
        "SYSTEM SERIAL NUMBER",
        "TO BE FILLED BY O.E.M.",
        "UNKNOWN",
    }
)
# An AMI BIOS default, in both byte orders: SMBIOS tools disagree about the first three fields.
_PLACEHOLDER_UUIDS: Final = frozenset({"03000200-0400-0500-0006-000700080009", "00020003-0004-0005-0006-000700080009"})


def _plain(text: str) -> str:
    """Return text in NFC without surrounding spaces; anything unprintable, long or empty is refused."""
    plain = unicodedata.normalize("NFC", text).strip(" ")
    if not plain:
        raise InvalidDeviceID("identifier is empty")
    if len(plain) > _MAX_CHARACTERS:
        raise InvalidDeviceID(f"identifier {plain[:20]!r}... has more than {_MAX_CHARACTERS} characters")
    # Control and invisible characters would forge log lines and hide differences.
    if not plain.isprintable():
        raise InvalidDeviceID(f"identifier {plain!r} has unprintable characters")
    return plain


def _folded(text: str) -> str:
    # NFC again: I with a dot above composes, i does not.
    return unicodedata.normalize("NFC", _plain(text).translate(_UPPER))


def serial(text: str) -> str:
    """Return a device serial in upper case, the SN part of a Cisco `PID:... SN:...`; refuse firmware placeholders."""
    value = _folded(text)
    if value.startswith(("PID:", "SN:")):
        match = _CISCO.fullmatch(value)
        if match is None:
            raise InvalidDeviceID(f"serial {value!r} is not of the form PID:<product> SN:<serial>")
        value = match[1]
    is_run = len(value) > 1 and len(set(value)) == 1
    if is_run or value in _PLACEHOLDER_SERIALS or value.startswith("EMULATOR-"):
        raise InvalidDeviceID(f"serial {value!r} is a placeholder, many devices have it")
    return value


def imei(text: str) -> str:
    """Return an IMEI as 15 digits: 14 get their check digit, 16 (IMEISV) lose the software version (TS 23.003 6.2)."""
    digits = re.sub(r"[ ./-]", "", _plain(text))
    if not _IMEI.fullmatch(digits):
        raise InvalidDeviceID(f"IMEI {digits!r} is not of 14, 15 or 16 digits")
    body = digits[:14]
    _refuse_run("IMEI", body)
    normal = body + _check_digit(body, 10)
    if len(digits) == len(normal) and digits != normal:
        raise InvalidDeviceID(f"IMEI {digits!r} has a wrong check digit")
    return normal


def meid(text: str) -> str:
    """Return a MEID as 14 hex digits in upper case; a 15th is its check digit, 18 decimal ones are converted."""
    digits = re.sub(r"[ -]", "", _folded(text))
    if match := _DECIMAL_MEID.fullmatch(digits):
        digits = f"{int(match[1]):08X}{int(match[2]):06X}"
        if len(digits) != 14:  # a part beyond its 8 or 6 hex digits
            raise InvalidDeviceID(f"MEID {match[0]!r} is out of range")
    match = _MEID.fullmatch(digits)
    if match is None:
        raise InvalidDeviceID(f"MEID {digits!r} is not of 14 hex digits that begin with A0 to FF, or with 99")
    body, check = match[1], match[2]
    _refuse_run("MEID", body)
    if check and check != _check_digit(body, 10 if body.isdigit() else 16):
        raise InvalidDeviceID(f"MEID {digits!r} has a wrong check digit")
    return body


def udid(text: str) -> str:
    """Return an Apple UDID in lower case: 40 hex digits, or 8-16 with the hyphen put in."""
    value = _plain(text).lower()
    if match := _BARE_UDID.fullmatch(value):
        value = f"{match[1]}-{match[2]}"
    if not UDID.fullmatch(value):
        raise InvalidDeviceID(f"UDID {value!r} is neither 40 hex digits nor 8-16")
    _refuse_run("UDID", value)
    return value


def mac(text: str) -> str:
    """Return an EUI-48 as `aa:bb:cc:dd:ee:ff`; multicast, broadcast and zero addresses are refused."""
    value = _plain(text)
    if not SEPARATED_MAC.fullmatch(value) and not _BARE_MAC.fullmatch(value):
        raise InvalidDeviceID(f"MAC {value!r} is not of 12 hex digits, bare or as aa:bb, aa-bb or aabb.ccdd")
    octets = bytes.fromhex(re.sub(r"[:.-]", "", value))
    # The lowest bit of the first octet marks group addresses (IEEE 802), broadcast among them.
    if octets[0] & 1 or not any(octets):
        raise InvalidDeviceID(f"MAC {value!r} is no address of one device")
    return octets.hex(":")


def uuid(text: str) -> str:
    """Return a UUID in lower case, 8-4-4-4-12 (RFC 4122); nil, all ones and firmware defaults are refused."""
    value = _plain(text).lower()
    if not UUID.fullmatch(value):
        raise InvalidDeviceID(f"UUID {value!r} is not of the form 8-4-4-4-12 hex digits")
    _refuse_run("UUID", value)
    if value in _PLACEHOLDER_UUIDS:
        raise InvalidDeviceID(f"UUID {value!r} is a placeholder, many devices have it")
    return value


def hardware_module(text: str) -> str:
    """Return `hwType:hwSerialNum` (RFC 4108 5): a dotted OID and a serial in its normal form."""
    value = _plain(text)
    match = _HARDWARE_MODULE.fullmatch(value)
    if match is None:
        raise InvalidDeviceID(f"hardware module {value!r} is not of the form <dotted OID>:<serial>")
    return f"{match[1]}:{serial(match[2])}"


def permanent_identifier(text: str) -> str:
    """Return `assigner:value` (RFC 4043): a dotted OID, empty where the CA's own namespace is meant, and a text."""
    value = _plain(text)
    match = _PERMANENT.fullmatch(value)
    if match is None:
        raise InvalidDeviceID(f"permanent identifier {value!r} is not of the form <dotted OID or nothing>:<value>")
    return f"{match[1]}:{_plain(match[2])}"


def _refuse_run(kind: str, value: str) -> None:
    if len(set(value) - {"-"}) == 1:
        raise InvalidDeviceID(f"{kind} {value!r} is one digit repeated")


def _check_digit(digits: str, base: int) -> str:
    """Return the Luhn check digit: base 10 for IMEI (TS 23.003 annex B), base 16 for MEID (3GPP2 S.R0048)."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit, base) * (1 if place % 2 else 2)
        total += value // base + value % base
    return f"{-total % base:X}"
