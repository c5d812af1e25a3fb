"""Claims about `scep-ra check-config`."""

from __future__ import annotations

from pathlib import Path

import pytest

from scep_ra.cli.output import pem
from scep_ra.config_file import render_template
from tests.support.command_line import CommandLine
from tests.support.manufacturer import ROOT


def test_a_good_file_is_called_good(scep_ra: CommandLine, tmp_path: Path) -> None:
    """With the profiles that it defines, and without making a data directory."""
    file = tmp_path / "mine.toml"
    file.write_text("[profile.vpn]\n[profile.lab]\n")
    assert scep_ra.ok("check-config", "--config", str(file)).out == f"{file}: ok, profiles: vpn, lab\n"
    assert not scep_ra.data.exists()


def test_without_a_file_the_defaults_are_good(scep_ra: CommandLine) -> None:
    """Nothing has to be written before the first start."""
    assert scep_ra.ok("check-config").out == "defaults (no file): ok, profiles: default\n"


def test_every_problem_is_printed_and_the_status_is_2(scep_ra: CommandLine, tmp_path: Path) -> None:
    """One line each."""
    file = tmp_path / "bad.toml"
    file.write_text("[server]\nport = -1\nprot = 1\n")
    outcome = scep_ra("check-config", "--config", str(file))
    assert (outcome.status, len(outcome.err.splitlines()), outcome.out) == (2, 2, "")


def test_weak_settings_are_warned_about_on_standard_error(scep_ra: CommandLine, tmp_path: Path) -> None:
    """They are allowed all the same."""
    file = tmp_path / "weak.toml"
    file.write_text("[profile.old.algorithms]\nallow_sha1 = true\n")
    outcome = scep_ra.ok("check-config", "--config", str(file))
    assert outcome.err.startswith("warning: profile.old.algorithms.allow_sha1 is on: ")


def test_the_template_is_printed(scep_ra: CommandLine) -> None:
    """`scep-ra check-config --template > scep-ra.toml` starts a file."""
    assert scep_ra.ok("check-config", "--template").out == render_template()


def test_files_of_trusted_certificates_are_read(scep_ra: CommandLine, tmp_path: Path) -> None:
    """A typing error in a path shows here and not at the start."""
    file = tmp_path / "scep-ra.toml"
    file.write_text('[trust.acme]\ncertificates = ["acme.pem"]\n')
    outcome = scep_ra("check-config", "--config", str(file))
    assert outcome.status == 2
    assert f"[trust.acme] {tmp_path / 'acme.pem'}: cannot be read" in outcome.err
    (tmp_path / "acme.pem").write_bytes(pem([ROOT.der]))
    assert scep_ra.ok("check-config", "--config", str(file)).out.endswith("ok, profiles: default\n")


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ('type = "command"\nargv = ["authorize"]', "[aaa.x]: argv begins with 'authorize': write the full path"),
        ('type = "absent_module:Plugin"', 'cannot import the authorizer "absent_module:Plugin"'),
        ('type = "sql"\npath = "x"\nauthorize = "SELECT :devise"', "[aaa.x]: authorize has the parameter :devise"),
    ],
    ids=["command", "plug-in", "sql"],
)
def test_an_authorizer_that_the_server_could_not_make_is_a_mistake(
    scep_ra: CommandLine, tmp_path: Path, table: str, complaint: str
) -> None:
    """What only the backend can judge is judged here too, and not first at the start."""
    file = tmp_path / "scep-ra.toml"
    file.write_text(f'[aaa.x]\n{table}\n[profile.default]\nauthorizer = "x"\n')
    outcome = scep_ra("check-config", "--config", str(file))
    assert (outcome.status, outcome.out) == (2, "")
    assert complaint in outcome.err
    assert not scep_ra.data.exists()


def test_a_secret_that_cannot_be_read_is_warned_about_with_its_option(scep_ra: CommandLine, tmp_path: Path) -> None:
    """Of AAA, of headends and of webhooks; the file may be meant for another machine, so it is no mistake."""
    file = tmp_path / "scep-ra.toml"
    file.write_text(
        '[aaa.x]\ntype = "http"\nurl = "http://127.0.0.1/"\nsecret_file = "a.secret"\n'
        '[headend.vpn]\naddress = "127.0.0.1"\nsecret_file = "b.secret"\n'
        '[webhook.siem]\nurl = "http://127.0.0.1/"\nsecret_file = "c.secret"\n'
        '[profile.default]\nauthorizer = "x"\n'
    )
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "c.secret").touch(mode=0o600)
    (scep_ra.data / "c.secret").write_text("c2VjcmV0\n")
    warnings = scep_ra.ok("check-config", "--config", str(file)).err.splitlines()
    named = [line.partition(": ")[2].partition(": ")[0] for line in warnings]
    assert named == ["aaa.x.secret_file", "headend.vpn.secret_file"]
