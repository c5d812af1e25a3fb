"""Claims about PKIMessages (RFC 8894 3): signed attributes to the octet, what can be answered at all, verifying."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der, oids
from scep_ra.pki.algorithms import Digest
from scep_ra.pki.ber import Limits
from scep_ra.pki.errors import AlgorithmRefused, MalformedData, SignatureInvalid
from scep_ra.pki.signed_data import MessageSigner
from scep_ra.scep import message as pki_message
from scep_ra.scep.errors import MalformedMessage
from scep_ra.scep.message import PKIMessage, build_message, parse_message
from scep_ra.scep.policy import AlgorithmPolicy
from scep_ra.scep.terms import FailInfo, MessageType, PKIStatus
from tests.support import vectors
from tests.support.keys import rsa_512, rsa_key
from tests.support.mutations import mutations
from tests.support.pki import make_ra
from tests.support.scep_messages import (
    Message,
    attribute,
    certificate,
    pkcs_req,
    printable,
    stand_in,
    utf8,
)

BASE = Message(key=rsa_key(), signer=stand_in(rsa_key()), content=b"content")
EVERYTHING = AlgorithmPolicy.of(sha1=True, triple_des=True, des_and_md5=True)
NONCE = bytes(range(16))


def say(oid: str, *values: bytes) -> Message:
    return replace(BASE, attributes={oid: (attribute(oid, *values),)})


def parse(message: Message) -> PKIMessage:
    return parse_message(message.encode())


# --- parsing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "transaction_id"),
    [
        ("sscep-0.10-post-aes128-sha256.http", "[0-9A-F]{32}"),
        ("sscep-0.10-get-3des-sha1.http", "[0-9A-F]{32}"),
        ("strongswan-5.9.8-post-aes128-sha512.http", "[0-9A-F]{40}"),
        ("scepclient-2.1-post-des-sha1-two-recipients.http", "[A-Za-z0-9+/]{27}="),
        ("scepclient-2.1-get-base64url-des-sha1.http", "[A-Za-z0-9+/]{27}="),
    ],
)
def test_messages_of_real_clients_are_read_and_verify(name: str, transaction_id: str) -> None:
    """P-34, P-22: each client has its own kind of transactionID."""
    message = parse_message(vectors.message(name))
    assert re.fullmatch(transaction_id, message.transaction_id)
    assert len(message.sender_nonce) == 16
    assert message.message_type is MessageType.PKCS_REQ
    message.verify(EVERYTHING)


def test_the_fields_of_a_message_are_at_hand() -> None:
    """Content, transactionID, senderNonce, messageType and signer as sent."""
    message = parse(BASE)
    assert message.content == b"content"
    assert message.transaction_id == BASE.transaction_id
    assert message.sender_nonce == NONCE
    assert message.signer == stand_in(rsa_key())
    assert message.message_type is MessageType.PKCS_REQ
    assert parse(replace(BASE, content=None)).content == b""


def test_attributes_that_are_absent_are_none() -> None:
    """And those of a request are not those of a reply."""
    message = parse(BASE)
    assert message.text(oids.FAIL_INFO_TEXT) is None
    assert message.octets(oids.RECIPIENT_NONCE) is None
    assert message.fail_info is None
    with pytest.raises(MalformedData, match="has 0 values"):
        _ = message.pki_status


@pytest.mark.parametrize("type_", [printable, utf8, lambda text: der.element(der.IA5_STRING, text.encode())])
def test_text_attributes_may_be_any_of_three_types(type_: Callable[[str], bytes]) -> None:
    """P-23: PrintableString by the RFC, UTF8String from Go, IA5String from others."""
    message = parse(replace(BASE, attributes={oids.TRANSACTION_ID: (attribute(oids.TRANSACTION_ID, type_("Tx 1")),)}))
    assert message.transaction_id == "Tx 1"


@pytest.mark.parametrize("text", ["a", "x" * 255, "SSCEP transactionId", "kX9+/a=", "ümlaut"])
def test_transaction_ids_are_opaque(text: str) -> None:
    """P-22, TX-1: 1 to 255 printable characters of any kind."""
    assert parse(say(oids.TRANSACTION_ID, utf8(text))).transaction_id == text


@pytest.mark.parametrize("nonce", [bytes(16), b"8 octets", bytes(32), b"\x01", bytes(64)])
def test_nonces_of_1_to_64_octets_are_taken(nonce: bytes) -> None:
    """P-32, TX-2: 16 by the RFC, 8 from old IOS."""
    assert parse(replace(BASE, sender_nonce=nonce)).sender_nonce == nonce


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("9.5 has 0", replace(BASE, attributes={oids.SENDER_NONCE: ()})),
        ("9.5 has 2", say(oids.SENDER_NONCE, der.octet_string(NONCE), der.octet_string(NONCE))),
        ("senderNonce is not 1 to 64", replace(BASE, sender_nonce=b"")),
        ("senderNonce is not 1 to 64", replace(BASE, sender_nonce=bytes(65))),
        ("tag 0x13", say(oids.SENDER_NONCE, printable("0123456789abcdef"))),
        ("9.7 has 0", replace(BASE, attributes={oids.TRANSACTION_ID: ()})),
        ("9.7 has 0", say(oids.TRANSACTION_ID)),
        ("9.7 has 2", replace(BASE, extra=(attribute(oids.TRANSACTION_ID, printable("2")),))),
        ("transactionID is not 1 to 255", replace(BASE, transaction_id="")),
        ("transactionID is not 1 to 255", replace(BASE, transaction_id="x" * 256)),
        ("transactionID is not 1 to 255", say(oids.TRANSACTION_ID, utf8("a\nb"))),
        ("transactionID is not 1 to 255", say(oids.TRANSACTION_ID, utf8("a\u202eb"))),
        ("not a text string", say(oids.TRANSACTION_ID, der.octet_string(b"tx"))),
        ("does not fit", say(oids.TRANSACTION_ID, der.element(der.UTF8_STRING, b"\xff"))),
        ("certificate is not enclosed", replace(BASE, certificates=())),
        (
            "certificate is not enclosed",
            replace(BASE, certificates=(certificate(rsa_key(), certificate_serial=5).der,)),
        ),
        ("0 signers", replace(BASE, signer_infos=())),
        ("2 signers", replace(BASE, signer_infos=(BASE.signer_info(),) * 2)),
        ("no signed attributes", replace(BASE, has_signed_attributes=False)),
        ("content type", replace(BASE, outer_type=oids.ENVELOPED_DATA)),
    ],
)
def test_what_no_cert_rep_could_answer_is_malformed(pattern: str, message: Message) -> None:
    """N-06 to N-09, N-12, N-13, N-40, MSG-2 to MSG-4, TX-2: HTTP 400."""
    with pytest.raises(MalformedMessage, match=pattern) as caught:
        parse(message)
    assert caught.value.http_status == 400


def test_limits_are_those_of_the_caller() -> None:
    """A profile may allow larger messages."""
    large = replace(BASE, content=bytes(70_000)).encode()
    with pytest.raises(MalformedMessage, match="65536 are allowed"):
        parse_message(large)
    assert len(parse_message(large, Limits(max_bytes=100_000)).content) == 70_000


@pytest.mark.parametrize("tail", [b"\r\n", b"\n"])
def test_a_line_break_behind_the_message_is_tolerated(tail: bytes) -> None:
    """N-43: anything else behind it is not."""
    assert parse_message(BASE.encode() + tail).transaction_id == BASE.transaction_id
    with pytest.raises(MalformedMessage, match="after the end"):
        parse_message(BASE.encode() + b"\x00")


# --- messageType and status ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(100))
def test_message_types_are_a_closed_set(number: int) -> None:
    """RFC 8894 3.2.1.2: 3, 17, 19, 20, 21, 22 and no other number from 0 to 99."""
    expected = MessageType(number) if number in (3, 17, 19, 20, 21, 22) else None
    assert parse(replace(BASE, message_type=str(number))).message_type is expected


@pytest.mark.parametrize("text", ["", "abc", "019", " 19", "19 ", "+19", "1 9", "-19", "19.0"])
def test_only_the_canonical_decimal_is_a_number(text: str) -> None:
    """N-14: "019" is 19 to one reader and not to another, which is how checks are passed by."""
    message = replace(BASE, attributes={oids.MESSAGE_TYPE: (attribute(oids.MESSAGE_TYPE, utf8(text)),)})
    assert parse(message).message_type is None


def test_digits_of_other_scripts_are_no_number() -> None:
    """int() reads them; peers do not."""
    assert parse(say(oids.MESSAGE_TYPE, utf8("\u0661\u0669"))).message_type is None


@pytest.mark.parametrize(
    "message",
    [
        replace(BASE, attributes={oids.MESSAGE_TYPE: ()}),
        say(oids.MESSAGE_TYPE, printable("19"), printable("19")),
        replace(BASE, extra=(attribute(oids.MESSAGE_TYPE, printable("17")),)),
        say(oids.MESSAGE_TYPE, der.integer(19)),
        say(oids.MESSAGE_TYPE, der.element(der.PRINTABLE_STRING, b"\xff")),
    ],
)
def test_a_message_type_that_is_not_one_text_is_malformed(message: Message) -> None:
    """N-11, CVE-2026-7668: absent, twice, or of another ASN.1 type."""
    with pytest.raises(MalformedData):
        _ = parse(message).message_type


def test_status_and_fail_info_are_closed_sets_too() -> None:
    """RFC 8894 3.2.1.3 and 3.2.1.4: 1 is undefined, Dogtag's private failInfo 5 is not ours."""
    for number, status, info in [
        ("0", PKIStatus.SUCCESS, FailInfo.BAD_ALG),
        ("1", None, FailInfo(1)),
        ("9", None, None),
    ]:
        extra = (attribute(oids.PKI_STATUS, printable(number)), attribute(oids.FAIL_INFO, printable(number)))
        message = parse(replace(BASE, extra=extra))
        assert (message.pki_status, message.fail_info) == (status, info)


# --- verifying -----------------------------------------------------------------------------------------------------


def test_verify_returns_the_digest_and_asks_the_policy_first() -> None:
    """N-16, N-17: the policy is asked before anything is computed."""
    assert parse(replace(BASE, digest="sha512")).verify(AlgorithmPolicy()) is Digest.SHA512
    broken = parse(replace(BASE, digest="md5", signature=b""))
    with pytest.raises(AlgorithmRefused, match="digest md5"):
        broken.verify(AlgorithmPolicy())
    with pytest.raises(SignatureInvalid):
        broken.verify(EVERYTHING)


def test_a_signer_key_that_is_too_short_is_refused() -> None:
    """N-48: RSA with 512 bits."""
    message = parse(Message(key=rsa_512(), signer=stand_in(rsa_512()), content=b"c"))
    with pytest.raises(AlgorithmRefused, match="RSA key of 512 bits"):
        message.verify(AlgorithmPolicy())


def test_the_self_signature_of_a_stand_in_is_nothing_to_us() -> None:
    """SIG-9, N-48: MD5 under the certificate does no harm, it proves nothing anyway (SIG-10)."""
    weak = certificate(rsa_key(), digest="md5")
    assert parse(replace(BASE, signer=weak)).verify(AlgorithmPolicy()) is Digest.SHA256


# --- building ------------------------------------------------------------------------------------------------------


def build(**changes: object) -> bytes:
    ra = make_ra()
    fields: dict[str, object] = {
        "signer": MessageSigner(ra.key, ra.certificate),
        "digest": Digest.SHA256,
        "message_type": MessageType.CERT_REP,
        "transaction_id": "Tx-1",
        "sender_nonce": NONCE,
        "content": b"",
    }
    return build_message(**(fields | changes))  # type: ignore[arg-type]


def test_signed_attributes_are_exact() -> None:
    """Protocol 1.1.2, to the octet: messageType, senderNonce, transactionID, status, failInfo, recipientNonce, text."""
    extra = (
        pki_message.pki_status(PKIStatus.FAILURE),
        *pki_message.fail_info(FailInfo.BAD_REQUEST, "nö"),
        pki_message.recipient_nonce(b"12345678"),
    )
    octets = build(extra=extra)
    for expected in (
        "3011060a6086480186f84501090231031301" + "33",
        "3020060a6086480186f84501090531120410" + NONCE.hex(),
        "3014060a6086480186f84501090731061304" + b"Tx-1".hex(),
        "3011060a6086480186f84501090331031301" + "32",
        "3011060a6086480186f84501090431031301" + "32",
        "3018060a6086480186f845010906310a0408" + b"12345678".hex(),
        "301106082b0601050507180131050c036ec3b6",
        "301806092a864886f70d010903310b06092a864886f70d010701",
        "302f06092a864886f70d01090431220420e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ):
        assert bytes.fromhex(expected) in octets, expected


def test_a_two_digit_message_type_is_exact() -> None:
    """Protocol 1.1.2: `30 12 .. 31 04 13 02 31 39`."""
    assert bytes.fromhex("3012060a6086480186f845010902310413023139") in build(message_type=MessageType.PKCS_REQ)


def test_a_transaction_id_outside_printable_string_goes_back_as_utf8() -> None:
    """P-23, G-06: as it came from whoever encodes with Go."""
    octets = build(transaction_id="tx_1@é")
    assert utf8("tx_1@é") in octets
    assert parse_message(octets).transaction_id == "tx_1@é"


def test_an_empty_fail_info_text_is_left_out() -> None:
    """RFC 8894 3.2.1.4: optional."""
    (only,) = pki_message.fail_info(FailInfo.BAD_ALG, "")
    assert only == attribute(oids.FAIL_INFO, printable("0"))


def test_what_is_built_is_read_back() -> None:
    """Every message type by our own parser, signature included."""
    for message_type in MessageType:
        message = parse_message(build(message_type=message_type, content=b"content"))
        assert message.message_type is message_type
        assert message.verify(AlgorithmPolicy()) is Digest.SHA256
        assert (message.transaction_id, message.sender_nonce, message.content) == ("Tx-1", NONCE, b"content")


def test_a_reply_is_read_with_its_status() -> None:
    """The client's side: status, failInfo, text and recipientNonce."""
    extra = (
        pki_message.pki_status(PKIStatus.FAILURE),
        *pki_message.fail_info(FailInfo.BAD_TIME, "clock"),
        pki_message.recipient_nonce(NONCE),
    )
    message = parse_message(build(extra=extra))
    assert (message.pki_status, message.fail_info) == (PKIStatus.FAILURE, FailInfo.BAD_TIME)
    assert message.text(oids.FAIL_INFO_TEXT) == "clock"
    assert message.octets(oids.RECIPIENT_NONCE) == NONCE


# --- hostile -------------------------------------------------------------------------------------------------------


@given(
    st.binary(max_size=100) | st.binary(max_size=100).map(lambda rest: der.sequence(der.oid(oids.SIGNED_DATA), rest))
)
def test_only_malformed_message_leaves_the_parser(octets: bytes) -> None:
    """Whatever the octets."""
    with suppress(MalformedMessage):
        parse_message(octets)


@given(mutations(pkcs_req(make_ra().certificate).encode()))
def test_only_documented_errors_leave_for_changed_messages(octets: bytes) -> None:
    """N-44, N-45: one octet changed, cut off, or an element said twice."""
    with suppress(MalformedMessage, AlgorithmRefused, SignatureInvalid, MalformedData):
        message = parse_message(octets)
        _ = message.message_type
        message.verify(AlgorithmPolicy())


@pytest.mark.parametrize("step", range(10))
def test_a_message_cut_off_anywhere_is_malformed(step: int) -> None:
    """N-44, at every fiftieth octet from ten starting points."""
    octets = BASE.encode()
    for length in range(step, len(octets), 50):
        with pytest.raises(MalformedMessage):
            parse_message(octets[:length])
