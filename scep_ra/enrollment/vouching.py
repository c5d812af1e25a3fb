"""Which of the names that a request claims are believed: those of the device ID, of the AAA answer, of the profile.

A valid challenge proves that its holder may enroll a device, not that the device may call itself what it likes
(CERT VU#971035). What happens to a name that nothing vouches for is decided in `naming`.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address
from string import ascii_lowercase, ascii_uppercase
from typing import Final

from scep_ra.enrollment.errors import NameNotVouched
from scep_ra.identity.errors import IdentityError
from scep_ra.identity.extract import extract_claims
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.pki import der, names, oids
from scep_ra.pki.errors import MalformedData
from scep_ra.pki.general_names import GeneralName

# No attribute that vouching knows is longer, and logs stay readable.
_MAX_CHARACTERS: Final = 255
# Only ASCII letters change case: Unicode's mapping would take letters that merely look alike for the same.
_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)
# Identifiers whose value stands in a namespace; inside it, it is the subject's serialNumber (802.1AR 8.6, RFC 4043 2).
_NAMESPACED: Final = frozenset({DeviceIDKind.HARDWARE_MODULE, DeviceIDKind.PERMANENT_IDENTIFIER})
_USER_ATTRIBUTES: Final = frozenset({oids.COMMON_NAME, oids.USER_ID, oids.EMAIL_ADDRESS})
# What AAA calls the names of a subjectAltName.
_ASSERTED_BY: Final[Mapping[str, Sequence[str]]] = {
    "dns": ("dns", "fqdn"),
    "email": ("email", "mail"),
    "uri": ("uri",),
    "upn": ("upn",),
    "ip": ("ip",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamingFacts:
    """What is known about a request: templates and vouching draw on this and on nothing else."""

    device_id: DeviceID
    profile: str
    attributes: Mapping[str, str]  # of the AAA answer; several values of one are separated by line feeds
    csr_subject: bytes  # DER Name
    csr_subject_alt_name: bytes | None  # DER GeneralNames


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedAttribute:
    """A subject attribute that the profile lets devices choose, within a pattern (`*`, `?`, `[...]`)."""

    oid: str
    pattern: str


def read_allowed(entries: Iterable[str]) -> tuple[AllowedAttribute, ...]:
    """Read entries such as `CN=*.example.com`; raise ValueError that says which is wrong and what is allowed."""
    return tuple(map(_read_entry, entries))


def _read_entry(entry: str) -> AllowedAttribute:
    keyword, _, pattern = (part.strip(" ") for part in entry.partition("="))
    if not pattern:
        raise ValueError(f'{entry!r}: write KEYWORD=VALUE, where * stands for any text, e.g. "OU=*"')
    try:
        return AllowedAttribute(oid=names.attribute_oid(keyword), pattern=_folded(pattern))
    except MalformedData as error:
        raise ValueError(f"{entry!r}: {error}") from None


def _folded(text: str) -> str:
    """Return text as it is compared: without case of ASCII letters, blanks in a row as one (RFC 4518 2.6.1)."""
    return re.sub(" +", " ", unicodedata.normalize("NFC", text).strip(" ")).translate(_LOWER)


def check_attribute(attribute: names.NameAttribute, facts: NamingFacts, allowed: Iterable[AllowedAttribute]) -> None:
    """Check that something vouches for an attribute of the CSR's subject; raise NameNotVouched that says what could."""
    name, text = names.attribute_name(attribute.oid), attribute.text
    if len(text) > _MAX_CHARACTERS or not text.isprintable():
        raise NameNotVouched(
            f"subject attribute {name} {text[:_MAX_CHARACTERS]!a} has more than {_MAX_CHARACTERS} characters, "
            "or some that cannot be printed"
        )
    if (
        _is_of_device(attribute, facts.device_id)
        or _folded(text) in _asserted(attribute.oid, facts.attributes)
        or any(each.oid == attribute.oid and fnmatchcase(_folded(text), each.pattern) for each in allowed)
    ):
        return
    # What the device wrote ends up in a shell when an operator follows the advice, hence the quotes.
    command = shlex.join(["scep-ra", "device", "set", str(facts.device_id), "--attribute", f"{name}={text}"])
    raise NameNotVouched(
        f"subject attribute {name} {text!r} is not vouched for: let AAA assert it ({command}), "
        f"or allow it (profile.{facts.profile}.subject_allowed)"
    )


def _is_of_device(attribute: names.NameAttribute, device_id: DeviceID) -> bool:
    with suppress(IdentityError):
        if DeviceID(kind=device_id.kind, value=attribute.text) == device_id:
            return True
    if device_id.kind in _NAMESPACED and attribute.oid == oids.SUBJECT_SERIAL_NUMBER:
        return _folded(attribute.text) == _folded(device_id.value.partition(":")[2])
    return False


def _asserted(oid: str, attributes: Mapping[str, str]) -> set[str]:
    """Return the folded values that AAA gives to a subject attribute, under whichever of its names."""
    texts = [text for name, text in attributes.items() if _is_named(name, oid)]
    if oid in _USER_ATTRIBUTES:
        texts.append(attributes.get("user", ""))
    return {_folded(value) for text in texts for value in _values(text)}


def _is_named(name: str, oid: str) -> bool:
    with suppress(MalformedData):
        return names.attribute_oid(name) == oid
    return False


def _values(text: str) -> Iterator[str]:
    return (value for value in text.split("\n") if value.strip(" "))


def check_general_name(name: GeneralName, element: bytes, facts: NamingFacts, *, subject: bytes) -> None:
    """Check that a subjectAltName of the CSR, as text and as DER, is the device's ID or AAA's word.

    `subject` is the certificate's DER Name: a permanentIdentifier without a value means its serialNumber. Raise
    NameNotVouched.
    """
    asserted = {
        _comparable(name.kind, value)
        for attribute in _ASSERTED_BY.get(name.kind, ())
        for value in _values(facts.attributes.get(attribute, ""))
    }
    if _comparable(name.kind, name.text) not in asserted and not _names_device(element, facts.device_id, subject):
        raise NameNotVouched(f"subjectAltName {str(name)!a} is not vouched for")


def _comparable(kind: str, text: str) -> str:
    if kind == "uri":
        return text.strip(" ")  # RFC 3986 6.2.2: only parts of a URI have no case
    if kind == "ip":
        with suppress(ValueError):
            return str(ip_address(text.strip(" ")))
    return _folded(text)


def _names_device(element: bytes, device_id: DeviceID, subject: bytes) -> bool:
    try:
        claims = extract_claims(subject=subject, subject_alt_name=der.sequence(element), rules=("san",))
    except IdentityError:
        return False
    return any(claim.device_id == device_id for claim in claims)
