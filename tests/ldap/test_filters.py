"""Filters from text to octets, the encodings by hand from RFC 4511; tests/aaa/test_ldap.py has OpenLDAP read some."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.errors import ConfigurationError
from scep_ra.ldap.filters import encode_filter, escape_value


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("(cn=a)", "a307 0402636e 040161"),
        ("(cn>=a)", "a507 0402636e 040161"),
        ("(cn<=a)", "a607 0402636e 040161"),
        ("(cn~=a)", "a807 0402636e 040161"),
        ("(cn=)", "a306 0402636e 0400"),
        ("(cn=*)", "8702 636e"),
        ("(cn=a*)", "a409 0402636e 3003 800161"),
        ("(cn=*a)", "a409 0402636e 3003 820161"),
        ("(cn=a*b*c)", "a40f 0402636e 3009 800161 810162 820163"),
        ("(cn=a**)", "a409 0402636e 3003 800161"),
        (r"(cn=\2a\c3\A9)", "a309 0402636e 0403 2ac3a9"),
        ("(cn=é)", "a308 0402636e 0402 c3a9"),
        ("(cn=a=b)", "a309 0402636e 0403 613d62"),
        ("(!(cn=a))", "a209 a307 0402636e 040161"),
        ("(&(cn=a)(sn=*))", "a00d a307 0402636e 040161 8702736e"),
        ("(|(cn=a))", "a109 a307 0402636e 040161"),
        ("(cn:=a)", "a907 8202636e 830161"),
        ("(cn:dn:2.5.13.2:=a)", "a914 8108322e352e31332e32 8202636e 830161 8401ff"),
        ("(:2.5.13.2:=a)", "a90d 8108322e352e31332e32 830161"),
        ("(cn;lang-de=a)", "a30f 040a636e3b6c616e672d6465 040161"),
    ],
)
def test_a_filter_is_encoded_as_rfc_4511_wants_it(text: str, encoded: str) -> None:
    """RFC 4511 4.5.1.7: each form has its tag."""
    assert encode_filter(text) == bytes.fromhex(encoded)


@pytest.mark.parametrize(
    ("text", "character", "reason"),
    [
        ("cn=a", 1, r'"\(" is missing'),
        ("(cn=a", 6, r'"\)" is missing'),
        ("(cn=a))", 7, "nothing may follow"),
        ("(&)", 3, r'"\(" is missing'),
        ("(cn)", 2, "something like attribute=value is missing"),
        ("(=a)", 2, "something like attribute=value is missing"),
        ("(cn:dn=a)", 2, 'a matching rule goes with ":="'),
        ("(cn>=a*)", 2, r'"\*" has no meaning after ">="'),
        (r"(cn=\zz)", 2, r"a backslash is written as \\5c"),
        ("(cn=a\0)", 2, r"by two hex digits"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused_with_the_place(text: str, character: int, reason: str) -> None:
    """At start, when somebody looks."""
    with pytest.raises(ConfigurationError, match=f"cannot be read at character {character}: .*{reason}"):
        encode_filter(text)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_an_escaped_value_stands_for_itself_whatever_it_holds(text: str) -> None:
    """RFC 4515 3: the filter compares with exactly these octets and asks nothing else."""
    encoded = encode_filter(f"(cn={escape_value(text)})")
    assert encoded.endswith(text.encode())
    assert encoded[0] == 0xA3
