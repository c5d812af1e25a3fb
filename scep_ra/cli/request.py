"""`scep-ra request`: what devices asked for and what became of it, and the yes or no of an operator.

What is said about a request is put into words by `request_words`; what a decision does is `enrollment.approval`'s.
"""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import click

from scep_ra.aaa.guard import outspoken
from scep_ra.cli.options import Group, Invocation
from scep_ra.cli.output import Record, echo_table, timestamp
from scep_ra.cli.parameters import json_option, kind_option
from scep_ra.cli.request_words import (
    SHORT_ID,
    Case,
    account,
    enrollment_line,
    everything_about,
    is_other_key,
    refusal_line,
)
from scep_ra.cli.session import NotFound, Session, possible_device_ids, with_store
from scep_ra.enrollment.approval import AlreadyDecided, ApprovalDesk
from scep_ra.enrollment.states import EnrollmentState
from scep_ra.identity.types import DeviceID, DeviceIDKind
from scep_ra.parts import load_authorizers, utc_now
from scep_ra.storage.base import DecisionOutcome, Enrollment, StoredCertificate

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_ID: Final = re.compile(r"[0-9a-f]{1,32}")
_EVERY_STATE: Final = frozenset(EnrollmentState)


def _id_prefix(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    if not _ID.fullmatch(text.lower()):
        raise click.BadParameter(f"{text!r} is not the ID of a request or the beginning of one: hexadecimal digits")
    return text.lower()


def _operator(_context: click.Context, _parameter: click.Parameter, name: str | None) -> str:
    if name:
        return name
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # from and before Python 3.13: a user ID without an account
        raise click.UsageError("your login has no name: say who decides with --as NAME") from None


id_argument: Final[_Decorator] = click.argument("id_prefix", metavar="ID", callback=_id_prefix)
note_option: Final[_Decorator] = click.option("--note", default="", help="Why; kept with the request.")
as_option: Final[_Decorator] = click.option(
    "--as", "operator", metavar="NAME", callback=_operator, help="Who decides.  [default: your login]"
)


@click.group(cls=Group)
def request() -> None:
    """See what devices asked for, approve or reject what waits, and forget how it ended.

    An ID is the one that `request list` prints, or any beginning of it that only one request has.

    A device whose request waits hears PENDING and asks again. Once the request is approved it gets its certificate when
    it asks next, if AAA still says yes then.
    """


# --- list ----------------------------------------------------------------------------------------------------------


@request.command("list", epilog="Example:  scep-ra request list --refused --device FOC1234X0AB")
@click.option("--all", "everything", is_flag=True, help="Every request, whatever became of it.")
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in EnrollmentState]),
    multiple=True,
    help="Those in this state; may be given several times.",
)
@click.option("--refused", is_flag=True, help="Those that were refused when they came, with the reason.")
@click.option("--device", "value", metavar="VALUE", help="Only those of this device.")
@kind_option
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True, help="At most so many.")
@json_option
@click.pass_obj
def list_(
    invocation: Invocation,
    *,
    everything: bool,
    states: Sequence[str],
    refused: bool,
    value: str | None,
    kind: DeviceIDKind | None,
    limit: int,
    as_json: bool,
) -> None:
    """List requests, newest first; those that wait for a decision unless you say otherwise."""
    device_ids = [None] if value is None else possible_device_ids(value, kind)
    wanted = _EVERY_STATE if everything else frozenset(map(EnrollmentState, states))
    if not (wanted or refused):
        wanted = frozenset({EnrollmentState.PENDING})
    lines = with_store(
        invocation,
        lambda session: _lines(session, wanted, device_ids, refused=refused or everything, limit=limit),
    )
    echo_table(lines, as_json=as_json)
    if len(lines) == limit:
        click.echo(f"these are the newest {limit}; --limit shows more", err=True)


async def _lines(
    session: Session,
    states: Collection[EnrollmentState],
    device_ids: Sequence[DeviceID | None],
    *,
    refused: bool,
    limit: int,
) -> list[Record]:
    store, now = session.store, utc_now()
    found = []
    for device_id in device_ids:
        if states:
            enrollments = await store.list_enrollments(states, device_id=device_id, limit=limit)
            found += [(each.created_at, enrollment_line(each, now)) for each in enrollments]
        if refused:
            decisions = await store.list_decisions(outcomes={DecisionOutcome.REFUSED}, device_id=device_id, limit=limit)
            found += [(each.decided_at, refusal_line(each, now)) for each in decisions]
    found.sort(key=lambda dated: dated[0], reverse=True)
    return [line for _, line in found[:limit]]


# --- show ----------------------------------------------------------------------------------------------------------


@request.command(epilog="Example:  scep-ra request show 3f2a9c1e")
@id_argument
@json_option
@click.pass_obj
def show(invocation: Invocation, id_prefix: str, *, as_json: bool) -> None:
    """Tell the story of one request: what was asked, every check, the outcome, and what happened since."""
    case = with_store(invocation, lambda session: _find_case(session, id_prefix))
    now = utc_now()
    click.echo(json.dumps(everything_about(case, now), indent=2) if as_json else account(case, now))


async def _find_case(session: Session, id_prefix: str) -> Case:
    """Return the one request whose ID begins so; raise NotFound, or a usage error when there are several."""
    store = session.store
    decisions = await store.find_decisions(id_prefix)
    match decisions:
        case []:
            raise NotFound(
                f"no request has an ID that begins with {id_prefix}; `scep-ra request list --all` shows them"
            )
        case [decision]:
            pass
        case _:
            ids = " and ".join(each.decision_id for each in decisions)
            raise click.UsageError(f"{id_prefix} is the beginning of several requests, such as {ids}: give more digits")
    enrollment = next(iter(await store.find_enrollments(decision.decision_id)), None)
    certificate = None
    if enrollment is not None and enrollment.certificate_serial is not None:
        certificate = await store.certificate(enrollment.ca, enrollment.certificate_serial)
    device_ids = [] if decision.device_id is None else [decision.device_id]
    current = await store.current_certificates(device_ids, utc_now())
    return Case(decision=decision, enrollment=enrollment, certificate=certificate, current=current)


# --- approve, reject, forget ---------------------------------------------------------------------------------------


@request.command(epilog="Example:  scep-ra request approve 3f2a9c1e --note 'called the branch office'")
@id_argument
@note_option
@as_option
@click.pass_obj
def approve(invocation: Invocation, id_prefix: str, note: str, operator: str) -> None:
    """Approve a request that waits, if AAA says yes to it now; the device gets its certificate when it asks next."""

    async def work(session: Session) -> tuple[Enrollment, Sequence[StoredCertificate]]:
        enrollment_id = await _find_enrollment(session, id_prefix)
        async with _desk(session) as desk:
            enrollment = await desk.approve(enrollment_id, by=operator, note=note)
        return enrollment, await session.store.current_certificates([enrollment.device_id], utc_now())

    approved, current = with_store(invocation, work)
    click.echo(f"approved {_short(approved)}: {approved.device_id} gets its certificate when it asks next")
    for each in current:
        if is_other_key(approved, each):
            click.echo(
                f"it has certificate {each.certificate_serial:x} under another key as well, good until"
                f" {timestamp(each.not_after)}: was it reset, or is this a clone?"
            )


@request.command(epilog="Example:  scep-ra request reject 3f2a9c1e --note 'was reported stolen' --as alice")
@id_argument
@note_option
@as_option
@click.pass_obj
def reject(invocation: Invocation, id_prefix: str, note: str, operator: str) -> None:
    """Reject a request that waits, or that is approved and has no certificate yet."""

    async def work(session: Session) -> Enrollment:
        enrollment_id = await _find_enrollment(session, id_prefix)
        async with _desk(session) as desk:
            return await desk.reject(enrollment_id, by=operator, note=note)

    rejected = with_store(invocation, work)
    click.echo(f"rejected {_short(rejected)}: {rejected.device_id} gets no certificate for it")


@request.command(epilog="Example:  scep-ra request forget 3f2a9c1e --note 'rejected by mistake'")
@id_argument
@note_option
@as_option
@click.pass_obj
def forget(invocation: Invocation, id_prefix: str, note: str, operator: str) -> None:
    """Have a request that has ended judged as a new one when the device sends it again.

    For a device whose requests are always the same, such as one with a SUDI, that was rejected by mistake: without this
    it hears the old answer until replay_days of its profile are over. All records of the request stay.
    """

    async def work(session: Session) -> Enrollment:
        enrollment_id = await _find_enrollment(session, id_prefix)
        async with _desk(session) as desk:
            return await desk.forget(enrollment_id, by=operator, note=note)

    forgotten = with_store(invocation, work)
    click.echo(f"forgot {_short(forgotten)}: what {forgotten.device_id} sends next is judged as a new request")


async def _find_enrollment(session: Session, id_prefix: str) -> str:
    case = await _find_case(session, id_prefix)
    if case.enrollment is None:
        raise AlreadyDecided(
            f"request {case.decision.decision_id} was refused when it came: the device has to ask anew"
        )
    return case.enrollment.enrollment_id


@asynccontextmanager
async def _desk(session: Session) -> AsyncIterator[ApprovalDesk]:
    config = session.settings.config
    async with load_authorizers(session.settings, session.store) as authorizers:
        yield ApprovalDesk(
            store=session.store,
            authorizers={name: outspoken(authorizers[profile.authorizer]) for name, profile in config.profile.items()},
            now=utc_now,
        )


def _short(enrollment: Enrollment) -> str:
    return enrollment.enrollment_id[:SHORT_ID]
