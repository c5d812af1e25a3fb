"""LDAP messages as octets; the expected ones are those of RFC 4511 and of real servers."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.ldap.messages import (
    Entry,
    Message,
    Reference,
    Result,
    Scope,
    Search,
    bind_request,
    parse_message,
    search_request,
    start_tls_request,
    unbind_request,
)
from scep_ra.pki.errors import MalformedData


def test_requests_are_encoded_as_rfc_4511_wants_them() -> None:
    """Sections 4.2, 4.3, 4.5 and 4.14."""
    assert bind_request(1, "cn=r", "pw") == bytes.fromhex("3012 020101 600d 020103 0404636e3d72 80027077")
    assert unbind_request(2) == bytes.fromhex("3005 020102 4200")
    assert start_tls_request(3) == bytes.fromhex("301d 020103 7718 8016") + b"1.3.6.1.4.1.1466.20037"
    search = Search(
        base="o=x", scope=Scope.SUB, filter=bytes.fromhex("8702636e"), attributes=("l",), max_entries=2, time_limit_s=5
    )
    assert search_request(4, search) == bytes.fromhex(
        "3022 020104 631d 04036f3d78 0a0102 0a0100 020102 020105 010100 8702636e 3003 04016c"
    )


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        # Lengths in four octets where one would do, as OpenLDAP and Active Directory write them.
        (
            "308400000029 020107 648400000020 04036f3d78 308400000015 30840000000f 04014c 318400000006 040161 0401ff",
            Message(message_id=7, content=Entry(dn="o=x", attributes={"l": [b"a", b"\xff"]})),
        ),
        (
            "301b 020107 7316 04096c6461703a2f2f612f 04096c6461703a2f2f622f",
            Message(message_id=7, content=Reference(urls=("ldap://a/", "ldap://b/"))),
        ),
        # With a referral, and a control behind it.
        (
            "3024 020107 6516 0a010a 0400 04026e6f a30b 04096c6461703a2f2f632f a007 3005 0403312e32",
            Message(message_id=7, content=Result(code=10, diagnostic="no", referrals=("ldap://c/",))),
        ),
        ("300c 020101 6107 0a0100 0400 0400", Message(message_id=1, content=Result(code=0, diagnostic=""))),
        ("300c 020101 7807 0a0102 0400 0400", Message(message_id=1, content=Result(code=2, diagnostic=""))),
    ],
)
def test_answers_are_read(octets: str, message: Message) -> None:
    """Names of attributes come in lower case, values as they are."""
    assert parse_message(bytes.fromhex(octets)) == message


@pytest.mark.parametrize(
    "octets", ["", "3000", "3003020101", "300c 020101 6307 0a0100 0400 0400", "300c 020101 6107 020100 0400 0400"]
)
def test_what_is_no_answer_is_refused(octets: str) -> None:
    """A request, for one."""
    with pytest.raises(MalformedData):
        parse_message(bytes.fromhex(octets))


@given(st.binary(max_size=64))
def test_octets_of_any_kind_end_in_a_message_or_in_malformed_data(octets: bytes) -> None:
    """And in nothing else."""
    with suppress(MalformedData):
        parse_message(octets)
