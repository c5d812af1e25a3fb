"""Claims about counters of what strangers do."""

from __future__ import annotations

import pytest

from scep_ra.enrollment.limits import TokenBuckets, network_of
from tests.support.stopwatch import Stopwatch


@pytest.mark.parametrize(
    ("source", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("/run/scep.sock", "/run/scep.sock"),
    ],
)
def test_an_address_is_counted_for_the_network_of_one_subscriber(source: str, network: str) -> None:
    """Whoever has an IPv6 /64 has more addresses than anybody can count."""
    assert network_of(source) == network


def test_a_key_may_take_its_burst_and_then_its_rate() -> None:
    """Other keys have buckets of their own."""
    clock = Stopwatch()
    buckets = TokenBuckets(burst=3, per_s=0.5, monotonic=clock)

    assert [buckets.take("one") for _ in range(4)] == [True, True, True, False]
    assert buckets.take("other")
    clock.advance(2)
    assert [buckets.take("one") for _ in range(2)] == [True, False]


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    """However long nobody came."""
    clock = Stopwatch()
    buckets = TokenBuckets(burst=2, per_s=1, monotonic=clock)
    assert buckets.take("one")
    clock.advance(1000)

    assert [buckets.take("one") for _ in range(3)] == [True, True, False]


def test_whoever_asks_too_early_again_and_again_still_gets_the_rate() -> None:
    """Asking costs nothing but the asking."""
    clock = Stopwatch()
    buckets = TokenBuckets(burst=1, per_s=1, monotonic=clock)
    taken = 0
    for _ in range(41):
        taken += buckets.take("one")
        clock.advance(0.25)

    assert taken == 11


def test_the_key_that_was_quiet_longest_is_forgotten_first() -> None:
    """Memory is bounded; a forgotten key has a full bucket."""
    buckets = TokenBuckets(burst=1, per_s=1, monotonic=Stopwatch(), max_keys=2)
    for key in ("one", "two", "one", "three"):
        buckets.take(key)

    assert [buckets.take("one"), buckets.take("two")] == [False, True]
