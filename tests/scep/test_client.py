"""Claims about the client core, told against the server core over a fake wire (tests/support/scep_pair)."""

from __future__ import annotations

import itertools
import secrets
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Cipher, Digest
from scep_ra.pki.csr import encode_attribute
from scep_ra.pki.enveloped_data import seal_envelope
from scep_ra.pki.errors import AlgorithmRefused, MalformedData
from scep_ra.pki.password import seal_password_envelope
from scep_ra.pki.profiles import KeyUsage
from scep_ra.pki.signed_data import MessageSigner, build_certs_only
from scep_ra.pki.validation import is_issued_by
from scep_ra.scep import message as pki_message
from scep_ra.scep.client import (
    TRANSITIONS,
    Answer,
    ClientEvent,
    ClientRules,
    ClientState,
    ClientTransaction,
    Failed,
    IssuedCertificate,
    Requester,
    RetrievedCRL,
    StillPending,
    self_signed_certificate,
    transaction_id_for,
)
from scep_ra.scep.errors import ReplyError
from scep_ra.scep.http_binding import ScepCall
from scep_ra.scep.message import parse_message
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import (
    CertificateRequested,
    CRLRequested,
    EnrollmentRequested,
    PasswordRequired,
    PollRequested,
)
from scep_ra.scep.standing import IssuedByUs
from scep_ra.scep.terms import FailInfo, MessageType, PKIStatus
from tests.support.pki import NOW, make_certificate
from tests.support.scep_pair import CHALLENGE, SUBJECT, ScepPair, device_key, forge, make_csr, make_requester

SUCCESS = (pki_message.pki_status(PKIStatus.SUCCESS),)
# SHA-1 and DES leave the server only under their setting; MD5 and DES it never sends, whatever came.
DIGESTS = (Digest.SHA1, Digest.SHA224, Digest.SHA256, Digest.SHA384, Digest.SHA512)
CIPHERS = tuple(Cipher)


@pytest.fixture
def pair() -> ScepPair:
    return ScepPair()


def enroll(pair: ScepPair) -> tuple[ClientTransaction, ScepCall]:
    """Return a transaction that has sent its request, and the request."""
    client = pair.client(make_requester(device_key()))
    return client, client.enroll(make_csr(device_key()))


def ra_signer(pair: ScepPair) -> MessageSigner:
    return MessageSigner(pair.ra.key, pair.ra.certificate)


def refuses(client: ClientTransaction, reply: bytes, pattern: str) -> None:
    with pytest.raises(ReplyError, match=pattern):
        client.receive(reply)
    assert client.state is ClientState.SENT


# --- enrolling -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("post", [True, False], ids=["POST", "GET"])
@pytest.mark.parametrize(("digest", "cipher"), list(itertools.product(DIGESTS, CIPHERS)))
def test_an_rsa_key_is_enrolled_with_every_digest_and_cipher(
    pair: ScepPair, digest: Digest, cipher: Cipher, post: bool
) -> None:
    """Whatever both sides allow works in both HTTP forms, and the certificate is the one for the key."""
    key = device_key()
    client = pair.client(make_requester(key), ClientRules(digest=digest, cipher=cipher, replies=pair.policy))
    event = pair.carry(client.enroll(make_csr(key)), post=post)
    assert isinstance(event, EnrollmentRequested)
    assert event.csr.challenge_password == CHALLENGE
    issued = pair.issue(key.spki)
    reply = pair.server.success(event.reply_to, [issued, pair.ca.chain[0]])
    assert client.receive(reply.body) == IssuedCertificate(certificate=issued, others=(pair.ca.chain[0],))
    assert client.state is ClientState.SUCCEEDED


@pytest.mark.parametrize("cipher", CIPHERS)
@pytest.mark.parametrize("key_type", ["ec-p256", "ec-p384"])
def test_an_ec_key_is_enrolled_under_its_challenge(pair: ScepPair, key_type: str, cipher: Cipher) -> None:
    """RFC 8894 3.1: request, poll and answer are encrypted under the challenge."""
    key = device_key(key_type)
    client = pair.client(make_requester(key), ClientRules(digest=Digest.SHA384, cipher=cipher, replies=pair.policy))
    event = pair.carry(client.enroll(make_csr(key)))
    assert isinstance(event, PasswordRequired)
    opened = pair.server.open_with_passwords(event, [b"wrong", CHALLENGE.encode()])
    assert isinstance(opened, EnrollmentRequested)
    assert client.receive(pair.server.pending(opened.reply_to).body) == StillPending()
    event = pair.carry(client.poll())
    assert isinstance(event, PasswordRequired)
    opened = pair.server.open_with_passwords(event, [CHALLENGE.encode()])
    assert isinstance(opened, PollRequested)
    issued = pair.issue(key.spki)
    answer = client.receive(pair.server.success(opened.reply_to, [issued]).body)
    assert answer == IssuedCertificate(certificate=issued, others=())


def test_an_ec_key_without_a_challenge_is_refused_before_anything_is_sent() -> None:
    """Nobody could answer it."""
    key = device_key("ec-p256")
    certificate = self_signed_certificate(SUBJECT, key, NOW, secrets.token_bytes)
    with pytest.raises(AlgorithmRefused, match="needs a challenge"):
        Requester(key=key, certificate=certificate)


def test_a_pending_request_is_polled_until_it_is_issued(pair: ScepPair) -> None:
    """RFC 8894 3.3.3: same transactionID, a fresh senderNonce, issuer and subject in the body."""
    client, call = enroll(pair)
    event = pair.carry(call)
    nonces = {parse_message(call.message).sender_nonce}
    for _ in range(2):
        assert client.receive(pair.server.pending(event.reply_to).body) == StillPending()
        assert client.state is ClientState.PENDING
        call = client.poll()
        event = pair.carry(call)
        assert isinstance(event, PollRequested)
        assert event.reply_to.transaction_id == transaction_id_for(device_key().spki)
        nonces.add(event.reply_to.sender_nonce)
    assert len(nonces) == 3
    issued = pair.issue(device_key().spki)
    assert client.receive(pair.server.success(event.reply_to, [issued]).body) == IssuedCertificate(
        certificate=issued, others=()
    )


def test_a_lost_answer_can_be_polled_for(pair: ScepPair) -> None:
    """SENT admits a poll; the answer to the first request is no longer accepted then."""
    client, call = enroll(pair)
    late = pair.server.pending(pair.carry(call).reply_to).body
    call = client.poll()
    refuses(client, late, "recipientNonce")
    assert client.receive(pair.server.pending(pair.carry(call).reply_to).body) == StillPending()


@pytest.mark.parametrize("info", list(FailInfo))
def test_a_failure_comes_with_reason_and_text(pair: ScepPair, info: FailInfo) -> None:
    """RFC 8894 3.2.1.4: failInfo and failInfoText reach the caller as they are."""
    client, call = enroll(pair)
    reply = pair.server.failure(pair.carry(call).reply_to, info, "no such device")
    assert client.receive(reply.body) == Failed(fail_info=info, text="no such device")
    assert client.state is ClientState.FAILED


def test_a_failure_with_a_private_reason_is_a_failure(pair: ScepPair) -> None:
    """Dogtag sends failInfo beyond 4, others none."""
    private = encode_attribute(oids.FAIL_INFO, der.directory_string("9"))
    for extra in ((private,), ()):
        client, call = enroll(pair)
        reply = forge(call, ra_signer(pair), extra=(pki_message.pki_status(PKIStatus.FAILURE), *extra))
        assert client.receive(reply) == Failed(fail_info=None, text="")


def test_a_csr_that_cannot_be_read_is_not_sent(pair: ScepPair) -> None:
    """The transaction stays new."""
    client = pair.client(make_requester(device_key()))
    with pytest.raises(MalformedData):
        client.enroll(b"\x30\x00")
    assert client.state is ClientState.NEW


def test_a_ca_speaking_for_itself_signs_the_answers(pair: ScepPair) -> None:
    """The issuer of the RA is believed as well as the RA."""
    client, call = enroll(pair)
    issuer = MessageSigner(pair.ca.signer, pair.ca.chain[0])
    assert client.receive(forge(call, issuer)) == StillPending()


# --- renewing and asking -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_pkcs_req", [False, True], ids=["RenewalReq", "PKCSReq"])
def test_a_renewal_is_signed_with_the_old_certificate(pair: ScepPair, as_pkcs_req: bool) -> None:
    """RFC 8894 2.3: the answer comes encrypted to the old certificate and holds one for the new key."""
    old, new = device_key(), device_key(owner="scep client's next key")
    requester = Requester(key=old, certificate=pair.issue(old.spki))
    client = pair.client(requester)
    event = pair.carry(client.renew(make_csr(new, challenge=None), as_pkcs_req=as_pkcs_req))
    assert isinstance(event, EnrollmentRequested)
    assert event.reply_to.standing == IssuedByUs()
    assert event.message_type is (MessageType.PKCS_REQ if as_pkcs_req else MessageType.RENEWAL_REQ)
    renewed = pair.issue(new.spki)
    answer = client.receive(pair.server.success(event.reply_to, [renewed]).body)
    assert answer == IssuedCertificate(certificate=renewed, others=())


@pytest.fixture
def holder(pair: ScepPair) -> Requester:
    """Return somebody with a certificate, who may ask."""
    return Requester(key=device_key(), certificate=pair.issue(device_key().spki))


def test_a_certificate_is_retrieved_by_issuer_and_serial(pair: ScepPair, holder: Requester) -> None:
    """RFC 8894 3.3.4: GetCert."""
    client = pair.client(holder)
    wanted = pair.issue(device_key(owner="somebody else").spki)
    event = pair.carry(client.get_certificate(wanted.issuer, wanted.certificate_serial))
    assert isinstance(event, CertificateRequested)
    assert (event.issuer, event.certificate_serial) == (wanted.issuer, wanted.certificate_serial)
    reply = pair.server.success(event.reply_to, [holder.certificate, wanted])
    assert client.receive(reply.body) == IssuedCertificate(certificate=wanted, others=(holder.certificate,))


def test_another_certificate_than_the_one_asked_for_is_refused(pair: ScepPair, holder: Requester) -> None:
    """Issuer and serial have to fit."""
    client = pair.client(holder)
    event = pair.carry(client.get_certificate(holder.certificate.issuer, 5))
    refuses(client, pair.server.success(event.reply_to, [holder.certificate]).body, "issuer and serial")


def test_a_crl_is_retrieved(pair: ScepPair, holder: Requester) -> None:
    """RFC 8894 3.3.4: GetCRL names a certificate that the CRL would list."""
    client = pair.client(holder)
    event = pair.carry(client.get_crl(holder.certificate))
    assert isinstance(event, CRLRequested)
    assert event.certificate_serial == holder.certificate.certificate_serial
    crl = der.sequence(der.integer(1))
    assert client.receive(pair.server.success_crl(event.reply_to, crl).body) == RetrievedCRL(crl=crl)


def test_success_without_a_crl_is_refused(pair: ScepPair, holder: Requester) -> None:
    """A certificate is no CRL."""
    client = pair.client(holder)
    event = pair.carry(client.get_crl(holder.certificate))
    refuses(client, pair.server.success(event.reply_to, [holder.certificate]).body, "holds no CRL")


def test_a_query_is_never_pending(pair: ScepPair, holder: Requester) -> None:
    """Neither may the server say so, nor the client poll."""
    client = pair.client(holder)
    event = pair.carry(client.get_crl(holder.certificate))
    refuses(client, pair.server.pending(event.reply_to).body, "PENDING can only answer an enrollment")
    with pytest.raises(ValueError, match="only an enrollment"):
        client.poll()


# --- servers that lie ----------------------------------------------------------------------------------------------


def test_an_answer_of_an_unknown_signer_is_refused(pair: ScepPair) -> None:
    """A certificate of the same CA is not the RA's."""
    client, call = enroll(pair)
    key = device_key(owner="impostor")
    impostor = MessageSigner(key, make_certificate(pair.ca, key.spki))
    refuses(client, forge(call, impostor), "GetCACert did not name")


def test_an_answer_with_the_ra_certificate_and_another_key_is_refused(pair: ScepPair) -> None:
    """Enclosing the RA's certificate is not enough."""
    client, call = enroll(pair)
    impostor = MessageSigner(device_key(owner="impostor"), pair.ra.certificate)
    refuses(client, forge(call, impostor), "signature does not verify")


def test_an_unsigned_answer_is_refused(pair: ScepPair) -> None:
    """A certs-only message is no CertRep, even with the right certificate in it."""
    client, _ = enroll(pair)
    refuses(client, build_certs_only([pair.issue(device_key().spki).der]), "0 signers")


def test_our_own_request_coming_back_is_refused(pair: ScepPair) -> None:
    """A mirror is not a server."""
    client, call = enroll(pair)
    refuses(client, call.message, "GetCACert did not name")


@pytest.mark.parametrize(
    ("lie", "pattern"),
    [
        ({"transaction_id": "another"}, "transactionID is not ours"),
        ({"recipient_nonce": bytes(16)}, "recipientNonce"),
        ({"message_type": MessageType.PKCS_REQ}, "another type than CertRep"),
        ({"extra": ()}, "has 0 values"),
        ({"extra": (encode_attribute(oids.PKI_STATUS, der.directory_string("1")),)}, "pkiStatus"),
        ({"extra": SUCCESS, "content": None}, "cut off"),
        ({"extra": SUCCESS, "content": b"\x30\x00"}, "missing"),
    ],
)
def test_an_answer_with_one_thing_wrong_is_refused(pair: ScepPair, lie: dict[str, object], pattern: str) -> None:
    """Signed by the RA and still not an answer to this request."""
    client, call = enroll(pair)
    refuses(client, forge(call, ra_signer(pair), **lie), pattern)  # type: ignore[arg-type]


def test_an_answer_with_a_nonce_seen_before_is_refused(pair: ScepPair) -> None:
    """A replayed senderNonce gives the answer away."""
    client, call = enroll(pair)
    nonce = secrets.token_bytes(16)
    assert client.receive(forge(call, ra_signer(pair), sender_nonce=nonce)) == StillPending()
    call = client.poll()
    refuses(client, forge(call, ra_signer(pair), sender_nonce=nonce), "not fresh")


def test_a_server_may_return_our_nonce_as_its_own(pair: ScepPair) -> None:
    """As micromdm does; recipientNonce proves that the answer is new."""
    client, call = enroll(pair)
    nonce = parse_message(call.message).sender_nonce
    assert client.receive(forge(call, ra_signer(pair), sender_nonce=nonce)) == StillPending()


def test_a_certificate_for_another_key_is_refused(pair: ScepPair) -> None:
    """Otherwise a device would install what it cannot use."""
    client, call = enroll(pair)
    event = pair.carry(call)
    other = pair.issue(device_key(owner="somebody else").spki)
    refuses(client, pair.server.success(event.reply_to, [other]).body, "no certificate for the key")


def test_an_answer_encrypted_to_somebody_else_is_refused(pair: ScepPair) -> None:
    """The text tells it from a wrong key."""
    client, call = enroll(pair)
    content = build_certs_only([pair.issue(device_key().spki).der])
    other = seal_envelope(content, pair.ra.certificate, Cipher.AES128, secrets.token_bytes)
    refuses(client, forge(call, ra_signer(pair), extra=SUCCESS, content=other), "somebody else's certificate")


def test_an_answer_that_does_not_open_is_refused(pair: ScepPair) -> None:
    """The envelope names our certificate and is made with another key."""
    requester = make_requester(device_key())
    client = pair.client(Requester(key=device_key(owner="impostor"), certificate=requester.certificate))
    call = client.enroll(make_csr(device_key()))
    sealed = seal_envelope(build_certs_only([]), requester.certificate, Cipher.AES128, secrets.token_bytes)
    refuses(client, forge(call, ra_signer(pair), extra=SUCCESS, content=sealed), "does not open")


def test_an_ec_key_is_not_answered_without_its_challenge(pair: ScepPair) -> None:
    """Neither with RSA nor under another password."""
    client = pair.client(make_requester(device_key("ec-p256")))
    call = client.enroll(make_csr(device_key("ec-p256")))
    rsa = seal_envelope(b"", pair.ra.certificate, Cipher.AES128, secrets.token_bytes)
    refuses(client, forge(call, ra_signer(pair), extra=SUCCESS, content=rsa), "not encrypted under the challenge")
    other = seal_password_envelope(b"", b"guess", Cipher.AES128, secrets.token_bytes)
    refuses(client, forge(call, ra_signer(pair), extra=SUCCESS, content=other), "does not open")


@pytest.mark.parametrize(
    ("rules", "pattern"),
    [
        (ClientRules(digest=Digest.SHA1, replies=AlgorithmPolicy()), "digest sha1 is not allowed"),
        (ClientRules(cipher=Cipher.TRIPLE_DES, replies=AlgorithmPolicy()), "des-ede3-cbc is not allowed"),
    ],
)
def test_weak_answers_are_refused_unless_the_rules_allow_them(pair: ScepPair, rules: ClientRules, pattern: str) -> None:
    """The server answers in kind; the client's policy for replies is its own."""
    client = pair.client(make_requester(device_key()), rules)
    event = pair.carry(client.enroll(make_csr(device_key())))
    refuses(client, pair.server.success(event.reply_to, [pair.issue(device_key().spki)]).body, pattern)


def test_a_true_answer_is_accepted_after_false_ones(pair: ScepPair) -> None:
    """Whoever can inject an answer cannot end the transaction by it."""
    client, call = enroll(pair)
    refuses(client, b"<html>", "not a CertRep")
    refuses(client, b"", "not a CertRep")
    event = pair.carry(call)
    answer: Answer = client.receive(pair.server.failure(event.reply_to, FailInfo.BAD_REQUEST, "").body)
    assert answer == Failed(fail_info=FailInfo.BAD_REQUEST, text="")


@given(octets=st.binary(max_size=200))
def test_arbitrary_octets_raise_reply_error_only(octets: bytes) -> None:
    """Nothing else leaves `receive`."""
    client, _ = enroll(ScepPair())
    with pytest.raises(ReplyError):
        client.receive(octets)


@given(data=st.data())
def test_a_damaged_answer_raises_reply_error_or_is_undamaged_in_what_counts(data: st.DataObject) -> None:
    """Any octet of a CertRep changed: refused, unless the octet means nothing."""
    pair = ScepPair()
    client, call = enroll(pair)
    reply = bytearray(pair.server.pending(pair.carry(call).reply_to).body)
    position = data.draw(st.integers(0, len(reply) - 1))
    reply[position] ^= data.draw(st.integers(1, 255))
    try:
        answer = client.receive(bytes(reply))
    except ReplyError:
        assert client.state is ClientState.SENT
    else:
        assert answer == StillPending()


# --- order and parts -----------------------------------------------------------------------------------------------


def test_what_is_out_of_order_is_a_value_error(pair: ScepPair) -> None:
    """A poll or an answer without a request, and a second request, are mistakes of the caller."""
    client = pair.client(make_requester(device_key()))
    with pytest.raises(ValueError, match="only an enrollment"):
        client.poll()
    with pytest.raises(ValueError, match="no reply is due: the transaction is NEW"):
        client.receive(b"")
    client.enroll(make_csr(device_key()))
    with pytest.raises(ValueError, match="REQUEST is impossible: the transaction is SENT"):
        client.enroll(make_csr(device_key()))


def test_every_state_that_is_not_an_end_can_be_left() -> None:
    """SUCCEEDED and FAILED are the ends, and every state can be reached."""
    assert {state for state, _ in TRANSITIONS} == set(ClientState) - {ClientState.SUCCEEDED, ClientState.FAILED}
    assert {*TRANSITIONS.values(), ClientState.NEW} == set(ClientState)
    assert {event for _, event in TRANSITIONS} == set(ClientEvent)


@pytest.mark.parametrize(
    ("key_type", "usages"),
    [("rsa-2048", (KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT)), ("ec-p256", (KeyUsage.DIGITAL_SIGNATURE,))],
)
def test_the_stand_in_is_signed_by_itself(key_type: str, usages: tuple[KeyUsage, ...]) -> None:
    """RFC 8894 2.4: subject and key of the request, valid now, with the usages that its key can fulfil."""
    key = device_key(key_type)
    certificate = self_signed_certificate(SUBJECT, key, NOW, secrets.token_bytes)
    assert certificate.subject == certificate.issuer == SUBJECT
    assert certificate.spki == key.spki
    assert is_issued_by(certificate, certificate)
    assert certificate.not_before < NOW < certificate.not_after - timedelta(days=30)
    assert certificate.certificate_serial > 0
    assert certificate.extension(oids.KEY_USAGE) == der.named_bits(*usages)


def test_the_transaction_id_is_printable_and_depends_on_the_key() -> None:
    """64 characters that every server can echo, the same for the same key."""
    identifiers = {transaction_id_for(device_key(owner=owner).spki) for owner in ("one", "one", "two")}
    assert len(identifiers) == 2
    assert all(len(each) == 64 and each.isalnum() for each in identifiers)
