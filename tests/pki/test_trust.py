"""Claims about paths: which certificates lead to an anchor, which do not and why, and what the search may cost."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from cryptography import x509

from scep_ra.pki import der, oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.names import parse_name
from scep_ra.pki.trust import (
    MAX_SIGNATURES,
    TrustOptions,
    TrustStore,
    Untrusted,
    ValidityCheck,
    check_authority,
    check_end_entity,
    find_path,
)
from tests.support.keys import ec_key, rsa_512, rsa_key
from tests.support.manufacturer import (
    DEVICE_KEY,
    DEVICE_USAGE,
    ENDED,
    KEY_CERT_SIGN,
    KEY_ENCIPHERMENT,
    NO_END,
    ROOT,
    ROOT_KEY,
    ROOT_NAME,
    SUB,
    SUB_KEY,
    SUB_NAME,
    basic_constraints,
    hardware_module_name,
    key_usage,
    make_authority,
    make_idevid,
    make_store,
)
from tests.support.pki import NOW
from tests.support.scep_messages import algorithm, certificate, extension

LOOKALIKE = make_authority("forger", SUB_NAME, path_length=0, certificate_serial=2)
THIRD_NAME = parse_name("O=Acme Mfg,CN=Third CA")
BY_ROOT = (ROOT_NAME, ROOT_KEY)


def reason(leaf: Certificate, store: TrustStore, *enclosed: Certificate, now: datetime = NOW) -> str:
    """Return why there is no path."""
    with pytest.raises(Untrusted) as refusal:
        find_path(leaf, enclosed, store, now)
    return str(refusal.value)


def store_of(**options: Any) -> TrustStore:
    return make_store(TrustOptions(**options))


# --- paths that exist ----------------------------------------------------------------------------------------------


def test_a_device_that_sends_its_own_certificate_only_is_known_by_the_stores_intermediates() -> None:
    """Leaf, issuing CA and root, in this order; notAfter in the last second of time overflows nothing."""
    leaf = make_idevid()
    assert leaf.not_after == NO_END
    assert find_path(leaf, (), make_store(), NOW) == (leaf, SUB, ROOT)


@pytest.mark.parametrize("enclosed", [(SUB,), (ROOT, SUB), (make_idevid(), LOOKALIKE, SUB, ROOT)])
def test_intermediates_may_come_with_the_message_in_any_order(enclosed: tuple[Certificate, ...]) -> None:
    """R-12; a certificate of the right name and the wrong key in front of them does not hide the right one."""
    leaf = make_idevid()
    assert find_path(leaf, enclosed, make_store(intermediates=()), NOW) == (leaf, SUB, ROOT)


def test_an_anchor_need_not_be_a_root() -> None:
    """Configuration decides where belief begins: nothing above an anchor is looked for."""
    leaf = make_idevid()
    assert find_path(leaf, (), TrustStore(name="sub", anchors=(SUB,)), NOW) == (leaf, SUB)


def test_ec_authorities_certify_as_well() -> None:
    """Newer manufacturers' chains are EC above, whatever the device key is."""
    root = make_authority("EC root", ROOT_NAME, key=ec_key("secp384r1", "Acme"), digest="sha384")
    leaf = make_idevid(issuer=(ROOT_NAME, ec_key("secp384r1", "Acme")), digest="sha384")
    assert find_path(leaf, (), TrustStore(name="ec", anchors=(root,)), NOW) == (leaf, root)


def test_a_second_opinion_finds_the_same_path() -> None:
    """The library agrees about every signature, so the fixtures are what they claim to be."""
    path = find_path(make_idevid(), (), make_store(), NOW)
    for child, issuer in pairwise(x509.load_der_x509_certificate(each.der) for each in path):
        child.verify_directly_issued_by(issuer)


# --- names that lead into a store ----------------------------------------------------------------------------------


def test_only_certificates_whose_issuers_names_lead_there_are_looked_at() -> None:
    """Everybody else costs no signature."""
    store = make_store(intermediates=())
    stranger = certificate(DEVICE_KEY, subject=parse_name("CN=stranger"))
    assert not store.is_claimed_by(stranger)
    assert not store.is_claimed_by(stranger, (SUB, ROOT))
    assert not store.is_claimed_by(make_idevid())
    assert store.is_claimed_by(make_idevid(), (SUB,))
    assert store.is_claimed_by(LOOKALIKE, (SUB,))
    assert store.is_claimed_by(ROOT)
    assert make_store().is_claimed_by(make_idevid())


# --- paths that do not ---------------------------------------------------------------------------------------------


def test_a_look_alike_ca_is_not_the_ca() -> None:
    """R-07: the same distinguished name, another key."""
    leaf = make_idevid(issuer=(SUB_NAME, rsa_key("forger")))
    assert "is not signed by the key of" in reason(leaf, make_store())
    assert "is not signed by the key of" in reason(leaf, make_store(), LOOKALIKE)


def test_a_missing_intermediate_is_named() -> None:
    """What to configure stands in the log."""
    text = reason(make_idevid(), make_store(intermediates=()))
    assert text == (
        "no certificate is known for the issuer of certificate 1267 "
        "(serialNumber=PID:TST-1000 SN:FTX1234ABCD,O=Acme Mfg,OU=ACT-2 Lite SUDI,CN=TST-1000)"
    )


def test_a_leaf_is_no_ca() -> None:
    """A device cannot certify another device."""
    device = make_idevid()
    leaf = make_idevid(issuer=(device.subject, DEVICE_KEY), key=rsa_key("thief"))
    assert "is not a CA certificate (basicConstraints, keyUsage)" in reason(leaf, make_store(), device)


@pytest.mark.parametrize(
    ("extensions", "said"),
    [
        ((basic_constraints(), key_usage(KEY_ENCIPHERMENT)), "is not a CA certificate"),
        ((basic_constraints(is_ca=False), key_usage(KEY_CERT_SIGN)), "is not a CA certificate"),
        ((key_usage(KEY_CERT_SIGN),), "is not a CA certificate"),
        ((extension(oids.BASIC_CONSTRAINTS, b"\x04\x00"),), "cannot be read"),
        ((basic_constraints(), extension(oids.KEY_USAGE, der.TRUE)), "cannot be read"),
        ((basic_constraints(), extension(oids.KEY_USAGE, der.named_bits())), "is not a CA certificate"),
        ((basic_constraints(), extension(oids.NAME_CONSTRAINTS, der.sequence(), critical=True)), "nameConstraints"),
        ((basic_constraints(), extension(oids.POLICY_CONSTRAINTS, der.sequence(), critical=True)), "policyConstraints"),
        ((basic_constraints(), extension("1.2.3.4", der.NULL, critical=True)), "critical extension 1.2.3.4"),
    ],
)
def test_an_issuer_that_may_not_certify_or_is_not_understood_ends_the_path(
    extensions: tuple[bytes, ...], said: str
) -> None:
    """RFC 5280 6.1.4 k, n, o."""
    sub = make_authority("Acme issuing CA", SUB_NAME, BY_ROOT, extensions=extensions)
    assert said in reason(make_idevid(), make_store(intermediates=(sub,)))


def test_authorities_without_key_usage_may_certify() -> None:
    """RFC 5280 4.2.1.3: the extension restricts, its absence does not; unknown extensions that are not critical too."""
    extensions = (basic_constraints(), extension("1.2.3.4", der.NULL))
    sub = make_authority("Acme issuing CA", SUB_NAME, BY_ROOT, extensions=extensions)
    check_authority(sub)
    assert len(find_path(make_idevid(), (sub,), make_store(intermediates=()), NOW)) == 3


def test_path_length_counts_the_authorities_below() -> None:
    """RFC 5280 4.2.1.9: the issuing CA may have none; a new key under its own name is none."""
    third = make_authority("third", THIRD_NAME, (SUB_NAME, SUB_KEY), certificate_serial=3)
    leaf = make_idevid(issuer=(THIRD_NAME, rsa_key("third")))
    assert "allows 0 CAs below itself, there are 1" in reason(leaf, make_store(), third)
    rekeyed = make_authority("third", SUB_NAME, (SUB_NAME, SUB_KEY), certificate_serial=3)
    leaf = make_idevid(issuer=(SUB_NAME, rsa_key("third")))
    assert find_path(leaf, (rekeyed,), make_store(), NOW) == (leaf, rekeyed, SUB, ROOT)


@pytest.mark.parametrize(
    ("leaf", "said"),
    [
        (ROOT, "is a CA certificate, which signs no messages"),
        (SUB, "is a CA certificate, which signs no messages"),
        (make_idevid(extensions=(key_usage(KEY_ENCIPHERMENT),)), "is not for digital signatures (keyUsage)"),
        (make_idevid(extensions=(extension(oids.KEY_USAGE, b""),)), "cannot be read"),
        (make_idevid(extensions=(extension("1.2.3", der.NULL, critical=True),)), "critical extension 1.2.3"),
        (make_idevid(digest="sha1"), "is signed with SHA-1, and allow_sha1 is off"),
        (make_idevid(digest="md5"), "is signed with MD5, or does not say with what"),
        (replace(make_idevid(), signature_algorithm=algorithm(oids.RSA_ENCRYPTION)), "does not say with what"),
        (replace(make_idevid(), signature_algorithm=der.sequence()), "an element is missing"),
        (make_idevid(key=rsa_key("short", 1024)), "an RSA key of 1024 bits, less than 2048"),
        (make_idevid(key=rsa_512()), "cannot be used"),
        (make_idevid(validity=ENDED), "has expired at 2020-01-01 00:00:00Z"),
        (make_idevid(validity=(NO_END, NO_END)), "is not valid before 9999-12-31"),
    ],
)
def test_end_entities_that_may_not_sign_messages_are_refused(leaf: Certificate, said: str) -> None:
    """R-14, R-16, R-17; SR-09: whatever their issuer is."""
    assert said in reason(leaf, make_store())


def test_an_authority_with_a_short_key_ends_the_path() -> None:
    """A factored CA key makes any number of devices."""
    short = rsa_key("short", 1024)
    root = make_authority("short", ROOT_NAME, key=short)
    leaf = make_idevid(issuer=(ROOT_NAME, short))
    assert "an RSA key of 1024 bits" in reason(leaf, TrustStore(name="weak", anchors=(root,)))


# --- options -------------------------------------------------------------------------------------------------------


def test_hardware_that_outlives_its_certificates_is_served_where_configured() -> None:
    """R-14: ignore_not_after holds for the whole path, and never for notBefore."""
    leaf = make_idevid(validity=ENDED)
    ended = make_authority("Acme root CA", ROOT_NAME, validity=ENDED)
    lenient = TrustOptions(check_validity=ValidityCheck.IGNORE_NOT_AFTER)
    assert len(find_path(leaf, (), make_store(lenient), NOW)) == 3
    assert "has expired" in reason(make_idevid(), replace(make_store(), anchors=(ended,)))
    assert find_path(leaf, (), replace(make_store(lenient), anchors=(ended,)), NOW)[-1] == ended
    early = make_idevid(validity=(NOW + timedelta(days=1), NO_END))
    assert "is not valid before" in reason(early, make_store(lenient))


def test_the_moments_of_both_ends_are_within_the_validity() -> None:
    """RFC 5280 4.1.2.5: through notAfter, inclusive."""
    leaf = make_idevid(validity=(NOW, NOW))
    check_end_entity(leaf, NOW)
    with pytest.raises(Untrusted, match="expired"):
        check_end_entity(leaf, NOW + timedelta(seconds=1))


def test_sha1_counts_where_configured_and_md5_nowhere() -> None:
    """The legacy chains of Cisco are SHA-1; a root's own signature is not looked at."""
    old_root = make_authority("Acme root CA", ROOT_NAME, digest="sha1")
    old_sub = make_authority("Acme issuing CA", SUB_NAME, BY_ROOT, digest="sha1")
    leaf = make_idevid(digest="sha1")
    legacy = TrustStore(
        name="old", anchors=(old_root,), intermediates=(old_sub,), options=TrustOptions(allow_sha1=True)
    )
    assert find_path(leaf, (), legacy, NOW) == (leaf, old_sub, old_root)
    assert "SHA-1" in reason(make_idevid(), replace(legacy, options=TrustOptions()))
    assert "MD5" in reason(make_idevid(digest="md5"), legacy)
    assert find_path(make_idevid(), (), replace(make_store(), anchors=(old_root,)), NOW)[-1] == old_root


@pytest.mark.parametrize("denied", [make_idevid(), SUB, ROOT])
def test_what_is_denied_ends_the_path_wherever_it_stands(denied: Certificate) -> None:
    """IDevIDs have no CRL; a compromised issuing CA is denied like a stolen device."""
    text = reason(make_idevid(), store_of(denied=frozenset({denied.fingerprint()})))
    assert "is on the deny list" in text


def test_products_and_organization_narrow_a_store() -> None:
    """One manufacturer makes more than one operator buys; the product is what stands in `PID:`."""
    leaf = make_idevid()
    for options in ({"organization": "Acme Mfg"}, {"products": ("C9300*", "TST-????")}):
        assert len(find_path(leaf, (), store_of(**options), NOW)) == 3
    assert "is not of organization 'Acme'" in reason(leaf, store_of(organization="Acme"))
    assert "is of no product (PID) that is allowed" in reason(leaf, store_of(products=("TST-2*",)))
    bare = make_idevid(parse_name("serialNumber=FTX1234ABCD,CN=TST-1000"))
    assert "is of no product" in reason(bare, store_of(products=("TST-*",)))
    assert "cannot be read" in reason(make_idevid(der.sequence(der.NULL)), make_store())


def test_a_purpose_counts_where_configured() -> None:
    """IDevIDs rarely have extendedKeyUsage, and it is nothing to us; that of an RA is asked for."""
    wanted = store_of(extended_key_usage=oids.CMC_RA)
    ra = extension(oids.EXTENDED_KEY_USAGE, der.sequence(der.oid(oids.CLIENT_AUTH), der.oid(oids.CMC_RA)))
    client = extension(oids.EXTENDED_KEY_USAGE, der.sequence(der.oid(oids.CLIENT_AUTH)), critical=True)
    broken = extension(oids.EXTENDED_KEY_USAGE, der.sequence(der.NULL))
    assert len(find_path(make_idevid(extensions=(ra,)), (), wanted, NOW)) == 3
    assert len(find_path(make_idevid(extensions=(client,)), (), make_store(), NOW)) == 3
    for extensions in ((client,), ()):
        leaf = make_idevid(extensions=extensions)
        assert f"lacks the extendedKeyUsage {oids.CMC_RA}" in reason(leaf, wanted)
    assert "cannot be read" in reason(make_idevid(extensions=(broken,)), wanted)


# --- what it may cost ----------------------------------------------------------------------------------------------


@pytest.fixture
def signatures(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Count signatures; each one verifies."""
    seen: list[bytes] = []

    def verify(*arguments: object) -> None:
        seen.append(b"")

    monkeypatch.setattr("scep_ra.pki.trust.verify_signature", verify)
    return seen


def test_many_certificates_of_one_name_and_key_cost_a_bounded_number_of_signatures(signatures: list[bytes]) -> None:
    """A hundred authorities that all certify one another: the orders of five of them alone are ten thousand million."""
    loop = [
        make_authority("forger", THIRD_NAME, certificate_serial=number, extensions=(basic_constraints(),))
        for number in range(100)
    ]
    leaf = make_idevid(issuer=(THIRD_NAME, rsa_key("forger")), extensions=(DEVICE_USAGE, hardware_module_name()))
    text = reason(leaf, make_store(), *loop)
    assert len(signatures) == MAX_SIGNATURES
    assert f"no path was found within {MAX_SIGNATURES} signatures" in text
    assert len(text) < 1000


def test_a_path_ends_after_six_certificates(signatures: list[bytes]) -> None:
    """Nobody's is longer."""
    chain = [SUB_NAME, *(parse_name(f"CN=CA {number}") for number in range(4)), ROOT_NAME]
    cas = [
        make_authority("Acme issuing CA", subject, (issuer, SUB_KEY), extensions=(basic_constraints(),))
        for subject, issuer in pairwise(chain)
    ]
    store = make_store(intermediates=())
    assert "the path is longer than 6 certificates" in reason(make_idevid(), store, *cas)
    shorter = make_idevid(issuer=(chain[1], SUB_KEY))
    assert len(find_path(shorter, cas, store, NOW)) == 6
    assert signatures


def test_two_authorities_that_certify_each_other_end_the_search() -> None:
    """A certificate stands in a path once."""
    first, second = parse_name("CN=first"), parse_name("CN=second")
    key = rsa_key("forger")
    ring = [
        make_authority("forger", subject, (issuer, key), extensions=(basic_constraints(),))
        for subject, issuer in ((first, second), (second, first))
    ]
    text = reason(make_idevid(issuer=(first, key)), make_store(), *ring)
    assert text.startswith("no certificate is known for the issuer of certificate 1")


def test_a_moment_in_the_last_year_of_time_is_compared_without_arithmetic() -> None:
    """99991231235959Z plus anything is an OverflowError."""
    assert len(find_path(make_idevid(), (), make_store(), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))) == 3
