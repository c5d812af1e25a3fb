"""Claims about the server core: discovery, and requests that have to be understood (RFC 8894 3.5, 4.2, 4.3)."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import timedelta

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import Encoding

from scep_ra.ca.directory import RAMaterial
from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Cipher, Digest
from scep_ra.pki.ber import Limits
from scep_ra.pki.certificates import parse_certificate
from scep_ra.pki.keys import load_private_key
from scep_ra.pki.names import format_name
from scep_ra.pki.signed_data import MessageSigner
from scep_ra.scep.errors import MalformedMessage, UnsupportedOperation
from scep_ra.scep.http_binding import ScepCall, parse_call
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.server import (
    CACapsRequested,
    CACertRequested,
    CertificateRequested,
    CRLRequested,
    PollRequested,
    RecipientKey,
    ScepServer,
    ServerRules,
)
from scep_ra.scep.standing import IssuedByUs, SelfMade
from scep_ra.scep.terms import FailInfo, MessageType, Operation
from tests.support import vectors
from tests.support.keys import ec_key, rsa_key, spki
from tests.support.mutations import long_lengths, streamed
from tests.support.pki import NOW, make_ca, make_certificate, make_ra
from tests.support.scep_messages import (
    HASHES,
    Envelope,
    Message,
    Request,
    algorithm,
    attribute,
    certificate,
    challenge,
    extension,
    key_trans,
    name,
    oaep_parameters,
    pkcs_req,
    printable,
    san_request,
    signature_algorithm,
)
from tests.support.scep_replies import certificates_of
from tests.support.scep_server import EVERYTHING, STANDARD, enroll, make_server, receive, refuse, server_of

RA = make_ra().certificate
BASE = pkcs_req(RA)
REQUEST = Request(key=rsa_key())
SERVER = make_server()
LEGACY = server_of(EVERYTHING)


def with_request(request: Request | bytes, **envelope_fields: object) -> Message:
    """Return BASE around another PKCS#10 and, if told so, in another envelope."""
    content = request if isinstance(request, bytes) else request.encode()
    envelope = replace(Envelope(content=content, recipient=RA), **envelope_fields)  # type: ignore[arg-type]
    return replace(BASE, content=envelope.encode())


# --- discovery -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("identifier", [b"", b"0", b"CAIdentifier", b"no such CA"])
@pytest.mark.parametrize(
    ("operation", "event"), [(Operation.GET_CA_CAPS, CACapsRequested()), (Operation.GET_CA_CERT, CACertRequested())]
)
def test_discovery_ignores_the_ca_identifier(operation: Operation, event: object, identifier: bytes) -> None:
    """HTTP-7, C-07, C-08: certmonger counts through 0, 1, 2, and everybody has his own name for us."""
    assert SERVER.receive(ScepCall(operation=operation, message=identifier), NOW) == event


def test_get_next_ca_cert_is_not_implemented() -> None:
    """C-09: HTTP 501, as no rollover is prepared."""
    with pytest.raises(UnsupportedOperation) as caught:
        SERVER.receive(ScepCall(operation=Operation.GET_NEXT_CA_CERT), NOW)
    assert caught.value.http_status == 501


@pytest.mark.parametrize(
    ("rules", "body"),
    [
        (ServerRules(), b"AES\nPOSTPKIOperation\nRenewal\nSHA-512\nSHA-384\nSHA-256\nSCEPStandard\n"),
        (ServerRules(renewal=False), b"AES\nPOSTPKIOperation\nSHA-512\nSHA-384\nSHA-256\nSCEPStandard\n"),
        (
            ServerRules(algorithms=EVERYTHING),
            b"AES\nPOSTPKIOperation\nRenewal\nSHA-512\nSHA-384\nSHA-256\nSCEPStandard\nSHA-1\nDES3\n",
        ),
    ],
)
def test_capabilities_are_one_word_a_line(rules: ServerRules, body: bytes) -> None:
    """CAP-1 to CAP-7, H-01: exact words with SHA-384, no blank line, no parameter, far below 1024 octets."""
    reply = make_server(rules).ca_caps()
    assert (reply.content_type, reply.body, reply.status) == ("text/plain", body, 200)
    assert len(reply.body) < 1024


def test_get_ca_cert_with_an_ra_is_a_bundle_with_the_ra_in_front() -> None:
    """CAC-2, CAC-4, CAC-8, C-02 to C-04: RA, issuing CA, root; the unsigned skeleton."""
    reply = SERVER.ca_cert()
    assert reply.content_type == "application/x-x509-ca-ra-cert"
    assert certificates_of(reply.body) == [RA.der, *(item.der for item in make_ca().chain)]
    signed = cms.ContentInfo.load(reply.body, strict=True)["content"]
    assert (signed["digest_algorithms"].dump(), signed["signer_infos"].dump()) == (b"\x31\x00", b"\x31\x00")
    assert signed["encap_content_info"].dump().hex() == "300b06092a864886f70d010701"


def test_get_ca_cert_of_a_ca_that_speaks_for_itself_is_one_certificate() -> None:
    """CAC-1, CAC-3, C-01: the RA media type without an RA makes Apple give up."""
    ca = make_ca(tiers=1, scep_key_usage=True, name="single")
    server = make_server(ca=ca, ra=RAMaterial(key=ca.signer, certificate=ca.chain[0]))
    reply = server.ca_cert()
    assert (reply.content_type, reply.body) == ("application/x-x509-ca-cert", ca.chain[0].der)


def test_a_split_ra_lists_both_certificates_and_opens_with_the_second() -> None:
    """CAC-5: one signs, the other receives; every certificate stands once."""
    signing, receiving = make_ra(), make_ra(name="receiving")
    server = ScepServer(
        signer=MessageSigner(signing.key, signing.certificate),
        recipients=[
            RecipientKey(certificate=signing.certificate, key=signing.key),
            RecipientKey(certificate=receiving.certificate, key=receiving.key),
        ],
        ca_certificates=make_ca().chain,
        rules=ServerRules(),
        random=secrets.token_bytes,
    )
    chain = [item.der for item in make_ca().chain]
    assert certificates_of(server.ca_cert().body) == [signing.certificate.der, receiving.certificate.der, *chain]
    for ra in (signing, receiving):
        enroll(server, pkcs_req(ra.certificate))


# --- real clients --------------------------------------------------------------------------------------------------

SCEPCLIENT = AlgorithmPolicy.of(sha1=True, des_and_md5=True)
CAPTURES = {  # file: least policy, digest and cipher of the reply, subject, challenge
    "sscep-0.10-post-aes128-sha256.http": (
        *(STANDARD, Digest.SHA256, Cipher.AES128),
        *("CN=dev1,serialNumber=FTX1234", None),
    ),
    "sscep-0.10-get-3des-sha1.http": (
        *(AlgorithmPolicy.of(sha1=True, triple_des=True), Digest.SHA1, Cipher.TRIPLE_DES),
        *("CN=dev1,serialNumber=FTX1234", None),
    ),
    "strongswan-5.9.8-post-aes128-sha512.http": (
        *(STANDARD, Digest.SHA512, Cipher.AES128),
        *("C=CH,O=x,CN=dev3", "s3cret"),
    ),
    "scepclient-2.1-post-des-sha1-two-recipients.http": (
        *(SCEPCLIENT, Digest.SHA1, Cipher.AES128),
        *("C=US,O=scep-client,OU=MDM,CN=dev2", "secret"),
    ),
    "scepclient-2.1-get-base64url-des-sha1.http": (
        *(SCEPCLIENT, Digest.SHA1, Cipher.AES128),
        *("C=US,O=scep-client,OU=MDM,CN=dev2", "secret"),
    ),
}
WEAK_CAPTURES = [file for file in CAPTURES if "sha1" in file]


def captured_call(file: str) -> ScepCall:
    head, _, body = vectors.read(file).partition(b"\r\n\r\n")
    method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
    return parse_call(method, target, body, max_message_bytes=65536)


def captured_server(policy: AlgorithmPolicy) -> ScepServer:
    """Return a server with the RA key to which the captured requests were encrypted."""
    ra, ca = (
        parse_certificate(x509.load_pem_x509_certificate(vectors.read(file)).public_bytes(Encoding.DER))
        for file in ("ra.pem", "ca.pem")
    )
    key = load_private_key(vectors.read("ra-TEST-ONLY.key"))
    return ScepServer(
        signer=MessageSigner(key, ra),
        recipients=[RecipientKey(certificate=ra, key=key)],
        ca_certificates=[ca],
        rules=ServerRules(algorithms=policy),
        random=secrets.token_bytes,
    )


@pytest.mark.parametrize("file", CAPTURES)
def test_captured_requests_come_out_as_enrollments(file: str) -> None:
    """P-34, P-04, P-05, P-08: from the raw HTTP request to the PKCS#10, under the least policy that allows it."""
    policy, digest, cipher, subject, challenge_password = CAPTURES[file]
    event = captured_server(policy).receive(captured_call(file), NOW)
    enrollment = enroll(captured_server(policy), captured_call(file).message)
    assert event == enrollment
    assert enrollment.message_type is MessageType.PKCS_REQ
    assert (enrollment.reply_to.digest, enrollment.reply_to.cipher) == (digest, cipher)
    assert enrollment.reply_to.standing == SelfMade()
    assert enrollment.csr.spki == enrollment.reply_to.signer.spki
    assert enrollment.csr.challenge_password == challenge_password
    assert format_name(enrollment.csr.subject) == subject


def test_strongswans_own_request_is_one_that_cryptography_refuses() -> None:
    """Regression: SAN before challengePassword is no sorted SET; if the library reads it now, use the library."""
    csr = enroll(captured_server(STANDARD), captured_call("strongswan-5.9.8-post-aes128-sha512.http").message).csr
    assert csr.subject_alt_name is not None
    with pytest.raises(ValueError, match="InvalidSetOrdering"):
        _ = x509.load_der_x509_csr(csr.der).attributes


def test_every_capture_is_tried() -> None:
    """A new vector has to be named above."""
    assert set(CAPTURES) == set(vectors.CAPTURED_REQUESTS)


@pytest.mark.parametrize("file", WEAK_CAPTURES)
def test_captured_requests_with_weak_algorithms_are_refused_by_the_standard_policy(file: str) -> None:
    """N-17, N-18, I-03, I-08: badAlg, as the client then prints."""
    assert refuse(captured_server(STANDARD), captured_call(file).message) == (FailInfo.BAD_ALG, "algorithm")


@pytest.mark.parametrize("file", [file for file in CAPTURES if file.startswith("scepclient")])
def test_scepclient_needs_both_switches(file: str) -> None:
    """SHA-1 under the message, DES around the request: each is a refusal by itself."""
    for policy in (
        AlgorithmPolicy.of(sha1=True, triple_des=True),
        AlgorithmPolicy.of(triple_des=True, des_and_md5=True),
    ):
        assert refuse(captured_server(policy), captured_call(file).message)[0] is FailInfo.BAD_ALG


# --- requests that have to be understood ---------------------------------------------------------------------------


def test_a_plain_request_comes_out_with_everything_a_reply_needs() -> None:
    """P-01: BASE."""
    event = enroll(SERVER, BASE)
    assert event.csr.der == Request(key=rsa_key()).encode()
    assert event.reply_to.transaction_id == BASE.transaction_id
    assert event.reply_to.sender_nonce == BASE.sender_nonce
    assert event.reply_to.signer == BASE.signer
    assert (event.reply_to.digest, event.reply_to.cipher) == (Digest.SHA256, Cipher.AES128)
    assert event.reply_to.password is None


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_digests_are_accepted_and_mirrored(digest: str) -> None:
    """P-10, REP-7."""
    assert enroll(SERVER, replace(BASE, digest=digest)).reply_to.digest.value == digest


@pytest.mark.parametrize("digest", ["md5", "sha1", "sha224"])
def test_weak_digests_depend_on_the_policy(digest: str) -> None:
    """P-10, N-17: badAlg when off; when on, MD5 is not mirrored."""
    assert refuse(SERVER, replace(BASE, digest=digest)) == (FailInfo.BAD_ALG, "algorithm")
    mirrored = enroll(LEGACY, replace(BASE, digest=digest)).reply_to.digest.value
    assert mirrored == ("sha256" if digest == "md5" else digest)


@pytest.mark.parametrize("cipher", ["aes128", "aes192", "aes256"])
def test_ciphers_are_accepted_and_mirrored(cipher: str) -> None:
    """P-11, REP-7."""
    assert enroll(SERVER, with_request(REQUEST, cipher=cipher)).reply_to.cipher.value == f"{cipher}-cbc"


@pytest.mark.parametrize(("cipher", "mirrored"), [("des", Cipher.AES128), ("3des", Cipher.TRIPLE_DES)])
def test_weak_ciphers_depend_on_the_policy(cipher: str, mirrored: Cipher) -> None:
    """P-11, N-18, N-19."""
    message = with_request(REQUEST, cipher=cipher)
    assert refuse(SERVER, message) == (FailInfo.BAD_ALG, "algorithm")
    assert enroll(LEGACY, message).reply_to.cipher is mirrored


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(replace(BASE, algorithm=signature_algorithm(rsa_key(), "sha256")), id="P-12 sha256WithRSA"),
        pytest.param(replace(BASE, algorithm=algorithm(oids.RSA_ENCRYPTION, b"")), id="P-13 no NULL"),
        pytest.param(replace(BASE, digest_algorithm=algorithm(oids.SHA256, b"")), id="P-13 digest without NULL"),
        pytest.param(replace(BASE, pss_salt=32), id="P-14 RSASSA-PSS"),
        pytest.param(replace(BASE, sent_unsorted=True, signed_unsorted=True), id="P-20 unsorted as signed"),
        pytest.param(replace(BASE, sent_unsorted=True), id="P-21 unsorted, signed sorted"),
        pytest.param(replace(BASE, transaction_id="kX9+/a="), id="P-22 base64"),
        pytest.param(replace(BASE, transaction_id="x" * 255), id="P-22 long"),
        pytest.param(replace(BASE, sender_nonce=b"8 octets"), id="P-32 short nonce"),
        pytest.param(
            replace(
                BASE,
                extra=(
                    attribute("1.2.3.4", der.NULL),
                    attribute(oids.SIGNING_TIME, der.time(NOW - timedelta(days=365))),
                    attribute("1.2.840.113549.1.9.15", der.sequence()),
                ),
            ),
            id="P-24, N-51 further attributes",
        ),
        pytest.param(replace(BASE, certificates=(RA.der, BASE.signer.der, RA.der)), id="P-07 more certificates"),
    ],
)
def test_messages_may_be_written_in_many_ways(message: Message) -> None:
    """Section 4.4 of the protocol notes: what clients do that a strict reader would not expect."""
    event = enroll(SERVER, message)
    assert event.reply_to.transaction_id == message.transaction_id
    assert event.reply_to.sender_nonce == message.sender_nonce


def test_the_stand_in_certificate_may_look_like_anything() -> None:
    """P-03 to P-06, SIG-9, REQ-2: another subject, expired or not yet valid, v1, found by key identifier."""
    ski = extension(oids.SUBJECT_KEY_IDENTIFIER, der.octet_string(b"key id"))
    key_id = der.element(der.context(0, constructed=False), b"key id")
    future = (NOW + timedelta(days=1), NOW + timedelta(days=2))
    for message in (
        replace(BASE, signer=certificate(rsa_key(), subject=name("8D0C0C1A-UUID"))),
        replace(BASE, signer=certificate(rsa_key(), validity=future)),
        replace(BASE, signer=certificate(rsa_key(), version=None)),
        replace(BASE, signer=certificate(rsa_key(), digest="md5")),
        replace(BASE, signer=certificate(rsa_key(), extensions=[ski]), signer_id=key_id),
    ):
        enroll(SERVER, message)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(replace(REQUEST, attributes=(san_request("a.b"), challenge())), id="unsorted attributes"),
        pytest.param(replace(REQUEST, attributes=None), id="no attributes"),
        pytest.param(replace(REQUEST, subject=der.sequence()), id="empty subject"),
        pytest.param(replace(REQUEST, digest="sha512"), id="another digest"),
    ],
)
def test_requests_may_be_written_in_many_ways(request_: Request) -> None:
    """P-27, P-28, P-29 and strongSwan's order of attributes: the request arrives as it was sent."""
    assert enroll(SERVER, with_request(request_)).csr.der == request_.encode()


def test_a_request_signed_with_sha1_is_a_matter_of_policy() -> None:
    """P-28: badAlg when off and never badMessageCheck, which would send the operator the wrong way."""
    message = with_request(replace(REQUEST, digest="sha1"))
    assert refuse(SERVER, message) == (FailInfo.BAD_ALG, "algorithm")
    enroll(LEGACY, message)


@pytest.mark.parametrize("segments", [1, 3])
def test_constructed_content_of_definite_length_opens(segments: int) -> None:
    """P-17: scepclient 2.1."""
    enroll(SERVER, with_request(REQUEST, segments=segments))


@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_oaep_key_transport_opens(digest: str) -> None:
    """P-15, REP-8."""
    transport = padding.OAEP(padding.MGF1(HASHES[digest]), HASHES[digest], None)
    identifier = algorithm(oids.RSAES_OAEP, oaep_parameters(digest))
    info = key_trans(RA, bytes(16), transport=transport, identifier=identifier)
    enroll(SERVER, with_request(REQUEST, content_key=bytes(16), recipient_infos=(info,)))


def test_ber_of_indefinite_length_throughout_is_read() -> None:
    """P-16, P-18: outer message, eContent in segments, inner envelope, encryptedContent in segments."""
    inner = streamed(Envelope(content=REQUEST.encode(), recipient=RA, segments=4).encode())
    event = enroll(SERVER, streamed(replace(BASE, content=inner).encode()))
    assert event.csr.der == REQUEST.encode()
    assert event.reply_to.signer == BASE.signer


def test_lengths_that_are_not_minimal_are_read() -> None:
    """P-19."""
    inner = long_lengths(Envelope(content=REQUEST.encode(), recipient=RA).encode())
    assert enroll(SERVER, long_lengths(replace(BASE, content=inner).encode())).reply_to.signer == BASE.signer


def test_limits_of_the_profile_hold_for_the_envelope_too() -> None:
    """Regression: the envelope inside a large message was held against the default of 64 KiB."""
    message = with_request(replace(REQUEST, attributes=(attribute("1.2.3", der.octet_string(bytes(70_000))),)))
    enroll(make_server(ServerRules(limits=Limits(max_bytes=262_144))), message)
    with pytest.raises(MalformedMessage):
        receive(SERVER, message)


# --- signers with a certificate of ours ----------------------------------------------------------------------------

ISSUED = make_certificate(make_ca(), spki(rsa_key()))


@pytest.mark.parametrize("message_type", [MessageType.RENEWAL_REQ, MessageType.PKCS_REQ])
def test_renewals_are_signed_by_the_old_key_and_ask_for_a_new_one(message_type: MessageType) -> None:
    """R-01, R-02, REQ-3, REQ-4: as 17, and as 19 from every older client."""
    content = Envelope(content=Request(key=rsa_key("new"), attributes=None).encode(), recipient=RA).encode()
    event = enroll(SERVER, replace(BASE, signer=ISSUED, message_type=str(message_type.value), content=content))
    assert event.message_type is message_type
    assert event.reply_to.standing == IssuedByUs()
    assert event.csr.spki == spki(rsa_key("new"))


def test_a_renewal_may_ask_for_an_ec_key() -> None:
    """P-31: the answer goes to the RSA key that signed."""
    content = Envelope(content=Request(key=ec_key()).encode(), recipient=RA).encode()
    assert enroll(SERVER, replace(BASE, signer=ISSUED, content=content)).reply_to.password is None


# --- the other operations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"anything", der.sequence(name("CA"), name("device-1"))])
def test_a_poll_is_known_by_its_transaction_and_signer_alone(body: bytes) -> None:
    """T-07, REQ-5: the envelope is not even opened (RFC 8894 3.3.3)."""
    content = Envelope(content=body, recipient=RA).encode()
    event = receive(SERVER, replace(BASE, message_type="20", content=content))
    assert isinstance(event, PollRequested)
    assert event.reply_to.transaction_id == BASE.transaction_id


@pytest.mark.parametrize(("number", "kind"), [("21", CertificateRequested), ("22", CRLRequested)])
@pytest.mark.parametrize("serial", [1, 2**159, -5])
def test_queries_name_issuer_and_serial(
    number: str, kind: type[CertificateRequested | CRLRequested], serial: int
) -> None:
    """Q-01, Q-03, Q-08, REQ-6: any INTEGER; whether there is such a certificate is not decided here."""
    issuer = make_ca().chain[0].subject
    content = Envelope(content=der.sequence(issuer, der.integer(serial)), recipient=RA).encode()
    event = receive(SERVER, replace(BASE, message_type=number, content=content))
    assert isinstance(event, kind)
    assert (event.issuer, event.certificate_serial) == (issuer, serial)


# --- clocks --------------------------------------------------------------------------------------------------------


def signed_at(*values: bytes) -> Message:
    return replace(BASE, extra=(attribute(oids.SIGNING_TIME, *values),))


def test_signing_time_counts_only_where_the_profile_says_so() -> None:
    """N-51, P-25: off by default, badTime beyond the bound, absent is no fault."""
    strict = make_server(ServerRules(max_clock_skew=timedelta(hours=1)))
    enroll(strict, BASE)
    enroll(strict, signed_at(der.time(NOW - timedelta(hours=1))))
    for distance in (timedelta(hours=1, seconds=1), timedelta(days=-365)):
        assert refuse(strict, signed_at(der.time(NOW + distance))) == (FailInfo.BAD_TIME, "time")
    for values in ((printable("now"),), (der.time(NOW), der.time(NOW))):
        assert refuse(strict, signed_at(*values)) == (FailInfo.BAD_REQUEST, "bad_request")
