"""Claims about keys: signing, decrypting, loading, and which public keys are refused."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.pki import der, keys, oids
from scep_ra.pki.algorithms import Digest, KeyTransport, SignatureAlgorithm, SignatureScheme
from scep_ra.pki.errors import AlgorithmRefused, DecryptionFailed, MalformedData, SignatureInvalid
from scep_ra.pki.keys import (
    KeyKind,
    PublicKey,
    SoftwareKey,
    check_certified_key,
    check_message_key,
    describe_key,
    load_public_key,
    verify_signature,
)
from tests.support.keys import (
    CURVES,
    ROCA_PRIMES,
    ec_key,
    modulus_of_close_factors,
    modulus_of_roca,
    modulus_with_factor,
    rsa_512,
    rsa_key,
    rsa_public,
    spki,
)
from tests.support.scep_messages import HASHES, algorithm, sign

PKCS1 = SignatureAlgorithm(scheme=SignatureScheme.RSA_PKCS1, digest=None)
ECDSA = SignatureAlgorithm(scheme=SignatureScheme.ECDSA, digest=None)


def public_der(key: dsa.DSAPublicKey | ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


# --- signing and decrypting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", [Digest.SHA1, Digest.SHA256, Digest.SHA512])
def test_rsa_signatures_are_pkcs1_and_deterministic(digest: Digest) -> None:
    """The library verifies them, and the same octets give the same signature."""
    key = SoftwareKey(rsa_key())
    signature = key.sign(b"data", digest)
    rsa_key().public_key().verify(signature, b"data", padding.PKCS1v15(), HASHES[digest.value])
    assert signature == key.sign(b"data", digest)
    assert key.scheme is SignatureScheme.RSA_PKCS1
    assert key.spki == spki(rsa_key())


@pytest.mark.parametrize("curve", CURVES)
def test_ec_signatures_are_deterministic_too(curve: str) -> None:
    """RFC 6979: an intent carried out again after a crash makes the certificate that may already exist."""
    key = SoftwareKey(ec_key(curve))
    signature = key.sign(b"data", Digest.SHA256)
    ec_key(curve).public_key().verify(signature, b"data", ec.ECDSA(HASHES["sha256"]))
    assert signature == key.sign(b"data", Digest.SHA256)
    assert key.scheme is SignatureScheme.ECDSA


@pytest.mark.parametrize(
    ("transport", "rsa_padding"),
    [
        (KeyTransport(), padding.PKCS1v15()),
        (
            KeyTransport(oaep_digest=Digest.SHA1, mgf_digest=Digest.SHA1),
            padding.OAEP(padding.MGF1(HASHES["sha1"]), HASHES["sha1"], None),
        ),
        (
            KeyTransport(oaep_digest=Digest.SHA256, mgf_digest=Digest.SHA1, label=b"L"),
            padding.OAEP(padding.MGF1(HASHES["sha1"]), HASHES["sha256"], b"L"),
        ),
    ],
)
def test_keys_wrapped_by_the_library_are_unwrapped(
    transport: KeyTransport, rsa_padding: padding.AsymmetricPadding
) -> None:
    """PKCS#1 v1.5 and OAEP with both digests and the label (P-15)."""
    encrypted = rsa_key().public_key().encrypt(b"content key", rsa_padding)
    assert SoftwareKey(rsa_key()).decrypt(encrypted, transport) == b"content key"


def test_what_cannot_be_decrypted_gives_no_reason() -> None:
    """Wrong OAEP label, wrong length, an EC key: one exception without text."""
    oaep = KeyTransport(oaep_digest=Digest.SHA256, mgf_digest=Digest.SHA256)
    for key, octets, transport in [
        (SoftwareKey(rsa_key()), bytes(256), oaep),
        (SoftwareKey(rsa_key()), bytes(10), KeyTransport()),
        (SoftwareKey(ec_key()), bytes(256), KeyTransport()),
    ]:
        with pytest.raises(DecryptionFailed) as caught:
            key.decrypt(octets, transport)
        assert str(caught.value) == ""


def test_wrong_pkcs1_padding_gives_random_octets_and_no_error() -> None:
    """Implicit rejection: the reason why the length of the content key is checked by the caller (RFC 3218)."""
    encrypted = (2**2040 + 12345).to_bytes(256, "big")
    assert SoftwareKey(rsa_key()).decrypt(encrypted, KeyTransport()) is not None


# --- making and loading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key_type", "bits"), [("rsa-2048", 2048), ("ec-p256", 256), ("ec-p384", 384)])
def test_keys_are_generated_as_named(key_type: str, bits: int) -> None:
    """And a fresh one each time."""
    first, second = keys.generate_key(key_type), keys.generate_key(key_type)
    assert load_public_key(first.spki).key_size == bits
    assert first.spki != second.spki


def test_an_unknown_key_type_is_a_mistake_of_ours() -> None:
    """The configuration allows no other, so ValueError."""
    with pytest.raises(ValueError, match="'rsa-1024'"):
        keys.generate_key("rsa-1024")


@pytest.mark.parametrize("passphrase", [None, b"correct horse"])
@pytest.mark.parametrize("private_key", [rsa_key, ec_key], ids=["rsa", "ec"])
def test_a_private_key_goes_to_pem_and_back(private_key: type, passphrase: bytes | None) -> None:
    """PKCS#8, encrypted when there is a passphrase."""
    key = SoftwareKey(private_key())
    pem = key.private_pem(passphrase)
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY" if passphrase else b"-----BEGIN PRIVATE KEY")
    assert keys.load_private_key(pem, passphrase).spki == key.spki


def test_traditional_key_files_are_loaded() -> None:
    """PKCS#1 and SEC1 as openssl writes them."""
    for key in (rsa_key(), ec_key()):
        form = serialization.PrivateFormat.TraditionalOpenSSL
        pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        assert keys.load_private_key(pem).spki == spki(key)


def test_private_keys_that_cannot_be_used_are_malformed_data() -> None:
    """Wrong passphrase, none where one is needed, one too many, no PEM, a kind we do not sign with."""
    encrypted, plain = SoftwareKey(ec_key()).private_pem(b"right"), SoftwareKey(ec_key()).private_pem()
    for pem, passphrase in [(encrypted, b"wrong"), (encrypted, None), (plain, b"any"), (b"no PEM", None)]:
        with pytest.raises(MalformedData, match="not a usable private key"):
            keys.load_private_key(pem, passphrase)
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(MalformedData, match="neither RSA nor EC"):
        keys.load_private_key(other)


def test_public_keys_of_other_kinds_are_refused() -> None:
    """N-32: Ed25519, DSA, a curve outside NIST's, garbage."""
    for octets in (
        public_der(ed25519.Ed25519PrivateKey.generate().public_key()),
        public_der(ec.generate_private_key(ec.SECP256K1()).public_key()),
    ):
        with pytest.raises(AlgorithmRefused, match="neither RSA nor on a NIST curve"):
            load_public_key(octets)
    with pytest.raises(AlgorithmRefused, match="cannot be loaded"):
        load_public_key(b"\x30\x00")


@given(st.binary(max_size=60))
def test_only_a_refusal_leaves_load_public_key(octets: bytes) -> None:
    """Whatever the octets, and whatever octet of a real key is changed."""
    with suppress(AlgorithmRefused):
        load_public_key(octets)


@pytest.mark.parametrize("exponent", [1, 4])
def test_exponents_that_make_no_key_do_not_even_load(exponent: int) -> None:
    """N-31: 1 and even exponents are refused by the library, which is a refusal like any other here."""
    numbers = rsa_key().public_key().public_numbers()
    key = der.sequence(der.integer(numbers.n), der.integer(exponent))
    octets = der.sequence(algorithm(oids.RSA_ENCRYPTION), der.bit_string(key))
    with pytest.raises(AlgorithmRefused, match="cannot be loaded"):
        load_public_key(octets)


@given(st.integers(0, 90), st.integers(0, 255), st.sampled_from([rsa_key, ec_key]))
def test_only_a_refusal_leaves_load_public_key_for_a_changed_key(position: int, octet: int, private_key: type) -> None:
    """The headers and the first octets of the key, one changed."""
    octets = bytearray(spki(private_key()))
    octets[position] = octet
    with suppress(AlgorithmRefused):
        load_public_key(bytes(octets))


# --- policy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", CURVES)
def test_nist_curves_may_sign_and_be_certified(curve: str) -> None:
    """P-256, P-384, P-521."""
    key = load_public_key(spki(ec_key(curve)))
    check_message_key(key)
    check_certified_key(key)


@pytest.mark.parametrize(
    ("octets", "words"),
    [(spki(rsa_key()), "RSA, 2048 bits"), (spki(ec_key("secp384r1")), "EC, secp384r1")],
)
def test_a_public_key_is_described_in_words(octets: bytes, words: str) -> None:
    """For operators, who know keys by kind and size."""
    assert describe_key(octets) == words


def test_an_honest_rsa_key_passes_every_check() -> None:
    """Both policies."""
    check_message_key(rsa_key().public_key())
    check_certified_key(rsa_key().public_key())


def test_message_keys_may_be_old_but_not_broken() -> None:
    """SEC-8: 1024 to 8192 bits, odd exponent of at least 3 that is cheap to verify with."""
    check_message_key(rsa_key("old", 1024).public_key())
    check_message_key(rsa_public(rsa_key().public_key().public_numbers().n, 3))
    n = rsa_key().public_key().public_numbers().n
    for key in (rsa_512().public_key(), rsa_public(n, 2**64 + 1), rsa_public(modulus_with_factor(3, 8200))):
        with pytest.raises(AlgorithmRefused, match=r"RSA key of \d+ bits, exponent of"):
            check_message_key(key)


@pytest.mark.parametrize("exponent", [2, 65536, 1, 3, 17, 65535, 2**256 + 1])
def test_certified_keys_have_an_odd_exponent_of_65537_to_256_bits(exponent: int) -> None:
    """N-31: 3 and 17 invite forgeries, even ones are no keys, huge ones cost everybody's time."""
    with pytest.raises(AlgorithmRefused, match="RSA exponent"):
        keys._check_certified_rsa(rsa.RSAPublicNumbers(e=exponent, n=rsa_key().public_key().public_numbers().n))


@pytest.mark.parametrize("exponent", [65537, 65539, 2**255 + 1])
def test_larger_odd_exponents_are_certified(exponent: int) -> None:
    """FIPS 186-5 allows up to 256 bits."""
    check_certified_key(rsa_public(rsa_key().public_key().public_numbers().n, exponent))


def test_certified_keys_are_of_a_kind_that_the_profile_allows() -> None:
    """RSA-512 and RSA-1024 and odd lengths never are; others where they are listed."""
    for key in (rsa_512(), rsa_key("old", 1024)):
        with pytest.raises(AlgorithmRefused, match=rf"RSA, {key.key_size} bits\) is not certified"):
            check_certified_key(key.public_key())
    with pytest.raises(AlgorithmRefused, match="2056 bits"):
        check_certified_key(rsa_public(modulus_with_factor(757, 2056)))
    with pytest.raises(AlgorithmRefused, match="2048 bits"):
        check_certified_key(rsa_key().public_key(), {KeyKind.RSA_3072, KeyKind.EC_P256})
    with pytest.raises(AlgorithmRefused, match="secp384r1"):
        check_certified_key(ec_key("secp384r1").public_key(), {KeyKind.RSA_2048, KeyKind.EC_P256})
    check_certified_key(ec_key().public_key(), {KeyKind.EC_P256})


@pytest.mark.parametrize("factor", [3, 5, 101, 751])
def test_a_modulus_with_a_small_factor_is_refused(factor: int) -> None:
    """Boulder's list of primes up to 751."""
    with pytest.raises(AlgorithmRefused, match="small factor"):
        check_certified_key(rsa_public(modulus_with_factor(factor)))


def test_an_even_modulus_is_refused() -> None:
    """N-31, here by the numbers because building such a key is up to the library."""
    numbers = rsa.RSAPublicNumbers(e=65537, n=2**2047 + 2)
    with pytest.raises(AlgorithmRefused, match="small factor"):
        keys._check_certified_rsa(numbers)


def test_a_modulus_of_the_roca_generator_is_refused() -> None:
    """CVE-2017-15361: residues modulo all seventeen primes lie in the group that 65537 generates."""
    modulus = modulus_of_roca()
    assert all(modulus % prime in {pow(65537, k, prime) for k in range(prime)} for prime in ROCA_PRIMES)
    with pytest.raises(AlgorithmRefused, match="CVE-2017-15361"):
        check_certified_key(rsa_public(modulus))


@pytest.mark.parametrize("distance", [2, 10_000, 2**515])
def test_a_modulus_of_close_primes_is_refused(distance: int) -> None:
    """Fermat's method factors it in 110 rounds."""
    with pytest.raises(AlgorithmRefused, match="too close"):
        check_certified_key(rsa_public(modulus_of_close_factors(distance)))


def test_a_modulus_of_distant_factors_passes() -> None:
    """2^520 apart is out of Fermat's reach: the search ends, and nothing is refused for the form of this test."""
    check_certified_key(rsa_public(modulus_of_close_factors(2**520)))


# --- verifying -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digest", Digest)
def test_rsa_signatures_of_every_digest_are_verified(digest: Digest) -> None:
    """MD5 and SHA-1 too, where the library's is_signature_valid is silently False."""
    verify_signature(rsa_key().public_key(), PKCS1, digest, sign(rsa_key(), b"data", digest.value), b"data")


def test_pss_and_ecdsa_signatures_are_verified() -> None:
    """P-14, and every curve."""
    pss = SignatureAlgorithm(scheme=SignatureScheme.RSA_PSS, digest=Digest.SHA256, pss_salt_bytes=32)
    verify_signature(rsa_key().public_key(), pss, Digest.SHA256, sign(rsa_key(), b"data", pss_salt=32), b"data")
    for curve in CURVES:
        key = ec_key(curve)
        verify_signature(key.public_key(), ECDSA, Digest.SHA384, sign(key, b"data", "sha384"), b"data")


def test_a_signature_that_does_not_fit_is_invalid() -> None:
    """Other data, other digest, other salt, other padding, cut off, garbage for ECDSA."""
    public, signature = rsa_key().public_key(), sign(rsa_key(), b"data")
    pss = SignatureAlgorithm(scheme=SignatureScheme.RSA_PSS, digest=Digest.SHA256, pss_salt_bytes=20)
    cases: list[tuple[PublicKey, SignatureAlgorithm, Digest, bytes, bytes]] = [
        (public, PKCS1, Digest.SHA256, signature, b"tada"),
        (public, PKCS1, Digest.SHA384, signature, b"data"),
        (public, pss, Digest.SHA256, sign(rsa_key(), b"data", pss_salt=32), b"data"),
        (public, pss, Digest.SHA256, signature, b"data"),
        (public, PKCS1, Digest.SHA256, signature[:-1], b"data"),
        (ec_key().public_key(), ECDSA, Digest.SHA256, b"garbage", b"data"),
    ]
    for key, scheme, digest, octets, data in cases:
        with pytest.raises(SignatureInvalid):
            verify_signature(key, scheme, digest, octets, data)


def test_scheme_and_key_have_to_be_of_one_kind() -> None:
    """An ECDSA identifier beside an RSA key, and the reverse."""
    cases: list[tuple[PublicKey, SignatureAlgorithm]] = [
        (rsa_key().public_key(), ECDSA),
        (ec_key().public_key(), PKCS1),
    ]
    for key, scheme in cases:
        with pytest.raises(AlgorithmRefused, match="does not fit the key"):
            verify_signature(key, scheme, Digest.SHA256, b"", b"")


def test_a_key_too_short_for_the_digest_is_refused() -> None:
    """RSA-512 has no room for a PSS signature with SHA-512, and the library says so with a ValueError."""
    pss = SignatureAlgorithm(scheme=SignatureScheme.RSA_PSS, digest=Digest.SHA512, pss_salt_bytes=64)
    with pytest.raises(AlgorithmRefused, match="digest cannot be used"):
        verify_signature(rsa_512().public_key(), pss, Digest.SHA512, bytes(64), b"data")
