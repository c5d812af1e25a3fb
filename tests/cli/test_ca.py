"""Claims about `scep-ra ca`."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from scep_ra.pki.certificates import Certificate, parse_certificate
from tests.support.command_line import CommandLine

TWO = """
ca.a = { key_type = "ec-p256", tiers = 1 }
ca.b = { key_type = "ec-p256" }
ra.x = { ca = "a" }
profile.p = { ca = "a", ra = "x" }
"""


def certificates(text: str) -> list[Certificate]:
    """Return the certificates of a PEM text."""
    blocks = text.split("-----END CERTIFICATE-----\n")[:-1]
    return [parse_certificate(ssl.PEM_cert_to_DER_cert(f"{block}-----END CERTIFICATE-----\n")) for block in blocks]


@pytest.fixture
def two_cas(scep_ra: CommandLine) -> CommandLine:
    """Return a data directory with two CAs, none of them called default."""
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "scep-ra.toml").write_text(TWO)
    return scep_ra


def test_show_lists_issuing_ca_root_and_ra(scep_ra: CommandLine) -> None:
    """With the fingerprints that a device shows when it asks whom to trust."""
    records = scep_ra.ok("ca", "show", "--json").json
    assert [(record["role"], record["name"]) for record in records] == [
        ("ca", "default"), ("root", "default"), ("ra", "default")
    ]  # fmt: skip
    (issuing,) = certificates(scep_ra.ok("ca", "export").out)
    assert (records[0]["sha256"], records[0]["sha1"]) == (issuing.fingerprint(), issuing.fingerprint("sha1"))
    text = scep_ra.ok("ca", "show").out
    assert text.count("\n\n") == 2
    assert f"sha256:     {issuing.fingerprint()}" in text


def test_a_ca_of_one_tier_is_its_own_root(two_cas: CommandLine) -> None:
    """It appears once."""
    roles = [(record["role"], record["name"]) for record in two_cas.ok("ca", "show", "--json").json]
    assert roles == [("root", "a"), ("ca", "b"), ("root", "b"), ("ra", "x")]


def test_export_writes_ca_root_chain_or_ra(scep_ra: CommandLine) -> None:
    """Each links to the next."""
    (issuing,) = certificates(scep_ra.ok("ca", "export", "default").out)
    (root,) = certificates(scep_ra.ok("ca", "export", "--root").out)
    (ra,) = certificates(scep_ra.ok("ca", "export", "--ra").out)
    assert certificates(scep_ra.ok("ca", "export", "--chain").out) == [issuing, root]
    assert (ra.issuer, issuing.issuer, root.is_self_issued) == (issuing.subject, root.subject, True)


def test_der_is_written_to_a_file(scep_ra: CommandLine, tmp_path: Path) -> None:
    """A chain has no DER form."""
    scep_ra.ok("ca", "export", "--root", "--format", "der", "-o", str(tmp_path / "root.der"))
    assert parse_certificate((tmp_path / "root.der").read_bytes()).is_self_issued
    outcome = scep_ra("ca", "export", "--chain", "--format", "der")
    assert (outcome.status, "--format pem" in outcome.err) == (2, True)


def test_a_name_is_needed_where_there_are_several(two_cas: CommandLine) -> None:
    """The message lists them; the only RA needs no name."""
    outcome = two_cas("ca", "export")
    assert outcome.status == 1
    assert outcome.err == "scep-ra: there is none called 'default'; the configuration has: a, b\n"
    assert two_cas.ok("ca", "export", "b").out != two_cas.ok("ca", "export", "a").out
    assert two_cas.ok("ca", "export", "--ra").out
