"""Claims about `scep-ra aaa test`: what AAA says of a device is seen as it was said."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from scep_ra.aaa.base import Accept, Decision, Defer, Reject
from scep_ra.aaa.registry import Parts
from scep_ra.errors import Misconfigured, Unavailable
from tests.support.authorizers import Scripted
from tests.support.command_line import CommandLine

END = datetime(2027, 12, 31, tzinfo=UTC)
ANSWERS: Mapping[str, Decision | BaseException] = {
    "yes": Accept(
        attributes={"user": "alice", "dns": "a.example\nb.example"},
        not_after=END,
        profile="long",
        services=frozenset({"wifi", "vpn"}),
        approval=True,
    ),
    "no": Reject(reason="reported stolen"),
    "later": Defer(reason="on order", until=END),
    "away": Unavailable("no route"),
    "broken": Misconfigured("wrong password"),
}


class Plug(Scripted):
    """A backend that answers as its table says."""

    def __init__(self, _parts: Parts, options: Mapping[str, object]) -> None:
        super().__init__(answer=ANSWERS[str(options["says"])])


def configure(scep_ra: CommandLine, text: str) -> None:
    """Write the configuration of the data directory; every backend is there under the name of its answer."""
    plugs = "".join(f"[aaa.{name}]\ntype = '{__name__}:Plug'\nsays = '{name}'\n" for name in ANSWERS)
    scep_ra.data.mkdir(mode=0o700)
    (scep_ra.data / "scep-ra.toml").write_text(f"{plugs}{text}")


@pytest.mark.parametrize(
    ("name", "status", "answer", "says"),
    [
        ("yes", 0, "accept", "user=alice, dns=a.example, dns=b.example"),
        ("no", 1, "reject", "reported stolen"),
        ("later", 4, "defer", "on order"),
        ("away", 3, "no answer", "aaa.away: no route"),
        ("broken", 2, "no answer", "aaa.broken: wrong password"),
    ],
)
def test_every_answer_is_shown_and_told_by_the_exit_status(
    scep_ra: CommandLine, name: str, status: int, answer: str, says: str
) -> None:
    """Errors as errors, though devices would only hear that they have to wait."""
    configure(scep_ra, f"[profile.default]\nauthorizer = '{name}'\n")
    outcome = scep_ra("aaa", "test", "--device", "SN123")
    assert outcome.status == status
    head, line, *_ = outcome.out.splitlines()
    assert head.split() == ["AUTHORIZER", "ANSWER", "MS", "SAYS"]
    assert line.startswith(f"{name:<10}  {answer}  ")
    assert line.endswith(f"  {says}")
    assert (says in outcome.err) == (status in (2, 3))


def test_a_yes_is_shown_with_all_that_shapes_the_certificate(scep_ra: CommandLine) -> None:
    """As it would be issued."""
    configure(scep_ra, "[profile.default]\nauthorizer = 'yes'\n")
    out = scep_ra.ok("aaa", "test", "--device", "imei:490154203237518").out
    assert out.partition("\n\n")[2].splitlines() == [
        "device:              imei:490154203237518",
        "profile:             default",
        "authorizer:          yes",
        "answer:              accept",
        "attributes:          user=alice, dns=a.example, dns=b.example",
        "not_after:           2027-12-31T00:00:00Z",
        "certificate_profile: long",
        "services:            vpn, wifi",
        "approval:            yes",
    ]


def test_a_chain_shows_every_member_and_then_itself(scep_ra: CommandLine) -> None:
    """So that one sees who is to blame."""
    configure(
        scep_ra,
        "[aaa.both]\ntype = 'first'\nmembers = ['away', 'no']\n[profile.vpn]\nauthorizer = 'both'\n",
    )
    outcome = scep_ra("aaa", "test", "--device", "SN123", "--kind", "serial", "--profile", "vpn", "--json")
    assert outcome.status == 1
    assert [(each["authorizer"], each["answer"], each["reason"]) for each in outcome.json["verdicts"]] == [
        ("away", "no answer", "aaa.away: no route"),
        ("no", "reject", "reported stolen"),
        ("both", "reject", "reported stolen"),
    ]
    assert {name: outcome.json[name] for name in ("device", "profile", "authorizer", "answer", "reason")} == {
        "device": "serial:SN123",
        "profile": "vpn",
        "authorizer": "both",
        "answer": "reject",
        "reason": "reported stolen",
    }
    assert all(isinstance(each["elapsed_ms"], int) for each in outcome.json["verdicts"])


def test_json_has_what_a_wait_ends_with(scep_ra: CommandLine) -> None:
    """And null where AAA names no time."""
    configure(scep_ra, "[profile.default]\nauthorizer = 'later'\n")
    assert scep_ra("aaa", "test", "--device", "SN123", "--json").json["until"] == "2027-12-31T00:00:00Z"


@pytest.mark.parametrize(("service", "status"), [("vpn", 0), ("mail", 1)])
def test_a_yes_without_the_service_of_the_profile_is_a_no(scep_ra: CommandLine, service: str, status: int) -> None:
    """As for the device; the backend's own yes is seen above it."""
    configure(scep_ra, f"[profile.default]\nauthorizer = 'yes'\nservice = '{service}'\n")
    outcome = scep_ra("aaa", "test", "--device", "SN123", "--json")
    assert outcome.status == status
    assert outcome.json["verdicts"][0]["answer"] == "accept"
    if status:
        assert outcome.json["reason"] == "the profile asks for service 'mail', which AAA does not grant"


def test_an_unknown_profile_and_a_broken_device_id_are_usage_errors(scep_ra: CommandLine) -> None:
    """Nothing is asked."""
    configure(scep_ra, "[profile.default]\nauthorizer = 'yes'\n")
    outcome = scep_ra("aaa", "test", "--device", "SN123", "--profile", "vpn")
    assert (outcome.status, "there is no profile 'vpn'" in outcome.err) == (2, True)
    outcome = scep_ra("aaa", "test", "--device", "123", "--kind", "imei")
    assert outcome.status != 0
    assert outcome.out == ""


def test_the_embedded_registry_can_be_tested_as_it_is(scep_ra: CommandLine) -> None:
    """Without any configuration."""
    assert scep_ra("aaa", "test", "--device", "SN123").status == 1
    scep_ra.ok("device", "add", "SN123")
    assert scep_ra.ok("aaa", "test", "--device", "SN123", "--json").json["attributes"] == {"device": "serial:SN123"}
