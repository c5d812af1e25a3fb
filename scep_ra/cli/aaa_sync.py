"""`scep-ra aaa sync`: ask AAA again about every device with a live certificate, and cut off those that it rejects.

Who counts as rejected and how many may be cut off at once, `headend.sync` says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from scep_ra.cli.options import Invocation
from scep_ra.cli.output import echo_table
from scep_ra.cli.session import Session, operator, with_store
from scep_ra.disconnect_parts import LateCRLs, deletion_cap, make_disconnects, make_outbox, make_sync
from scep_ra.headend.disconnect import DisconnectReport
from scep_ra.headend.sync import AccessSync, DeletionCap, Survey
from scep_ra.parts import load_authorizers


def _cap(_context: click.Context, _parameter: click.Parameter, text: str | None) -> DeletionCap:
    try:
        return deletion_cap(text or "")
    except ValueError as error:
        raise click.BadParameter(f"{error}; write a number such as 25, or a percentage such as 10%") from error


@click.command(epilog="Example:  scep-ra aaa sync --dry-run")
@click.option("--dry-run", is_flag=True, help="Only say which devices would be cut off.")
@click.option(
    "--max-deletions",
    "cap",
    metavar="N|P%",
    callback=_cap,
    help="Cut off no more than so many devices at once; with more, nothing is done.  [default: 10, or 5% if more]",
)
@click.pass_obj
def sync(invocation: Invocation, *, dry_run: bool, cap: DeletionCap) -> None:
    """Ask external AAA systems about every device that holds a live certificate, and cut off those they reject.

    Without an answer nothing is done to a device. Its entry here, if it has one, is kept.
    """
    with_store(invocation, lambda session: _sync(session, cap, dry_run=dry_run))


async def _sync(session: Session, cap: DeletionCap, *, dry_run: bool) -> None:
    settings, store = session.settings, session.store
    async with load_authorizers(settings, store) as authorizers:
        outbox = make_outbox(settings, store)
        try:
            service = make_disconnects(settings, store, outbox, LateCRLs(settings, store), authorizers)
            access = make_sync(settings, store, authorizers, service)
            survey = await _survey(access)
            _echo_survey(survey)
            if not dry_run:
                for line in _lines(await access.enforce(survey, cap, by=f"cli:{operator()}")):
                    click.echo(line)
        finally:
            await outbox.close()


async def _survey(access: AccessSync) -> Survey:
    devices = await access.devices()
    with click.progressbar(
        length=len(devices), label="Asking AAA", file=sys.stderr, hidden=not sys.stderr.isatty(), show_pos=True
    ) as bar:
        return await access.survey(devices, bar.update)


def _echo_survey(survey: Survey) -> None:
    echo_table(
        [{"rejected": str(device_id), "reason": reason} for device_id, reason in survey.rejected.items()],
        as_json=False,
    )
    click.echo(
        f"asked about {survey.asked} devices: {survey.allowed} allowed, {len(survey.rejected)} rejected,"
        f" {survey.unknown} without an answer"
    )
    if not survey.asked:
        click.echo("no live certificate is of a profile that asks an external AAA system; see `authorizer` of profiles")


def _lines(reports: Sequence[DisconnectReport]) -> Iterator[str]:
    for report in reports:
        undelivered = f", {report.open_deliveries} not delivered yet" if report.open_deliveries else ""
        yield (
            f"disconnected {report.changes.device_id}: {len(report.changes.revoked)} certificates revoked,"
            f" {len(report.deliveries)} messages{undelivered}, {report.elapsed_ms:.0f} ms"
        )
