"""Claims about what an outsider can learn: one failure from decryption to key comparison, and password envelopes."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest

from scep_ra.pki import der
from scep_ra.pki.algorithms import Cipher
from scep_ra.pki.enveloped_data import parse_enveloped_data
from scep_ra.pki.password import MAX_ITERATIONS, open_password_envelope, seal_password_envelope
from scep_ra.pki.signed_data import MessageSigner
from scep_ra.scep.errors import AlgorithmNotAllowed, IntegrityFailure, InvalidRequest
from scep_ra.scep.message import parse_message
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import (
    CertificateRequested,
    EnrollmentRequested,
    PasswordRequired,
    PKIEvent,
    PollRequested,
    RecipientKey,
    Refused,
    ScepServer,
    ServerRules,
)
from scep_ra.scep.terms import FailInfo
from tests.support.keys import CURVES, PrivateKey, ec_key, rsa_key, spki
from tests.support.pki import make_ca, make_certificate, make_ra
from tests.support.scep_messages import (
    Envelope,
    Message,
    Request,
    ec_pkcs_req,
    key_trans,
    name,
    pkcs_req,
    stand_in,
)
from tests.support.scep_server import make_server, receive, refuse, server_of

RA = make_ra().certificate
VICTIM = Request(key=rsa_key())
RECORDED = Envelope(content=VICTIM.encode(), recipient=RA, content_key=bytes(range(16)), iv=bytes(16))
ATTACKER = pkcs_req(RA, rsa_key("attacker"))
NEVER_RIGHT = make_server(random=bytes)


def broken_envelopes() -> dict[str, bytes]:
    """Return what whoever recorded an envelope may make of it; nothing is random, so no padding fits by chance."""
    recorded, stranger = RECORDED, make_ra(name="stranger").certificate
    size = len(VICTIM.encode()) // 16 * 16 + 16
    changes = {
        "N-21 for somebody else": replace(recorded, recipient_infos=(key_trans(stranger, bytes(16)),)),
        "N-22 random encryptedKey": replace(
            recorded, recipient_infos=(key_trans(RA, b"", encrypted_key=bytes(range(256))),)
        ),
        "N-23 content key of 15 octets": replace(recorded, recipient_infos=(key_trans(RA, bytes(15)),)),
        "N-23 content key of 0 octets": replace(recorded, recipient_infos=(key_trans(RA, b""),)),
        "N-23 content key of 24 octets": replace(recorded, recipient_infos=(key_trans(RA, bytes(24)),)),
        "N-24 bad padding": replace(recorded, padded=bytes(size)),
        "N-24 half a block": replace(recorded, encrypted_content=bytes(24)),
        "N-24 no ciphertext": replace(recorded, encrypted_content=b""),
        "N-25 garbage": replace(recorded, content=b"garbage"),
        "N-25 nothing": replace(recorded, content=b""),
        "N-25 some other ASN.1": replace(recorded, content=der.sequence(name("CA"), name("device"))),
        "N-25 issuer and serial": replace(recorded, content=der.sequence(name("CA"), der.octet_string(b"1"))),
        "N-25 too deep": replace(recorded, content=b"\x30\x80" * 40),
        "N-27 request changed": replace(recorded, content=VICTIM.encode().replace(b"device-1", b"device-2")),
        "N-28 request re-wrapped": recorded,
        "N-28 request with octets behind": replace(recorded, content=VICTIM.encode() + b"x"),
        "N-28 request of another version": replace(recorded, content=replace(VICTIM, version=3).encode()),
        "N-28 request with SHA-1": replace(recorded, content=replace(VICTIM, digest="sha1").encode()),
        "N-28 request of a weak key": replace(recorded, content=Request(key=rsa_key("old", 1024)).encode()),
        "N-28 request of an EC key": replace(recorded, content=Request(key=ec_key()).encode()),
    }
    return {case: envelope.encode() for case, envelope in changes.items()}


def outward(server: ScepServer, message: Message) -> tuple[FailInfo, str, int]:
    """Return all that differs between two refusals on the wire: failInfo, text by its code, and size."""
    event = receive(server, message)
    assert isinstance(event, Refused), event
    assert isinstance(event.error, IntegrityFailure | InvalidRequest)
    reply = server.failure(event.reply_to, event.error.fail_info, event.error.code)
    return event.error.fail_info, event.error.code, len(reply.body)


@pytest.mark.parametrize("case", broken_envelopes())
def test_an_outsider_gets_one_answer_for_whatever_he_makes_of_an_envelope(case: str) -> None:
    """N-21 to N-25, N-28, SEC-3, SEC-4, SR-06: same failInfo, text and size for a signer that is not ours."""
    content = broken_envelopes()[case]
    base_line = outward(NEVER_RIGHT, replace(ATTACKER, content=broken_envelopes()["N-22 random encryptedKey"]))
    assert base_line[:2] == (FailInfo.BAD_MESSAGE_CHECK, "integrity")
    assert outward(NEVER_RIGHT, replace(ATTACKER, content=content)) == base_line


@pytest.mark.parametrize("issued", [False, True], ids=["stand-in", "issued"])
@pytest.mark.parametrize("number", ["21", "22"])
@pytest.mark.parametrize("case", broken_envelopes())
def test_a_recorded_request_signed_anew_as_a_query_tells_nothing(case: str, number: str, issued: bool) -> None:
    """Regression: as GetCert, bad padding gave badMessageCheck and good padding badRequest.

    That was a padding oracle for the challenge in every recorded PKCSReq. Now all of it is badRequest.
    """
    signer = make_certificate(make_ca(), spki(rsa_key("attacker"))) if issued else ATTACKER.signer
    query = replace(ATTACKER, signer=signer, message_type=number)
    base_line = outward(NEVER_RIGHT, replace(query, content=broken_envelopes()["N-22 random encryptedKey"]))
    assert outward(NEVER_RIGHT, replace(query, content=broken_envelopes()[case])) == base_line


def test_an_issuer_and_serial_with_something_behind_is_refused() -> None:
    """Q-07: the body of a query is exactly one IssuerAndSerialNumber."""
    body = der.sequence(name("CA"), der.integer(1), der.NULL)
    content = replace(RECORDED, content=body).encode()
    assert refuse(NEVER_RIGHT, replace(ATTACKER, message_type="21", content=content))[1] == "bad_request"


def test_a_failed_decryption_costs_what_a_good_one_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """SEC-3: a decoy is read in place of the body, for the two messages that carry a PKCS#10."""
    read: list[int] = []

    def parse_request(octets: bytes) -> None:
        read.append(len(octets))

    monkeypatch.setattr("scep_ra.scep.bodies.parse_request", parse_request)
    bad = replace(ATTACKER, content=broken_envelopes()["N-24 bad padding"])
    refuse(NEVER_RIGHT, bad)
    assert len(read) == 1
    assert abs(read[0] - len(VICTIM.encode())) < 100
    refuse(NEVER_RIGHT, replace(bad, message_type="21"))
    assert len(read) == 1


def test_the_reason_of_a_refusal_is_for_the_log_and_holds_no_secret() -> None:
    """SEC-7, SR-28: neither challenge nor content."""
    for content in broken_envelopes().values():
        event = receive(NEVER_RIGHT, replace(ATTACKER, content=content))
        assert isinstance(event, Refused)
        assert "secret" not in str(event.error)
        assert event.error.__cause__ is None


# --- password envelopes --------------------------------------------------------------------------------------------

PASSWORD = b"secret"
PWRI = server_of(AlgorithmPolicy(password_envelope=True))


def pwri(body: bytes, key: PrivateKey | None = None, password: bytes = PASSWORD, number: str = "19") -> Message:
    """Return a message under a password, signed by an EC stand-in unless told otherwise."""
    key = key or ec_key()
    content = seal_password_envelope(body, password, Cipher.AES256, secrets.token_bytes)
    return Message(key=key, signer=stand_in(key), content=content, message_type=number)


def open_with(message: Message, *passwords: bytes) -> PKIEvent:
    event = receive(PWRI, message)
    assert isinstance(event, PasswordRequired), event
    return PWRI.open_with_passwords(event, passwords)


@pytest.mark.parametrize("curve", CURVES)
def test_an_ec_device_enrolls_under_its_challenge(curve: str) -> None:
    """W-01, RFC 8894 3.1: request and answer both open with it, and with nothing else."""
    key = ec_key(curve)
    event = open_with(pwri(Request(key=key).encode(), key), b"wrong", PASSWORD)
    assert isinstance(event, EnrollmentRequested)
    assert event.csr.spki == spki(key)
    assert (event.reply_to.password, event.reply_to.cipher) == (PASSWORD, Cipher.AES256)
    issued = make_certificate(make_ca(), event.csr.spki)
    envelope = parse_enveloped_data(parse_message(PWRI.success(event.reply_to, [issued]).body).content)
    content, _ = open_password_envelope(envelope, envelope.password_recipients[0], [PASSWORD])
    assert issued.der in content


def test_a_wrong_challenge_fails_the_message_check() -> None:
    """W-02."""
    for passwords in ((b"wrong", b""), ()):
        event = open_with(pwri(Request(key=ec_key()).encode()), *passwords)
        assert isinstance(event, Refused)
        assert isinstance(event.error, IntegrityFailure)


def test_password_envelopes_are_bad_alg_while_switched_off() -> None:
    """W-05, for an RSA signer; an EC signer does not come so far."""
    for key in (rsa_key(), ec_key()):
        assert refuse(make_server(), pwri(Request(key=key).encode(), key)) == (FailInfo.BAD_ALG, "algorithm")


def test_costly_derivations_are_refused_before_any_password_is_tried() -> None:
    """W-03: 10^9 iterations, and an unreadable recipient."""
    parameters = der.octet_string(b"salt") + der.integer(10**9)
    assert MAX_ITERATIONS < 10**9
    costly = der.integer(0) + der.explicit(0, der.oid("1.2.840.113549.1.5.12") + der.sequence(parameters))
    for contents in (costly, der.NULL):
        envelope = Envelope(
            content=b"x", recipient=RA, recipient_infos=(der.element(der.context(3), contents),), version=3
        )
        message = replace(pwri(b""), content=envelope.encode())
        assert refuse(PWRI, message) == (FailInfo.BAD_ALG, "algorithm")


def test_a_poll_and_a_query_may_come_under_the_password_too() -> None:
    """The answer to a poll goes back under it."""
    poll = open_with(pwri(b"anything", number="20"), PASSWORD)
    assert isinstance(poll, PollRequested)
    assert poll.reply_to.password == PASSWORD
    query = open_with(pwri(der.sequence(name("CA"), der.integer(5)), number="21"), PASSWORD)
    assert isinstance(query, CertificateRequested)
    assert (query.certificate_serial, query.reply_to.password) == (5, PASSWORD)


def test_what_the_password_opens_is_judged_like_any_other_body() -> None:
    """Garbage, and a request under another key."""
    for body in (b"garbage", VICTIM.encode()):
        event = open_with(pwri(body), PASSWORD)
        assert isinstance(event, Refused)
        assert isinstance(event.error, IntegrityFailure)


def test_an_envelope_for_both_an_ra_key_and_a_password_opens_with_the_key() -> None:
    """Regression: where one certificate signs and another receives, only the signing one was looked for."""
    signing, receiving = make_ra(), make_ra(name="receiving")
    server = ScepServer(
        signer=MessageSigner(signing.key, signing.certificate),
        recipients=[RecipientKey(certificate=receiving.certificate, key=receiving.key)],
        ca_certificates=make_ca().chain,
        rules=ServerRules(algorithms=AlgorithmPolicy(password_envelope=True)),
        random=secrets.token_bytes,
    )
    key = secrets.token_bytes(16)
    infos = (der.element(der.context(3), der.integer(0)), key_trans(receiving.certificate, key))
    envelope = Envelope(content=VICTIM.encode(), recipient=RA, content_key=key, recipient_infos=infos)
    event = receive(server, replace(pkcs_req(RA), content=envelope.encode()))
    assert isinstance(event, EnrollmentRequested)


def test_an_ec_device_that_encrypts_to_the_ra_is_answered_under_its_challenge() -> None:
    """The PKCS#10 brings the challenge along."""
    event = receive(PWRI, ec_pkcs_req(RA))
    assert isinstance(event, EnrollmentRequested)
    assert event.reply_to.password == PASSWORD


def test_an_ec_device_without_a_challenge_cannot_be_answered() -> None:
    """Bad algorithm: there is nothing to encrypt the answer with."""
    content = Envelope(content=Request(key=ec_key(), attributes=None).encode(), recipient=RA).encode()
    event = receive(PWRI, replace(ec_pkcs_req(RA), content=content))
    assert isinstance(event, Refused)
    assert isinstance(event.error, AlgorithmNotAllowed)


@pytest.mark.parametrize("number", ["20", "21", "22"])
def test_an_ec_device_polls_and_asks_under_its_challenge_or_not_at_all(number: str) -> None:
    """Regression: encrypted to the RA, such a message brought no challenge, and sealing the answer raised."""
    body = der.sequence(name("CA"), der.integer(5))
    content = Envelope(content=body, recipient=RA).encode()
    message = replace(ec_pkcs_req(RA), message_type=number, content=content)
    assert refuse(PWRI, message) == (FailInfo.BAD_ALG, "algorithm")
