"""Claims about who signed a certificate: key and name decide together (RFC 5280 6.1.3)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scep_ra.pki import oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.validation import is_issued_by
from tests.support.keys import PrivateKey, ec_key, rsa_key
from tests.support.pki import make_ca, make_certificate, make_key
from tests.support.scep_messages import algorithm, certificate, name


def issue(issuer_key: PrivateKey, digest: str = "sha256", issuer: str = "CA") -> Certificate:
    return certificate(rsa_key(), issuer=name(issuer), issuer_key=issuer_key, digest=digest)


@pytest.mark.parametrize("ca_key", [rsa_key("CA"), ec_key(owner="CA")], ids=["rsa", "ec"])
def test_name_and_key_of_the_issuer_make_it_ours(ca_key: PrivateKey) -> None:
    """R-01: both kinds of CA key."""
    assert is_issued_by(issue(ca_key), certificate(ca_key, subject=name("CA")))


@pytest.mark.parametrize("ca_key", ["rsa-2048", "ec-p384"])
def test_certificates_of_our_own_ca_are_ours(ca_key: str) -> None:
    """And the other CA of the same make did not issue them."""
    ca, other = make_ca(ca_key), make_ca(ca_key, name="other")
    issued = make_certificate(ca, make_key().spki)
    assert is_issued_by(issued, ca.chain[0])
    assert is_issued_by(ca.chain[0], ca.chain[1])
    assert not is_issued_by(issued, ca.chain[1])
    assert not is_issued_by(issued, other.chain[0])


def test_a_forged_issuer_name_is_not_enough() -> None:
    """R-07: another key under our name."""
    assert not is_issued_by(issue(rsa_key("forger")), certificate(rsa_key("CA"), subject=name("CA")))


def test_our_key_under_another_name_is_not_enough() -> None:
    """Two CAs may share a key across a rename; only the one named issued it."""
    assert not is_issued_by(issue(rsa_key("CA"), issuer="old CA"), certificate(rsa_key("CA"), subject=name("CA")))


@pytest.mark.parametrize("digest", ["md5", "sha1"])
def test_weak_digests_count_only_where_asked(digest: str) -> None:
    """R-14: a collision is a forged certificate."""
    issued, ca = issue(rsa_key("CA"), digest), certificate(rsa_key("CA"), subject=name("CA"))
    assert not is_issued_by(issued, ca)
    assert is_issued_by(issued, ca, weak_digests=True)


def test_a_signature_without_digest_or_of_unknown_kind_is_nobodys() -> None:
    """An identifier that leaves the digest open has no place in a certificate."""
    issued, ca = issue(rsa_key("CA")), certificate(rsa_key("CA"), subject=name("CA"))
    for identifier in (
        algorithm(oids.RSA_ENCRYPTION),
        algorithm("1.2.3.4"),
        b"",
        algorithm(oids.ECDSA_WITH_SHA256, b""),
    ):
        assert not is_issued_by(replace(issued, signature_algorithm=identifier), ca)


def test_an_issuer_with_an_unusable_key_issued_nothing() -> None:
    """A broken neighbour in the list of CAs harms nobody."""
    ca = replace(certificate(rsa_key("CA"), subject=name("CA")), spki=b"\x30\x00")
    assert not is_issued_by(issue(rsa_key("CA")), ca)
