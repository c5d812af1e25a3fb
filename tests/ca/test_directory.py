"""Claims about the files of a CA and an RA: private, whole, never replaced, and checked before use."""

from __future__ import annotations

import os
import secrets
import stat
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from scep_ra.ca import directory
from scep_ra.ca.directory import CAMaterial, RAMaterial, ensure_ca, ensure_ocsp_key, ensure_ra, load_ca
from scep_ra.ca.hierarchy import CAParameters, RAParameters
from scep_ra.errors import Misconfigured
from scep_ra.pki import keys
from scep_ra.pki.keys import SoftwareKey
from tests.support.openssl import write_pem
from tests.support.pki import NOW, make_ca, make_key

TWO_TIERS = CAParameters(key_type="ec-p256")
ONE_TIER = CAParameters(key_type="ec-p256", tiers=1)
CREATION_ORDER = ["root.key", "root.pem", "issuing.key", "issuing.pem"]


@pytest.fixture(autouse=True)
def _keys_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """RSA keys come from the session's cache, EC keys are made for real."""

    def generate(key_type: str) -> SoftwareKey:
        return make_key("rsa-2048", "directory") if key_type == "rsa-2048" else original(key_type)

    original = keys.generate_key
    monkeypatch.setattr(directory, "generate_key", generate)


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=lambda mask: f"umask-{mask:03o}")
def _any_umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def ca_at(data: Path, parameters: CAParameters = TWO_TIERS, now: datetime = NOW) -> CAMaterial:
    return ensure_ca(data, "default", parameters, now=now, random=secrets.token_bytes)


def ra_at(data: Path, ca: CAMaterial, now: datetime = NOW) -> RAMaterial:
    return ensure_ra(data, "default", RAParameters(), ca, now=now, random=secrets.token_bytes)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- making --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_any_umask")
def test_nobody_else_can_read_what_is_made(tmp_path: Path) -> None:
    """0700 for directories and 0600 for files, whatever the umask adds or takes away."""
    data = tmp_path / "var"
    ra_at(data, ca_at(data))
    made = sorted(data.rglob("*"))
    assert [path.name for path in made if path.is_file()] == [
        "issuing.key",
        "issuing.pem",
        "root.key",
        "root.pem",
        "ra.key",
        "ra.pem",
    ]
    assert {mode(path) for path in (data, *made) if path.is_dir()} == {0o700}
    assert {mode(path) for path in made if path.is_file()} == {0o600}


def test_the_mode_of_a_directory_that_was_there_is_the_operators(tmp_path: Path) -> None:
    """Only what is made is given a mode."""
    tmp_path.chmod(0o750)
    ca_at(tmp_path)
    assert mode(tmp_path) == 0o750


@pytest.mark.usefixtures("_any_umask")
def test_the_key_that_answers_ocsp_is_private_and_made_once(tmp_path: Path) -> None:
    """Beside the CA that certifies it."""
    key = ensure_ocsp_key(tmp_path, "default", "ec-p256")
    path = tmp_path / "ca/default/ocsp.key"
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert ensure_ocsp_key(tmp_path, "default", "rsa-2048").spki == key.spki


@pytest.mark.parametrize("parameters", [ONE_TIER, TWO_TIERS])
def test_the_second_start_finds_what_the_first_made(parameters: CAParameters, tmp_path: Path) -> None:
    """Same chain, same key, no file touched, even when the configuration has changed since."""
    ca = ca_at(tmp_path, parameters)
    ra = ra_at(tmp_path, ca)
    before = contents(tmp_path / "ca/default") | contents(tmp_path / "ra/default")
    again = ca_at(tmp_path, CAParameters(organization="Other"))
    assert (again.chain, again.signer.spki) == (ca.chain, ca.signer.spki)
    assert ra_at(tmp_path, again).certificate == ra.certificate
    assert contents(tmp_path / "ca/default") | contents(tmp_path / "ra/default") == before


def test_one_tier_is_one_pair_of_files(tmp_path: Path) -> None:
    """There is no root to keep apart."""
    ca = ca_at(tmp_path, ONE_TIER)
    assert [certificate.is_self_issued for certificate in ca.chain] == [True]
    assert sorted(contents(tmp_path / "ca/default")) == ["issuing.key", "issuing.pem"]


def test_an_ec_authority_has_an_ra_with_an_rsa_key(tmp_path: Path) -> None:
    """Clients can encrypt only to RSA."""
    assert ra_at(tmp_path, ca_at(tmp_path)).key.spki == make_key("rsa-2048", "directory").spki


def test_two_processes_that_start_at_once_end_with_one_authority(tmp_path: Path) -> None:
    """The server and a command line call may meet in an empty directory."""
    results: list[CAMaterial] = []
    threads = [threading.Thread(target=lambda: results.append(ca_at(tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.chain for result in results}) == 1
    assert len(results) == 4


# --- after a crash -------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("written", range(4))
@pytest.mark.parametrize("renamed", [False, True])
def test_a_start_after_a_crash_finishes_what_is_there(
    written: int, renamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever step is interrupted, files that are complete are kept, and the hierarchy is whole in the end."""
    remaining = written

    def crash_in_time(self: Path, target: Path) -> Path:
        nonlocal remaining
        remaining -= 1
        if remaining >= 0:
            return original(self, target)
        if renamed:
            original(self, target)
        raise Crash

    original = Path.rename
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", crash_in_time)
        with pytest.raises(Crash):
            ca_at(tmp_path)
    folder = tmp_path / "ca/default"
    kept = {name: octets for name, octets in contents(folder).items() if not name.startswith(".")}
    assert list(kept) == sorted(CREATION_ORDER[: written + renamed])
    ca_at(tmp_path)
    after = contents(folder)
    assert sorted(after) == sorted(CREATION_ORDER)
    assert {name: after[name] for name in kept} == kept


@pytest.mark.parametrize(
    ("lost", "named"),
    [
        ({"root.pem"}, "root.pem"),
        ({"issuing.key"}, "issuing.key"),
        ({"root.pem", "issuing.pem"}, "root.pem"),
        ({"root.key", "root.pem", "issuing.pem"}, "root.pem"),
        ({"root.key", "issuing.pem"}, "root.key"),
        ({"root.key", "issuing.key", "issuing.pem"}, "root.key"),
    ],
)
def test_a_lost_file_is_reported_and_nothing_is_replaced(lost: set[str], named: str, tmp_path: Path) -> None:
    """No interrupted start leaves these: a backup is the way back, a new key would not be."""
    ca_at(tmp_path)
    folder = tmp_path / "ca/default"
    for name in lost:
        (folder / name).unlink()
    before = contents(folder)
    with pytest.raises(Misconfigured, match=rf"{named} is missing: restore it from a backup, or move .*default away"):
        ca_at(tmp_path)
    assert contents(folder) == before


@pytest.mark.parametrize("lost", [{"issuing.pem"}, {"issuing.pem", "issuing.key"}])
def test_an_issuing_certificate_that_is_missing_is_made_under_the_root_that_is_there(
    lost: set[str], tmp_path: Path
) -> None:
    """An interrupted start looks the same; keys that are there are used, so nothing issued becomes invalid."""
    ca = ca_at(tmp_path)
    for name in lost:
        (tmp_path / "ca/default" / name).unlink()
    again = ca_at(tmp_path)
    assert again.chain[1] == ca.chain[1]
    assert (again.chain[0].spki == ca.chain[0].spki) is ("issuing.key" not in lost)


def test_a_root_that_does_not_fit_is_not_used_to_finish(tmp_path: Path) -> None:
    """Its key is another's, or it has expired: the issuing CA would be worthless."""
    ca_at(tmp_path)
    folder = tmp_path / "ca/default"
    (folder / "issuing.pem").unlink()
    with pytest.raises(Misconfigured, match=r"root\.pem: a certificate expired"):
        ca_at(tmp_path, now=NOW + timedelta(days=99999))
    (folder / "root.key").write_bytes(make_key("ec-p256", "somebody").private_pem())
    with pytest.raises(Misconfigured, match=r"root\.key is not the key of .*root\.pem"):
        ca_at(tmp_path)


def test_an_ra_key_without_certificate_is_certified(tmp_path: Path) -> None:
    """The key was on disk first, and is kept."""
    ca = ca_at(tmp_path)
    ra_at(tmp_path, ca)
    (tmp_path / "ra/default/ra.pem").unlink()
    key = (tmp_path / "ra/default/ra.key").read_bytes()
    assert ra_at(tmp_path, ca).certificate.issuer == ca.chain[0].subject
    assert (tmp_path / "ra/default/ra.key").read_bytes() == key


# --- loading -------------------------------------------------------------------------------------------------------


def test_the_root_key_may_be_kept_elsewhere(tmp_path: Path) -> None:
    """Only the issuing CA's key is needed to serve."""
    ca = ca_at(tmp_path)
    (tmp_path / "ca/default/root.key").unlink()
    assert load_ca(tmp_path, "default", now=NOW).chain == ca.chain


def test_nothing_is_made_by_loading(tmp_path: Path) -> None:
    """A command that only looks must not leave a CA behind."""
    with pytest.raises(Misconfigured, match=r"issuing\.pem is missing"):
        load_ca(tmp_path, "default", now=NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_can_use_is_refused(bits: int, tmp_path: Path) -> None:
    """With the command that mends it; the same for the RA."""
    ca = ca_at(tmp_path)
    ra_at(tmp_path, ca)
    for key in (tmp_path / "ra/default/ra.key", tmp_path / "ca/default/issuing.key"):
        key.chmod(bits)
        with pytest.raises(Misconfigured, match=rf"mode {bits:04o}\): run chmod 600 {key}"):
            ra_at(tmp_path, ca_at(tmp_path))


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    """Two restored files that do not belong together."""
    ca_at(tmp_path)
    (tmp_path / "ca/default/issuing.key").write_bytes(make_key("ec-p256", "somebody").private_pem())
    with pytest.raises(Misconfigured, match=r"issuing\.key is not the key of .*issuing\.pem"):
        load_ca(tmp_path, "default", now=NOW)


@pytest.mark.parametrize(("days", "complaint"), [(-1, "is valid only from"), (99999, "expired on")])
def test_a_certificate_outside_its_validity_is_refused(days: int, complaint: str, tmp_path: Path) -> None:
    """Saying since or until when, for the CA and for the RA."""
    ca = ca_at(tmp_path)
    ra_at(tmp_path, ca)
    then = NOW + timedelta(days=days)
    with pytest.raises(Misconfigured, match=rf"default: a certificate {complaint} \d\d\d\d-\d\d-\d\d"):
        load_ca(tmp_path, "default", now=then)
    with pytest.raises(Misconfigured, match=rf"ra\.pem: a certificate {complaint} \d\d\d\d-\d\d-\d\d"):
        ra_at(tmp_path, ca, now=then)


def test_an_ra_of_another_authority_is_refused(tmp_path: Path) -> None:
    """As after the CA was made anew: the operator is told what to move."""
    ra_at(tmp_path, ca_at(tmp_path))
    with pytest.raises(Misconfigured, match=r"not issued by its CA: move .*ra/default away"):
        ra_at(tmp_path, make_ca("ec-p256"))


def test_a_broken_chain_is_refused(tmp_path: Path) -> None:
    """The root is another's, though every file is readable."""
    ca_at(tmp_path)
    write_pem(tmp_path / "ca/default/root.pem", make_ca("ec-p256").chain[1:])
    with pytest.raises(Misconfigured, match="not a chain up to a self-signed root"):
        load_ca(tmp_path, "default", now=NOW)


def test_intermediate_certificates_may_follow_the_issuing_one(tmp_path: Path) -> None:
    """A CA brought along has its whole chain in one file."""
    ca = ca_at(tmp_path)
    write_pem(tmp_path / "ca/default/issuing.pem", ca.chain)
    (tmp_path / "ca/default/root.pem").unlink()
    assert load_ca(tmp_path, "default", now=NOW).chain == ca.chain


@pytest.mark.parametrize("octets", [b"", b"secret", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_files_that_hold_something_else_are_named_and_not_quoted(octets: bytes, tmp_path: Path) -> None:
    """What is in a file that should be a key does not belong in a log."""
    ca_at(tmp_path)
    for name in ("issuing.key", "issuing.pem"):
        (tmp_path / "ca/default" / name).write_bytes(octets)
        with pytest.raises(Misconfigured, match=rf"{name} holds no .*: restore it from a backup") as caught:
            load_ca(tmp_path, "default", now=NOW)
        assert "secret" not in str(caught.value)


# --- the file system says no ---------------------------------------------------------------------------------------


def test_a_place_that_cannot_hold_a_directory_is_named(tmp_path: Path) -> None:
    """For example below a plain file."""
    (tmp_path / "var").write_text("")
    with pytest.raises(Misconfigured, match="var/ca cannot be made: Not a directory"):
        ca_at(tmp_path / "var")


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A symbolic link where the new file is prepared is not followed."""
    folder = tmp_path / "ca/default"
    folder.mkdir(parents=True)
    (folder / ".root.key.new").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Misconfigured, match=r"root\.key cannot be written: "):
        ca_at(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """For example a directory in its place."""
    ca_at(tmp_path)
    (tmp_path / "ca/default/issuing.key").unlink()
    (tmp_path / "ca/default/issuing.key").mkdir()
    with pytest.raises(Misconfigured, match=r"issuing\.key cannot be read: Is a directory"):
        load_ca(tmp_path, "default", now=NOW)
