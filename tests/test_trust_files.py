"""Claims about the certificate files of [trust.NAME]: what is read, what is refused and how, which profile gets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scep_ra.cli.output import pem
from scep_ra.config import Settings
from scep_ra.config_file import load_settings
from scep_ra.errors import ConfigurationError
from scep_ra.pki import oids
from scep_ra.pki.certificates import Certificate
from scep_ra.pki.trust import TrustOptions, ValidityCheck
from scep_ra.scep.standing import SignerTrust
from scep_ra.trust_files import Trust, load_trust
from tests.support.manufacturer import ROOT, SUB, make_idevid

ACME = '[trust.acme]\ncertificates = ["acme.pem"]\n'
LEAF = make_idevid()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Return a directory with the files of a manufacturer."""
    write(tmp_path / "acme.pem", ROOT)
    write(tmp_path / "sub.pem", SUB)
    write(tmp_path / "leaf.pem", LEAF)
    return tmp_path


def write(file: Path, *certificates: Certificate) -> None:
    file.write_bytes(b"Acme Root CA, from the web site\r\n" + pem(each.der for each in certificates))


def settings(directory: Path, text: str) -> Settings:
    file = directory / "scep-ra.toml"
    file.write_text(text)
    return load_settings(config=file, data=directory / "var", environ={})


def refusal(directory: Path, text: str) -> str:
    """Return the error that a table causes, without the directory."""
    with pytest.raises(ConfigurationError) as caught:
        load_trust(settings(directory, text))
    return str(caught.value).replace(f"{directory}/", "")


def test_a_manufacturer_becomes_a_trust_store(directory: Path) -> None:
    """Every option arrives."""
    options = (
        'intermediates = ["sub.pem"]\ncheck_validity = "ignore_not_after"\nallow_sha1 = true\n'
        f'organization = "Acme Mfg"\nproducts = ["TST-*"]\ndenied = ["{LEAF.fingerprint()}"]\n'
    )
    store = load_trust(settings(directory, ACME + options)).manufacturers["acme"]
    assert (store.name, store.anchors, store.intermediates) == ("acme", (ROOT,), (SUB,))
    assert store.options == TrustOptions(
        check_validity=ValidityCheck.IGNORE_NOT_AFTER,
        allow_sha1=True,
        organization="Acme Mfg",
        products=("TST-*",),
        denied=frozenset({LEAF.fingerprint()}),
    )


def test_a_bundle_holds_any_number_of_certificates(directory: Path) -> None:
    """And several files add up."""
    write(directory / "both.pem", ROOT, SUB)
    text = '[trust.acme]\ncertificates = ["both.pem", "acme.pem"]\n'
    assert load_trust(settings(directory, text)).manufacturers["acme"].anchors == (ROOT, SUB, ROOT)


def test_an_ra_is_pinned_or_certified(directory: Path) -> None:
    """A pin that is denied is none; the purpose is asked for where a CA names the RAs."""
    text = '[trust.a]\ntype = "ra"\ncertificates = ["leaf.pem"]\n[trust.b]\ntype = "ra"\nissued_by = ["acme.pem"]\n'
    trusted = load_trust(settings(directory, text + f'denied = ["{SUB.fingerprint()}"]\n')).registration_authorities
    assert (trusted["a"].pinned, trusted["a"].issuers) == ((LEAF,), None)
    assert trusted["b"].pinned == ()
    issuers = trusted["b"].issuers
    assert issuers is not None
    assert issuers.anchors == (ROOT,)
    expected = TrustOptions(extended_key_usage=oids.CMC_RA, denied=frozenset({SUB.fingerprint()}))
    assert issuers.options == expected
    denied = f'[trust.a]\ntype = "ra"\ncertificates = ["leaf.pem"]\ndenied = ["{LEAF.fingerprint()}"]\n'
    assert load_trust(settings(directory, denied)).registration_authorities["a"].pinned == ()


def test_without_a_configuration_file_paths_begin_in_the_data_directory(directory: Path) -> None:
    """There is no other place to begin."""
    loaded = settings(directory, ACME).model_copy(update={"config_file": None, "data_dir": directory})
    assert load_trust(loaded).manufacturers["acme"].anchors == (ROOT,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "[trust.acme] acme.pem: cannot be read: No such file or directory"),
        (
            ROOT.der,
            "holds no certificate in PEM: convert it with openssl x509 -inform DER -in acme.pem -out NEW.pem",
        ),
        (
            b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
            "[trust.acme] acme.pem: holds a damaged certificate: an element is missing",
        ),
        (
            b"-----BEGIN CERTIFICATE-----\nMAA\n-----END CERTIFICATE-----\n",
            "[trust.acme] acme.pem: holds a damaged certificate: Incorrect padding",
        ),
        (pem([LEAF.der]), "is not a CA certificate (basicConstraints, keyUsage): name files of CA certificates here"),
    ],
)
def test_files_that_cannot_be_used_are_named_with_the_mend(directory: Path, content: bytes | None, said: str) -> None:
    """Table, file, and what to do."""
    (directory / "acme.pem").unlink()
    if content is not None:
        (directory / "acme.pem").write_bytes(content)
    assert refusal(directory, ACME).endswith(said)


def test_a_profile_gets_those_that_it_names(directory: Path) -> None:
    """And a profile that names nobody trusts nobody."""
    ra = '[trust.branch]\ntype = "ra"\ncertificates = ["leaf.pem"]\n'
    profiles = '[profile.vpn]\nmanufacturers = ["acme"]\ntrusted_ras = ["branch"]\n[profile.lab]\n'
    loaded = settings(directory, ACME + ra + profiles)
    trust = load_trust(loaded)
    vpn = trust.of(loaded.config.profile["vpn"])
    assert [store.name for store in vpn.manufacturers] == ["acme"]
    assert [authority.name for authority in vpn.registration_authorities] == ["branch"]
    assert trust.of(loaded.config.profile["lab"]) == Trust().of(loaded.config.profile["lab"]) == SignerTrust()
