"""Claims about AlgorithmIdentifiers: what is known, what its parameters mean, what is refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import algorithms, der, oids
from scep_ra.pki.algorithms import Cipher, Digest, KeyTransport, SignatureAlgorithm, SignatureScheme
from scep_ra.pki.errors import AlgorithmRefused, MalformedData
from tests.support.scep_messages import (
    CIPHER_OIDS,
    DIGEST_OIDS,
    ECDSA_SIGNATURE_OIDS,
    HASHES,
    RSA_SIGNATURE_OIDS,
    algorithm,
    oaep_parameters,
    pss_parameters,
)

DIGEST_OCTETS = {
    Digest.MD5: "300c06082a864886f70d02050500",
    Digest.SHA1: "300906052b0e03021a0500",
    Digest.SHA224: "300d06096086480165030402040500",
    Digest.SHA256: "300d06096086480165030402010500",
    Digest.SHA384: "300d06096086480165030402020500",
    Digest.SHA512: "300d06096086480165030402030500",
}


# --- digests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", Digest)
def test_digest_identifiers_are_exact_and_carry_null(digest: Digest) -> None:
    """The octets of the table of OIDs, with the NULL that old clients expect."""
    assert digest.identifier.hex() == DIGEST_OCTETS[digest]
    assert algorithms.parse_digest(digest.identifier) is digest
    assert digest.hash.name == HASHES[digest.value].name


@pytest.mark.parametrize("digest", Digest)
def test_digests_are_known_without_parameters_too(digest: Digest) -> None:
    """MSG-8, P-13: scepclient sends `30 07 06 05 2b0e03021a`."""
    assert algorithms.parse_digest(algorithm(DIGEST_OIDS[digest.value], b"")) is digest


def test_digests_of_nothing_are_the_well_known_ones() -> None:
    """SIG-2: what messageDigest holds in a FAILURE or PENDING."""
    assert Digest.SHA256.of(b"").hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert Digest.SHA1.of(b"").hex() == "da39a3ee5e6b4b0d3255bfef95601890afd80709"


def test_an_unknown_digest_is_refused() -> None:
    """N-16."""
    with pytest.raises(AlgorithmRefused, match=r"unknown digest 1\.2\.3\.4"):
        algorithms.parse_digest(algorithm("1.2.3.4"))


@pytest.mark.parametrize("parameters", [der.integer(1), der.NULL + der.NULL])
def test_a_digest_with_other_parameters_is_malformed(parameters: bytes) -> None:
    """NULL once or nothing."""
    with pytest.raises(MalformedData):
        algorithms.parse_digest(algorithm(oids.SHA256, parameters))


# --- signatures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("oid", "scheme", "digest"),
    [
        *((oid, SignatureScheme.RSA_PKCS1, Digest(name)) for name, oid in RSA_SIGNATURE_OIDS.items()),
        *((oid, SignatureScheme.ECDSA, Digest(name)) for name, oid in ECDSA_SIGNATURE_OIDS.items()),
        ("1.2.840.113549.1.1.1", SignatureScheme.RSA_PKCS1, None),
        ("1.3.14.3.2.29", SignatureScheme.RSA_PKCS1, Digest.SHA1),
        ("1.2.840.10045.2.1", SignatureScheme.ECDSA, None),
    ],
)
@pytest.mark.parametrize("parameters", [b"", der.NULL])
def test_signature_identifiers_name_scheme_and_digest(
    oid: str, scheme: SignatureScheme, digest: Digest | None, parameters: bytes
) -> None:
    """MSG-9, P-12, P-13: combined OIDs, the plain ones without a digest, and the OIW alias."""
    found = algorithms.parse_signature(algorithm(oid, parameters))
    assert found == SignatureAlgorithm(scheme=scheme, digest=digest)


@pytest.mark.parametrize(
    ("scheme", "digest", "octets"),
    [
        (SignatureScheme.RSA_PKCS1, Digest.SHA256, "300d06092a864886f70d01010b0500"),
        (SignatureScheme.RSA_PKCS1, Digest.SHA1, "300d06092a864886f70d0101050500"),
        (SignatureScheme.ECDSA, Digest.SHA384, "300a06082a8648ce3d040303"),
    ],
)
def test_signature_identifiers_are_written_to_the_octet(scheme: SignatureScheme, digest: Digest, octets: str) -> None:
    """RSA with NULL (RFC 4055 5), ECDSA without parameters (RFC 5758 3.2), SHA-1 not by its OIW alias."""
    assert algorithms.signature_identifier(scheme, digest).hex() == octets


def test_an_unknown_signature_algorithm_is_refused() -> None:
    """Ed25519 among others."""
    with pytest.raises(AlgorithmRefused, match=r"1\.3\.101\.112"):
        algorithms.parse_signature(algorithm("1.3.101.112", b""))


def pss(parameters: bytes) -> SignatureAlgorithm:
    return algorithms.parse_signature(algorithm(oids.RSASSA_PSS, parameters))


@pytest.mark.parametrize("parameters", [b"", der.sequence()])
def test_pss_defaults_are_those_of_sha1(parameters: bytes) -> None:
    """RFC 4055 3.1: every field has a default, and all of them may be absent."""
    assert pss(parameters) == SignatureAlgorithm(scheme=SignatureScheme.RSA_PSS, digest=Digest.SHA1, pss_salt_bytes=20)


def test_pss_parameters_are_read() -> None:
    """P-14: strongSwan with --rsa-padding pss."""
    expected = SignatureAlgorithm(scheme=SignatureScheme.RSA_PSS, digest=Digest.SHA384, pss_salt_bytes=48)
    assert pss(pss_parameters("sha384", 48)) == expected


@pytest.mark.parametrize(
    ("pattern", "parameters"),
    [
        ("two digests", pss_parameters("sha256", 32, "sha1")),
        ("two digests", der.sequence(der.explicit(0, algorithm(oids.SHA256)))),
        ("salt length", pss_parameters("sha256", 65)),
        ("salt length", pss_parameters("sha256", -1)),
        ("mask generation", der.sequence(der.explicit(1, algorithm("1.2.3.4")))),
        ("unknown digest", der.sequence(der.explicit(0, algorithm("1.2.3.4")))),
    ],
)
def test_pss_with_unusual_parameters_is_refused(pattern: str, parameters: bytes) -> None:
    """Two digests, a salt beyond every digest, another mask generation function."""
    with pytest.raises(AlgorithmRefused, match=pattern):
        pss(parameters)


# --- ciphers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cipher", "oid", "key_bytes", "block_bytes"),
    [
        (Cipher.DES, CIPHER_OIDS["des"], 8, 8),
        (Cipher.TRIPLE_DES, CIPHER_OIDS["3des"], 24, 8),
        (Cipher.AES128, CIPHER_OIDS["aes128"], 16, 16),
        (Cipher.AES192, CIPHER_OIDS["aes192"], 24, 16),
        (Cipher.AES256, CIPHER_OIDS["aes256"], 32, 16),
    ],
)
def test_ciphers_have_their_oid_and_sizes(cipher: Cipher, oid: str, key_bytes: int, block_bytes: int) -> None:
    """An identifier goes out with its IV and comes back."""
    iv = bytes(range(block_bytes))
    assert (cipher.key_bytes, cipher.block_bytes) == (key_bytes, block_bytes)
    assert algorithms.cipher_identifier(cipher, iv) == algorithm(oid, der.octet_string(iv))
    assert algorithms.parse_cipher(algorithm(oid, der.octet_string(iv))) == (cipher, iv)


@pytest.mark.parametrize("oid", ["1.2.840.113549.3.2", "2.16.840.1.101.3.4.1.6", "1.2.3.4"])
def test_other_ciphers_are_refused(oid: str) -> None:
    """N-19: RC2, AES-GCM, unknown."""
    with pytest.raises(AlgorithmRefused, match="unknown content encryption"):
        algorithms.parse_cipher(algorithm(oid, der.octet_string(bytes(16))))


@pytest.mark.parametrize("length", [0, 8, 15, 17])
def test_an_iv_of_the_wrong_length_is_refused(length: int) -> None:
    """N-26."""
    with pytest.raises(AlgorithmRefused, match=f"IV of {length} octets"):
        algorithms.parse_cipher(algorithm(CIPHER_OIDS["aes128"], der.octet_string(bytes(length))))


def test_a_cipher_without_iv_is_malformed() -> None:
    """The parameter is not optional (RFC 3565 4.1)."""
    with pytest.raises(MalformedData):
        algorithms.parse_cipher(algorithm(CIPHER_OIDS["aes128"], der.NULL))


# --- key transport -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [b"", der.NULL])
def test_rsa_encryption_is_pkcs1_transport(parameters: bytes) -> None:
    """MSG-8: with and without NULL."""
    assert algorithms.parse_key_transport(algorithm(oids.RSA_ENCRYPTION, parameters)) == KeyTransport()


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        (b"", KeyTransport(oaep_digest=Digest.SHA1, mgf_digest=Digest.SHA1)),
        (der.sequence(), KeyTransport(oaep_digest=Digest.SHA1, mgf_digest=Digest.SHA1)),
        (oaep_parameters("sha256"), KeyTransport(oaep_digest=Digest.SHA256, mgf_digest=Digest.SHA256)),
        (
            oaep_parameters("sha256", "sha1", b"label"),
            KeyTransport(oaep_digest=Digest.SHA256, mgf_digest=Digest.SHA1, label=b"label"),
        ),
    ],
)
def test_oaep_is_read_with_its_defaults(parameters: bytes, expected: KeyTransport) -> None:
    """REP-8, P-15: absent fields mean SHA-1 and no label (RFC 4055 4.1)."""
    assert algorithms.parse_key_transport(algorithm(oids.RSAES_OAEP, parameters)) == expected


@pytest.mark.parametrize(
    ("pattern", "identifier"),
    [
        ("unknown key transport", algorithm("1.2.3.4")),
        ("label source", algorithm(oids.RSAES_OAEP, der.sequence(der.explicit(2, algorithm("1.2.3.4"))))),
        ("mask generation", algorithm(oids.RSAES_OAEP, der.sequence(der.explicit(1, algorithm("1.2.3.4"))))),
    ],
)
def test_other_key_transports_are_refused(pattern: str, identifier: bytes) -> None:
    """A closed set, inside OAEP as well."""
    with pytest.raises(AlgorithmRefused, match=pattern):
        algorithms.parse_key_transport(identifier)


PARSERS = [
    algorithms.parse_digest,
    algorithms.parse_signature,
    algorithms.parse_cipher,
    algorithms.parse_key_transport,
]
KNOWN_OIDS = st.sampled_from([oids.SHA256, oids.RSASSA_PSS, oids.RSAES_OAEP, oids.AES128_CBC])
IDENTIFIERS = st.builds(algorithm, KNOWN_OIDS, st.binary(max_size=30))


@given(st.binary(max_size=40) | IDENTIFIERS)
def test_only_two_errors_leave_the_parsers(octets: bytes) -> None:
    """MalformedData or AlgorithmRefused, whatever the octets."""
    for parse in PARSERS:
        with suppress(MalformedData, AlgorithmRefused):
            parse(octets)
