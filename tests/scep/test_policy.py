"""Claims about algorithm policy and the capabilities that announce it (CAP-1 to CAP-7)."""

from __future__ import annotations

import pytest

from scep_ra.pki.algorithms import Cipher, Digest
from scep_ra.pki.errors import AlgorithmRefused
from scep_ra.scep.policy import AlgorithmPolicy, capabilities
from scep_ra.scep.terms import Capability

STANDARD = AlgorithmPolicy()
EVERYTHING = AlgorithmPolicy.of(sha1=True, triple_des=True, des_and_md5=True, password_envelope=True)
STRONG = {Digest.SHA256, Digest.SHA384, Digest.SHA512, Cipher.AES128, Cipher.AES192, Cipher.AES256}


def allows(policy: AlgorithmPolicy, algorithm: Digest | Cipher) -> bool:
    try:
        policy.check_digest(algorithm) if isinstance(algorithm, Digest) else policy.check_cipher(algorithm)
    except AlgorithmRefused:
        return False
    return True


@pytest.mark.parametrize(
    ("policy", "weak"),
    [
        (AlgorithmPolicy.of(), set()),
        (STANDARD, set()),
        (AlgorithmPolicy.of(sha1=True), {Digest.SHA1, Digest.SHA224}),
        (AlgorithmPolicy.of(triple_des=True), {Cipher.TRIPLE_DES}),
        (AlgorithmPolicy.of(des_and_md5=True), {Cipher.DES, Digest.MD5}),
        (EVERYTHING, {Digest.SHA1, Digest.SHA224, Cipher.TRIPLE_DES, Cipher.DES, Digest.MD5}),
    ],
)
def test_each_switch_adds_what_it_names_and_nothing_else(policy: AlgorithmPolicy, weak: set[Digest | Cipher]) -> None:
    """HTTP-1 to HTTP-3, N-17, N-18: AES and SHA-2 always, the rest by its own switch."""
    allowed = {algorithm for algorithm in (*Digest, *Cipher) if allows(policy, algorithm)}
    assert allowed == STRONG | weak


def test_a_refusal_names_the_algorithm() -> None:
    """For the operator who wonders why a device fails."""
    with pytest.raises(AlgorithmRefused, match="digest md5 is not allowed"):
        STANDARD.check_digest(Digest.MD5)
    with pytest.raises(AlgorithmRefused, match="content encryption des-cbc is not allowed"):
        STANDARD.check_cipher(Cipher.DES)


def test_the_password_envelope_is_off_unless_switched_on() -> None:
    """RFC 8894 3.1 is an option that no known device uses."""
    assert not STANDARD.password_envelope
    assert not AlgorithmPolicy.of(sha1=True).password_envelope
    assert EVERYTHING.password_envelope


@pytest.mark.parametrize(
    ("policy", "requested", "used"),
    [
        (STANDARD, Digest.SHA512, Digest.SHA512),
        (STANDARD, Digest.SHA1, Digest.SHA256),
        (STANDARD, None, Digest.SHA256),
        (EVERYTHING, Digest.SHA1, Digest.SHA1),
        (EVERYTHING, Digest.MD5, Digest.SHA256),
    ],
)
def test_a_reply_uses_the_digest_of_the_request_where_it_may(
    policy: AlgorithmPolicy, requested: Digest | None, used: Digest
) -> None:
    """REP-7; MD5 is read where it must be and never written (CVE-2004-2761)."""
    assert policy.reply_digest(requested) is used


@pytest.mark.parametrize(
    ("policy", "requested", "used"),
    [
        (STANDARD, Cipher.AES256, Cipher.AES256),
        (STANDARD, Cipher.TRIPLE_DES, Cipher.AES128),
        (STANDARD, None, Cipher.AES128),
        (EVERYTHING, Cipher.TRIPLE_DES, Cipher.TRIPLE_DES),
        (EVERYTHING, Cipher.DES, Cipher.AES128),
    ],
)
def test_a_reply_uses_the_cipher_of_the_request_where_it_may(
    policy: AlgorithmPolicy, requested: Cipher | None, used: Cipher
) -> None:
    """REP-7: IOS reads no other; scepclient, which asks with DES, reads AES."""
    assert policy.reply_cipher(requested) is used


def test_capabilities_name_what_is_served_strongest_first() -> None:
    """CAP-2, CAP-3, CAP-4, CAP-7: exact words, implied ones too, AES before DES3, SHA-384 for strongSwan."""
    words = [str(item) for item in capabilities(EVERYTHING, renewal=True, next_ca=True)]
    assert words == [
        "AES",
        "POSTPKIOperation",
        "Renewal",
        "SHA-512",
        "SHA-384",
        "SHA-256",
        "SCEPStandard",
        "GetNextCACert",
        "SHA-1",
        "DES3",
    ]


@pytest.mark.parametrize(
    ("policy", "renewal", "next_ca", "missing"),
    [
        (EVERYTHING, True, True, set()),
        (EVERYTHING, False, True, {Capability.RENEWAL}),
        (EVERYTHING, True, False, {Capability.GET_NEXT_CA_CERT}),
        (AlgorithmPolicy.of(triple_des=True), True, True, {Capability.SHA_1}),
        (AlgorithmPolicy.of(sha1=True), True, True, {Capability.DES3}),
        (STANDARD, False, False, {Capability.RENEWAL, Capability.GET_NEXT_CA_CERT, Capability.SHA_1, Capability.DES3}),
    ],
)
def test_what_is_switched_off_is_not_announced(
    policy: AlgorithmPolicy, renewal: bool, next_ca: bool, missing: set[Capability]
) -> None:
    """CAP-6: a word that is not served is a bug; DES and MD5 have no word at all."""
    assert set(Capability) - set(capabilities(policy, renewal=renewal, next_ca=next_ca)) == missing
