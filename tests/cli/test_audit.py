"""Claims about `scep-ra audit`."""

from __future__ import annotations

import json
import os
import pwd
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NoReturn

import pytest

from scep_ra.cli.audit import _quoted
from scep_ra.cli.session import Session, operator
from scep_ra.storage.audit_chain import AuditEvent, AuditHead
from tests.support.command_line import CommandLine
from tests.support.records import NOW


@pytest.fixture
def log(scep_ra: CommandLine) -> CommandLine:
    """Return a command line whose audit log has three records of a node with a name."""
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "scep-ra.toml").write_text('[server]\nnode = "ra1"\n')
    for number in range(3):
        scep_ra.ok("device", "add", f"X{number}")
    return scep_ra


def heads(scep_ra: CommandLine) -> Sequence[AuditHead]:
    found: Sequence[AuditHead] = scep_ra.in_store(lambda session: session.store.audit_heads())
    return found


def anchor(scep_ra: CommandLine) -> str:
    return str(heads(scep_ra)[0])


def tamper(scep_ra: CommandLine, sql: str) -> None:
    """Do what somebody with access to the file can do."""
    with closing(sqlite3.connect(scep_ra.data / "scep-ra.sqlite")) as connection, connection:
        connection.execute(sql)


def add_chain(scep_ra: CommandLine, name: str, **facts: str) -> None:
    """Record something in the name of another node."""

    async def work(session: Session) -> None:
        session.store._chain = name  # type: ignore[attr-defined]  # the port has no such thing: another process has
        await session.store.record_audit(AuditEvent.KEY_LOADED, facts, NOW)

    scep_ra.in_store(work)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


class TestVerify:
    def test_a_log_that_holds_is_summed_up(self, log: CommandLine) -> None:
        """With the anchor to keep, and a word about what was not checked."""
        outcome = log.ok("audit", "verify")

        assert [line.split() for line in outcome.out.splitlines()] == [
            ["CHAIN", "RECORDS", "FIRST", "LAST", "ANCHOR"],
            ["ra1", "3", "1", "3", anchor(log)],
        ]
        assert outcome.err.startswith("no anchor was given")

    def test_an_empty_log_holds(self, scep_ra: CommandLine) -> None:
        """There is nothing to show, and that is said: it may be the wrong data directory."""
        scep_ra.data.mkdir(mode=0o700)
        outcome = scep_ra.ok("audit", "verify")
        assert outcome.out == ""
        assert outcome.err.startswith("the audit log is empty")

    def test_programs_get_json(self, log: CommandLine) -> None:
        """One object a chain."""
        assert log.ok("audit", "verify", "--json").json == [
            {"chain": "ra1", "records": 3, "first": 1, "last": 3, "anchor": anchor(log)}
        ]

    def test_an_anchor_that_fits_is_accepted_as_the_log_grows(self, log: CommandLine) -> None:
        """And nothing more is said."""
        kept = anchor(log)
        log.ok("device", "add", "X9")
        assert log.ok("audit", "verify", "--anchor", kept).err == ""

    def test_a_cut_end_is_found_through_the_anchor(self, log: CommandLine) -> None:
        """Though the head was set back with it."""
        kept, shorter = anchor(log), log.ok("audit", "verify", "--json")
        tamper(log, "DELETE FROM audit WHERE sequence = 3")
        tamper(log, "UPDATE audit_head SET sequence = 2, digest = (SELECT digest FROM audit WHERE sequence = 2)")
        assert log.ok("audit", "verify").out != shorter.out
        outcome = log("audit", "verify", "--anchor", kept)
        assert (outcome.status, outcome.out) == (1, "")
        assert "at record 3 of chain ra1: it is missing: the anchor knows 3 records" in outcome.err

    @pytest.mark.parametrize(
        ("sql", "place"),
        [
            ("UPDATE audit SET actor = 'cli:mallory' WHERE sequence = 2", "record 2 of chain ra1"),
            ("DELETE FROM audit WHERE sequence = 3", "record 3 of chain ra1"),
            ("UPDATE audit SET facts = x'00' WHERE sequence = 2", "record 2 of chain ra1"),
            ("UPDATE audit SET at = 'noon' WHERE sequence = 2", "record 2 of chain ra1"),
            ("DELETE FROM audit_head", "chain ra1 has records and no head"),
        ],
    )
    def test_what_does_not_fit_is_named(self, log: CommandLine, sql: str, place: str) -> None:
        """Exit status 1, the first bad place and what is wrong with it."""
        tamper(log, sql)
        outcome = log("audit", "verify")
        assert (outcome.status, place in outcome.err, outcome.out) == (1, True, "")

    def test_an_anchor_that_was_not_copied_whole_is_a_usage_error(self, log: CommandLine) -> None:
        """It says where to get one."""
        outcome = log("audit", "verify", "--anchor", "ra1:3:00")
        assert (outcome.status, "`scep-ra audit verify` prints anchors" in outcome.err) == (2, True)

    def test_an_export_is_verified_without_the_store(self, log: CommandLine, tmp_path: Path) -> None:
        """On another machine, against the same anchor."""
        export, kept = tmp_path / "audit.jsonl", anchor(log)
        log.ok("audit", "export", str(export))
        elsewhere = CommandLine(tmp_path / "nothing here", log._capture)
        assert elsewhere.ok("audit", "verify", "--file", str(export), "--anchor", kept).out.split()[-1] == kept
        export.write_bytes(export.read_bytes().replace(b"serial:X1", b"serial:X7"))
        outcome = elsewhere("audit", "verify", "--file", str(export))
        assert (outcome.status, "at record 2 of chain ra1" in outcome.err) == (1, True)
        assert not (tmp_path / "nothing here").exists()

    def test_a_file_that_cannot_be_read_is_said(self, log: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the reason."""

        def refuse(*_arguments: object) -> NoReturn:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
        outcome = log("audit", "verify", "--file", str(log.data / "scep-ra.toml"))
        assert (outcome.status, "scep-ra.toml: cannot be read: Permission denied" in outcome.err) == (2, True)


class TestExport:
    def test_all_records_and_the_heads_are_written(self, log: CommandLine, tmp_path: Path) -> None:
        """Into a private file; the anchors are said as well."""
        add_chain(log, "ra2")
        export = tmp_path / "audit.jsonl"
        outcome = log.ok("audit", "export", str(export))

        assert [line.get("sequence") for line in lines(export)] == [1, 2, 3, 1, None, None]
        assert [line["head"] for line in lines(export)[-2:]] == [str(head) for head in heads(log)]
        assert outcome.err.splitlines() == [f"anchor: {head}" for head in heads(log)]
        assert export.stat().st_mode & 0o777 == 0o600

    def test_the_program_of_the_manual_checks_it_too(self, log: CommandLine, tmp_path: Path) -> None:
        """A dozen lines that need nothing of ours, for whoever does not trust us."""
        program = (Path(__file__).parents[2] / "docs" / "audit.md").read_text("utf-8").split("```")[1]
        export = log.ok("audit", "export").out
        (tmp_path / "check.py").write_text(program.removeprefix("python\n"))

        def check(text: str) -> int:
            return subprocess.run(
                [sys.executable, tmp_path / "check.py"], input=text, text=True, check=False
            ).returncode

        assert check(export) == 0
        assert check(export.replace("serial:X1", "serial:X7")) == 1

    def test_it_goes_to_standard_output_when_no_file_is_named(self, log: CommandLine) -> None:
        """Nothing but the export."""
        assert [json.loads(line).get("sequence") for line in log.ok("audit", "export").out.splitlines()] == [
            1,
            2,
            3,
            None,
        ]

    def test_an_export_goes_on_from_the_last(self, log: CommandLine, tmp_path: Path) -> None:
        """Its first record must follow the one named, and verification asks for that anchor."""
        kept = anchor(log)
        log.ok("device", "add", "X9")
        export = tmp_path / "audit.jsonl"
        log.ok("audit", "export", "--after", kept, str(export))
        assert [line.get("sequence") for line in lines(export)] == [4, None]
        assert log("audit", "verify", "--file", str(export)).status == 1
        log.ok("audit", "verify", "--file", str(export), "--anchor", kept)

    def test_a_chain_that_stood_still_exports_its_head(self, log: CommandLine, tmp_path: Path) -> None:
        """So that the next export has something to go on from."""
        export, kept = tmp_path / "audit.jsonl", anchor(log)
        log.ok("audit", "export", "--after", kept, str(export))
        assert lines(export) == [{"head": kept}]
        log.ok("audit", "verify", "--file", str(export), "--anchor", kept)

    @pytest.mark.parametrize("records", [0, 1])
    def test_an_export_does_not_go_on_from_another_log(self, log: CommandLine, tmp_path: Path, records: int) -> None:
        """Nor leave half a file behind."""
        export, kept = tmp_path / "audit.jsonl", f"ra1:3:{'0' * 64}"
        for number in range(records):
            log.ok("device", "add", f"Y{number}")
        outcome = log("audit", "export", "--after", kept, str(export))
        assert (outcome.status, "of chain ra1" in outcome.err, export.exists()) == (1, True, False)

    def test_an_export_is_never_written_over(self, log: CommandLine, tmp_path: Path) -> None:
        """It may be the only copy."""
        export = tmp_path / "audit.jsonl"
        export.write_text("kept")
        outcome = log("audit", "export", str(export))
        assert (outcome.status, "exists already" in outcome.err, export.read_text()) == (2, True, "kept")

    def test_a_file_that_cannot_be_written_is_said(self, log: CommandLine, tmp_path: Path) -> None:
        """With the reason."""
        outcome = log("audit", "export", str(tmp_path / "no" / "audit.jsonl"))
        assert (outcome.status, "cannot be written: No such file or directory" in outcome.err) == (2, True)

    def test_a_disk_that_fills_up_is_said(
        self, log: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was begun is taken away."""

        def fail(_descriptor: int) -> NoReturn:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("scep_ra.cli.audit.os.fsync", fail)
        export = tmp_path / "audit.jsonl"
        outcome = log("audit", "export", str(export))
        assert (outcome.status, "No space left" in outcome.err, export.exists()) == (2, True, False)

    def test_a_terminal_sees_the_progress(self, log: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
        """On standard error, so that the export stays clean."""
        monkeypatch.setattr(type(sys.stderr), "isatty", lambda stream: stream is sys.stderr)
        outcome = log.ok("audit", "export")
        assert "Exporting" in outcome.err
        assert len(outcome.out.splitlines()) == 4


class TestList:
    def test_the_newest_come_last(self, log: CommandLine) -> None:
        """A line each: when, where in which chain, who, what."""
        found = [line.split() for line in log.ok("audit", "list", "--last", "2").out.splitlines()]
        me = pwd.getpwuid(os.getuid()).pw_name
        assert [words[1:5] for words in found] == [
            ["ra1:2", f"cli:{me}", "device_added", "approval=false"],
            ["ra1:3", f"cli:{me}", "device_added", "approval=false"],
        ]
        assert [words[5:] for words in found] == [[f"device=serial:X{number}", "enabled=true"] for number in (1, 2)]

    def test_a_device_is_found_by_its_value(self, log: CommandLine) -> None:
        """Of whatever kind; or of one."""
        log.ok("device", "disable", "X1")
        for value in ("X1", "serial:X1"):
            out = log.ok("audit", "list", "--device", value).out
            assert [line.split()[3] for line in out.splitlines()] == [
                "device_added",
                "device_disabled",
                "device_disconnected",
            ]
        assert log.ok("audit", "list", "--device", "X9").out == ""

    def test_programs_get_json(self, log: CommandLine) -> None:
        """The members of a record as in an export."""
        [record] = log.ok("audit", "list", "--last", "1", "--json").json
        assert (record["chain"], record["sequence"], record["facts"]["device"]) == ("ra1", 3, "serial:X2")

    def test_nothing_that_a_device_says_acts_on_the_terminal(self, log: CommandLine) -> None:
        """Controls are escaped, and blanks cannot forge a fact."""
        add_chain(log, "ra2", transaction_id="\x1b[2J device=serial:X0")
        assert '"\\u001b[2J device=serial:X0"' in log.ok("audit", "list").out
        assert [_quoted(text) for text in ("a=b", "a b", 'a"b', "ü", "")] == [
            "a=b",
            '"a b"',
            '"a\\"b"',
            '"\\u00fc"',
            '""',
        ]


def test_an_account_without_a_name_is_named_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in many containers; the environment is not believed."""
    monkeypatch.setenv("LOGNAME", "mallory")
    monkeypatch.setattr(os, "getuid", lambda: 12345678)
    assert operator() == "12345678"
