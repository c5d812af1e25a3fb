"""The audit log as a chain: what a record is, how each seals those before it, how a break is found; and its port.

Pure: no store, no clock, no file. When an event is recorded is decided by the units of work (`sql_*`) and by `app`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Protocol, Self

from scep_ra.errors import ScepRaError
from scep_ra.identity.types import DeviceID

# What the first record of every chain is sealed to.
START: Final = bytes(32)
_MAX_SHOWN: Final = 80
# The name of a chain may have colons; 18 digits are more records than there will be.
_HEAD: Final = re.compile(r"(?P<chain>.+):(?P<sequence>[1-9][0-9]{0,17}):(?P<digest>[0-9a-f]{64})", re.DOTALL)
# Sorted keys, no blanks, ASCII: one way only to write a record.
_canonical: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
# What reading hostile JSON into our types can raise; deep nesting is the last.
UNREADABLE: Final = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


class BrokenAuditLog(ScepRaError):
    """The audit log is not what was written: the message names the first place that does not fit, and why."""


class AuditEvent(StrEnum):
    """Everything that is recorded; the value is what stands in the log."""

    SERVER_STARTED = "server_started"
    SERVER_STOPPED = "server_stopped"
    KEY_LOADED = "key_loaded"
    DEVICE_ADDED = "device_added"
    DEVICES_IMPORTED = "devices_imported"
    DEVICE_CHANGED = "device_changed"
    DEVICE_ENABLED = "device_enabled"
    DEVICE_DISABLED = "device_disabled"
    DEVICE_REMOVED = "device_removed"
    DEVICE_DISCONNECTED = "device_disconnected"
    CHALLENGE_CREATED = "challenge_created"
    ENROLLMENT_AUTHORIZED = "enrollment_authorized"
    ENROLLMENT_DEFERRED = "enrollment_deferred"
    ENROLLMENT_APPROVED = "enrollment_approved"
    ENROLLMENT_REJECTED = "enrollment_rejected"
    ENROLLMENT_FAILED = "enrollment_failed"
    ENROLLMENT_EXPIRED = "enrollment_expired"
    ENROLLMENT_CLOSED = "enrollment_closed"
    REQUESTS_REFUSED = "requests_refused"
    CERTIFICATE_ISSUED = "certificate_issued"
    CERTIFICATE_REVOKED = "certificate_revoked"
    CRL_SAVED = "crl_saved"
    MESSAGE_SETTLED = "message_settled"


# --- records -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """One event of one chain; a chain belongs to one node or worker."""

    chain: str
    sequence: int  # 1, 2, 3, ... without a gap
    at: datetime
    actor: str  # "server", or "cli:USER"
    event: str  # an AuditEvent, perhaps of another version of the program
    facts: Mapping[str, str]
    digest: bytes = b""  # SHA-256 over the digest before and `encode`


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """Where a chain stands; kept outside of the log it is an anchor, against which the end of the log is checked."""

    chain: str
    sequence: int
    digest: bytes

    def __str__(self) -> str:
        return f"{self.chain}:{self.sequence}:{self.digest.hex()}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read CHAIN:SEQUENCE:DIGEST; raise ValueError for anything that is not written exactly so."""
        form = _HEAD.fullmatch(text)
        if form is None:
            raise ValueError(f"{text!r} is not CHAIN:SEQUENCE:DIGEST with a SHA-256 in lower-case hexadecimal")
        return cls(chain=form["chain"], sequence=int(form["sequence"]), digest=bytes.fromhex(form["digest"]))


def encode(record: AuditRecord) -> bytes:
    """Return the canonical JSON of a record without its digest: what is hashed, and what an export shows."""
    return _canonical(_members(record)).encode("ascii")


def digest_of(previous: bytes, record: AuditRecord) -> bytes:
    """Return the SHA-256 that seals a record to the digest of the one before it (START for the first)."""
    return hashlib.sha256(previous + encode(record)).digest()


def check_types(record: AuditRecord) -> None:
    """Check what no type checker sees: a record that came from outside; raise TypeError."""
    texts = [record.chain, record.actor, record.event, *record.facts, *record.facts.values()]
    if type(record.sequence) is not int or not all(isinstance(text, str) for text in texts):
        raise TypeError("a member of the record is of another type than was written")


def encode_facts(facts: Mapping[str, str]) -> str:
    """Return facts as canonical JSON."""
    return _canonical(dict(facts))


def decode_facts(text: str) -> Mapping[str, str]:
    """Read facts that are canonical JSON; raise ValueError for any other text."""
    try:
        facts: Mapping[str, str] = json.loads(text)
        is_canonical = encode_facts(facts) == text
    except UNREADABLE:
        is_canonical = False
    if not is_canonical:
        raise ValueError("its facts are not the JSON that was written")
    return facts


def _members(record: AuditRecord) -> dict[str, Any]:
    return {
        "chain": record.chain,
        "sequence": record.sequence,
        "at": record.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "actor": record.actor,
        "event": record.event,
        "facts": dict(record.facts),
    }


# --- lines of an export --------------------------------------------------------------------------------------------


def write_line(entry: AuditRecord | AuditHead) -> bytes:
    """Return a record, or the head of a chain, as the one line of JSON that it is in an export."""
    if isinstance(entry, AuditHead):
        return _canonical({"head": str(entry)}).encode("ascii") + b"\n"
    return _canonical({**_members(entry), "digest": entry.digest.hex()}).encode("ascii") + b"\n"


def read_line(line: bytes) -> AuditRecord | AuditHead:
    """Read a line of an export; raise ValueError unless it is to the octet what `write_line` writes."""
    try:
        entry = _read_members(json.loads(line))
        is_canonical = write_line(entry) == line
    except UNREADABLE:
        is_canonical = False
    if not is_canonical:
        raise ValueError(f"neither a record nor a head as it was written: {line[:_MAX_SHOWN]!r}")
    return entry


def _read_members(members: Mapping[str, Any]) -> AuditRecord | AuditHead:
    if "head" in members:
        return AuditHead.parse(members["head"])
    record = AuditRecord(
        chain=members["chain"],
        sequence=members["sequence"],
        at=datetime.fromisoformat(members["at"]),
        actor=members["actor"],
        event=members["event"],
        facts=members["facts"],
        digest=bytes.fromhex(members["digest"]),
    )
    check_types(record)
    return record


# --- verification --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """A chain that was followed from its first record to its last."""

    first: int
    head: AuditHead

    @property
    def records(self) -> int:
        """Return how many records were followed."""
        return self.head.sequence - self.first + 1


class Verification:
    """Follows chains record by record and stops at the first that does not fit.

    A chain begins at record 1, or behind an anchor. Cutting the end leaves a chain that holds: only an anchor that was
    kept elsewhere shows it.
    """

    def __init__(self, anchors: Iterable[AuditHead] = ()) -> None:
        self._anchors: dict[tuple[str, int], set[bytes]] = defaultdict(set)
        for anchor in anchors:
            self._anchors[anchor.chain, anchor.sequence].add(anchor.digest)
        self._first: dict[str, int] = {}
        self._heads: dict[str, AuditHead] = {}

    @property
    def heads(self) -> Sequence[AuditHead]:
        """Return the last record of every chain that was followed."""
        return list(self._heads.values())

    def follow(self, record: AuditRecord) -> None:
        """Check one record against the one before it in its chain; raise BrokenAuditLog."""
        before = self._heads.get(record.chain) or self._beginning(record)
        if record.sequence != before.sequence + 1:
            raise _broken(
                record.chain,
                before.sequence + 1,
                f"record {record.sequence} stands in its place: records are missing, doubled or out of order",
            )
        if record.digest != digest_of(before.digest, record):
            raise _broken(record.chain, record.sequence, "its digest does not fit: it was altered, or the one before")
        if self._anchors.get((record.chain, record.sequence), {record.digest}) != {record.digest}:
            raise _broken(record.chain, record.sequence, "the anchor has another digest: the log was written anew")
        self._first.setdefault(record.chain, record.sequence)
        self._heads[record.chain] = AuditHead(chain=record.chain, sequence=record.sequence, digest=record.digest)

    def _beginning(self, record: AuditRecord) -> AuditHead:
        """Return what the first record that is met of a chain must follow."""
        if record.sequence == 1:
            return AuditHead(chain=record.chain, sequence=0, digest=START)
        match list(self._anchors.get((record.chain, record.sequence - 1), ())):
            case [digest]:
                return AuditHead(chain=record.chain, sequence=record.sequence - 1, digest=digest)
            case _:
                raise _broken(
                    record.chain,
                    1,
                    f"the chain begins with record {record.sequence}: what comes before is missing, or this continues "
                    f"an earlier export, whose head must then be given as an anchor",
                )

    def finish(self, heads: Iterable[AuditHead] = ()) -> Sequence[ChainReport]:
        """Check that every anchor was reached and return the chains; raise BrokenAuditLog.

        `heads` are those that the log itself names at its end; a chain that stood still since its anchor has only that.
        """
        ends = {head.chain: head.sequence for head in heads if self._anchors.get(_place(head)) == {head.digest}}
        ends |= {head.chain: head.sequence for head in self.heads}
        for chain, sequence in self._anchors:
            if sequence > ends.get(chain, 0):
                raise _broken(
                    chain, ends.get(chain, 0) + 1, f"it is missing: the anchor knows {sequence} records, the end is cut"
                )
        return [ChainReport(first=self._first[head.chain], head=head) for head in self.heads]


def verify_export(lines: Iterable[bytes], anchors: Iterable[AuditHead] = ()) -> Sequence[ChainReport]:
    """Check the lines of an export, records and then heads, against themselves and anchors; raise BrokenAuditLog."""
    anchors = list(anchors)
    verification = Verification(anchors)
    heads: dict[str, AuditHead] = {}
    for number, line in enumerate(lines, 1):
        try:
            entry = read_line(line)
        except ValueError as error:
            raise BrokenAuditLog(f"the audit log is broken at line {number} of the export: {error}") from None
        if isinstance(entry, AuditHead):
            if entry.chain in heads:
                raise _broken(entry.chain, entry.sequence, "the export names two heads of the chain")
            heads[entry.chain] = entry
        elif heads:
            raise _broken(entry.chain, entry.sequence, "it stands behind the heads, which end an export")
        else:
            verification.follow(entry)
    _check_heads(heads, verification.heads, anchors)
    return verification.finish(heads.values())


def _check_heads(named: Mapping[str, AuditHead], reached: Sequence[AuditHead], anchors: Sequence[AuditHead]) -> None:
    """Check that the heads that an export names are its last records, or anchors since which nothing happened."""
    for head in reached:
        if named.get(head.chain) != head:
            raise _broken(head.chain, head.sequence + 1, "the export does not end with the head of the chain")
    for head in named.values():
        if head not in reached and head not in anchors:
            raise _broken(head.chain, 1, f"the export names a head at record {head.sequence}, and no record is there")


def _place(head: AuditHead) -> tuple[str, int]:
    return head.chain, head.sequence


def _broken(chain: str, sequence: int, what: str) -> BrokenAuditLog:
    return BrokenAuditLog(f"the audit log is broken at record {sequence} of chain {chain}: {what}")


# --- the port ------------------------------------------------------------------------------------------------------


class AuditLog(Protocol):
    """What was done, by whom: every step of the other stores that changes anything leaves a record with it."""

    async def record_audit(self, event: AuditEvent, facts: Mapping[str, str], now: datetime) -> None:
        """Append a record of something that is no row of the store: a start, a key that is used."""
        ...

    def audit_records(self, after: Mapping[str, int] = ...) -> AsyncIterator[AuditRecord]:
        """Iterate over the chains by name, each by sequence from behind the one named; raise BrokenAuditLog.

        Not one transaction: records come in pages, and what is appended meanwhile may be in or out.
        """
        ...

    async def latest_audit_records(self, limit: int, device_id: DeviceID | None = None) -> Sequence[AuditRecord]:
        """Return the newest records of all chains, or of those that name a device, newest first."""
        ...

    async def audit_heads(self) -> Sequence[AuditHead]:
        """Return where each chain stands, by name."""
        ...
