"""`scep-ra audit`: check that nobody changed the audit log, copy it elsewhere, and read it."""

from __future__ import annotations

import heapq
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from scep_ra.cli.key_files import KEY_MODE
from scep_ra.cli.options import Group, Invocation
from scep_ra.cli.output import echo_table, timestamp
from scep_ra.cli.parameters import json_option
from scep_ra.cli.session import Session, possible_device_ids, with_store
from scep_ra.errors import ConfigurationError
from scep_ra.storage.audit_chain import (
    AuditHead,
    AuditRecord,
    BrokenAuditLog,
    ChainReport,
    Verification,
    verify_export,
    write_line,
)

_PLAIN: Final = re.compile(r"[!#-~]+")  # printable ASCII without blanks and quotes


def _anchors(_context: click.Context, _parameter: click.Parameter, texts: Sequence[str]) -> list[AuditHead]:
    try:
        return [AuditHead.parse(text) for text in texts]
    except ValueError as error:
        raise click.BadParameter(f"{error}; `scep-ra audit verify` prints anchors as they are to be given") from None


def _anchor_option(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(name, multiple=True, callback=_anchors, metavar="CHAIN:SEQUENCE:DIGEST", help=text)


@click.group(cls=Group)
def audit() -> None:
    """Check, export and read the audit log."""


# --- verify --------------------------------------------------------------------------------------------------------


@audit.command(epilog="Example:  scep-ra audit verify --anchor ra1:1200:5f0c...")
@click.option("--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="An export, not the store.")
@_anchor_option("--anchor", "What was kept elsewhere: this record must be there, unchanged. May be repeated.")
@json_option
@click.pass_obj
def verify(invocation: Invocation, file: Path | None, anchor: list[AuditHead], *, as_json: bool) -> None:
    """Check every record against the one before it, and the end against anchors; exit 1 at the first that does not fit.

    Whoever can write the log can also cut its end, or write all of it anew: only an anchor that was kept out of their
    reach shows that. An export that was made with --after needs that anchor here.
    """
    if file is None:
        reports = with_store(invocation, lambda session: _verify_store(session, anchor))
    else:
        reports = _verify_file(file, anchor)
    echo_table([_row(report) for report in reports], as_json=as_json)
    if not reports:
        click.echo("the audit log is empty: nothing was checked", err=True)
    if not anchor:
        click.echo("no anchor was given: records that were cut off at the end would not be missed", err=True)


async def _verify_store(session: Session, anchors: Sequence[AuditHead]) -> Sequence[ChainReport]:
    heads = await session.store.audit_heads()
    verification = Verification([*anchors, *heads])
    with _progress("Verifying", sum(head.sequence for head in heads)) as advance:
        async for record in session.store.audit_records():
            verification.follow(record)
            advance(1)
    reports = verification.finish(heads)
    # Read again: a chain may have begun meanwhile, but none may be without its head.
    known = {head.chain for head in await session.store.audit_heads()}
    for head in verification.heads:
        if head.chain not in known:
            raise BrokenAuditLog(f"the audit log is broken: chain {head.chain} has records and no head")
    return reports


def _verify_file(path: Path, anchors: Sequence[AuditHead]) -> Sequence[ChainReport]:
    try:
        with path.open("rb") as file, _progress("Verifying", path.stat().st_size) as advance:
            return verify_export(_counted(file, advance), anchors)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None


def _counted(lines: Iterable[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for line in lines:
        yield line
        advance(len(line))


def _row(report: ChainReport) -> dict[str, str | int | bool | None]:
    return {
        "chain": report.head.chain,
        "records": report.records,
        "first": report.first,
        "last": report.head.sequence,
        "anchor": str(report.head),
    }


# --- export --------------------------------------------------------------------------------------------------------


@audit.command(epilog="Example:  scep-ra audit export --after ra1:1200:5f0c... /mnt/archive/audit-2026-11.jsonl")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), default="-")
@_anchor_option("--after", "Only what follows this record of a chain, the head of the last export. May be repeated.")
@click.pass_obj
def export(invocation: Invocation, file: Path, after: list[AuditHead]) -> None:
    """Write the audit log to a new FILE (mode 0600) or standard output, and check it on the way.

    JSON lines: one a record, then one for the head of each chain, which is the anchor to keep. `scep-ra audit verify
    --file FILE` checks it without this server.
    """
    with _destination(file) as output:
        heads = with_store(invocation, lambda session: _export(session, after, output))
    for head in heads:
        click.echo(f"anchor: {head}", err=True)


async def _export(session: Session, after: Sequence[AuditHead], output: BinaryIO) -> Sequence[AuditHead]:
    begun = {anchor.chain: anchor for anchor in after}
    standing = await session.store.audit_heads()
    verification = Verification([*after, *standing])
    due = sum(head.sequence - (begun[head.chain].sequence if head.chain in begun else 0) for head in standing)
    with _progress("Exporting", due) as advance:
        async for record in session.store.audit_records({anchor.chain: anchor.sequence for anchor in after}):
            verification.follow(record)
            output.write(write_line(record))
            advance(1)
    verification.finish(standing)
    heads = {**begun, **{head.chain: head for head in verification.heads}}
    output.writelines(write_line(head) for head in heads.values())
    return list(heads.values())


@contextmanager
def _destination(path: Path) -> Iterator[BinaryIO]:
    """Open a new private file, or standard output; a file that could not be finished is taken away."""
    if str(path) == "-":
        yield sys.stdout.buffer
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, KEY_MODE)
    except FileExistsError:
        raise ConfigurationError(f"{path}: exists already: name another file") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
    except BaseException as error:
        path.unlink()
        if isinstance(error, OSError):
            raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from None
        raise


# --- list ----------------------------------------------------------------------------------------------------------


@audit.command("list", epilog="Example:  scep-ra audit list --last 50 --device FOC1234X0AB")
@click.option("--last", type=click.IntRange(1, 100000), default=20, show_default=True, help="How many records.")
@click.option("--device", metavar="VALUE", help="Only those of this device; kind:value, or the value of any kind.")
@json_option
@click.pass_obj
def list_(invocation: Invocation, last: int, device: str | None, *, as_json: bool) -> None:
    """Show the newest records of all chains, the newest last; nothing is checked."""
    records = with_store(invocation, lambda session: _newest(session, last, device))
    if as_json:
        click.echo(json.dumps([json.loads(write_line(record)) for record in records], indent=2))
        return
    for record in records:
        click.echo(_line(record))


async def _newest(session: Session, last: int, device: str | None) -> list[AuditRecord]:
    candidates = [None] if device is None else possible_device_ids(device, None)
    found = [record for each in candidates for record in await session.store.latest_audit_records(last, each)]
    return sorted(heapq.nlargest(last, found, key=_age), key=_age)


def _age(record: AuditRecord) -> tuple[Any, ...]:
    return record.at, record.chain, record.sequence


def _line(record: AuditRecord) -> str:
    """Return a record for people; devices choose parts of it, so nothing in it may act on a terminal."""
    facts = "".join(f" {name}={_quoted(fact)}" for name, fact in record.facts.items())
    place = f"{record.chain}:{record.sequence}"
    return f"{timestamp(record.at)} {_quoted(place)} {_quoted(record.actor)} {_quoted(record.event)}{facts}"


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


@contextmanager
def _progress(label: str, length: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal."""
    with click.progressbar(length=length, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        yield bar.update
