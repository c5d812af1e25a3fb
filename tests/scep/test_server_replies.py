"""Claims about CertReps (RFC 8894 3.3.2), to the octet and in the eyes of asn1crypto and openssl."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Cipher, Digest
from scep_ra.pki.signed_data import parse_signed_data
from scep_ra.scep.message import parse_message
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import ReplyContext, ServerRules
from scep_ra.scep.terms import EmptyContent, FailInfo, PKIStatus
from tests.support import vectors
from tests.support.keys import rsa_key, spki
from tests.support.openssl import needs_openssl, run_openssl, write_pem
from tests.support.pki import make_ca, make_certificate, make_ra
from tests.support.scep_messages import attribute, pkcs_req, printable, utf8
from tests.support.scep_replies import certificates_of, read_reply
from tests.support.scep_server import enroll, make_server

RA = make_ra().certificate
SERVER = make_server()
BASE = pkcs_req(RA)
CONTEXT = enroll(SERVER, BASE).reply_to
ISSUED = make_certificate(make_ca(), spki(rsa_key()))


# --- forms ---------------------------------------------------------------------------------------------------------


def test_a_pending_reply_has_the_skeleton_to_the_octet() -> None:
    """Protocol 1.5.4: every header of the zero-length form, in this order and nothing between."""
    body = SERVER.pending(CONTEXT).body
    outer = der.Reader(body)
    info = outer.enter()
    outer.finish()
    assert info.element().hex() == "06092a864886f70d010702"
    signed = info.enter(der.context(0)).enter()
    assert signed.element().hex() == "020101"
    assert signed.element().hex() == "310f" + "300d06096086480165030402010500"
    assert signed.element().hex() == "300f06092a864886f70d010701a0020400"
    assert signed.element() == der.explicit(0, RA.der)
    signer = signed.enter(der.SET).enter()
    signed.finish()
    assert signer.element().hex() == "020101"
    assert signer.element() == der.sequence(RA.issuer, der.integer(RA.certificate_serial))
    assert signer.element().hex() == "300d06096086480165030402010500"
    attributes = signer.enter(der.context(0))
    assert signer.element().hex() == "300d06092a864886f70d0101010500"
    assert len(signer.contents(der.OCTET_STRING)) == 256
    signer.finish()
    encoded: list[bytes] = []
    while not attributes.at_end():
        encoded.append(attributes.element())
    nonce = parse_message(body).sender_nonce
    assert encoded == sorted(
        [
            bytes.fromhex("3011060a6086480186f8450109023103130133"),
            bytes.fromhex("3011060a6086480186f8450109033103130133"),
            bytes.fromhex("3020060a6086480186f845010905311204" + "10") + nonce,
            bytes.fromhex("3020060a6086480186f845010906311204" + "10") + BASE.sender_nonce,
            bytes.fromhex("3030060a6086480186f84501090731221320") + BASE.transaction_id.encode(),
            bytes.fromhex("301806092a864886f70d010903310b06092a864886f70d010701"),
            bytes.fromhex("302f06092a864886f70d01090431220420") + Digest.SHA256.of(b""),
        ]
    )


def test_a_reply_without_envelope_leaves_the_content_out_where_so_configured() -> None:
    """REP-4: `30 0b 06 09 ..` and the digest of nothing all the same."""
    server = make_server(ServerRules(empty_content=EmptyContent.ABSENT))
    for body in (server.pending(CONTEXT).body, server.failure(CONTEXT, FailInfo.BAD_REQUEST, "no").body):
        assert bytes.fromhex("300b06092a864886f70d010701a0") + der.explicit(0, RA.der)[1:] in body
        assert read_reply(body, RA).content is None


@pytest.mark.parametrize(
    ("reference", "empty_content"),
    [
        ("certrep-pending-zero-length-econtent.der", EmptyContent.ZERO_LENGTH),
        ("certrep-pending-absent-econtent.der", EmptyContent.ABSENT),
    ],
)
def test_pending_replies_have_the_shape_of_those_that_four_clients_read(
    reference: str, empty_content: EmptyContent
) -> None:
    """REP-4: same kinds of attributes and the same encapContentInfo as the recorded replies."""
    ours = parse_signed_data(make_server(ServerRules(empty_content=empty_content)).pending(CONTEXT).body)
    theirs = parse_signed_data(vectors.read(reference))
    assert (ours.content_type, ours.content) == (theirs.content_type, theirs.content)
    (our_signer,), (their_signer,) = ours.signer_infos, theirs.signer_infos
    assert our_signer.signature_algorithm == their_signer.signature_algorithm
    assert our_signer.digest_algorithm == their_signer.digest_algorithm
    assert {item.oid for item in our_signer.attributes} == {item.oid for item in their_signer.attributes} - {
        oids.SIGNING_TIME
    }


@pytest.mark.parametrize("info", FailInfo)
def test_a_failure_says_why_in_two_attributes(info: FailInfo) -> None:
    """REP-2, G-08: failInfo as PrintableString, failInfoText as UTF8String, no envelope."""
    reply = read_reply(SERVER.failure(CONTEXT, info, "nicht jetzt, später").body, RA)
    assert reply.text(oids.PKI_STATUS) == "2"
    assert reply.attributes[oids.FAIL_INFO] == printable(str(info.value))
    assert reply.attributes[oids.FAIL_INFO_TEXT] == utf8("nicht jetzt, später")
    assert reply.content == b""
    silent = read_reply(SERVER.failure(CONTEXT, info, "").body, RA)
    assert oids.FAIL_INFO_TEXT not in silent.attributes


def test_a_pending_reply_carries_no_failure() -> None:
    """REP-3, G-08."""
    reply = read_reply(SERVER.pending(CONTEXT).body, RA)
    assert reply.text(oids.PKI_STATUS) == "3"
    assert oids.FAIL_INFO not in reply.attributes


# --- what all have in common ---------------------------------------------------------------------------------------


def every_reply(context: ReplyContext = CONTEXT) -> list[bytes]:
    return [
        SERVER.success(context, [ISSUED]).body,
        SERVER.success_crl(context, der.sequence(der.integer(1))).body,
        SERVER.pending(context).body,
        SERVER.failure(context, FailInfo.BAD_CERT_ID, "text").body,
    ]


def test_every_reply_is_a_cert_rep_with_both_nonces() -> None:
    """G-05 to G-07, SIG-3, SIG-6, REP-6: type, transactionID, recipientNonce, contentType, order, certificate."""
    for body in every_reply():
        reply = read_reply(body, RA)
        assert reply.attributes[oids.MESSAGE_TYPE] == printable("3")
        assert reply.attributes[oids.TRANSACTION_ID] == printable(BASE.transaction_id)
        assert reply.attributes[oids.RECIPIENT_NONCE] == der.octet_string(BASE.sender_nonce)
        assert reply.attributes[oids.CONTENT_TYPE] == der.oid(oids.DATA)
        assert reply.attribute_order == sorted(reply.attribute_order)
        assert reply.certificates == [RA.der]
        assert reply.signature_oid == oids.RSA_ENCRYPTION


def test_every_reply_has_a_fresh_sender_nonce() -> None:
    """G-07: jscep refuses one that it has seen, certmonger one that is missing."""
    nonces = {read_reply(body, RA).attributes[oids.SENDER_NONCE] for body in every_reply() + every_reply()}
    assert len(nonces) == 8
    assert {len(nonce) for nonce in nonces} == {18}


def test_every_reply_goes_out_under_the_exact_media_type() -> None:
    """Protocol 1.1.4: no parameter, status 200, rejections included (HTTP-10)."""
    for reply in (SERVER.pending(CONTEXT), SERVER.failure(CONTEXT, FailInfo.BAD_ALG, ""), SERVER.success(CONTEXT, [])):
        assert (reply.status, reply.content_type) == (200, "application/x-pki-message")


@pytest.mark.parametrize("nonce", [bytes(16), b"8 octets", bytes(range(64))])
def test_the_recipient_nonce_is_the_senders_whatever_its_length(nonce: bytes) -> None:
    """P-32, TX-2."""
    context = enroll(SERVER, replace(BASE, sender_nonce=nonce)).reply_to
    assert read_reply(SERVER.pending(context).body, RA).attributes[oids.RECIPIENT_NONCE] == der.octet_string(nonce)


@pytest.mark.parametrize("transaction_id", ["a", "kX9+/a=", "SSCEP transactionId", "ümlaut", "under_score"])
def test_the_transaction_id_goes_back_as_it_came(transaction_id: str) -> None:
    """TX-1, P-22, P-23: PrintableString where possible, UTF8String where the client had to."""
    value = printable(transaction_id) if der.is_printable(transaction_id.encode()) else utf8(transaction_id)
    message = replace(BASE, attributes={oids.TRANSACTION_ID: (attribute(oids.TRANSACTION_ID, value),)})
    reply = read_reply(SERVER.pending(enroll(SERVER, message).reply_to).body, RA)
    assert reply.attributes[oids.TRANSACTION_ID] == value


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384", "sha512"])
def test_the_digest_of_the_reply_is_that_of_the_request(digest: str) -> None:
    """REP-7."""
    server = make_server(ServerRules(algorithms=AlgorithmPolicy.of(sha1=True)))
    context = enroll(server, replace(BASE, digest=digest)).reply_to
    assert read_reply(server.pending(context).body, RA).digest == digest


# --- success -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cipher", "name"), [(Cipher.AES128, "aes128"), (Cipher.AES256, "aes256"), (Cipher.TRIPLE_DES, "3des")]
)
def test_a_success_holds_the_certificate_for_the_signer_in_the_requests_cipher(cipher: Cipher, name: str) -> None:
    """P-01, REP-1, REP-5, REP-7, REP-8: opened and read without any code of ours."""
    reply = read_reply(SERVER.success(replace(CONTEXT, cipher=cipher), [ISSUED]).body, RA)
    assert reply.text(oids.PKI_STATUS) == "0"
    used, content = reply.open(rsa_key())
    assert used == name
    assert certificates_of(content) == [ISSUED.der]
    recipient = der.sequence(BASE.signer.issuer, der.integer(BASE.signer.certificate_serial))
    assert reply.content is not None
    assert recipient in reply.content


def test_the_requested_certificate_comes_first() -> None:
    """REP-1: scepclient takes the first, whatever follows."""
    chain = [ISSUED, *make_ca().chain]
    _, content = read_reply(SERVER.success(CONTEXT, chain).body, RA).open(rsa_key())
    assert certificates_of(content) == [certificate.der for certificate in chain]


def test_a_crl_comes_alone() -> None:
    """Q-03: in `crls`, without certificates."""
    crl = der.sequence(der.integer(1))
    _, content = read_reply(SERVER.success_crl(CONTEXT, crl).body, RA).open(rsa_key())
    inner = parse_signed_data(content)
    assert (inner.certificates, inner.crls) == ((), (crl,))


def test_a_renewal_is_answered_to_the_old_certificate() -> None:
    """R-01, REP-5: the recipient is named by the octets of the certificate that signed."""
    context = enroll(SERVER, replace(BASE, signer=ISSUED, message_type="17")).reply_to
    reply = read_reply(SERVER.success(context, [ISSUED]).body, RA)
    assert reply.content is not None
    assert der.sequence(ISSUED.issuer, der.integer(ISSUED.certificate_serial)) in reply.content


def test_our_own_reader_agrees() -> None:
    """Status and failInfo through parse_message, under the standard policy."""
    for body, status in zip(every_reply(), [0, 0, 3, 2], strict=True):
        message = parse_message(body)
        assert message.verify(AlgorithmPolicy()) is Digest.SHA256
        assert message.pki_status is PKIStatus(status)
        assert message.fail_info is (FailInfo.BAD_CERT_ID if status == 2 else None)


# --- in the eyes of openssl ----------------------------------------------------------------------------------------


def openssl_content(directory: Path, body: bytes) -> bytes:
    """Verify a reply with `openssl cms` against the RA certificate and its chain; return the content."""
    (directory / "reply.der").write_bytes(body)
    chain = write_pem(directory / "chain.pem", make_ca().chain)
    result = run_openssl(
        *("cms", "-verify", "-inform", "DER", "-binary", "-CAfile", chain, "-purpose", "any"),
        *("-in", directory / "reply.der", "-out", directory / "content"),
    )
    assert result.returncode == 0, result.stderr
    return (directory / "content").read_bytes()


@needs_openssl
@pytest.mark.parametrize("digest", [Digest.SHA256, Digest.SHA512])
def test_openssl_verifies_replies_without_envelope(tmp_path: Path, digest: Digest) -> None:
    """I-16: PENDING and FAILURE in the zero-length form."""
    context = replace(CONTEXT, digest=digest)
    for body in (SERVER.pending(context).body, SERVER.failure(context, FailInfo.BAD_REQUEST, "no").body):
        assert openssl_content(tmp_path, body) == b""


@needs_openssl
def test_openssl_verifies_and_opens_a_success(tmp_path: Path) -> None:
    """From the signed reply to the certificate with openssl alone."""
    envelope = openssl_content(tmp_path, SERVER.success(CONTEXT, [ISSUED]).body)
    (tmp_path / "envelope.der").write_bytes(envelope)
    key = rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(key)
    recipient = write_pem(tmp_path / "signer.pem", [BASE.signer])
    opened = run_openssl(
        *("cms", "-decrypt", "-inform", "DER", "-binary", "-recip", recipient, "-inkey", tmp_path / "key.pem"),
        *("-in", tmp_path / "envelope.der", "-out", tmp_path / "certs-only.der"),
    )
    assert opened.returncode == 0, opened.stderr
    printed = run_openssl("pkcs7", "-inform", "DER", "-in", tmp_path / "certs-only.der", "-print_certs")
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.count("BEGIN CERTIFICATE") == 1
    assert certificates_of((tmp_path / "certs-only.der").read_bytes()) == [ISSUED.der]
