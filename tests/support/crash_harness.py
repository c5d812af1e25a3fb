"""The crash drill: clients enroll, the server dies at a chosen point and comes back on the same data, again and again.

At each death: what devices hold is in the store, and what the CA signed was ordered there before. At each start: what
was open is carried out before anybody is served. At the end: everything fits together, to the bit.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final

from scep_ra.pki.certificates import parse_certificate
from tests.support.crashing_server import CrashDirectory, CrashPoint
from tests.support.fleet import Fleet, register
from tests.support.node import PATIENCE_S, Node, Site

CLIENTS: Final = 8
# At the latest when each client has been there on average.
_MAX_PASSAGE: Final = CLIENTS
_OPEN_INTENTS: Final = "SELECT enrollment_id FROM enrollment WHERE state = 'issuing'"
_STORED: Final = "SELECT device_value, der FROM certificate"
_RESERVED: Final = "SELECT certificate_serial FROM enrollment WHERE certificate_serial IS NOT NULL"
# What must not be in the store after a drill -> where it would be found. Each device has one challenge.
_FORBIDDEN: Final = {
    "devices have two certificates": "SELECT device_value FROM certificate GROUP BY device_value HAVING COUNT(*) > 1",
    "serials were given out twice": (
        "SELECT certificate_serial FROM certificate GROUP BY certificate_serial HAVING COUNT(*) > 1"
    ),
    "enrollments did not come to their end": "SELECT enrollment_id FROM enrollment WHERE state <> 'issued'",
    "challenges were spent for nothing": (
        "SELECT c.device_value FROM challenge AS c LEFT JOIN enrollment AS e ON e.enrollment_id = c.used_by"
        " WHERE c.used_by IS NOT NULL AND (e.enrollment_id IS NULL OR e.device_value <> c.device_value)"
    ),
    "enrollments did not spend their challenge": (
        "SELECT enrollment_id FROM enrollment AS e WHERE (SELECT COUNT(*) FROM challenge AS c"
        " WHERE c.used_by = e.enrollment_id) <> 1"
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """When the server is to die: at this passage of a point since its start."""

    point: CrashPoint
    passage: int


def plan_kills(number: int, seed: int) -> list[Kill]:
    """Return kills spread evenly over the points, in any order; the same seed gives the same ones."""
    chance = random.Random(seed)
    points = [point for point, _ in zip(cycle(CrashPoint), range(number), strict=False)]
    chance.shuffle(points)  # what one point leaves open, the starts before each other point have to carry out
    return [Kill(point=point, passage=chance.randint(1, _MAX_PASSAGE)) for point in points]


@dataclass(kw_only=True)
class PointReport:
    """What happened in the lives that ended at one point."""

    kills: int = 0
    acknowledged: int = 0
    cut_off: int = 0  # requests without a complete answer, all sent again
    open_intents: int = 0  # found in the store at the death
    resolved: int = 0  # of these, carried out when the next server was ready
    killed_at_start: int = 0  # died while it carried out what was open


@dataclass(kw_only=True)
class DrillReport:
    """What a drill has shown; `faults` are sentences, none if all is well."""

    points: dict[CrashPoint, PointReport] = field(
        default_factory=lambda: {point: PointReport() for point in CrashPoint}
    )
    faults: list[str] = field(default_factory=list)
    acknowledged: int = 0
    slowest_start_s: float = 0.0


class Drill:
    """A site, a fleet, and the servers that die one after the other."""

    def __init__(self, site: Site, fleet: Fleet, crash: CrashDirectory) -> None:
        self.report: Final = DrillReport(points={point: PointReport() for point in CrashPoint})
        self._site = site
        self._fleet = fleet
        self._crash = crash
        self._open: Mapping[str, PointReport] = {}  # enrollment IDs, and where their server died

    async def kill(self, kill: Kill) -> None:
        """Run a server to its appointed death, and look at what it left."""
        report, before = self.report.points[kill.point], len(self._fleet.acknowledged)
        self._crash.order_crash(kill.point, kill.passage)
        async with Node.spawn(self._site, crash=self._crash) as node:
            if not await self._is_serving(node):
                report.killed_at_start += 1
            await node.wait_end()
            self._fleet.hold()
        if node.process.returncode != -signal.SIGKILL or self._crash.ordered_crash():
            raise AssertionError(f"the server did not die at {kill}:\n{node.log.text}")
        report.kills += 1
        report.acknowledged += len(self._fleet.acknowledged) - before
        report.cut_off += len(self._fleet.cut_off)
        self.report.faults += [f"{kill}: {fault}" for fault in [*node.log.faults(), *await self._examine(report)]]

    async def recover(self, work: asyncio.Task[None]) -> None:
        """Run a server that lives until the clients have done their work."""
        async with Node.spawn(self._site, crash=self._crash) as node:
            if not await self._is_serving(node):
                raise AssertionError(f"the server did not start:\n{node.log.text}")
            async with asyncio.timeout(PATIENCE_S):
                await work
            await node.stop()

    async def _is_serving(self, node: Node) -> bool:
        """Wait until a server is ready, see that it has left nothing open, and let the clients in."""
        began = time.monotonic()
        if not await node.is_ready():
            return False
        self.report.slowest_start_s = max(self.report.slowest_start_s, time.monotonic() - began)
        still_open = {row[0] for row in await self._site.ledger.rows(_OPEN_INTENTS)}
        for enrollment_id, report in self._open.items():
            if enrollment_id in still_open:
                self.report.faults.append(f"intent {enrollment_id} was open when the next server was ready")
            else:
                report.resolved += 1
        self._open = {}
        self._fleet.go(node.base_url)
        return True

    async def _examine(self, report: PointReport) -> Sequence[str]:
        """Look at the store of a dead server as a power cut would leave it."""
        ledger = self._site.ledger
        found = [row[0] for row in await ledger.rows(_OPEN_INTENTS)]
        report.open_intents += len(set(found) - set(self._open))
        self._open = {**dict.fromkeys(found, report), **self._open}
        stored = set(await ledger.rows(_STORED))
        reserved = {row[0] for row in await ledger.rows(_RESERVED)}
        lost = sorted(self._fleet.acknowledged.items() - stored)
        signed = {f"{parse_certificate(each).certificate_serial:040x}" for each in self._crash.signed()}
        return [
            *(f"the certificate that {device_serial} holds is not in the store" for device_serial, _ in lost),
            *(f"serial {each} was signed and nobody had ordered it" for each in sorted(signed - reserved)),
        ]


async def run_drill(
    site: Site, kills: Sequence[Kill], *, clients: int = CLIENTS, after_each: Callable[[Kill], None] = lambda _: None
) -> DrillReport:
    """Kill the server of a new site at each of these points while clients enroll; return what that has shown."""
    crash = CrashDirectory(site.data.parent)
    async with Node.running(site):
        pass  # its start makes keys and tables
    # A life sees no more new requests than passages of its point, and those that were under way.
    applicants = await register(site, clients + sum(kill.passage + clients for kill in kills))
    fleet = Fleet(applicants, site.ra_certificate)
    drill = Drill(site, fleet, crash)
    async with asyncio.TaskGroup() as group:
        work = group.create_task(fleet.work(clients))
        for kill in kills:
            await drill.kill(kill)
            after_each(kill)
        fleet.finish()
        await drill.recover(work)
    drill.report.acknowledged = len(fleet.acknowledged)
    drill.report.faults += await find_faults(site, fleet.acknowledged, crash)
    return drill.report


async def find_faults(site: Site, acknowledged: Mapping[str, bytes], crash: CrashDirectory | None) -> list[str]:
    """Return a sentence for each thing that does not fit, once every device has its answer and no server runs.

    `acknowledged` are the certificates that devices hold, by serial of the device, one each.
    """
    stored = await site.ledger.rows(_STORED)
    faults = list(_compare(acknowledged, dict(stored)))
    for fault, sql in _FORBIDDEN.items():
        if rows := await site.ledger.rows(sql):
            faults.append(f"{fault}: {', '.join(str(row[0]) for row in rows)}")
    unknown = crash.signed() - {der for _, der in stored} if crash is not None else set()
    faults += [f"the CA signed a certificate that nobody knows: {der.hex()}" for der in unknown]
    for command in (("db", "check"), ("audit", "verify")):
        status, output = await site.run(*command)
        if status:
            faults.append(f"scep-ra {' '.join(command)}: exit status {status}: {output}")
    return faults


def _compare(acknowledged: Mapping[str, bytes], stored: Mapping[str, bytes]) -> Iterator[str]:
    for device_serial in sorted(acknowledged.keys() | stored.keys()):
        if device_serial not in stored:
            yield f"the certificate that {device_serial} holds is not in the store"
        elif device_serial not in acknowledged:
            yield f"{device_serial} has never got the certificate that is in the store"
        elif acknowledged[device_serial] != stored[device_serial]:
            yield f"{device_serial} holds another certificate than the one in the store"
