"""Claims about the octets of OCSP (RFC 6960), with `cryptography` as the judge and as the client."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Digest
from scep_ra.pki.errors import AlgorithmRefused, MalformedData, PKIError
from scep_ra.pki.issuance import encode_extension, signature_algorithm, signing_scheme
from scep_ra.revocation.crl import RevocationReason
from scep_ra.revocation.ocsp import (
    MAX_CERTIFICATES,
    MAX_REQUEST_BYTES,
    CertStatus,
    Good,
    ResponseStatus,
    Revoked,
    Unknown,
    assemble_response,
    build_tbs_response,
    error_response,
    key_bits,
    parse_request,
    responder_id,
)
from tests.support.ocsp import ask, ask_raw, cert_id, nonce_extension
from tests.support.pki import NOW, make_ca, make_certificate, make_key

CA = make_ca("ec-p256")
ISSUER = CA.chain[0]
SERIAL = 0x0123456789ABCDEF
UNTIL = NOW + timedelta(hours=1)


def respond(*answers: tuple[int, CertStatus], nonce: bytes | None = None) -> bytes:
    """Return an answer that the CA itself signed."""
    request = parse_request(ask_raw(*(cert_id(ISSUER, serial) for serial, _ in answers)))
    tbs = build_tbs_response(
        responder_id(ISSUER.spki),
        zip(request.cert_ids, [status for _, status in answers], strict=True),
        this_update=NOW,
        next_update=UNTIL,
        nonce=nonce,
    )
    signature = CA.signer.sign(tbs, signing_scheme(CA.signer.spki)[1])
    return assemble_response(tbs, signature_algorithm(CA.signer.spki), signature, ISSUER)


# --- requests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "digest"),
    [
        (hashes.SHA1(), Digest.SHA1),
        (hashes.SHA256(), Digest.SHA256),
        (hashes.SHA384(), Digest.SHA384),
        (hashes.SHA512(), Digest.SHA512),
    ],
    ids=lambda each: each.name,
)
def test_a_request_of_another_library_is_read(algorithm: hashes.HashAlgorithm, digest: Digest) -> None:
    """Digests of the issuer's name and key, and the serial (RFC 6960 4.1.1)."""
    request = parse_request(ask(ISSUER, SERIAL, algorithm=algorithm))
    (found,) = request.cert_ids
    assert (found.digest, found.certificate_serial) == (digest, SERIAL)
    assert found.issuer_name_hash == digest.of(ISSUER.subject)
    assert found.issuer_key_hash == digest.of(key_bits(ISSUER.spki))
    assert request.nonce is None


def test_what_is_hashed_of_a_key_are_its_bits() -> None:
    """RFC 6960 4.1.1: without tag, length and number of unused bits; method 1 of RFC 5280 4.2.1.2 says the same."""
    theirs = x509.SubjectKeyIdentifier.from_public_key(x509.load_der_x509_certificate(ISSUER.der).public_key())
    assert Digest.SHA1.of(key_bits(ISSUER.spki)) == theirs.digest


@pytest.mark.parametrize("octets", [1, 16, 32, 128])
def test_a_nonce_of_1_to_128_octets_is_read(octets: int) -> None:
    """RFC 9654 2.1; clients of RFC 6960 send as few as they like."""
    assert parse_request(ask(ISSUER, SERIAL, nonce=bytes(octets))).nonce == bytes(octets)


@pytest.mark.parametrize("octets", [0, 129])
def test_a_nonce_of_another_length_is_malformed(octets: int) -> None:
    """RFC 9654 2.1 demands it."""
    with pytest.raises(MalformedData, match=f"nonce has {octets} octets"):
        parse_request(ask_raw(cert_id(ISSUER, SERIAL), extensions=nonce_extension(bytes(octets))))


@pytest.mark.parametrize("value", [b"naked octets", der.octet_string(b"x") + b"\x05\x00"])
def test_a_nonce_that_is_no_octet_string_is_malformed(value: bytes) -> None:
    """Or is followed by something."""
    with pytest.raises(MalformedData):
        parse_request(ask_raw(cert_id(ISSUER, SERIAL), extensions=encode_extension(oids.OCSP_NONCE, value)))


def test_several_certificates_come_in_their_order() -> None:
    """Up to a number that no chain reaches."""
    serials = list(range(1, MAX_CERTIFICATES + 1))
    request = parse_request(ask_raw(*(cert_id(ISSUER, serial) for serial in serials)))
    assert [found.certificate_serial for found in request.cert_ids] == serials


@pytest.mark.parametrize("number", [0, MAX_CERTIFICATES + 1])
def test_no_certificate_and_too_many_are_malformed(number: int) -> None:
    """What one request may cost has a limit."""
    with pytest.raises(MalformedData, match=f"names {number} certificates"):
        parse_request(ask_raw(*[cert_id(ISSUER, SERIAL)] * number))


def test_what_does_not_concern_us_is_passed_over() -> None:
    """Version, requestor name, a service locator, other extensions, and a signature (RFC 6960 4.1.1, 4.4)."""
    locator = der.explicit(0, der.sequence(encode_extension("1.3.6.1.5.5.7.48.1.7", der.sequence(ISSUER.subject))))
    preferred = encode_extension("1.3.6.1.5.5.7.48.1.8", der.sequence())
    octets = ask_raw(
        cert_id(ISSUER, SERIAL) + locator,
        before=der.explicit(0, der.integer(0)) + der.explicit(1, der.explicit(4, ISSUER.subject)),
        extensions=preferred + nonce_extension(b"n", critical=True),
        signature=der.explicit(0, der.sequence(signature_algorithm(ISSUER.spki), der.bit_string(b"whatever"))),
    )
    request = parse_request(octets)
    assert ([found.certificate_serial for found in request.cert_ids], request.nonce) == ([SERIAL], b"n")


@pytest.mark.parametrize("single", [False, True])
def test_a_critical_extension_that_is_not_understood_is_malformed(single: bool) -> None:
    """Whether of the request or of one certificate in it (RFC 6960 4.4)."""
    extension = encode_extension("1.2.3.4", der.NULL, critical=True)
    entry = cert_id(ISSUER, SERIAL)
    octets = (
        ask_raw(entry + der.explicit(0, der.sequence(extension))) if single else ask_raw(entry, extensions=extension)
    )
    with pytest.raises(MalformedData, match=r"critical extension 1\.2\.3\.4"):
        parse_request(octets)


def test_another_version_is_malformed() -> None:
    """There is only one (RFC 6960 4.1.1)."""
    with pytest.raises(MalformedData, match="version 1"):
        parse_request(ask_raw(cert_id(ISSUER, SERIAL), before=der.explicit(0, der.integer(1))))


def test_a_digest_that_nobody_knows_is_refused() -> None:
    """No issuer can be recognized by it."""
    unknown = der.sequence(der.sequence(der.oid("1.2.3")), der.octet_string(b""), der.octet_string(b""), der.integer(1))
    with pytest.raises(AlgorithmRefused, match=r"1\.2\.3"):
        parse_request(ask_raw(unknown))


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"GET / HTTP/1.1",
        b"\x30\x00",
        ask(ISSUER, SERIAL)[:-1],
        ask(ISSUER, SERIAL) + b"x",
        ask_raw(cert_id(ISSUER, SERIAL) + der.NULL),
        ask_raw(cert_id(ISSUER, SERIAL), signature=der.NULL),
        der.sequence(der.sequence(der.sequence(der.sequence(cert_id(ISSUER, SERIAL))), der.NULL)),
        der.octet_string(bytes(MAX_REQUEST_BYTES)),
    ],
    ids=["nothing", "text", "empty", "cut", "longer", "in an entry", "for a signature", "in the request", "large"],
)
def test_garbage_is_malformed(octets: bytes) -> None:
    """Whatever is missing or too much."""
    with pytest.raises(MalformedData):
        parse_request(octets)


@given(st.binary(max_size=200))
def test_any_octets_end_in_our_error_or_a_request(octets: bytes) -> None:
    """Nothing else leaves the parser."""
    with suppress(PKIError):
        assert parse_request(octets).cert_ids


@given(st.data())
def test_any_damage_ends_in_our_error_or_a_request(data: st.DataObject) -> None:
    """Also a few octets off from a good request."""
    octets = bytearray(ask(ISSUER, SERIAL, nonce=b"nonce" * 4))
    for _ in range(data.draw(st.integers(1, 4))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    with suppress(PKIError):
        assert parse_request(bytes(octets)).cert_ids


@given(st.integers(-(1 << 167), 1 << 167), st.none() | st.binary(min_size=1, max_size=128))
def test_any_serial_and_nonce_survives(serial: int, nonce: bytes | None) -> None:
    """Whatever a client asks for."""
    extensions = b"" if nonce is None else nonce_extension(nonce)
    request = parse_request(ask_raw(cert_id(ISSUER, serial), extensions=extensions))
    assert ([found.certificate_serial for found in request.cert_ids], request.nonce) == ([serial], nonce)


# --- answers -------------------------------------------------------------------------------------------------------


def test_another_library_reads_what_was_written() -> None:
    """Who answers, when, about what, until when."""
    answer = ocsp.load_der_ocsp_response(respond((SERIAL, Good())))
    assert answer.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL
    assert answer.responder_key_hash == Digest.SHA1.of(key_bits(ISSUER.spki))
    assert answer.responder_name is None
    assert (answer.produced_at_utc, answer.this_update_utc, answer.next_update_utc) == (NOW, NOW, UNTIL)
    assert (answer.certificate_status, answer.revocation_time_utc) == (ocsp.OCSPCertStatus.GOOD, None)
    assert answer.serial_number == SERIAL
    assert answer.issuer_key_hash == Digest.SHA1.of(key_bits(ISSUER.spki))
    assert answer.issuer_name_hash == Digest.SHA1.of(ISSUER.subject)
    assert len(answer.extensions) == 0


@pytest.mark.parametrize("reason", RevocationReason)
def test_a_revoked_certificate_has_its_time_and_reason(reason: RevocationReason) -> None:
    """By the word of RFC 5280; unspecified is left out, as in CRLs."""
    revoked_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    answer = ocsp.load_der_ocsp_response(respond((SERIAL, Revoked(revoked_at=revoked_at, reason=reason))))
    assert (answer.certificate_status, answer.revocation_time_utc) == (ocsp.OCSPCertStatus.REVOKED, revoked_at)
    read = answer.revocation_reason
    assert (read and read.value) == (None if reason is RevocationReason.UNSPECIFIED else reason.word)


def test_several_certificates_are_answered_in_one_response() -> None:
    """Each by what it was asked by."""
    known = (1, Good()), (2, Revoked(revoked_at=NOW, reason=1)), (3, Unknown())
    parts = list(ocsp.load_der_ocsp_response(respond(*known)).responses)
    assert [(part.serial_number, part.certificate_status.name) for part in parts] == [
        (1, "GOOD"),
        (2, "REVOKED"),
        (3, "UNKNOWN"),
    ]


def test_the_nonce_comes_back() -> None:
    """In an extension of the whole response (RFC 9654 2.1)."""
    answer = ocsp.load_der_ocsp_response(respond((SERIAL, Good()), nonce=b"n" * 32))
    assert answer.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * 32


def test_the_question_is_repeated_octet_by_octet() -> None:
    """Some clients compare CertIDs whole: also the parameters that an AlgorithmIdentifier may or may not have."""
    digest = Digest.SHA1
    bare = der.sequence(
        der.sequence(der.oid(oids.SHA1)),
        der.octet_string(digest.of(ISSUER.subject)),
        der.octet_string(digest.of(key_bits(ISSUER.spki))),
        der.integer(SERIAL),
    )
    (found,) = parse_request(ask_raw(bare)).cert_ids
    tbs = build_tbs_response(b"", [(found, Good())], this_update=NOW, next_update=UNTIL, nonce=None)
    assert bare in tbs


def test_the_certificate_of_the_signer_goes_along() -> None:
    """Clients know the CA, not its delegate (RFC 6960 4.2.1)."""
    certificate = make_certificate(CA, make_key("ec-p256").spki)
    answer = ocsp.load_der_ocsp_response(
        assemble_response(_tbs(), signature_algorithm(CA.signer.spki), b"", certificate)
    )
    assert answer.certificates == [x509.load_der_x509_certificate(certificate.der)]


def _tbs() -> bytes:
    (found,) = parse_request(ask(ISSUER, SERIAL)).cert_ids
    return build_tbs_response(
        responder_id(ISSUER.spki), [(found, Good())], this_update=NOW, next_update=UNTIL, nonce=None
    )


@pytest.mark.parametrize("status", ResponseStatus)
def test_a_refusal_is_the_one_that_the_rfc_numbers(status: ResponseStatus) -> None:
    """RFC 6960 4.2.1; nothing but the number, unsigned."""
    answer = ocsp.load_der_ocsp_response(error_response(status))
    assert (answer.response_status.value, answer.response_status.name) == (status.value, status.name)
