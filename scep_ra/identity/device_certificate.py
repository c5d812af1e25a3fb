"""Which device an IDevID names (IEEE 802.1AR 8; Cisco: SUDI), and whether a request speaks of the same one.

Identifiers come from their proper places only: newer SUDIs carry a cloud ID in commonName, older ones product and MAC.
Whether the certificate can be believed is `pki.trust`'s question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from scep_ra.identity.errors import NoIdentity
from scep_ra.identity.extract import ConflictingIdentity, IdentityClaim, extract_claims, is_strong
from scep_ra.identity.types import DeviceID, DeviceIDKind, classify
from scep_ra.pki import oids
from scep_ra.pki.certificates import Certificate

_RULES: Final = ("subject.serialNumber", "san")
_SOURCES: Final = frozenset({"subject.serialNumber", "san.hardwareModuleName", "san.permanentIdentifier"})


def device_certificate_claims(certificate: Certificate) -> tuple[IdentityClaim, ...]:
    """Return the identifiers in an IDevID, sources prefixed with `signer.`; `choose_device_id` takes one of them.

    Raise NoIdentity when there is none, UnreadableIdentity or InvalidDeviceID for what is none.
    """
    found = extract_claims(
        subject=certificate.subject,
        subject_alt_name=certificate.extension(oids.SUBJECT_ALT_NAME),
        rules=_RULES,
    )
    claims = tuple(replace(claim, source=f"signer.{claim.source}") for claim in found if claim.source in _SOURCES)
    if not claims:
        raise NoIdentity(
            "the signer's certificate names no device: no serialNumber in its subject, and no hardwareModuleName or "
            "permanentIdentifier in its subjectAltName"
        )
    return claims


def check_same_device(signer: Sequence[IdentityClaim], request: Iterable[IdentityClaim]) -> None:
    """Check that all a request says of its device is proven by the signer's certificate; raise ConflictingIdentity.

    Names of last resort (commonName, unstructuredName) do not count. `signer` is what device_certificate_claims gave.
    """
    own = {claim.device_id for claim in signer}
    proven = own | {_as_serial(device_id) for device_id in own}
    names_modules = any(device_id.kind is DeviceIDKind.HARDWARE_MODULE for device_id in own)
    for claim in request:
        # Where the certificate has no hwType to compare with, the serial in a hardwareModuleName decides.
        said = claim.device_id if names_modules else _as_serial(claim.device_id)
        if is_strong(claim) and said not in proven:
            raise ConflictingIdentity(_nearest(signer, said), claim)


def _as_serial(device_id: DeviceID) -> DeviceID:
    """Return what the serial of a hardwareModuleName is in the subject (802.1AR 8.6); other identifiers as they are."""
    if device_id.kind is not DeviceIDKind.HARDWARE_MODULE:
        return device_id
    device_serial = device_id.value.partition(":")[2]
    return DeviceID(kind=classify(device_serial), value=device_serial)


def _nearest(claims: Sequence[IdentityClaim], device_id: DeviceID) -> IdentityClaim:
    """Return the claim to show beside one that contradicts: of the same kind, if there is one."""
    return next((claim for claim in claims if claim.device_id.kind is device_id.kind), claims[0])
