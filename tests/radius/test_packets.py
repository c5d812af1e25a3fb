"""RADIUS packets: what is written is read, and what does not hold together or proves nothing is refused."""

from __future__ import annotations

import hashlib
import hmac
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.radius.errors import MalformedPacket, NotAuthentic, UnfitAttribute
from scep_ra.radius.packets import (
    REPLIES,
    Code,
    Packet,
    Value,
    cisco_av_pairs,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)

SECRET = b"s3cret"
WRONG = b"another"
ASK = Packet(
    code=Code.ACCESS_REQUEST,
    identifier=7,
    attributes=(
        ("User-Name", "FTX1234ABCD"),
        ("User-Password", "cisco"),
        ("Service-Type", 5),
        ("NAS-IP-Address", "192.0.2.1"),
        ("NAS-IPv6-Address", "2001:db8::1"),
        ("Class", b"0x4142"),
        ("Cisco-AVPair", "pki:one=1"),
        ("Cisco-AVPair", "pki:two=2"),
    ),
)
DISCONNECT = Packet(code=Code.DISCONNECT_REQUEST, identifier=9, attributes=(("Acct-Session-Id", "0A"),))
ACCOUNT = Packet(code=Code.ACCOUNTING_REQUEST, identifier=8, attributes=(("Event-Timestamp", 1_790_000_000),))
ACCEPT = Packet(code=Code.ACCESS_ACCEPT, attributes=(("Reply-Message", "welcome"), ("Session-Timeout", 60)))


def raw(*attributes: bytes, code: Code = Code.ACCESS_REQUEST) -> bytes:
    """Return a request without any proof, made of attributes as they are on the wire."""
    body = b"".join(attributes)
    return bytes([code, 1]) + (20 + len(body)).to_bytes(2) + bytes(16) + body


def attribute(kind: int, value: bytes) -> bytes:
    return bytes([kind, len(value) + 2]) + value


def read(*attributes: bytes) -> Packet:
    return decode_request(raw(*attributes), SECRET, require_message_authenticator=False)


# --- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", [ASK, DISCONNECT, ACCOUNT], ids=lambda packet: packet.code.name)
def test_a_request_is_read_as_it_was_written(packet: Packet) -> None:
    """Types, order and octets that look like hexadecimal digits survive."""
    found = decode_request(encode_request(packet, SECRET), SECRET)
    assert found.signed
    assert (found.code, found.identifier) == (packet.code, packet.identifier)
    assert found.attributes[0][0] == "Message-Authenticator"
    assert found.attributes[1:] == packet.attributes


def test_the_message_authenticator_comes_first_in_requests_and_replies() -> None:
    """An attacker who can choose what stands before it has half of a collision (CVE-2024-3596)."""
    octets = encode_request(ASK, SECRET)
    reply = encode_reply(ACCEPT, decode_request(octets, SECRET), SECRET)
    assert octets[20:22] == reply[20:22] == bytes([80, 18])


def test_a_reply_is_read_as_it_was_written() -> None:
    """With the identifier of its request."""
    octets = encode_request(ASK, SECRET)
    reply = decode_reply(encode_reply(ACCEPT, decode_request(octets, SECRET), SECRET), octets, SECRET)
    assert (reply.code, reply.identifier, reply.signed) == (Code.ACCESS_ACCEPT, 7, True)
    assert reply.text("Reply-Message") == "welcome"
    assert reply.number("Session-Timeout") == 60
    assert reply.text("Session-Timeout") == "" == reply.text("User-Name")
    assert reply.number("Reply-Message") is None


def test_the_password_is_hidden_on_the_wire_and_in_repr() -> None:
    """It is a constant of many sites, but not of all."""
    packet = replace(ASK, attributes=(("User-Password", "Tr0ub4dor"),))
    assert b"Tr0ub4dor" not in encode_request(packet, SECRET)
    assert "Tr0ub4dor" not in repr(packet)


def test_each_request_has_an_authenticator_of_its_own_unless_one_is_given() -> None:
    """It has to be unpredictable, for the password's sake and the reply's (RFC 2865 3)."""
    assert encode_request(ASK, SECRET)[4:20] != encode_request(ASK, SECRET)[4:20]
    assert encode_request(replace(ASK, authenticator=b"a" * 16), SECRET)[4:20] == b"a" * 16


def test_proxy_states_come_back_in_their_order() -> None:
    """A proxy finds its way by them (RFC 2865 5.33)."""
    octets = encode_request(replace(ASK, attributes=(("Proxy-State", b"one"), ("Proxy-State", b"two"))), SECRET)
    reply = decode_reply(encode_reply(ACCEPT, decode_request(octets, SECRET), SECRET), octets, SECRET)
    assert reply.values("Proxy-State") == (b"one", b"two")


def test_octets_behind_the_length_are_padding() -> None:
    """RFC 2865 3 has them ignored."""
    octets = encode_request(ASK, SECRET)
    assert decode_request(octets + b"padding", SECRET).identifier == 7
    reply = encode_reply(ACCEPT, decode_request(octets, SECRET), SECRET)
    assert decode_reply(reply + bytes(9), octets, SECRET).code is Code.ACCESS_ACCEPT


def test_what_the_dictionary_lacks_arrives_under_its_number() -> None:
    """Nothing is lost, and nothing is taken for something else."""
    vendor = attribute(26, (311).to_bytes(4) + attribute(1, b"x"))
    broken = attribute(26, (9).to_bytes(4) + b"\x01\xff")
    assert read(attribute(99, b"abc"), vendor, broken).attributes == (
        ("Attr-99", b"abc"),
        ("Attr-26.311.1", b"x"),
        ("Attr-26", (9).to_bytes(4) + b"\x01\xff"),
    )


def test_text_that_is_not_utf_8_is_equal_to_nothing() -> None:
    """And no reason to lose the packet; a zero octet is no text for PostgreSQL."""
    assert read(attribute(1, b"SN\xff1")).text("User-Name") == "SN\\xff1"
    assert read(attribute(1, b"SN1\0")).text("User-Name") == "SN1\\x00"


def test_cisco_av_pairs_are_split_at_the_first_sign() -> None:
    """Both signs that Cisco knows; what has neither is no pair."""
    texts = ("pki:cert-application=all", "a=1", "a=2=3", " b * 4 ", "lonely")
    packet = Packet(code=Code.ACCESS_ACCEPT, attributes=tuple(("Cisco-AVPair", text) for text in texts))
    assert cisco_av_pairs(packet) == {"pki:cert-application": ("all",), "a": ("1", "2=3"), "b": ("4",)}


# --- proofs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", [ASK, DISCONNECT, ACCOUNT], ids=lambda packet: packet.code.name)
def test_a_request_made_with_another_secret_is_refused(packet: Packet) -> None:
    """Whichever of its two proofs it has."""
    with pytest.raises(NotAuthentic):
        decode_request(encode_request(packet, WRONG), SECRET)


@pytest.mark.parametrize("code", [Code.ACCOUNTING_REQUEST, Code.DISCONNECT_REQUEST, Code.COA_REQUEST])
def test_these_requests_are_proved_by_their_authenticator_alone(code: Code) -> None:
    """RFC 2866 3, RFC 5176 2.3: the digest over header, zeros, attributes and secret."""
    octets = encode_request(Packet(code=code, attributes=(("Acct-Session-Id", "1"),)), SECRET, sign=False)
    assert octets[4:20] == hashlib.md5(octets[:4] + bytes(16) + octets[20:] + SECRET).digest()
    assert not decode_request(octets, SECRET).signed
    with pytest.raises(NotAuthentic, match="request authenticator is wrong"):
        decode_request(octets, WRONG)


def test_the_message_authenticator_of_a_disconnect_is_made_over_zeros() -> None:
    """RFC 5176 3.3, computed here by hand."""
    octets = encode_request(DISCONNECT, SECRET)
    blank = octets[:4] + bytes(16) + octets[20:22] + bytes(16) + octets[38:]
    assert octets[22:38] == hmac.digest(SECRET, blank, "md5")


def test_an_access_request_without_message_authenticator_passes_only_where_it_may() -> None:
    """The server's own option, for old headends."""
    octets = encode_request(ASK, SECRET, sign=False)
    assert not decode_request(octets, SECRET, require_message_authenticator=False).signed
    with pytest.raises(NotAuthentic, match="no Message-Authenticator"):
        decode_request(octets, SECRET)


def test_status_server_always_needs_a_message_authenticator() -> None:
    """RFC 5997 3; nothing else in it proves anything."""
    status = Packet(code=Code.STATUS_SERVER)
    assert decode_request(encode_request(status, SECRET), SECRET).signed
    with pytest.raises(NotAuthentic, match="no Message-Authenticator"):
        decode_request(encode_request(status, SECRET, sign=False), SECRET, require_message_authenticator=False)


def test_a_wrong_message_authenticator_is_refused_even_where_none_is_needed() -> None:
    """Being there it has to be right."""
    octets = bytearray(encode_request(ASK, SECRET))
    octets[22] ^= 1
    with pytest.raises(NotAuthentic, match="Message-Authenticator is wrong"):
        decode_request(bytes(octets), SECRET, require_message_authenticator=False)


def test_an_unsigned_reply_is_refused_where_a_signed_one_is_required() -> None:
    """Such a reply can be a Reject that somebody on the way has turned into an Accept (BlastRADIUS)."""
    octets = encode_request(ASK, SECRET)
    reply = encode_reply(ACCEPT, decode_request(octets, SECRET), SECRET, sign=False)
    assert not decode_reply(reply, octets, SECRET, require_message_authenticator=False).signed
    with pytest.raises(NotAuthentic, match="no Message-Authenticator"):
        decode_reply(reply, octets, SECRET)


def test_a_bare_disconnect_nak_is_an_answer() -> None:
    """As strongSwan sends it: 20 octets."""
    octets = encode_request(DISCONNECT, SECRET)
    nak = encode_reply(Packet(code=Code.DISCONNECT_NAK), decode_request(octets, SECRET), SECRET, sign=False)
    assert len(nak) == 20
    assert decode_reply(nak, octets, SECRET).code is Code.DISCONNECT_NAK


def test_an_accounting_response_carries_no_message_authenticator() -> None:
    """There is no agreement on how it would be made."""
    octets = encode_request(ACCOUNT, SECRET)
    reply = encode_reply(Packet(code=Code.ACCOUNTING_RESPONSE), decode_request(octets, SECRET), SECRET)
    assert len(reply) == 20
    assert decode_reply(reply, octets, SECRET).code is Code.ACCOUNTING_RESPONSE


@pytest.mark.parametrize("place", [1, 4, 22, 45], ids=["identifier", "authenticator", "signature", "attribute"])
def test_a_reply_in_which_one_bit_changed_is_refused(place: int) -> None:
    """Whether the network did it or somebody."""
    octets = encode_request(ASK, SECRET)
    reply = bytearray(encode_reply(ACCEPT, decode_request(octets, SECRET), SECRET))
    reply[place] ^= 1
    with pytest.raises(NotAuthentic):
        decode_reply(bytes(reply), octets, SECRET, require_message_authenticator=False)


def test_a_reply_to_another_request_is_refused() -> None:
    """Though identifier and secret be the same."""
    first, second = encode_request(ASK, SECRET), encode_request(ASK, SECRET)
    with pytest.raises(NotAuthentic, match="no answer to this request"):
        decode_reply(encode_reply(ACCEPT, decode_request(first, SECRET), SECRET), second, SECRET)


def test_a_reply_with_a_proxy_state_that_was_not_sent_is_refused() -> None:
    """In it the collision of BlastRADIUS hides."""
    octets = encode_request(ASK, SECRET)
    request = decode_request(octets, SECRET)
    reply = encode_reply(replace(ACCEPT, attributes=(("Proxy-State", b"x"),)), request, SECRET, sign=False)
    with pytest.raises(NotAuthentic):
        decode_reply(reply, octets, SECRET, require_message_authenticator=False)


# --- form ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "0 octets are less than a header"),
        (raw()[:19], "19 octets are less than a header"),
        (b"\x01\x01\x00\x13" + bytes(16), "length field says 19"),
        (b"\x01\x01\x00\x15" + bytes(16), "length field says 21, there are 20 octets"),
        (b"\x01\x01" + (4097).to_bytes(2) + bytes(5000), "length field says 4097"),
        (raw(b"\x01"), "attribute at octet 20 does not end"),
        (raw(b"\x01\x01"), "attribute at octet 20 does not end"),
        (raw(attribute(1, b"SN1"), b"\x01\x09SN1"), "attribute at octet 25 does not end"),
        (raw(attribute(80, bytes(15))), "doubled, or not of 16 octets"),
        (raw(attribute(80, bytes(16)), attribute(80, bytes(16))), "doubled, or not of 16 octets"),
        (raw(attribute(6, b"\x05")), "Service-Type has a value that is not of its type"),
        (raw(attribute(4, bytes(5))), "NAS-IP-Address has a value that is not of its type"),
        (raw(attribute(2, bytes(15))), "User-Password has a value that is not of its type"),
        (raw(code=Code.ACCESS_ACCEPT), "the code is 2, expected ACCESS_REQUEST, ACCOUNTING_REQUEST"),
        (b"\xff" + raw()[1:], "the code is 255"),
    ],
)
def test_octets_that_are_no_packet_are_refused_with_the_place(octets: bytes, reason: str) -> None:
    """Before anything is believed of them."""
    with pytest.raises(MalformedPacket, match=reason):
        decode_request(octets, SECRET, require_message_authenticator=False)


def test_a_reply_of_another_kind_is_refused() -> None:
    """An answer to accounting says nothing about access."""
    octets = encode_request(ASK, SECRET)
    reply = encode_reply(Packet(code=Code.ACCOUNTING_RESPONSE), decode_request(octets, SECRET), SECRET)
    with pytest.raises(MalformedPacket, match="the code is 5, expected ACCESS_ACCEPT, ACCESS_REJECT"):
        decode_reply(reply, octets, SECRET)


@given(st.binary(max_size=200))
def test_no_octets_cause_anything_but_the_two_errors(noise: bytes) -> None:
    """Everybody can send us datagrams."""
    octets = bytes([1, 2]) + (20 + len(noise)).to_bytes(2) + bytes(16) + noise
    for candidate in (noise, octets):
        with suppress(MalformedPacket, NotAuthentic):
            decode_request(candidate, SECRET, require_message_authenticator=False)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("User-Name", "é" * 127, "User-Name: the value is too long"),
        ("User-Password", "x" * 129, "User-Password: the value is too long"),
        ("Class", bytes(254), "Class: the value is too long"),
        ("Cisco-AVPair", "x" * 253, "packet: the value is too long"),
        ("Service-Type", -1, "Service-Type: the value is too long or none"),
        ("NAS-IP-Address", "2001:db8::1", "NAS-IP-Address: the value is too long or none"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_without_repeating_it(name: str, value: Value, reason: str) -> None:
    """It is never cut."""
    with pytest.raises(UnfitAttribute, match=reason) as caught:
        encode_request(Packet(code=Code.ACCESS_REQUEST, attributes=((name, value),)), SECRET)
    assert str(value) not in str(caught.value)


@pytest.mark.parametrize("count", [17, 300], ids=["too many octets", "more than the length field can say"])
def test_more_than_one_packet_holds_is_refused(count: int) -> None:
    """4096 octets (RFC 2865 3)."""
    packet = Packet(code=Code.ACCESS_REQUEST, attributes=(("User-Name", "x" * 253),) * count)
    with pytest.raises(UnfitAttribute, match="packet"):
        encode_request(packet, SECRET)


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ((("Frobnicate", 1),), "no attribute Frobnicate"),
        ((("User-Name", b"x"),), "User-Name takes str, not bytes"),
        ((("Class", "x"),), "Class takes bytes, not str"),
        ((("Service-Type", "5"),), "Service-Type takes int, not str"),
    ],
)
def test_misuse_is_a_value_error(attributes: tuple[tuple[str, Value], ...], reason: str) -> None:
    """A bug of ours, and none of the peer's."""
    with pytest.raises(ValueError, match=reason):
        encode_request(Packet(code=Code.ACCESS_REQUEST, attributes=attributes), SECRET)


@pytest.mark.parametrize("code", sorted(frozenset(Code) - frozenset(REPLIES)))
def test_a_reply_is_not_encoded_as_a_request(code: Code) -> None:
    """Its authenticator needs a request."""
    with pytest.raises(ValueError, match="is not a request"):
        encode_request(Packet(code=code), SECRET)
