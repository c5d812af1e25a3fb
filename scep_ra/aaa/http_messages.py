"""The JSON of step-ca's webhooks: questions and notices to a web service, and what it replies.

Field names are step-ca's (`provisionerName`, `x509CertificateRequest`, ...), so that services made for it work; what it
has no name for stands in an object of ours, `scepRa`. Nothing is sent or received here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, Literal, assert_never

from scep_ra.aaa.attributes import accept_from
from scep_ra.aaa.base import AccessRequest, Decision, MalformedAnswer, Notice, Reject
from scep_ra.aaa.values import texts
from scep_ra.identity.types import DeviceID
from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.csr import CertificationRequest, parse_request
from scep_ra.pki.errors import PKIError
from scep_ra.pki.general_names import parse_general_names
from scep_ra.pki.names import attributes
from scep_ra.strict_json import read_object

Kind = Literal["AUTHORIZING", "SCEPCHALLENGE"]

# failInfo badRequest (RFC 8894 3.2.1.4.5), which is what a device hears.
_BAD_REQUEST: Final = 2
_ALGORITHMS: Final = {oids.RSA_ENCRYPTION: "RSA", oids.EC_PUBLIC_KEY: "ECDSA"}
# As step-ca writes a subject: one text, or a list where there may be several.
_SINGLE: Final = {oids.COMMON_NAME: "commonName", oids.SUBJECT_SERIAL_NUMBER: "serialNumber"}
_SEVERAL: Final = {
    oids.COUNTRY: "country",
    oids.ORGANIZATION: "organization",
    oids.ORGANIZATIONAL_UNIT: "organizationalUnit",
    oids.LOCALITY: "locality",
    oids.STATE: "province",
    oids.STREET: "streetAddress",
}
_ALTERNATIVE_NAMES: Final = {"dns": "dnsNames", "email": "emailAddresses", "ip": "ipAddresses", "uri": "uris"}


# --- what is sent --------------------------------------------------------------------------------------------------


def encode_question(request: AccessRequest, *, kind: Kind, now: datetime) -> bytes:
    """Return the body that asks about a device; the challenge goes along where the webhook is SCEPCHALLENGE."""
    csr = parse_request(request.csr) if request.csr else None
    body = {
        **_head(request.profile, request.transaction_id, now),
        "scepRa": {
            **_context(request.device_id, request.profile, request.source),
            "renewal": request.renewal,
            "recheck": request.recheck,
            "certificateSerial": None if request.certificate_serial is None else f"{request.certificate_serial:x}",
        },
    }
    match kind:
        case "AUTHORIZING":
            body["x509CertificateRequest"] = csr and _request_fields(csr, csr.without_challenge())
        case "SCEPCHALLENGE":
            body["x509CertificateRequest"] = csr and _request_fields(csr, csr.der)
            body["scepChallenge"] = csr and csr.challenge_password
        case _:
            assert_never(kind)
    return _encode(body)


def encode_notice(notice: Notice, *, now: datetime) -> bytes:
    """Return the body of webhook NOTIFYING: the certificate, or why there is none."""
    csr = parse_request(notice.csr)
    body = {
        **_head(notice.profile, notice.transaction_id, now),
        "scepRa": _context(notice.device_id, notice.profile, notice.source),
        "x509CertificateRequest": _request_fields(csr, csr.der),
    }
    if notice.certificate:
        body["x509Certificate"] = _certificate_fields(parse_certificate(notice.certificate))
    else:
        body |= {"scepErrorCode": _BAD_REQUEST, "scepErrorDescription": notice.reason}
    return _encode(body)


def _encode(body: Mapping[str, Any]) -> bytes:
    """Return JSON without what is null, as step-ca leaves out what is empty."""
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode("ascii")


def _head(profile: str, transaction_id: str, now: datetime) -> dict[str, Any]:
    return {
        "timestamp": _timestamp(now),
        "provisionerName": profile,
        "scepTransactionID": transaction_id or None,
    }


def _context(device_id: DeviceID | None, profile: str, source: str) -> dict[str, Any]:
    device = None if device_id is None else {"kind": device_id.kind.value, "value": device_id.value}
    return {"deviceId": device, "profile": profile, "clientIp": source}


def _request_fields(csr: CertificationRequest, raw: bytes) -> dict[str, Any]:
    return {
        "subject": _subject(csr.subject),
        **_alternative_names(csr),
        **_key_fields(csr.spki),
        "raw": _base64(raw),
    }


def _certificate_fields(certificate: Certificate) -> dict[str, Any]:
    return {
        "serialNumber": str(certificate.certificate_serial),  # as text, because JSON readers round numbers of this size
        "subject": _subject(certificate.subject),
        "issuer": _subject(certificate.issuer),
        "notBefore": _timestamp(certificate.not_before),
        "notAfter": _timestamp(certificate.not_after),
        **_key_fields(certificate.spki),
        "raw": _base64(certificate.der),
    }


def _key_fields(spki: bytes) -> dict[str, str]:
    algorithm = der.Reader(spki).enter().enter().oid()
    return {"publicKey": _base64(spki), "publicKeyAlgorithm": _ALGORITHMS.get(algorithm, algorithm)}


def _subject(name: bytes) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    with suppress(PKIError):  # who cannot do without reads `raw`
        for attribute in attributes(name):
            if attribute.oid in _SINGLE:
                fields[_SINGLE[attribute.oid]] = attribute.text
            elif attribute.oid in _SEVERAL:
                fields.setdefault(_SEVERAL[attribute.oid], []).append(attribute.text)
    return fields


def _alternative_names(csr: CertificationRequest) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {field: [] for field in _ALTERNATIVE_NAMES.values()}
    with suppress(PKIError):  # the same
        octets = csr.subject_alt_name
        for name in parse_general_names(octets) if octets else ():
            if name.kind in _ALTERNATIVE_NAMES:
                fields[_ALTERNATIVE_NAMES[name.kind]].append(name.text)
    return fields


def _base64(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


# --- what comes back -----------------------------------------------------------------------------------------------


def read_reply(body: bytes) -> Decision:
    """Return what {"allow", "data", "error"} means; raise MalformedAnswer for anything that is not clearly that."""
    try:
        reply = read_object(body)
    except ValueError as unreadable:
        raise MalformedAnswer(f"the reply is {unreadable}: {body[:80]!r}") from unreadable
    match reply.get("allow"):
        case True:
            return accept_from({name: texts(name, value) for name, value in _object(reply, "data").items()})
        case False:
            error = _object(reply, "error")
            said = " ".join(text for name in ("code", "message") for text in texts(name, error.get(name)))
            return Reject(reason=said or "the web service said no")
        case _:
            raise MalformedAnswer('the reply says neither "allow": true nor "allow": false')


def _object(reply: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a member that is an object, null or left out."""
    value = reply.get(name) or {}
    if not isinstance(value, dict):
        raise MalformedAnswer(f"the reply has {type(value).__name__} as {name!r}: give an object")
    return value
