"""Find the device's identifiers in a certification request, and settle on one.

Rules (`rules`) say where to look, strongest first. Values are judged by the grammar of their kind, not here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from scep_ra.identity.errors import IdentityError, InvalidDeviceID, NoIdentity, UnreadableIdentity
from scep_ra.identity.rules import SAN, SUBJECT_SOURCES, parse_rule
from scep_ra.identity.types import DeviceID, DeviceIDKind, classify
from scep_ra.pki import der, names, oids
from scep_ra.pki.errors import MalformedData

# Names that people choose; they speak only where nothing made to identify a device does.
_FALLBACKS: Final = frozenset({"subject.commonName", "subject.unstructuredName"})
_URI: Final = der.context(6, constructed=False)
_OTHER_NAME: Final = der.context(0)
_URI_KINDS: Final = {
    "intunedeviceid://": DeviceIDKind.UUID,  # Microsoft Intune: IntuneDeviceId://{{DeviceId}}
    "urn:uuid:": DeviceIDKind.UUID,  # RFC 4122 3
    "urn:imei:": DeviceIDKind.IMEI,  # drafts of RFC 7254
    "urn:gsma:imei:": DeviceIDKind.IMEI,  # RFC 7254
    "urn:dev:mac:": DeviceIDKind.MAC,  # RFC 9039 4.1
}
# RFC 7254 4.2.3: the last field is a spare digit, always 0; some write the check digit there.
_IMEI_WITH_SPARE: Final = re.compile(r"([0-9]{8}-[0-9]{6})-0")
# RFC 9039 4.1 writes EUI-64; an EUI-48 is extended by FFFE in its middle.
_EXTENDED_MAC: Final = re.compile(r"([0-9a-f]{6})fffe([0-9a-f]{6})", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityClaim:
    """An identifier and where it stood: `subject.serialNumber`, `san.uri`, `san.hardwareModuleName`, ..."""

    device_id: DeviceID
    source: str


class ConflictingIdentity(IdentityError):
    """Two claims of strong sources name different devices; both are in `claims`."""

    code = "identity_conflict"

    def __init__(self, first: IdentityClaim, second: IdentityClaim) -> None:
        self.claims = (first, second)
        super().__init__(f"{first.source} says {first.device_id}, {second.source} says {second.device_id}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Finding:
    source: str
    kind: DeviceIDKind
    text: str


def extract_claims(
    *, subject: bytes, subject_alt_name: bytes | None, unstructured_names: Sequence[str] = (), rules: Sequence[str]
) -> tuple[IdentityClaim, ...]:
    """Return every identifier that the rules find, in rule order.

    `subject` is a DER Name, `subject_alt_name` DER GeneralNames, `unstructured_names` the CSR attribute's texts.
    Raise UnreadableIdentity or InvalidDeviceID; an invalid name of last resort is left out where better is found.
    """
    try:
        attributes = names.attributes(subject)
        attributes += tuple(names.NameAttribute(oid=oids.UNSTRUCTURED_NAME, text=text) for text in unstructured_names)
        findings = [found for rule in rules for found in _apply(rule, attributes, subject_alt_name)]
    except MalformedData as error:
        raise UnreadableIdentity(f"subject or subjectAltName: {error}") from error
    has_strong = any(found.source not in _FALLBACKS for found in findings)
    claims: list[IdentityClaim] = []
    for found in findings:
        try:
            claims.append(IdentityClaim(device_id=DeviceID(kind=found.kind, value=found.text), source=found.source))
        except InvalidDeviceID as error:
            if not has_strong or found.source not in _FALLBACKS:
                raise InvalidDeviceID(f"{found.source}: {error}") from error
    return tuple(claims)


def choose_device_id(claims: Sequence[IdentityClaim]) -> DeviceID:
    """Return the identifier of the first claim of a strong source, else of the first claim.

    Raise ConflictingIdentity when two strong sources name different devices, NoIdentity without any claim.
    """
    if not claims:
        raise NoIdentity("no identifier where the profile's device_id rules look")
    strong = [claim for claim in claims if is_strong(claim)]
    _check_agreement(strong)
    return (strong or claims)[0].device_id


def is_strong(claim: IdentityClaim) -> bool:
    """Tell whether a claim stands where devices are identified, and not in a name that people choose."""
    return claim.source not in _FALLBACKS


def _check_agreement(claims: Sequence[IdentityClaim]) -> None:
    first_of_kind: dict[DeviceIDKind, tuple[str, IdentityClaim]] = {}
    for claim in claims:
        device_id = claim.device_id
        values = {device_id.kind: device_id.value}
        if device_id.kind is DeviceIDKind.HARDWARE_MODULE:  # 802.1AR: its serial is the subject's serialNumber
            values[DeviceIDKind.SERIAL] = device_id.value.partition(":")[2]
        for kind, value in values.items():
            other_value, other = first_of_kind.setdefault(kind, (value, claim))
            if other_value != value:
                raise ConflictingIdentity(other, claim)


def _apply(rule: str, attributes: Sequence[names.NameAttribute], subject_alt_name: bytes | None) -> Iterator[_Finding]:
    where = parse_rule(rule)
    if where.source == SAN:
        if subject_alt_name is not None:
            yield from _san_findings(subject_alt_name, attributes)
        return
    for attribute in attributes:
        text = where.cut(attribute.text) if attribute.oid == SUBJECT_SOURCES[where.source] else None
        if text is not None:
            yield _Finding(source=where.source, kind=where.kind or classify(text), text=text)


def _san_findings(subject_alt_name: bytes, attributes: Sequence[names.NameAttribute]) -> Iterator[_Finding]:
    outer = der.Reader(subject_alt_name)
    general_names = outer.enter()
    outer.finish()
    while not general_names.at_end():
        tag = general_names.peek()
        if tag == _URI:
            yield from _uri_findings(general_names.contents(_URI))
        elif tag == _OTHER_NAME:
            yield from _other_name_findings(general_names.enter(_OTHER_NAME), attributes)
        else:
            general_names.element()


def _uri_findings(octets: bytes) -> Iterator[_Finding]:
    try:
        uri = octets.decode("ascii")  # IA5String, RFC 5280 4.2.1.6
    except UnicodeDecodeError:
        raise MalformedData("URI is not ASCII") from None
    for prefix, kind in _URI_KINDS.items():
        if uri[: len(prefix)].lower() == prefix:
            yield _Finding(source="san.uri", kind=kind, text=_device_part(kind, uri[len(prefix) :]))


def _device_part(kind: DeviceIDKind, text: str) -> str:
    """Return the identifier in what follows the prefix of a URI."""
    if kind is DeviceIDKind.IMEI:
        text = text.partition(";")[0]  # RFC 7254 4.2: parameters svn and vers
        return match[1] if (match := _IMEI_WITH_SPARE.fullmatch(text)) else text
    if kind is DeviceIDKind.MAC and (match := _EXTENDED_MAC.fullmatch(text)):
        return match[1] + match[2]
    return text


def _other_name_findings(other: der.Reader, attributes: Sequence[names.NameAttribute]) -> Iterator[_Finding]:
    oid = other.oid()
    if oid == oids.HARDWARE_MODULE_NAME:
        text = _hardware_module(_only_value(other))
        yield _Finding(source="san.hardwareModuleName", kind=DeviceIDKind.HARDWARE_MODULE, text=text)
    elif oid == oids.PERMANENT_IDENTIFIER:
        text = _permanent_identifier(_only_value(other), attributes)
        yield _Finding(source="san.permanentIdentifier", kind=DeviceIDKind.PERMANENT_IDENTIFIER, text=text)


def _only_value(other: der.Reader) -> der.Reader:
    """Enter the SEQUENCE in an otherName and see to it that nothing follows: the name may be copied as it is."""
    wrapper = other.enter(der.context(0))
    fields = wrapper.enter()
    wrapper.finish()
    other.finish()
    return fields


def _hardware_module(fields: der.Reader) -> str:
    """RFC 4108 5: hwType and hwSerialNum, whose octets are text in practice and may be anything."""
    hw_type, hw_serial_num = fields.oid(), fields.contents(der.OCTET_STRING)
    fields.finish()
    text = hw_serial_num.decode("ascii", "replace")
    return f"{hw_type}:{text if text.isascii() and text.isprintable() else hw_serial_num.hex()}"


def _permanent_identifier(fields: der.Reader, attributes: Sequence[names.NameAttribute]) -> str:
    """RFC 4043 2: both fields are optional; the value defaults to the subject's deepest serialNumber."""
    serials = [attribute.text for attribute in attributes if attribute.oid == oids.SUBJECT_SERIAL_NUMBER]
    value = serials[-1] if serials else ""
    if fields.peek() == der.UTF8_STRING:
        value = names.decode_string(fields.element())
    assigner = "" if fields.at_end() else fields.oid()
    fields.finish()
    return f"{assigner}:{value}"
