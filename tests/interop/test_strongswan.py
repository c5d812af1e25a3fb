"""Claims about strongSwan's `pki`: it POSTs, signs renewals with messageType 17, and knows RSA only."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from scep_ra.pki import oids
from scep_ra.pki.names import parse_name
from tests.support.key_files import write_key
from tests.support.keys import rsa_key, spki
from tests.support.programs import Program
from tests.support.server import Registered, RunningServer, make_data_directory, running_server
from tests.support.strongswan import Client, require_strongswan


@pytest.fixture(scope="module")
def pki() -> Program:
    return require_strongswan()


@pytest.fixture
def client(pki: Program, server: RunningServer, tmp_path: Path) -> Client:
    return Client(pki, server, tmp_path)


def test_it_finds_ra_and_cas_and_trusts_them(client: Client) -> None:
    """I-10: all three certificates are told apart and chain to the root."""
    issuing, root = client.server.ca.chain
    expected = {"ra.der": client.server.ra_certificate, "ca.der": root, "ca-1.der": issuing}
    assert {name: (client.directory / name).read_bytes() for name in expected} == {
        name: certificate.der for name, certificate in expected.items()
    }
    assert "RA cert is trusted" in client.fetched.stderr + client.fetched.stdout


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512"])
def test_it_enrolls_with_aes(client: Client, digest: str) -> None:
    """I-11: the certificate has the key and the whole subject of the request."""
    device = client.server.register()
    certificate = client.enroll(device, "--cipher", "aes", "--digest", digest)
    assert certificate.spki == spki(device.key)
    assert certificate.subject == parse_name(f"O=Test,serialNumber={device.device_serial},CN={device.device_serial}")
    assert client.server.certificates_of(device.device_serial)[0]["serial"] == f"{certificate.certificate_serial:x}"


def test_a_host_name_that_aaa_asserts_is_certified(client: Client) -> None:
    """The device asks for CN=router, and the registry has that of it."""
    device = client.server.register("--attribute", "commonName=router")
    outcome = client.request(device, "--password", device.challenge, name="router")
    assert outcome.returncode == 0, outcome.stderr
    assert client.check_issued().subject == parse_name(f"O=Test,serialNumber={device.device_serial},CN=router")


def test_a_name_that_nobody_vouches_for_is_refused(client: Client) -> None:
    """CERT VU#971035: with a challenge of one's own one would be somebody else."""
    device = client.server.register()
    _check_refused(client.request(device, "--password", device.challenge, name="administrator"))
    (line,) = client.server.run("request", "list", "--refused", "--device", device.device_serial).splitlines()[1:]
    assert "subject attribute commonName 'administrator' is not vouched for" in line
    client.enroll(device)


def test_the_key_of_another_device_is_refused(client: Client) -> None:
    """Two devices with one key are one device twice; the challenge stays good for a key of its own."""
    first, second = client.server.register(), client.server.register()
    client.enroll(first)
    _check_refused(client.request(second, "--password", second.challenge, key=first.key))
    client.enroll(second)


def test_a_device_has_no_more_certificates_than_its_profile_allows(client: Client) -> None:
    """Two in the default one; the third is issued once one of them is revoked."""
    device = client.server.register()
    first = client.enroll(device)
    keys = [rsa_key(f"{device.device_serial}, {number}") for number in (2, 3)]
    challenges = [client.server.new_challenge(device.device_serial) for _ in keys]
    asked = [("--password", challenge) for challenge in challenges]
    assert client.request(device, *asked[0], key=keys[0]).returncode == 0
    _check_refused(client.request(device, *asked[1], key=keys[1]))
    client.server.run("certificate", "revoke", f"{first.certificate_serial:x}")
    assert client.request(device, *asked[1], key=keys[1]).returncode == 0


@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha512"])
def test_it_enrolls_with_3des_where_that_is_allowed(client: Client, digest: str) -> None:
    """GetCACaps announces DES3 and SHA-1, otherwise the client would not try."""
    device = client.server.register(profile="legacy")
    client.enroll(device, "--cipher", "des3", "--digest", digest, profile="legacy")


@pytest.mark.parametrize("option", [("--cipher", "des3"), ("--digest", "sha1")])
def test_what_a_profile_does_not_allow_is_refused_with_bad_alg(client: Client, option: tuple[str, str]) -> None:
    """This release asks for it although GetCACaps lists neither DES3 nor SHA-1."""
    device = client.server.register()
    outcome = client.request(device, "--password", device.challenge, *option)
    assert outcome.returncode != 0
    assert "failInfo:     badAlg" in outcome.stderr
    assert client.server.certificates_of(device.device_serial) == []


def test_it_enrolls_with_pss(client: Client) -> None:
    """Message, request and stand-in certificate are all signed with RSASSA-PSS."""
    client.enroll(client.server.register(), "--rsa-padding", "pss")


def test_an_ec_ca_issues_to_it(pki: Program, tmp_path: Path) -> None:
    """The RA's key stays RSA, because the client encrypts to it."""
    with running_server(make_data_directory(tmp_path, '[ca.default]\nkey_type = "ec-p256"\n')) as server:
        Client(pki, server, tmp_path).enroll(server.register())


def test_a_name_that_the_request_asks_for_does_not_reach_the_certificate(client: Client) -> None:
    """The CSR supplies a key and a claim; extensions are the profile's."""
    certificate = client.enroll(client.server.register(), "--san", "vpn.example.com")
    assert oids.SUBJECT_ALT_NAME not in [extension.oid for extension in certificate.extensions]
    assert b"vpn.example.com" not in certificate.der


@pytest.mark.parametrize("password", [("--password", "wrong"), ()])
def test_a_wrong_or_missing_challenge_is_refused(client: Client, password: tuple[str, ...]) -> None:
    """badRequest, and no certificate."""
    device = client.server.register()
    outcome = client.request(device, *password)
    _check_refused(outcome)
    assert client.server.certificates_of(device.device_serial) == []


def test_a_challenge_of_another_device_is_refused(client: Client) -> None:
    """And it stays good for its own."""
    owner, thief = client.server.register(), client.server.register()
    _check_refused(client.request(thief, "--password", owner.challenge))
    client.enroll(owner)


def test_a_used_challenge_is_refused_for_another_key(client: Client) -> None:
    """Whoever got hold of it comes too late."""
    device = client.server.register()
    client.enroll(device)
    _check_refused(client.request(device, "--password", device.challenge, key=device.next_key))


def test_the_same_request_again_gets_the_same_certificate(client: Client) -> None:
    """The answer may have been lost on the way (RFC 8894 5.2), so a used challenge is no reason to refuse this."""
    device = client.server.register()
    assert client.enroll(device) == client.enroll(device)


def test_it_polls_until_an_operator_approves(client: Client) -> None:
    """PENDING, then CertPoll every second; a renewal needs no approval any more."""
    device = client.server.register(profile="approved")
    outcome = _decided_meanwhile(client, device, "approve")
    assert outcome.returncode == 0, outcome.stderr
    assert client.check_issued().spki == spki(device.key)
    write_key(client.directory / "device.key", device.key)
    renewed = client.request(device, *_OLD, key=device.next_key, profile="approved", output="new.der")
    assert renewed.returncode == 0, renewed.stderr


def test_it_is_refused_once_an_operator_rejects(client: Client) -> None:
    """The answer to its next CertPoll is FAILURE, and it stops asking."""
    device = client.server.register(profile="approved")
    _check_refused(_decided_meanwhile(client, device, "reject"))
    assert client.server.certificates_of(device.device_serial) == []


def test_it_renews_with_a_new_key_and_no_challenge(client: Client) -> None:
    """I-12: RenewalReq, signed with the certificate to be replaced."""
    device = client.server.register()
    old = client.enroll(device)
    renewed = client.request(device, *_OLD, key=device.next_key, output="new.der")
    assert renewed.returncode == 0, renewed.stderr
    new = client.check_issued("new.der")
    assert (new.spki, new.subject) == (spki(device.next_key), old.subject)
    assert new.certificate_serial != old.certificate_serial
    record = client.server.log.wait_for("certificate_issued", certificate_serial=f"{new.certificate_serial:x}")
    assert record["device_id"] == f"serial:{device.device_serial}"


def test_it_cannot_renew_with_the_key_it_has_unless_that_is_allowed(client: Client) -> None:
    """A key wears out with its certificate; the legacy profile sets allow_same_key."""
    device, old_device = client.server.register(), client.server.register(profile="legacy")
    client.enroll(device)
    _check_refused(client.request(device, *_OLD, output="new.der"))
    client.enroll(old_device, profile="legacy")
    renewed = client.request(old_device, *_OLD, profile="legacy", output="new.der")
    assert renewed.returncode == 0, renewed.stderr
    assert client.check_issued("new.der").spki == spki(old_device.key)


def test_a_disabled_device_cannot_renew_until_it_is_enabled(client: Client) -> None:
    """The certificate proves who asks; the registry still decides."""
    device = client.server.register()
    client.enroll(device)
    client.server.run("device", "disable", device.device_serial, "--keep-certificates")
    _check_refused(client.request(device, *_OLD, key=device.next_key, output="new.der"))
    client.server.run("device", "enable", device.device_serial)
    assert client.request(device, *_OLD, key=device.next_key, output="new.der").returncode == 0


def test_a_revoked_certificate_cannot_renew(client: Client) -> None:
    """Nor can a device come back by it after it was enabled again."""
    device = client.server.register()
    certificate = client.enroll(device)
    client.server.run("certificate", "revoke", f"{certificate.certificate_serial:x}")
    _check_refused(client.request(device, *_OLD, key=device.next_key, output="new.der"))


def test_another_device_cannot_be_renewed(client: Client) -> None:
    """The device in the request must be the one of the certificate that signs it."""
    device, other = client.server.register(), client.server.register()
    client.enroll(device)
    _check_refused(client.request(other, *_OLD, output="new.der"))


_OLD = ("--cert", "device.der", "--key", "device.key")


def _decided_meanwhile(client: Client, device: Registered, decision: str) -> CompletedProcess[str]:
    """Let it ask, have an operator decide while it polls, and return how it ended."""
    with ThreadPoolExecutor() as pool:
        patience = ("--maxpolltime", "30")
        ended = pool.submit(client.request, device, "--password", device.challenge, *patience, profile="approved")
        client.server.run("request", decision, client.server.waiting(device))
        return ended.result()


def _check_refused(outcome: CompletedProcess[str]) -> None:
    """Insist that the client was told badRequest."""
    assert outcome.returncode != 0
    assert "failInfo:     badRequest" in outcome.stderr
