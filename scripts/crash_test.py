"""Kill the server with SIGKILL at six points of an enrollment while eight clients enroll, and see what is left.

Each kill is followed by a start on the same data. Prints for each point

    kills         how often the server died there, and in brackets how often while it was still starting
    acknowledged  certificates that clients had got until then
    cut off       requests that got no complete answer; clients sent the very same again
    intents       enrollments that were committed and had no certificate yet: found, then carried out by the next start

and what was found wrong: an acknowledged certificate that is not in the store, two certificates for one transaction, an
intent that stays open, a certificate that the CA signed unordered, a broken database or audit log. Exit status 1 then.

Usage: scripts/crash-test [--kills 200] [--store sqlite|postgresql|both] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

# The drill is shared with the tests.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.crash_harness import DrillReport, plan_kills, run_drill
from tests.support.node import Site, make_site
from tests.support.postgresql import running_postgresql

STORES = ("sqlite", "postgresql")
ROW = "{:<28} {:>9} {:>13} {:>8} {:>14}"


@contextmanager
def new_site(store: str) -> Iterator[Site]:
    """Lend a data directory with an empty store, on a PostgreSQL server of its own where that is wanted."""
    with tempfile.TemporaryDirectory() as scratch:
        if store == "sqlite":
            yield make_site(Path(scratch))
            return
        with running_postgresql() as server, server.fresh_database() as dsn:
            yield make_site(Path(scratch), dsn=dsn)


def drill(store: str, kills: int, seed: int) -> DrillReport:
    """Run the drill over one store with a progress bar."""
    with new_site(store) as site, click.progressbar(length=kills, label=f"{store:<10}", file=sys.stderr) as bar:
        return asyncio.run(run_drill(site, plan_kills(kills, seed), after_each=lambda _: bar.update(1)))


def print_report(store: str, report: DrillReport, elapsed_s: float) -> None:
    """Print the table and what is wrong."""
    summary = f"{report.acknowledged} certificates in {elapsed_s:.0f} s, slowest start {report.slowest_start_s:.1f} s"
    print(f"\n{store}: {summary}")
    print(ROW.format("killed when", "kills", "acknowledged", "cut off", "intents"))
    for point, row in report.points.items():
        kills = f"{row.kills} ({row.killed_at_start})"
        print(ROW.format(point, kills, row.acknowledged, row.cut_off, f"{row.open_intents} -> {row.resolved}"))
    print("\n".join(report.faults) or "nothing lost, nothing doubled, nothing left open")


def main() -> None:
    """Run the drills and exit with 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in total (default 200)")
    parser.add_argument("--store", choices=[*STORES, "both"], default="both", help="default: both")
    parser.add_argument("--seed", type=int, help="repeat the kills of another run (default: new ones)")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    stores = STORES if options.store == "both" else (options.store,)
    print(f"--seed {seed}")
    is_sound = True
    for index, store in enumerate(stores):
        began = time.monotonic()
        report = drill(store, (options.kills + index) // len(stores), seed + index)
        print_report(store, report, time.monotonic() - began)
        is_sound = is_sound and not report.faults
    sys.exit(not is_sound)


if __name__ == "__main__":
    main()
