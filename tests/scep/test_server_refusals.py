"""Claims about requests that the server core refuses, and what the peer is told: one failInfo and one public code."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der, oids
from scep_ra.pki.keys import KeyKind
from scep_ra.scep.errors import MalformedMessage, TransportError
from scep_ra.scep.http_binding import ScepCall
from scep_ra.scep.server import Refused, ServerRules
from scep_ra.scep.standing import SelfMade
from scep_ra.scep.terms import FailInfo, Operation
from tests.support.keys import (
    modulus_of_close_factors,
    modulus_of_roca,
    modulus_with_factor,
    rsa_512,
    rsa_key,
    spki,
)
from tests.support.mutations import mutations
from tests.support.pki import NOW, make_ca, make_certificate, make_ra
from tests.support.scep_messages import (
    CIPHER_OIDS,
    Envelope,
    Message,
    Request,
    algorithm,
    attribute,
    certificate,
    challenge,
    ec_pkcs_req,
    key_trans,
    pkcs_req,
    printable,
    san_request,
    stand_in,
    utf8,
)
from tests.support.scep_server import EVERYTHING, make_server, receive, refuse, server_of

RA = make_ra().certificate
BASE = pkcs_req(RA)
REQUEST = Request(key=rsa_key())
SERVER = make_server()
BAD_ALG = (FailInfo.BAD_ALG, "algorithm")
BAD_CHECK = (FailInfo.BAD_MESSAGE_CHECK, "integrity")
BAD_REQUEST = (FailInfo.BAD_REQUEST, "bad_request")


def with_envelope(**fields: object) -> Message:
    """Return BASE with another envelope around its PKCS#10."""
    envelope = replace(Envelope(content=REQUEST.encode(), recipient=RA), **fields)  # type: ignore[arg-type]
    return replace(BASE, content=envelope.encode())


def with_request(request: Request | bytes) -> Message:
    return with_envelope(content=request if isinstance(request, bytes) else request.encode())


def say(oid: str, *values: bytes) -> Message:
    return replace(BASE, attributes={oid: (attribute(oid, *values),)})


# --- message types -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signer", ["stand-in", "issued"])
@pytest.mark.parametrize("number", [number for number in range(100) if number not in (17, 19, 20, 21, 22)])
def test_every_other_message_type_is_refused_whatever_it_carries(number: int, signer: str) -> None:
    """N-14, N-15, SR-01, CVE-2026-30836: a valid request under 18 or any other number is denied by default."""
    signing = BASE.signer if signer == "stand-in" else make_certificate(make_ca(), spki(rsa_key()))
    assert refuse(SERVER, replace(BASE, signer=signing, message_type=str(number))) == BAD_REQUEST


@pytest.mark.parametrize("text", ["abc", "019", "", " 19", "1e1", "\u0661\u0669", "19\u200b", "-19"])
def test_what_is_no_number_is_no_message_type(text: str) -> None:
    """N-14."""
    assert refuse(SERVER, say(oids.MESSAGE_TYPE, utf8(text))) == BAD_REQUEST


@pytest.mark.parametrize(
    "message",
    [
        replace(BASE, attributes={oids.MESSAGE_TYPE: ()}),
        replace(BASE, extra=(attribute(oids.MESSAGE_TYPE, printable("17")),)),
        say(oids.MESSAGE_TYPE, printable("19"), printable("19")),
        say(oids.MESSAGE_TYPE, der.integer(19)),
    ],
    ids=["absent", "two attributes", "two values", "INTEGER"],
)
def test_a_message_type_that_is_not_one_text_fails_the_message_check(message: Message) -> None:
    """N-11, SIG-5, CVE-2026-7668."""
    assert refuse(SERVER, message) == BAD_CHECK


# --- signature -----------------------------------------------------------------------------------------------------


def swapped(old: bytes, new: bytes) -> bytes:
    octets = BASE.encode()
    assert old in octets
    return octets.replace(old, new)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(replace(BASE, signature=bytes(256)), id="N-01 signature"),
        pytest.param(swapped(BASE.content[-16:] if BASE.content else b"", bytes(16)), id="N-02 content"),
        pytest.param(say(oids.MESSAGE_DIGEST, der.octet_string(bytes(32))), id="N-03 messageDigest"),
        pytest.param(swapped(BASE.sender_nonce, bytes(16)), id="N-04 senderNonce"),
        pytest.param(swapped(b"5B5F7CA6", b"5B5F7CA7"), id="N-05 transactionID"),
        pytest.param(say(oids.CONTENT_TYPE, der.oid(oids.ENVELOPED_DATA)), id="N-10 contentType"),
        pytest.param(replace(BASE, attributes={oids.CONTENT_TYPE: ()}), id="N-10 no contentType"),
        pytest.param(replace(BASE, algorithm=algorithm(oids.SHA1_WITH_RSA)), id="N-20 two digests"),
        pytest.param(replace(BASE, algorithm=der.sequence()), id="no signature algorithm"),
        pytest.param(replace(BASE, key=rsa_key("other")), id="another key"),
    ],
)
def test_broken_signatures_fail_the_message_check(message: Message | bytes) -> None:
    """N-01 to N-05, N-10, N-20: badMessageCheck, signed back under the transactionID that was read."""
    assert refuse(SERVER, message) == BAD_CHECK


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(replace(BASE, digest_algorithm=algorithm("1.2.3.4")), id="N-16 unknown digest"),
        pytest.param(replace(BASE, digest_algorithm=algorithm(oids.SHA256, der.TRUE)), id="odd parameters"),
        pytest.param(replace(BASE, digest="md5"), id="N-17 MD5"),
        pytest.param(replace(BASE, digest="sha1"), id="SHA-1"),
        pytest.param(replace(BASE, algorithm=algorithm("1.2.3.4")), id="unknown signature"),
        pytest.param(replace(BASE, algorithm=algorithm(oids.ECDSA_WITH_SHA256, b"")), id="ECDSA with an RSA key"),
        pytest.param(Message(key=rsa_512(), signer=stand_in(rsa_512()), content=b"c"), id="N-48 RSA-512"),
        pytest.param(ec_pkcs_req(RA), id="N-32 EC signer"),
        pytest.param(replace(ec_pkcs_req(RA), message_type="20"), id="N-32 EC signer, poll"),
    ],
)
def test_algorithms_outside_the_policy_are_bad_alg(message: Message) -> None:
    """N-16, N-17, N-32, N-48."""
    assert refuse(SERVER, message) == BAD_ALG


def test_a_refusal_before_the_signature_holds_is_answered_in_the_default_algorithms() -> None:
    """SIG-8: nothing of an unverified message decides anything; only transactionID and nonce go back."""
    event = receive(SERVER, replace(BASE, digest="sha512", signature=b""))
    assert isinstance(event, Refused)
    assert event.reply_to.digest.value == "sha256"
    assert event.reply_to.standing == SelfMade()
    assert (event.reply_to.transaction_id, event.reply_to.sender_nonce) == (BASE.transaction_id, BASE.sender_nonce)


# --- who signed ----------------------------------------------------------------------------------------------------


def test_a_forged_issuer_is_refused() -> None:
    """R-07, R-08: our CA's name in a certificate that our CA did not sign, for every message type."""
    for issuer in make_ca().chain:
        forged = certificate(rsa_key(), issuer=issuer.subject, issuer_key=rsa_key("forger"))
        for number in ("17", "19", "20", "21", "22"):
            assert refuse(SERVER, replace(BASE, signer=forged, message_type=number)) == BAD_REQUEST


def test_a_self_signed_certificate_in_the_name_of_our_ca_is_refused() -> None:
    """The subject is as forged as the issuer."""
    forged = certificate(rsa_key(), subject=make_ca().chain[1].subject)
    assert refuse(SERVER, replace(BASE, signer=forged)) == BAD_REQUEST


def test_a_renewal_needs_a_certificate_of_ours() -> None:
    """R-04: neither a stand-in nor somebody else's certificate."""
    foreign = make_certificate(make_ca(name="foreign"), spki(rsa_key()))
    for signer in (BASE.signer, foreign):
        assert refuse(SERVER, replace(BASE, signer=signer, message_type="17")) == BAD_REQUEST


def test_a_request_under_another_key_than_the_signers_is_refused() -> None:
    """N-28, REQ-2, SEC-4: a recorded request in an envelope of somebody else's."""
    stolen = Envelope(content=REQUEST.encode(), recipient=RA).encode()
    thief = replace(BASE, key=rsa_key("thief"), signer=stand_in(rsa_key("thief")), content=stolen)
    assert refuse(SERVER, thief) == BAD_CHECK


# --- envelope ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(replace(BASE, content=None), id="N-41 absent"),
        pytest.param(replace(BASE, content=b""), id="N-41 empty"),
        pytest.param(replace(BASE, content=REQUEST.encode()), id="N-41, MSG-6 bare PKCS#10"),
        pytest.param(replace(BASE, content=b"no ASN.1"), id="garbage"),
        pytest.param(replace(BASE, content_type=oids.ENVELOPED_DATA), id="N-42 eContentType"),
        pytest.param(with_envelope(content_type=oids.SIGNED_DATA), id="MSG-5 inner type"),
        pytest.param(with_envelope(recipient_infos=(key_trans(RA, bytes(16)),) * 11), id="N-46 recipients"),
    ],
)
def test_a_message_without_a_proper_envelope_is_a_bad_request(message: Message) -> None:
    """N-41, N-42, MSG-1, MSG-5, MSG-6."""
    assert refuse(SERVER, message) == BAD_REQUEST


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(with_envelope(cipher="des"), id="N-18 DES"),
        pytest.param(with_envelope(cipher="3des"), id="N-19 3DES"),
        pytest.param(with_envelope(algorithm=algorithm("1.2.840.113549.3.2", der.sequence())), id="N-19 RC2"),
        pytest.param(with_envelope(algorithm=algorithm("2.16.840.1.101.3.4.1.6", der.sequence())), id="N-19 AES-GCM"),
        pytest.param(with_envelope(algorithm=algorithm("1.2.3.4")), id="N-19 unknown"),
        pytest.param(with_envelope(algorithm=algorithm(CIPHER_OIDS["aes128"])), id="N-26 no IV"),
        pytest.param(
            with_envelope(algorithm=algorithm(CIPHER_OIDS["aes128"], der.octet_string(bytes(8)))), id="N-26 short IV"
        ),
        pytest.param(
            with_envelope(recipient_infos=(key_trans(RA, bytes(16), identifier=algorithm("1.2.3.4")),)),
            id="unknown key transport",
        ),
        pytest.param(
            with_envelope(recipient_infos=(key_trans(RA, bytes(16), identifier=algorithm(oids.RSAES_OAEP, der.TRUE)),)),
            id="odd OAEP parameters",
        ),
    ],
)
def test_envelopes_in_other_algorithms_are_bad_alg(message: Message) -> None:
    """N-18, N-19, N-26: all of it readable without any key, so no oracle."""
    assert refuse(SERVER, message) == BAD_ALG


# --- PKCS#10 -------------------------------------------------------------------------------------------------------


def for_key(public: bytes, **fields: object) -> Message:
    """Return a renewal that asks for a certificate over this key, signed by an RSA key it has nothing to do with."""
    signer = make_certificate(make_ca(), spki(rsa_key()))
    request = replace(REQUEST, spki=public, **fields)  # type: ignore[arg-type]
    return replace(with_request(request), signer=signer, message_type="17")


def test_a_broken_or_changed_request_fails_the_message_check() -> None:
    """N-27: proof of possession is asked of the PKCS#10 itself (REQ-7, SEC-5)."""
    assert refuse(SERVER, with_request(replace(REQUEST, signature=bytes(256)))) == BAD_CHECK
    assert refuse(SERVER, with_request(REQUEST.encode().replace(b"device-1", b"device-2"))) == BAD_CHECK
    issued = make_certificate(make_ca(), spki(rsa_key()))
    not_mine = replace(REQUEST, spki=spki(rsa_key("new")))
    assert refuse(SERVER, replace(with_request(not_mine), signer=issued, message_type="17")) == BAD_CHECK


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(replace(REQUEST, algorithm=algorithm(oids.RSA_ENCRYPTION)), id="no digest"),
        pytest.param(replace(REQUEST, algorithm=algorithm("1.2.3.4")), id="unknown"),
        pytest.param(replace(REQUEST, algorithm=algorithm(oids.ECDSA_WITH_SHA256, b"")), id="another kind"),
        pytest.param(replace(REQUEST, digest="sha1"), id="P-28 SHA-1"),
    ],
)
def test_a_request_signed_in_another_way_is_bad_alg(request_: Request) -> None:
    """P-28."""
    assert refuse(SERVER, with_request(request_)) == BAD_ALG


def test_an_unreadable_signature_algorithm_fails_the_message_check() -> None:
    """Not an algorithm at all."""
    assert refuse(SERVER, with_request(replace(REQUEST, algorithm=der.sequence(der.NULL)))) == BAD_CHECK


def test_keys_below_the_minimum_are_bad_alg() -> None:
    """N-31: RSA-1024 and e=3 sign messages and get no certificate; 2048 gets none where the profile asks for 3072."""
    old = rsa_key("old", 1024)
    assert refuse(SERVER, pkcs_req(RA, old)) == BAD_ALG
    assert refuse(make_server(ServerRules(key_kinds=frozenset({KeyKind.RSA_3072, KeyKind.EC_P256}))), BASE) == BAD_ALG
    assert refuse(SERVER, pkcs_req(RA, rsa_key("e=3", exponent=3))) == BAD_ALG


@pytest.mark.parametrize(
    ("modulus", "exponent"),
    [
        (None, 3),
        (None, 4),
        (None, 1),
        (modulus_with_factor(3), 65537),
        (modulus_of_roca(), 65537),
        (modulus_of_close_factors(2), 65537),
        (2**511 + 187, 65537),
    ],
    ids=["e=3", "e=4", "e=1", "small factor", "ROCA", "close primes", "RSA-512"],
)
def test_public_keys_that_no_generator_makes_are_refused_without_a_fault_of_ours(
    modulus: int | None, exponent: int
) -> None:
    """N-31, SR-10: badAlg where the key is looked at first, badMessageCheck where its signature is."""
    numbers = rsa_key().public_key().public_numbers()
    key = der.sequence(der.integer(modulus or numbers.n), der.integer(exponent))
    public = der.sequence(algorithm(oids.RSA_ENCRYPTION), der.bit_string(key))
    assert refuse(SERVER, for_key(public)) in (BAD_ALG, BAD_CHECK)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(REQUEST.encode() + b"\x00", id="N-29 trailing octet"),
        pytest.param(replace(REQUEST, version=1), id="N-30 version 2"),
        pytest.param(replace(REQUEST, version=2), id="N-30 version 3"),
        pytest.param(replace(REQUEST, attributes=(challenge(), challenge())), id="N-33 two challenges"),
        pytest.param(replace(REQUEST, attributes=(san_request("a"), san_request("b"))), id="two extension requests"),
        pytest.param(
            replace(REQUEST, attributes=(attribute(oids.EXTENSION_REQUEST, der.NULL),)), id="unreadable extensions"
        ),
    ],
)
def test_a_request_in_bad_form_is_a_bad_request_once_its_key_is_proved(request_: Request | bytes) -> None:
    """N-29, N-30, N-33: told only to the holder of the key, so nothing is learnt about an envelope of others."""
    assert refuse(SERVER, with_request(request_)) == BAD_REQUEST


def nested(depth: int) -> bytes:
    return b"" if depth == 0 else der.sequence(nested(depth - 1))


@pytest.mark.parametrize("value", [nested(20), der.sequence(*[der.NULL] * 5000)], ids=["depth", "elements"])
def test_limits_hold_for_what_was_encrypted_too(value: bytes) -> None:
    """SR-07: an honestly signed request that is too deep or too rich is not read any further."""
    assert refuse(SERVER, with_request(replace(REQUEST, attributes=(attribute("1.2.3", value),)))) == BAD_CHECK


# --- no reply at all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x30\x00",
        b"\x30\x80",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x80" * 1000,
        replace(BASE, certificates=()).encode(),
        replace(BASE, certificates=(BASE.signer.der,) * 10_000).encode()[:60_000],
        replace(BASE, signer_infos=()).encode(),
        replace(BASE, has_signed_attributes=False).encode(),
        replace(BASE, outer_type=oids.DATA).encode(),
        BASE.encode() + b"x",
    ],
)
def test_what_cannot_be_answered_is_a_transport_error(octets: bytes) -> None:
    """N-06, N-08, N-09, N-40, N-43, N-46, N-47: HTTP 400 and no signature of ours."""
    with pytest.raises(MalformedMessage):
        receive(SERVER, octets)


# --- hostile -------------------------------------------------------------------------------------------------------


def receive_anything(octets: bytes, policy_server: int = 0) -> None:
    server = (SERVER, server_of(EVERYTHING))[policy_server]
    with suppress(TransportError):
        server.receive(ScepCall(operation=Operation.PKI_OPERATION, message=octets), NOW)


@given(st.binary(max_size=120))
def test_only_transport_errors_leave_for_arbitrary_octets(octets: bytes) -> None:
    """N-45."""
    receive_anything(octets)


@given(mutations(BASE.encode()))
def test_only_transport_errors_leave_for_changed_messages(octets: bytes) -> None:
    """N-44, N-45: what comes out is an event or a TransportError, whatever was changed outside."""
    receive_anything(octets)


@given(mutations(REQUEST.encode()))
def test_only_transport_errors_leave_for_changed_requests_in_good_envelopes(request_: bytes) -> None:
    """The same inside: signed and encrypted anew around a damaged PKCS#10."""
    receive_anything(with_request(request_).encode())


ENVELOPE = Envelope(content=REQUEST.encode(), recipient=RA).encode()


@given(mutations(ENVELOPE))
def test_only_transport_errors_leave_for_changed_envelopes_signed_anew(envelope: bytes) -> None:
    """The same between: signed around a damaged envelope, under the widest policy."""
    receive_anything(replace(BASE, content=envelope).encode(), 1)


@given(st.sampled_from(["21", "22"]), st.binary(max_size=60))
def test_only_transport_errors_leave_for_any_query(number: str, body: bytes) -> None:
    """GetCert and GetCRL with anything inside."""
    content = Envelope(content=body, recipient=RA).encode()
    receive_anything(replace(BASE, message_type=number, content=content).encode())
