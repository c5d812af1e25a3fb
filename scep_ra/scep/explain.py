"""Explain captured octets: PKIMessages of both directions, certificates, requests, CRLs, and what carries them.

For people who look for the reason of a refusal, so unreadable parts are named and the rest is read on. Secrets are
told by their length only. Printing belongs to the command line.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import parse_cipher, parse_key_transport, parse_signature
from scep_ra.pki.ber import normalise
from scep_ra.pki.certificates import Certificate, parse_certificate
from scep_ra.pki.csr import CertificationRequest, parse_request
from scep_ra.pki.enveloped_data import (
    EnvelopedData,
    KeyTransRecipient,
    PasswordRecipient,
    Random,
    open_envelope,
    parse_enveloped_data,
)
from scep_ra.pki.errors import MalformedData, PKIError
from scep_ra.pki.general_names import parse_general_names
from scep_ra.pki.keys import check_certified_key, describe_key, load_public_key
from scep_ra.pki.names import format_name
from scep_ra.pki.profiles import KeyUsage
from scep_ra.pki.signed_data import CertificateID, SignedData, parse_signed_data, parse_signer_digest
from scep_ra.scep.client import REPLY_LIMITS
from scep_ra.scep.discovery import is_ca
from scep_ra.scep.errors import MalformedMessage, TransportError
from scep_ra.scep.http_binding import parse_call
from scep_ra.scep.message import PKIMessage, parse_message
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import RecipientKey, ServerRules
from scep_ra.scep.terms import FailInfo, MessageType, Operation, PKIStatus

Value = str | int | bool | tuple[str, ...]
_T = TypeVar("_T")

_DEFAULT: Final = ServerRules()
_EVERYTHING: Final = AlgorithmPolicy.of(sha1=True, triple_des=True, des_and_md5=True, password_envelope=True)
_REQUEST: Final = re.compile(rb"(GET|HEAD|POST) (\S+) HTTP/1\.[01]\r?\n")
_RESPONSE: Final = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\n]*\n")
_END_OF_HEADERS: Final = re.compile(rb"\r?\n\r?\n")
_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/\s]+=*\s*")
_MESSAGE_WORDS: Final = {
    MessageType.CERT_REP: "CertRep",
    MessageType.RENEWAL_REQ: "RenewalReq",
    MessageType.PKCS_REQ: "PKCSReq",
    MessageType.CERT_POLL: "CertPoll",
    MessageType.GET_CERT: "GetCert",
    MessageType.GET_CRL: "GetCRL",
}
_EXTENSION_WORDS: Final = {
    oids.SUBJECT_KEY_IDENTIFIER: "subjectKeyIdentifier",
    oids.KEY_USAGE: "keyUsage",
    oids.SUBJECT_ALT_NAME: "subjectAltName",
    oids.BASIC_CONSTRAINTS: "basicConstraints",
    oids.CERTIFICATE_POLICIES: "certificatePolicies",
    oids.AUTHORITY_KEY_IDENTIFIER: "authorityKeyIdentifier",
    oids.EXTENDED_KEY_USAGE: "extendedKeyUsage",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One thing explained: its facts in order by snake_case name, and what is inside it."""

    title: str
    facts: Mapping[str, Value] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()


def _nobody(_: CertificationRequest) -> tuple[str, ...]:
    return ()


# --- the whole -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Explainer:
    """Explains octets; with the keys of recipients also what is encrypted to them."""

    random: Random
    keys: Sequence[RecipientKey] = ()
    identify: Callable[[CertificationRequest], tuple[str, ...]] = _nobody  # device IDs that a request names

    def explain(self, octets: bytes) -> Section:
        """Explain a raw HTTP request or response, PEM, base64, or DER/BER; raise MalformedData for anything else."""
        if request := _REQUEST.match(octets):
            return self._http_request(octets, request[1].decode("ascii"), request[2])
        if response := _RESPONSE.match(octets):
            return self._http_response(octets, int(response[1]))
        if blocks := _PEM.findall(octets):
            sections = [self._pem_block(label, body) for label, body in blocks]
            return sections[0] if len(sections) == 1 else Section(title="PEM file", sections=tuple(sections))
        if _BASE64.fullmatch(octets):
            return self._structure(_decode_base64(octets))
        return self._structure(octets)

    def _http_request(self, octets: bytes, method: str, target: bytes) -> Section:
        text = target.decode("utf-8", "surrogateescape")
        facts: dict[str, Value] = {"method": method, "path": _clean(text.partition("?")[0])}
        try:
            call = parse_call(method, text, _http_body(octets), max_message_bytes=_DEFAULT.limits.max_bytes)
        except TransportError as error:
            return Section(title="HTTP request", facts=facts | {"problem": f"{error.http_status}: {error}"})
        facts["operation"] = str(call.operation)
        if call.operation is not Operation.PKI_OPERATION:
            return Section(
                title="HTTP request", facts=facts | {"ca_identifier": _clean(call.message.decode("latin-1"))}
            )
        return Section(title="HTTP request", facts=facts, sections=(self._structure(call.message),))

    def _http_response(self, octets: bytes, status: int) -> Section:
        body = _http_body(octets)
        try:
            return Section(title="HTTP response", facts={"status": status}, sections=(self._structure(body),))
        except MalformedData as error:
            facts: dict[str, Value] = {"status": status, "octets": len(body), "problem": str(error)}
            return Section(title="HTTP response", facts=facts)

    def _pem_block(self, label: bytes, body: bytes) -> Section:
        if label.endswith(b"PRIVATE KEY"):
            return Section(title="private key", facts={"label": label.decode("ascii"), "contents": "not shown"})
        return self._structure(_decode_base64(body))

    def _structure(self, octets: bytes) -> Section:
        try:
            whole = normalise(octets, REPLY_LIMITS)
            is_cms = der.Reader(whole).enter().peek() == der.OBJECT_IDENTIFIER
        except MalformedData as error:
            raise MalformedData(f"neither HTTP, PEM, base64 nor ASN.1: {error}") from None
        return self._cms(whole) if is_cms else self._signed_object(whole)

    def _cms(self, octets: bytes) -> Section:
        content_type = der.Reader(octets).enter().oid()
        if content_type == oids.ENVELOPED_DATA:
            return self._envelope(octets, None, None)
        signed_data = parse_signed_data(octets)  # refuses every other content type by its OID
        if not signed_data.signer_infos:
            return self._certs_only(signed_data)
        try:
            return self._message(parse_message(octets, REPLY_LIMITS))
        except MalformedMessage as error:
            return Section(title="SignedData that is no SCEP message", facts={"problem": str(error)})

    def _certs_only(self, signed_data: SignedData) -> Section:
        facts: dict[str, Value] = {"certificates": len(signed_data.certificates), "crls": len(signed_data.crls)}
        parts = (*signed_data.certificates, *signed_data.crls)
        return Section(
            title="certs-only message", facts=facts, sections=tuple(self._signed_object(part) for part in parts)
        )

    def _signed_object(self, octets: bytes) -> Section:
        """Certificate, request and CRL have the same outer form; only one of the three parsers gets through."""
        for read in (_explain_certificate, self._explain_request, _explain_crl):
            try:
                return read(octets)
            except MalformedData:
                continue
        raise MalformedData("ASN.1, and neither a CMS message, a certificate, a PKCS#10 request nor a CRL")

    def _explain_request(self, octets: bytes) -> Section:
        return self._request(parse_request(octets), None)

    # --- messages

    def _message(self, message: PKIMessage) -> Section:
        facts = {
            "message_type": _attempt(_message_type, message),
            "transaction_id": message.transaction_id,
            "sender_nonce": message.sender_nonce.hex(),
            "recipient_nonce": _attempt(_recipient_nonce, message),
            "pki_status": _attempt(_pki_status, message),
            "fail_info": _attempt(_fail_info, message),
            "fail_info_text": _attempt(_fail_info_text, message),
            "signing_time": _attempt(_signing_time, message),
            "digest": _attempt(_digest, message),
            "digest_is_allowed_by_default": _attempt(_digest_is_allowed, message, otherwise=False),
            "signature_algorithm": _attempt(_signature, message.signer_info.signature_algorithm),
            "signature": _attempt(_verified, message, otherwise="DOES NOT VERIFY"),
            "enclosed_certificates": len(message.signed_data.certificates),
        }
        sections = [_explain_certificate(message.signer.der, title="signer")]
        if message.content:
            sections.append(self._envelope_or_problem(message))
        return Section(title="PKIMessage", facts=_present(facts), sections=tuple(sections))

    def _envelope_or_problem(self, message: PKIMessage) -> Section:
        try:
            return self._envelope(normalise(message.content, REPLY_LIMITS), _known_type(message), message.signer)
        except PKIError as error:
            return Section(title="pkcsPKIEnvelope", facts={"problem": str(error)})

    def _envelope(self, octets: bytes, kind: MessageType | None, signer: Certificate | None) -> Section:
        envelope = parse_enveloped_data(octets)
        facts: dict[str, Value] = {
            "cipher": _attempt(_cipher, envelope),
            "cipher_is_allowed_by_default": _attempt(_cipher_is_allowed, envelope, otherwise=False),
            "recipients": tuple(map(_recipient, envelope.recipients)),
            "encrypted_octets": len(envelope.encrypted_content),
        }
        opened = self._open(envelope)
        if isinstance(opened, str):
            return Section(title="pkcsPKIEnvelope", facts=facts | {"opened": opened})
        key, body = opened
        facts["opened"] = f"with the key of {format_name(key.certificate.subject)}"
        return Section(title="pkcsPKIEnvelope", facts=facts, sections=(self._body(body, kind, signer),))

    def _open(self, envelope: EnvelopedData) -> tuple[RecipientKey, bytes] | str:
        """Return what is inside and whose key opened it, or why it stays closed."""
        why = "no: the key of a recipient is not at hand"
        for key in self.keys:
            recipient = envelope.recipient_for(key.certificate)
            if recipient is None:
                continue
            try:
                return key, open_envelope(envelope, recipient, key.key, self.random)
            except PKIError:
                why = f"no: it does not open with the key of {format_name(key.certificate.subject)}"
        return why

    def _body(self, body: bytes, kind: MessageType | None, signer: Certificate | None) -> Section:
        try:
            match kind:
                case MessageType.PKCS_REQ | MessageType.RENEWAL_REQ:
                    return self._request(parse_request(normalise(body)), signer)
                case MessageType.GET_CERT | MessageType.GET_CRL:
                    fields = der.Reader(normalise(body)).enter()
                    issuer = format_name(fields.element(der.SEQUENCE))
                    return Section(
                        title="IssuerAndSerialNumber",
                        facts={"issuer": issuer, "certificate_serial": f"{fields.integer():x}"},
                    )
                case MessageType.CERT_POLL:
                    fields = der.Reader(normalise(body)).enter()
                    issuer, subject = (format_name(fields.element(der.SEQUENCE)) for _ in range(2))
                    return Section(title="IssuerAndSubject", facts={"issuer": issuer, "subject": subject})
                case _:
                    return self._structure(body)
        except PKIError as error:
            return Section(title="content", facts={"octets": len(body), "problem": str(error)})

    # --- requests

    def _request(self, request: CertificationRequest, signer: Certificate | None) -> Section:
        facts = {
            "subject": _attempt(format_name, request.subject),
            "device_ids": _attempt(self.identify, request),
            "public_key": _attempt(describe_key, request.spki, otherwise="unusable"),
            "public_key_is_accepted_by_default": _attempt(_key_is_accepted, request.spki, otherwise="no"),
            "signature_algorithm": _attempt(_signature, request.signature_algorithm),
            "proof_of_possession": _attempt(_possession, request, otherwise="DOES NOT HOLD"),
            "challenge": _attempt(_challenge, request),
            "requested_extensions": _attempt(_requested_extensions, request),
            "subject_alt_name": _attempt(_requested_names, request),
            "unstructured_names": _attempt(_unstructured_names, request),
            "form": _attempt(_form, request, otherwise="BROKEN"),
        }
        if signer is not None:
            facts["key_is_that_of_the_signer"] = request.spki == signer.spki
        return Section(title="PKCS#10 request", facts=_present(facts))


# --- facts ---------------------------------------------------------------------------------------------------------


def _attempt(read: Callable[[_T], Value], thing: _T, *, otherwise: str | bool = "unreadable") -> Value:
    """Return what is read from a thing; where that fails `otherwise`, with the reason when it is text."""
    try:
        return read(thing)
    except PKIError as error:
        return f"{otherwise}: {error}" if isinstance(otherwise, str) else otherwise


def _present(facts: Mapping[str, Value]) -> dict[str, Value]:
    """Leave out what is empty: absent attributes are no news."""
    return {name: value for name, value in facts.items() if value not in ("", ())}


def _clean(text: str) -> str:
    """Replace what could play with a terminal; a peer wrote this text."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def _http_body(octets: bytes) -> bytes:
    end = _END_OF_HEADERS.search(octets)
    return octets[end.end() :] if end else b""


def _decode_base64(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error:
        raise MalformedData("base64 that is cut off or damaged") from None


def _known_type(message: PKIMessage) -> MessageType | None:
    try:
        return message.message_type
    except MalformedData:
        return None


def _message_type(message: PKIMessage) -> str:
    number = _clean(message.text(oids.MESSAGE_TYPE) or "absent")
    known = message.message_type
    return f"{number}, which RFC 8894 does not define" if known is None else f"{_MESSAGE_WORDS[known]} ({number})"


def _recipient_nonce(message: PKIMessage) -> str:
    return (message.octets(oids.RECIPIENT_NONCE) or b"").hex()


def _pki_status(message: PKIMessage) -> str:
    return _numbered(message.text(oids.PKI_STATUS), message.pki_status) if _has(message, oids.PKI_STATUS) else ""


def _fail_info(message: PKIMessage) -> str:
    return _numbered(message.text(oids.FAIL_INFO), message.fail_info) if _has(message, oids.FAIL_INFO) else ""


def _has(message: PKIMessage, oid: str) -> bool:
    return bool(message.signer_info.values(oid))


def _numbered(number: str | None, known: PKIStatus | FailInfo | None) -> str:
    return f"{'undefined' if known is None else known.name} ({_clean(number or '')})"


def _fail_info_text(message: PKIMessage) -> str:
    return _clean(message.text(oids.FAIL_INFO_TEXT) or "")


def _signing_time(message: PKIMessage) -> str:
    if not _has(message, oids.SIGNING_TIME):
        return ""
    return der.Reader(message.signer_info.single_value(oids.SIGNING_TIME)).time().isoformat()


def _digest(message: PKIMessage) -> str:
    return parse_signer_digest(message.signer_info)


def _digest_is_allowed(message: PKIMessage) -> bool:
    return parse_signer_digest(message.signer_info) in _DEFAULT.algorithms.digests


def _cipher(envelope: EnvelopedData) -> str:
    return parse_cipher(envelope.cipher)[0]


def _cipher_is_allowed(envelope: EnvelopedData) -> bool:
    return parse_cipher(envelope.cipher)[0] in _DEFAULT.algorithms.ciphers


def _signature(identifier: bytes) -> str:
    algorithm = parse_signature(identifier)
    return f"{algorithm.scheme} with {algorithm.digest}" if algorithm.digest else algorithm.scheme


def _verified(message: PKIMessage) -> str:
    message.verify(_EVERYTHING)
    return "verifies"


def _key_is_accepted(spki: bytes) -> bool:
    check_certified_key(load_public_key(spki))
    return True


def _possession(request: CertificationRequest) -> str:
    request.verify_possession(_EVERYTHING.digests)
    return "holds"


def _challenge(request: CertificationRequest) -> str:
    challenge = request.challenge_password
    return "absent" if challenge is None else f"present, {len(challenge)} characters"


def _requested_extensions(request: CertificationRequest) -> tuple[str, ...]:
    return tuple(_EXTENSION_WORDS.get(each.oid, each.oid) for each in request.requested_extensions)


def _requested_names(request: CertificationRequest) -> tuple[str, ...]:
    return _general_names(request.subject_alt_name)


def _general_names(octets: bytes | None) -> tuple[str, ...]:
    return () if octets is None else tuple(_clean(str(name)) for name in parse_general_names(octets))


def _unstructured_names(request: CertificationRequest) -> tuple[str, ...]:
    return tuple(map(_clean, request.unstructured_names))


def _form(request: CertificationRequest) -> str:
    request.check_form()
    return "well-formed"


def _recipient(recipient: KeyTransRecipient | PasswordRecipient) -> str:
    if isinstance(recipient, PasswordRecipient):
        return "whoever knows the challenge (password-based)"
    return f"{_certificate_id(recipient.recipient_id)}, {_attempt(_transport, recipient.transport)}"


def _certificate_id(identifier: CertificateID) -> str:
    if identifier.issuer is None:
        return f"key identifier {(identifier.subject_key_identifier or b'').hex()}"
    return f"certificate serial {identifier.certificate_serial:x} of {_attempt(format_name, identifier.issuer)}"


def _transport(identifier: bytes) -> str:
    transport = parse_key_transport(identifier)
    return f"RSA OAEP with {transport.oaep_digest}" if transport.oaep_digest else "RSA PKCS#1 v1.5"


# --- certificates and CRLs -----------------------------------------------------------------------------------------


def _explain_certificate(octets: bytes, *, title: str = "certificate") -> Section:
    certificate = parse_certificate(octets)
    facts = {
        "subject": _attempt(format_name, certificate.subject),
        "issuer": _attempt(format_name, certificate.issuer),
        "is_self_issued": certificate.is_self_issued,
        "certificate_serial": f"{certificate.certificate_serial:x}",
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "public_key": _attempt(describe_key, certificate.spki, otherwise="unusable"),
        "signature_algorithm": _attempt(_signature, certificate.signature_algorithm),
        "basic_constraints": _basic_constraints(certificate),
        "key_usage": _attempt(_key_usage, certificate),
        "subject_alt_name": _attempt(_general_names, certificate.extension(oids.SUBJECT_ALT_NAME)),
        "sha256_fingerprint": certificate.fingerprint(),
        "sha1_fingerprint": certificate.fingerprint("sha1"),
    }
    return Section(title=title, facts=_present(facts))


def _basic_constraints(certificate: Certificate) -> str:
    if certificate.extension(oids.BASIC_CONSTRAINTS) is None:
        return ""
    return "CA" if is_ca(certificate) else "end entity"


def _key_usage(certificate: Certificate) -> tuple[str, ...]:
    value = certificate.extension(oids.KEY_USAGE)
    if value is None:
        return ()
    bits = der.Reader(value).contents(der.BIT_STRING)[1:2]
    return tuple(usage.name.lower() for usage in KeyUsage if bits and bits[0] & 0x80 >> usage)


def _explain_crl(octets: bytes) -> Section:
    """RFC 5280 5.1."""
    fields = der.Reader(octets).enter().enter()
    if fields.peek() == der.INTEGER:
        fields.integer()
    algorithm, issuer = fields.element(der.SEQUENCE), fields.element(der.SEQUENCE)
    this_update = fields.time().isoformat()
    has_next = fields.peek() in (der.UTC_TIME, der.GENERALIZED_TIME)
    facts = {
        "issuer": _attempt(format_name, issuer),
        "this_update": this_update,
        "next_update": fields.time().isoformat() if has_next else "",
        "signature_algorithm": _attempt(_signature, algorithm),
        "revoked_certificates": _count(fields.enter_optional(der.SEQUENCE)),
    }
    return Section(title="CRL", facts=_present(facts))


def _count(entries: der.Reader | None) -> int:
    count = 0
    while entries is not None and not entries.at_end():
        entries.element(der.SEQUENCE)
        count += 1
    return count
