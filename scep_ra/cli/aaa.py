"""`scep-ra aaa`: ask the AAA backends of the configuration, as the server would, and show what they say.

What an answer means is `aaa.base`'s; who is asked and in which order, `parts.load_authorizers`'.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import click

from scep_ra.aaa.base import Accept, AccessRequest, Decision, Defer, Reject
from scep_ra.aaa.guard import outspoken
from scep_ra.aaa.trace import Verdict, tracing
from scep_ra.cli.aaa_sync import sync
from scep_ra.cli.main import REFUSED
from scep_ra.cli.options import Group, Invocation
from scep_ra.cli.output import Record, echo_record, echo_table, timestamp
from scep_ra.cli.parameters import json_option, kind_option
from scep_ra.cli.session import Session, check_profile, device_id, with_store
from scep_ra.config import ProfileConfig
from scep_ra.errors import BackendError
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.parts import load_authorizers

_NOT_YET: Final = 4


@click.group(cls=Group)
def aaa() -> None:
    """Ask AAA about devices."""


aaa.add_command(sync)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hearing:
    """What came of one question."""

    device_id: DeviceID
    profile: str
    authorizer: str
    answer: Decision | BackendError
    verdicts: Sequence[Verdict]


@aaa.command(epilog="Example:  scep-ra aaa test --device FOC1234X0AB --profile vpn")
@click.option("--device", "value", metavar="VALUE", required=True, help="The device to ask about.")
@kind_option
@click.option("--profile", default="default", show_default=True, help="For a certificate of this profile.")
@click.option("--source", metavar="ADDRESS", default="", help="As if the device asked from this address.")
@click.option("--renewal", is_flag=True, help="As if the device held a certificate already.")
@json_option
@click.pass_context
def test(
    context: click.Context,
    *,
    value: str,
    kind: DeviceIDKind | None,
    profile: str,
    source: str,
    renewal: bool,
    as_json: bool,
) -> None:
    """Ask whether a device may have a certificate: each backend's answer, its time, and what follows for the device.

    Nothing is issued or recorded. Errors are shown, also where devices would only hear that they have to wait.

    Exit status: 0 accepted, 1 rejected, 4 not yet, 3 no answer, 2 somebody has to change the configuration.
    """
    invocation = context.ensure_object(Invocation)
    question = AccessRequest(device_id=device_id(value, kind), profile=profile, source=source, renewal=renewal)
    hearing = with_store(invocation, lambda session: _ask(session, question))
    _echo(hearing, as_json=as_json)
    match hearing.answer:
        case Accept():
            return
        case Reject():
            context.exit(REFUSED)
        case Defer():
            context.exit(_NOT_YET)
        case BackendError() as error:
            raise error
        case _:
            assert_never(hearing.answer)


async def _ask(session: Session, question: AccessRequest) -> _Hearing:
    check_profile(session.settings, question.profile)
    profile = session.settings.config.profile[question.profile]
    async with load_authorizers(session.settings, session.store) as authorizers:
        with tracing() as verdicts:
            try:
                answer: Decision | BackendError = await outspoken(authorizers[profile.authorizer]).authorize(question)
            except BackendError as error:
                answer = error
    return _Hearing(
        device_id=question.device_id,
        profile=question.profile,
        authorizer=profile.authorizer,
        answer=_as_enforced(answer, profile),
        verdicts=verdicts,
    )


def _as_enforced(answer: Decision | BackendError, profile: ProfileConfig) -> Decision | BackendError:
    """Return what the enrollment service makes of an answer."""
    if isinstance(answer, Accept) and profile.service and profile.service not in answer.services:
        return Reject(reason=f"the profile asks for service {profile.service!r}, which AAA does not grant")
    return answer


def _echo(hearing: _Hearing, *, as_json: bool) -> None:
    conclusion: Record = {
        "device": str(hearing.device_id),
        "profile": hearing.profile,
        "authorizer": hearing.authorizer,
        "answer": _word(hearing.answer),
        **_facts(hearing.answer),
    }
    if as_json:
        click.echo(json.dumps({**conclusion, "verdicts": list(map(_verdict, hearing.verdicts))}, indent=2))
        return
    echo_table(list(map(_line, hearing.verdicts)), as_json=False)
    click.echo()
    echo_record(conclusion, as_json=False)


def _verdict(verdict: Verdict) -> Record:
    return {
        "authorizer": verdict.authorizer,
        "answer": _word(verdict.answer),
        "elapsed_ms": round(verdict.elapsed_s * 1000),
        **_facts(verdict.answer),
    }


def _line(verdict: Verdict) -> Record:
    facts = _facts(verdict.answer)
    return {
        "authorizer": verdict.authorizer,
        "answer": _word(verdict.answer),
        "ms": f"{verdict.elapsed_s * 1000:.1f}",
        "says": facts["attributes"] if isinstance(verdict.answer, Accept) else facts["reason"],
    }


def _facts(answer: Decision | BackendError) -> Record:
    """Return what an answer says besides yes or no."""
    match answer:
        case Accept():
            return {
                "attributes": dict(answer.attributes),
                "not_after": timestamp(answer.not_after) if answer.not_after else None,
                "certificate_profile": answer.profile,
                "services": sorted(answer.services),
                "approval": answer.approval,
            }
        case Reject(reason=reason):
            return {"reason": reason}
        case Defer(reason=reason, until=until):
            return {"reason": reason, "until": timestamp(until) if until else None}
        case BackendError():
            return {"reason": str(answer)}
        case _:
            assert_never(answer)


def _word(answer: Decision | BackendError) -> str:
    match answer:
        case Accept():
            return "accept"
        case Reject():
            return "reject"
        case Defer():
            return "defer"
        case BackendError():
            return "no answer"
        case _:
            assert_never(answer)
