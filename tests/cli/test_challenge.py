"""Claims about `scep-ra challenge`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from scep_ra.data_directory import challenge_seal
from scep_ra.enrollment.challenges import challenge_digest
from scep_ra.storage.base import Challenge, Dossier
from tests.support.command_line import CommandLine
from tests.support.records import make_key


def stored(scep_ra: CommandLine, secret: str) -> Challenge:
    """Return the row of a secret."""
    dossier: Dossier = scep_ra.in_store(
        lambda session: session.store.dossier(make_key(), b"", challenge_digest(secret))
    )
    assert dossier.challenge is not None
    return dossier.challenge


def test_the_secret_is_alone_on_standard_output(scep_ra: CommandLine) -> None:
    """A shell can take it with $(...), and needs no quotes for it."""
    scep_ra.ok("device", "add", "X1")
    outcome = scep_ra.ok("challenge", "new", "--device", "X1")
    assert re.fullmatch(r"[a-z2-7]{26}\n", outcome.out)
    assert outcome.err.startswith("for serial:X1, profile default, once, until 20")


def test_only_the_digest_is_stored(scep_ra: CommandLine) -> None:
    """No file of the data directory holds the secret; the row is bound to device, profile and time."""
    scep_ra.ok("device", "add", "X1")
    before = datetime.now(UTC)
    secret = scep_ra.ok("challenge", "new", "--device", "X1", "--ttl", "15m").out.strip()
    challenge = stored(scep_ra, secret)
    assert (str(challenge.device_id), challenge.profile, challenge.sealed) == ("serial:X1", "default", None)
    assert challenge.expires_at - challenge.created_at == timedelta(minutes=15)
    assert challenge.created_at >= before
    assert all(secret.encode() not in file.read_bytes() for file in scep_ra.data.rglob("*") if file.is_file())


def test_the_secret_is_sealed_where_the_profile_needs_it_readable(scep_ra: CommandLine) -> None:
    """The password-based envelope is opened with it."""
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "scep-ra.toml").write_text("[profile.default.algorithms]\npassword_envelope = true\n")
    scep_ra.ok("device", "add", "X1")
    secret = scep_ra.ok("challenge", "new", "--device", "X1").out.strip()
    sealed = stored(scep_ra, secret).sealed
    assert sealed is not None
    assert challenge_seal(scep_ra.data).open(sealed) == secret.encode()


def test_json_tells_the_terms(scep_ra: CommandLine) -> None:
    """A provisioning tool gets all in one object."""
    scep_ra.ok("device", "add", "X1")
    record = scep_ra.ok("challenge", "new", "--device", "serial:X1", "--json").json
    assert stored(scep_ra, record.pop("challenge")).profile == "default"
    assert record.pop("expires_at").endswith("Z")
    assert record == {"device": "serial:X1", "profile": "default"}


def test_an_unknown_device_gets_no_challenge(scep_ra: CommandLine) -> None:
    """It could not enroll with it."""
    outcome = scep_ra("challenge", "new", "--device", "X1")
    assert (outcome.status, outcome.out) == (1, "")


def test_a_disabled_device_gets_no_challenge(scep_ra: CommandLine) -> None:
    """The message says how to enable it."""
    scep_ra.ok("device", "add", "X1")
    scep_ra.ok("device", "disable", "X1")
    outcome = scep_ra("challenge", "new", "--device", "X1")
    assert (outcome.status, "`scep-ra device enable serial:X1`" in outcome.err) == (1, True)


def test_a_device_gets_challenges_for_its_profile_only(scep_ra: CommandLine) -> None:
    """The mend is in the message."""
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "scep-ra.toml").write_text("[profile.default]\n[profile.vpn]\n")
    scep_ra.ok("device", "add", "X1", "--profile", "vpn")
    outcome = scep_ra("challenge", "new", "--device", "X1")
    assert (outcome.status, "give --profile vpn" in outcome.err) == (1, True)
    assert stored(scep_ra, scep_ra.ok("challenge", "new", "--device", "X1", "--profile", "vpn").out.strip())


def test_an_unknown_profile_and_a_bad_ttl_are_usage_errors(scep_ra: CommandLine) -> None:
    """Nothing is printed that looks like a secret."""
    scep_ra.ok("device", "add", "X1")
    for option, value in (("--profile", "vpn"), ("--ttl", "1 week")):
        outcome = scep_ra("challenge", "new", "--device", "X1", option, value)
        assert (outcome.status, outcome.out) == (2, "")


def test_a_profile_with_a_static_challenge_takes_no_other(scep_ra: CommandLine) -> None:
    """A one-time challenge would never be asked for."""
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "scep-ra.toml").write_text(
        f'[profile.default]\nchallenge = "static"\nstatic_challenge_sha256 = "{"0" * 64}"\n'
    )
    scep_ra.ok("device", "add", "X1")
    outcome = scep_ra("challenge", "new", "--device", "X1")
    assert (outcome.status, "takes no one-time challenges" in outcome.err, outcome.out) == (1, True, "")


def test_where_aaa_is_elsewhere_the_device_need_not_be_registered_here(scep_ra: CommandLine) -> None:
    """The challenge proves who asks; whether the device may have a certificate is asked when it comes."""
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "scep-ra.toml").write_text(
        '[aaa.corp]\ntype = "command"\nargv = ["/bin/true"]\n[profile.default]\nauthorizer = "corp"\n'
    )
    secret = scep_ra.ok("challenge", "new", "--device", "490154203237518", "--kind", "imei").out.strip()
    assert str(stored(scep_ra, secret).device_id) == "imei:490154203237518"


def test_a_device_that_is_disabled_here_gets_no_challenge_wherever_aaa_is(scep_ra: CommandLine) -> None:
    """A mistake that would show only when the device is in the field."""
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "scep-ra.toml").write_text(
        '[aaa.corp]\ntype = "command"\nargv = ["/bin/true"]\n[profile.default]\nauthorizer = "corp"\n'
    )
    scep_ra.ok("device", "add", "X1")
    scep_ra.ok("device", "disable", "X1")
    assert "is disabled" in scep_ra("challenge", "new", "--device", "X1").err
