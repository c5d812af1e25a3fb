"""Claims about `scep-ra device`."""

from __future__ import annotations

import io
import sys
from datetime import datetime
from pathlib import Path

import pytest

from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.storage.base import Device
from scep_ra.storage.sql import SqlStore
from tests.support.command_line import CommandLine
from tests.support.records import NOW, make_challenge

MAC = "00:11:22:aa:bb:cc"


def test_a_device_is_added_listed_and_shown(scep_ra: CommandLine) -> None:
    """Everything that was said about it is kept."""
    said = ["--user", "alice", "--profile", "default", "--note", "lab", "--approval", "--valid-until", "2027-12-31"]
    said += ["--service", "wifi", "--service", "vpn", "--attribute", "room=4.11", "--attribute", "department=R & D"]
    assert scep_ra.ok("device", "add", "X1", *said).out == "added serial:X1\n"
    record = scep_ra.ok("device", "show", "X1", "--json").json
    created_at = record.pop("created_at")
    assert created_at.endswith("Z")
    assert record == {
        "kind": "serial",
        "value": "X1",
        "enabled": True,
        "user": "alice",
        "profile": "default",
        "note": "lab",
        "services": ["wifi", "vpn"],
        "approval": True,
        "valid_until": "2027-12-31T23:59:59Z",
        "attributes": {"department": "R & D", "room": "4.11"},
    }
    assert scep_ra.ok("device", "list", "--json").json == [{**record, "created_at": created_at}]
    head, line = scep_ra.ok("device", "list").out.splitlines()
    assert head.split() == ["KIND", "VALUE", "ENABLED", "USER", "PROFILE", "CREATED_AT", "NOTE"]
    assert line.split() == ["serial", "X1", "yes", "alice", "default", created_at, "lab"]
    shown = scep_ra.ok("device", "show", "X1").out.splitlines()
    assert shown[:3] == ["kind:        serial", "value:       X1", "enabled:     yes"]
    assert shown[-4:] == [
        "services:    wifi, vpn",
        "approval:    yes",
        "valid_until: 2027-12-31T23:59:59Z",
        "attributes:  department=R & D, room=4.11",
    ]


def test_several_values_of_an_attribute_are_shown_as_they_were_written(scep_ra: CommandLine) -> None:
    """One NAME=VALUE each."""
    scep_ra.ok("device", "add", "X1", "--attribute", "dns=b.example", "--attribute", "dns=a.example")
    assert "attributes:  dns=b.example, dns=a.example" in scep_ra.ok("device", "show", "X1").out.splitlines()


def test_what_is_not_said_of_a_device_is_at_its_default(scep_ra: CommandLine) -> None:
    """It may use every profile, has no end, and nobody has to approve it."""
    scep_ra.ok("device", "add", "X1")
    record = scep_ra.ok("device", "show", "X1", "--json").json
    del record["created_at"]
    assert record == {
        "kind": "serial",
        "value": "X1",
        "enabled": True,
        "user": "",
        "profile": "",
        "note": "",
        "services": [],
        "approval": False,
        "valid_until": None,
        "attributes": {},
    }


def test_an_empty_registry_lists_nothing(scep_ra: CommandLine) -> None:
    """No head without lines; JSON is an array all the same."""
    assert scep_ra.ok("device", "list").out == ""
    assert scep_ra.ok("device", "list", "--json").json == []


def test_a_kind_is_given_by_option_or_by_prefix(scep_ra: CommandLine) -> None:
    """Both lead to the same device, however it is spelled."""
    scep_ra.ok("device", "add", MAC, "--kind", "mac")
    outcome = scep_ra("device", "add", "mac:00-11-22-AA-BB-CC")
    assert outcome.status == 1
    value = scep_ra.ok("device", "show", MAC, "--json").json["value"]
    assert scep_ra.ok("device", "show", f"mac:{MAC}", "--json").json["value"] == value


def test_a_value_registered_under_two_kinds_must_be_told_apart(scep_ra: CommandLine) -> None:
    """The message lists what to choose from."""
    scep_ra.ok("device", "add", MAC, "--kind", "mac")
    scep_ra.ok("device", "add", MAC, "--kind", "serial")
    outcome = scep_ra("device", "show", MAC)
    assert outcome.status == 2
    assert "serial:" in outcome.err
    assert "mac:" in outcome.err
    assert scep_ra.ok("device", "show", MAC, "--kind", "mac", "--json").json["kind"] == "mac"


def test_a_value_that_breaks_its_kind_is_refused(scep_ra: CommandLine) -> None:
    """The grammar's own message is shown."""
    outcome = scep_ra("device", "add", "12345", "--kind", "imei")
    assert (outcome.status, outcome.err.startswith("scep-ra: ")) == (2, True)


def test_a_profile_that_does_not_exist_is_a_usage_error(scep_ra: CommandLine) -> None:
    """The profiles that exist are named, and nothing is added."""
    outcome = scep_ra("device", "add", "X1", "--profile", "vpn")
    assert outcome.status == 2
    assert "there is no profile 'vpn'; the configuration has: default" in outcome.err
    assert scep_ra.ok("device", "list", "--json").json == []


def test_the_profile_of_the_certificate_contents_must_exist(scep_ra: CommandLine) -> None:
    """A device is not registered for contents that nobody has written."""
    outcome = scep_ra("device", "add", "X1", "--attribute", "certificate_profile=long")
    assert (outcome.status, "there is no profile 'long'" in outcome.err) == (2, True)
    scep_ra.ok("device", "add", "X1", "--attribute", "certificate_profile=default")
    assert scep_ra("device", "set", "X1", "--attribute", "certificate_profile=long").status == 2
    assert scep_ra.ok("device", "show", "X1", "--json").json["attributes"] == {"certificate_profile": "default"}


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("--valid-until", "31.12.2027", "'31.12.2027' is no date: write 2027-12-31"),
        ("--service", "two words", "'two words' is no service"),
        ("--attribute", "department", "write NAME=VALUE, such as OU=Sales"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(scep_ra: CommandLine, option: str, text: str, expected: str) -> None:
    """It names the option and what it takes."""
    outcome = scep_ra("device", "add", "X1", option, text)
    assert (outcome.status, option in outcome.err, expected in outcome.err) == (2, True, True)
    assert scep_ra.ok("device", "list", "--json").json == []


# --- set -----------------------------------------------------------------------------------------------------------

EVERYTHING = [
    *("--user", "alice", "--profile", "default", "--note", "lab", "--approval", "--valid-until", "2027-12-31"),
    *("--service", "vpn", "--attribute", "room=4.11", "--attribute", "department=sales"),
]


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        (["--user", "bob"], {"user": "bob"}),
        (["--user", ""], {"user": ""}),
        (["--profile", ""], {"profile": ""}),
        (["--note", "spare"], {"note": "spare"}),
        (["--approval"], {}),
        (["--no-approval"], {"approval": False}),
        (["--valid-until", "2028-02-29T12:00"], {"valid_until": "2028-02-29T12:00:00Z"}),
        (["--no-valid-until"], {"valid_until": None}),
        (["--service", "wifi", "--service", "vpn"], {"services": ["vpn", "wifi"]}),
        (["--clear-services"], {"services": []}),
        (["--service", "wifi", "--clear-services"], {"services": ["wifi"]}),
        (["--attribute", "room=5"], {"attributes": {"department": "sales", "room": "5"}}),
        (
            ["--attribute", "room=5", "--attribute", "room=6"],
            {"attributes": {"department": "sales", "room": "5\n6"}},
        ),
        (["--remove-attribute", "room"], {"attributes": {"department": "sales"}}),
        (
            ["--remove-attribute", "room", "--attribute", "floor=4"],
            {"attributes": {"department": "sales", "floor": "4"}},
        ),
        (["--no-approval", "--user", "bob"], {"approval": False, "user": "bob"}),
    ],
)
def test_set_changes_only_what_is_given(scep_ra: CommandLine, arguments: list[str], changed: dict[str, object]) -> None:
    """Services and attributes are added to, unless they are taken away."""
    scep_ra.ok("device", "add", "X1", *EVERYTHING)
    scep_ra.ok("device", "disable", "X1")
    before = scep_ra.ok("device", "show", "X1", "--json").json
    assert scep_ra.ok("device", "set", "X1", *arguments).out == "changed serial:X1\n"
    assert scep_ra.ok("device", "show", "X1", "--json").json == {**before, **changed}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "nothing to change"),
        (["--valid-until", "2027-12-31", "--no-valid-until"], "contradict each other"),
        (["--remove-attribute", "floor"], "serial:X1 has no attribute 'floor'; it has: department, room"),
        (["--profile", "vpn"], "there is no profile 'vpn'"),
    ],
)
def test_what_set_cannot_do_changes_nothing(scep_ra: CommandLine, arguments: list[str], expected: str) -> None:
    """The reason says what is there."""
    scep_ra.ok("device", "add", "X1", *EVERYTHING)
    before = scep_ra.ok("device", "show", "X1", "--json").json
    outcome = scep_ra("device", "set", "X1", *arguments)
    assert (outcome.status, expected in outcome.err) == (2, True), outcome.err
    assert scep_ra.ok("device", "show", "X1", "--json").json == before


def test_set_needs_a_registered_device(scep_ra: CommandLine) -> None:
    """It does not register one by the way."""
    assert scep_ra("device", "set", "X1", "--user", "bob").status == 1
    assert scep_ra.ok("device", "list", "--json").json == []


def test_an_attribute_that_a_bare_device_lacks_is_not_taken_away(scep_ra: CommandLine) -> None:
    """The message says that there are none."""
    scep_ra.ok("device", "add", "X1")
    assert "it has: none" in scep_ra("device", "set", "X1", "--remove-attribute", "room").err


def test_a_device_that_is_removed_meanwhile_is_not_said_to_be_changed(
    scep_ra: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two operators at one device: the second reads what became of it."""
    scep_ra.ok("device", "add", "X1")
    update = SqlStore.update_device

    async def too_late(store: SqlStore, device: Device, now: datetime) -> bool:
        await store.remove_device(device.device_id, now)
        return await update(store, device, now)

    monkeypatch.setattr(SqlStore, "update_device", too_late)
    outcome = scep_ra("device", "set", "X1", "--user", "bob")
    assert (outcome.status, "serial:X1 was removed meanwhile" in outcome.err) == (1, True)


# --- disable, enable, remove ---------------------------------------------------------------------------------------


def test_a_device_is_disabled_and_enabled(scep_ra: CommandLine) -> None:
    """The entry stays."""
    scep_ra.ok("device", "add", "X1")
    assert scep_ra.ok("device", "disable", "X1").out.startswith("disabled serial:X1\n")
    assert scep_ra.ok("device", "show", "X1", "--json").json["enabled"] is False
    assert scep_ra.ok("device", "enable", "X1").out == "enabled serial:X1\n"
    assert scep_ra.ok("device", "show", "X1", "--json").json["enabled"] is True


def test_removing_a_device_removes_its_challenges(scep_ra: CommandLine) -> None:
    """A secret that is still on its way is worth nothing any more."""
    scep_ra.ok("device", "add", "X1")
    challenge = make_challenge(device_id=DeviceID(kind=DeviceIDKind.SERIAL, value="X1"), sealed=b"sealed")
    scep_ra.in_store(lambda session: session.store.add_challenge(challenge))
    assert scep_ra.ok("device", "remove", "X1").out.startswith("removed serial:X1\nvoided challenges: 0\n")
    assert not scep_ra.in_store(lambda session: session.store.sealed_challenges("default", NOW, 9))
    assert scep_ra("device", "remove", "X1").status == 1


# --- import --------------------------------------------------------------------------------------------------------


def test_a_csv_file_is_imported(scep_ra: CommandLine, tmp_path: Path) -> None:
    """Columns come in any order, devices that are there already are left alone."""
    file = tmp_path / "devices.csv"
    file.write_text("\ufeffuser,value,kind\nalice,X1,\nbob,X2,serial\n,356938035643809,imei\n\n", "utf-8")
    scep_ra.ok("device", "add", "X1", "--user", "first")
    assert scep_ra.ok("device", "import", str(file)).out == "imported 2, already registered 1, bad lines 0\n"
    users = {record["value"]: record["user"] for record in scep_ra.ok("device", "list", "--json").json}
    assert users == {"X1": "first", "X2": "bob", "356938035643809": ""}


def test_standard_input_is_imported(scep_ra: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """- stands for it."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"value\nX1\n"), "utf-8"))
    assert scep_ra.ok("device", "import", "-").out.startswith("imported 1,")


BAD = "value,kind,profile\nX1,,\n\n,,\nX2,shoe,\nX3,,nowhere\nX1,,\nX4,,,,\n12,imei,\nX5\n"


def test_nothing_is_imported_when_a_line_is_bad(scep_ra: CommandLine, tmp_path: Path) -> None:
    """Every bad line is named with its reason."""
    scep_ra.data.mkdir(mode=0o700)
    file = tmp_path / "devices.csv"
    file.write_text(BAD)
    outcome = scep_ra("device", "import", str(file))
    assert outcome.status == 1
    reasons = [line.removeprefix(f"{file}:") for line in outcome.err.splitlines()]
    assert reasons[:5] == [
        "4: the value is empty",
        "5: 'shoe' is no kind: use one of serial, udid, imei, meid, mac, uuid, hwmodule, permanent",
        "6: the configuration has no profile 'nowhere'",
        "7: serial:X1 stands on line 2 already",
        "8: there are more cells than columns",
    ]
    assert reasons[5].startswith("9: ")
    assert reasons[6] == "scep-ra: nothing was imported: mend the 6 bad lines above, or give --skip-bad"
    assert scep_ra.ok("device", "list", "--json").json == []


def test_skip_bad_imports_the_good_lines(scep_ra: CommandLine, tmp_path: Path) -> None:
    """The bad ones are still named."""
    scep_ra.data.mkdir(mode=0o700)
    file = tmp_path / "devices.csv"
    file.write_text(BAD)
    outcome = scep_ra.ok("device", "import", str(file), "--skip-bad")
    assert outcome.out == "imported 2, already registered 0, bad lines 6\n"
    assert len(outcome.err.splitlines()) == 6


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", "the first line of the file must name its columns"),
        (b"name,kind\n", "it says: name,kind"),
        (b"value,colour\n", "it says: value,colour"),
        (b"value,value\n", "it says: value,value"),
        (b"value,attribute.user\n", "a column 'attribute.user': the attribute 'user' is made from the entry itself"),
        (b"value,attribute.\n", "a column 'attribute.': '' is no name of an attribute"),
        (b'value\nX1\n"X2\n', "line 3 of the file is not CSV in UTF-8"),
        (b"value\nX\xff\n", "of the file is not CSV in UTF-8"),
    ],
)
def test_a_file_that_is_no_such_csv_is_refused_whole(
    scep_ra: CommandLine, tmp_path: Path, octets: bytes, expected: str
) -> None:
    """Not even --skip-bad guesses."""
    file = tmp_path / "devices.csv"
    file.write_bytes(octets)
    outcome = scep_ra("device", "import", str(file), "--skip-bad")
    assert (outcome.status, expected in outcome.err) == (2, True)
    assert scep_ra.ok("device", "list", "--json").json == []


def test_an_end_that_is_past_is_warned_about(scep_ra: CommandLine) -> None:
    """It may be meant, or be last year's; other changes do not repeat the warning."""
    scep_ra.data.mkdir(mode=0o700)
    past = "warning: 2020-01-01T23:59:59Z is past: serial:X1 gets no certificate any more\n"
    assert scep_ra.ok("device", "add", "X1", "--valid-until", "2020-01-01").err == past
    assert scep_ra.ok("device", "set", "X1", "--valid-until", "2020-01-01").err == past
    assert scep_ra.ok("device", "set", "X1", "--note", "lab").err == ""
    assert scep_ra.ok("device", "set", "X1", "--valid-until", "2999-01-01").err == ""
