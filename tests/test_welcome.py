"""Claims about the banner that can be seen without a client; `tests/interop` tries its lines."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from scep_ra.pki.certificates import Certificate
from scep_ra.welcome import Welcome
from tests.support.pki import make_ca


def welcome(
    *,
    profiles: Sequence[str] = ("default",),
    ra: bool = True,
    legacy: bool = False,
    chain: Sequence[Certificate] = (),
    one_time: bool = True,
    registry: bool = True,
    radius: str = "",
    api: str = "",
    ocsp: Sequence[str] = (),
) -> str:
    return Welcome(
        base_url="http://scep.example.net:8000",
        profiles=profiles,
        chains={"main": chain or make_ca("ec-p256").chain},
        command="scep-ra --data var",
        profile=profiles[0],
        ca="main",
        ra=ra,
        legacy=legacy,
        one_time=one_time,
        registry=registry,
        radius=radius,
        api=api,
        ocsp=ocsp,
    ).text()


def test_every_profile_has_its_url() -> None:
    """An operator copies it into the devices."""
    text = welcome(profiles=("default", "legacy"))
    assert "\n  http://scep.example.net:8000/scep/default\n  http://scep.example.net:8000/scep/legacy\n" in text


def test_headends_have_their_address() -> None:
    """Where RADIUS is served; otherwise nothing is said of it."""
    text = welcome(radius="192.0.2.1 ports 1812/udp and 1813/udp")
    assert "Headends are answered by RADIUS (PKI-AAA) at\n  192.0.2.1 ports 1812/udp and 1813/udp\n" in text
    assert "RADIUS" not in welcome()


def test_what_else_is_answered_has_its_urls() -> None:
    """The HTTP API and OCSP, where they are on."""
    text = welcome(api="http://scep.example.net:8000/api/v1", ocsp=["http://scep.example.net:8000/ocsp/main"])
    assert "Headends are answered by HTTP at\n  http://scep.example.net:8000/api/v1\n" in text
    assert "OCSP (RFC 6960) is answered at\n  http://scep.example.net:8000/ocsp/main\n" in text
    assert "HTTP at" not in welcome()
    assert "OCSP" not in welcome()


def test_fingerprints_are_grouped_as_people_compare_them() -> None:
    """SHA-256 for those who choose, SHA-1 for devices that show nothing else."""
    chain = make_ca("ec-p256").chain
    text = welcome(chain=chain)
    for certificate in chain:
        for name in ("sha256", "sha1"):
            digits = certificate.fingerprint(name).upper()
            assert ":".join(digits[i : i + 2] for i in range(0, len(digits), 2)) in text


@pytest.mark.parametrize(
    ("name", "url", "option"), [("default", "/scep ", ""), ("vpn", "/scep/vpn ", " --profile vpn")]
)
def test_the_examples_are_for_one_profile(name: str, url: str, option: str) -> None:
    """The default one needs no name, neither in the URL nor for its challenges."""
    text = welcome(profiles=(name,))
    assert f"sscep getca -u http://scep.example.net:8000{url}" in text
    assert f"challenge new --device SN123{option})\n" in text


@pytest.mark.parametrize(
    ("ra", "tiers", "signer", "sscep"),
    [
        (True, 2, "--cacert-sig ra.der --cacert ca.der --cacert ca-1.der ", "-c ca.pem-0"),
        (True, 1, "--cacert-sig ra.der --cacert ca.der ", "-c ca.pem-0"),
        (False, 2, "--cacert-sig ca-1.der --cacert ca.der --cacert ca-1.der ", "-c ca.pem -k"),
        (False, 1, "--cacert-sig ca.der --cacert ca.der ", "-c ca.pem -k"),
    ],
)
def test_clients_are_given_the_certificates_that_this_server_shows(
    ra: bool, tiers: int, signer: str, sscep: str
) -> None:
    """With an RA or without, under a root or under a CA of its own."""
    text = welcome(ra=ra, chain=make_ca("ec-p256").chain[2 - tiers :])
    assert signer in text
    assert sscep in text
    assert ("ca export main --root -o root.pem" in text) is not ra
    assert ("ca export main --root --format der -o ca.der" in text) is (not ra and tiers == 2)


@pytest.mark.parametrize("legacy", [True, False])
def test_scepclient_comes_with_the_settings_it_needs_unless_they_are_on(legacy: bool) -> None:
    """It knows only SHA-1 and single DES."""
    text = welcome(legacy=legacy)
    assert ("allow_sha1 and insecure_des_and_md5 in [profile.default.algorithms]" in text) is not legacy


def test_a_profile_with_a_static_challenge_is_not_told_to_make_one() -> None:
    """The registered device still has to be; in a lab not even that."""
    text = welcome(one_time=False)
    assert "device add SN123" in text
    assert "challenge new" not in text
    text = welcome(one_time=False, registry=False)
    assert "Every device is authorized." in text
    assert "device add" not in text
