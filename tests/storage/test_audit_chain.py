"""Claims about the chain of the audit log: whatever is done to a log is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scep_ra.storage.audit_chain import (
    START,
    AuditHead,
    AuditRecord,
    BrokenAuditLog,
    ChainReport,
    Verification,
    check_types,
    decode_facts,
    digest_of,
    encode,
    encode_facts,
    read_line,
    verify_export,
    write_line,
)

NOW: Final = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
TEXTS: Final = st.text(max_size=8)


def make_record(sequence: int = 1, chain: str = "ra1", **fields: Any) -> AuditRecord:
    record = AuditRecord(
        chain=chain,
        sequence=sequence,
        at=NOW + timedelta(seconds=sequence),
        actor="server",
        event="certificate_issued",
        facts={"device": f"serial:SN{sequence}", "profile": "default"},
    )
    return replace(record, **fields)


def make_chain(length: int, chain: str = "ra1") -> list[AuditRecord]:
    """Return a chain that holds."""
    records: list[AuditRecord] = []
    for sequence in range(1, length + 1):
        record = make_record(sequence, chain)
        digest = digest_of(records[-1].digest if records else START, record)
        records.append(replace(record, digest=digest))
    return records


def head_of(record: AuditRecord) -> AuditHead:
    return AuditHead(chain=record.chain, sequence=record.sequence, digest=record.digest)


def make_export(records: Sequence[AuditRecord], *heads: AuditHead) -> list[bytes]:
    """Return the lines of an export, with the heads of its chains unless others are given."""
    last = {record.chain: head_of(record) for record in records}
    return [*map(write_line, records), *map(write_line, heads or last.values())]


HUNDRED: Final = make_chain(100)
EXPORT: Final = make_export(HUNDRED)
HEAD: Final = head_of(HUNDRED[-1])


# --- what is written -----------------------------------------------------------------------------------------------


def test_a_record_is_sealed_with_nothing_but_sha256_and_json() -> None:
    """Whoever does not trust this program can check a log without it."""
    record = HUNDRED[0]
    line = json.loads(write_line(record))
    digest = line.pop("digest")
    canonical = json.dumps(line, sort_keys=True, separators=(",", ":")).encode()

    assert canonical == (
        b'{"actor":"server","at":"2026-03-01T12:00:01.123456+00:00","chain":"ra1","event":"certificate_issued",'
        b'"facts":{"device":"serial:SN1","profile":"default"},"sequence":1}'
    )
    assert hashlib.sha256(bytes(32) + canonical).hexdigest() == digest


def test_the_time_zone_in_which_a_time_is_given_does_not_matter() -> None:
    """The store gives times back in UTC."""
    elsewhere = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))

    assert encode(make_record(at=elsewhere)) == encode(make_record(at=NOW))


@given(st.tuples(TEXTS, TEXTS, TEXTS), st.tuples(TEXTS, TEXTS, TEXTS), st.dictionaries(TEXTS, TEXTS, max_size=3))
def test_records_that_differ_are_encoded_differently(
    one: tuple[str, str, str], other: tuple[str, str, str], facts: dict[str, str]
) -> None:
    """No two ways to cut the same octets into members."""

    def encoded(texts: tuple[str, str, str]) -> bytes:
        chain, actor, event = texts
        return encode(make_record(chain=chain, actor=actor, event=event, facts=facts))

    assert (encoded(one) == encoded(other)) == (one == other)


@given(st.builds(make_record, chain=TEXTS, actor=TEXTS, event=TEXTS, facts=st.dictionaries(TEXTS, TEXTS)))
def test_a_record_is_read_back_from_its_line(record: AuditRecord) -> None:
    """A line is ASCII and ends with the only newline in it, whatever a device put into its names."""
    line = write_line(record)

    assert read_line(line) == record
    assert line.isascii()
    assert line.count(b"\n") == 1


@given(st.dictionaries(TEXTS, TEXTS))
def test_facts_are_read_back(facts: dict[str, str]) -> None:
    """Also those that no terminal should see."""
    assert decode_facts(encode_facts(facts)) == facts


@pytest.mark.parametrize(
    "text", ['{"a": "1"}', '{"b":"1","a":"2"}', '{"a":"1","a":"2"}', "[]", '"', "null", "[" * 100000], ids=range(7)
)
def test_facts_that_were_written_by_others_are_refused(text: str) -> None:
    """Blanks, other orders, doubled keys and other JSON."""
    with pytest.raises(ValueError, match="not the JSON that was written"):
        decode_facts(text)


@pytest.mark.parametrize(
    "fields", [{"sequence": "1"}, {"sequence": True}, {"chain": 1}, {"actor": None}, {"facts": {"a": 1}}]
)
def test_members_of_other_types_are_refused(fields: dict[str, Any]) -> None:
    """JSON and SQLite take anything anywhere."""
    with pytest.raises(TypeError, match="another type"):
        check_types(replace(HUNDRED[0], **fields))
    with pytest.raises(ValueError, match="as it was written"):
        read_line(write_line(replace(HUNDRED[0], **fields)))


def test_a_head_is_read_back_from_the_text_that_people_copy() -> None:
    """A worker's chain may have a slash in its name, and an IPv6 host colons."""
    for chain in ("ra1", "ra1/2", "fe80::1"):
        head = replace(HEAD, chain=chain)
        assert AuditHead.parse(str(head)) == head
        assert read_line(write_line(head)) == head


@pytest.mark.parametrize(
    "text",
    ["", "ra1", "ra1:5", "ra1:5:00", "ra1:x:" + "0" * 64, f":5:{'0' * 64}", f"a:0:{'0' * 64}", f"a:05:{'0' * 64}"],
)
def test_an_anchor_that_was_not_copied_whole_is_refused(text: str) -> None:
    """An anchor that is read as another one would check nothing."""
    with pytest.raises(ValueError, match="is not CHAIN:SEQUENCE:DIGEST"):
        AuditHead.parse(text)


# --- what holds ----------------------------------------------------------------------------------------------------


def test_a_log_that_was_left_alone_holds() -> None:
    """And its end is told, so that it can be kept as an anchor."""
    [report] = verify_export(EXPORT)

    assert report == ChainReport(first=1, head=HEAD)
    assert report.records == 100


def test_chains_of_several_nodes_may_be_interleaved() -> None:
    """Each is followed on its own."""
    first, second = make_chain(5, "ra1"), make_chain(3, "ra2")
    mixed = [record for pair in zip(first, second, strict=False) for record in pair] + first[3:]

    assert [str(report.head.chain) for report in verify_export(make_export(mixed))] == ["ra1", "ra2"]


def test_an_anchor_anywhere_in_the_chain_fits() -> None:
    """Anchors stay good as the log grows."""
    assert verify_export(EXPORT, [head_of(HUNDRED[41]), HEAD])


def test_a_later_export_is_joined_to_the_head_of_the_one_before() -> None:
    """A nightly export need not begin with the first record; anchors of long ago cannot be looked at and do no harm."""
    part = make_export(HUNDRED[50:])
    [report] = verify_export(part, [head_of(HUNDRED[49]), head_of(HUNDRED[10])])

    assert (report.first, report.records, report.head) == (51, 50, HEAD)
    with pytest.raises(BrokenAuditLog, match="begins with record 51"):
        verify_export(part)


def test_an_export_of_a_chain_that_stood_still_has_its_head_alone() -> None:
    """It is the anchor from which the export went on; without that anchor it proves nothing."""
    assert verify_export([write_line(HEAD)], [HEAD]) == []
    with pytest.raises(BrokenAuditLog, match="no record is there"):
        verify_export([write_line(HEAD)])


# --- what is found -------------------------------------------------------------------------------------------------


def test_every_altered_octet_is_found() -> None:
    """Each octet of an export of 100 records, with each of its bits flipped in turn through the file.

    What stands before the altered line is followed once, and then is the anchor from which the rest must go on.
    """
    missed, tried = [], 0
    for number, line in enumerate(EXPORT):
        before = [head_of(HUNDRED[number - 1])] if number else []
        for place in range(len(line)):
            altered = bytearray(line)
            altered[place] ^= 1 << (tried % 8)
            tried += 1
            lines = (bytes(altered) + b"".join(EXPORT[number + 1 :])).split(b"\n")
            try:
                verify_export([each + b"\n" for each in lines[:-1]] + [each for each in lines[-1:] if each], before)
            except BrokenAuditLog:
                continue
            missed.append((number, place))

    assert tried == len(b"".join(EXPORT)) > 20000
    assert missed == []


@pytest.mark.parametrize("place", range(100))
def test_every_deleted_record_is_found(place: int) -> None:
    """The first record that does not follow is named."""
    with pytest.raises(BrokenAuditLog, match=f"at record {place + 1} of chain ra1"):
        verify_export([*EXPORT[:place], *EXPORT[place + 1 :]])


@pytest.mark.parametrize("place", range(99))
def test_every_pair_of_swapped_records_is_found(place: int) -> None:
    """Order is what a chain is about."""
    swapped = [*EXPORT[:place], EXPORT[place + 1], EXPORT[place], *EXPORT[place + 2 :]]
    with pytest.raises(BrokenAuditLog, match=f"at record {place + 1} of chain ra1"):
        verify_export(swapped)


@pytest.mark.parametrize("place", range(100))
def test_every_doubled_record_is_found(place: int) -> None:
    """Beside itself, and at the end."""
    for doubled in (
        [*EXPORT[:place], EXPORT[place], *EXPORT[place:]],
        [*EXPORT[:100], EXPORT[place], *EXPORT[100:]],
    ):
        with pytest.raises(BrokenAuditLog, match="of chain ra1"):
            verify_export(doubled)


@pytest.mark.parametrize("length", range(100))
def test_every_cut_end_is_found_through_the_anchor(length: int) -> None:
    """Whoever cuts the end gives the rest a head that fits; the anchor, which is elsewhere, knows of more."""
    cut = make_export(HUNDRED[:length])
    if length:
        assert verify_export(cut)
    with pytest.raises(BrokenAuditLog, match=rf"at record {length + 1} of chain ra1: .* the end is cut"):
        verify_export(cut, [HEAD])


@pytest.mark.parametrize("length", range(101))
def test_a_cut_file_is_found_without_an_anchor(length: int) -> None:
    """The heads are its last lines; an empty file holds nothing and claims nothing."""
    if length:
        with pytest.raises(BrokenAuditLog, match="does not end with the head"):
            verify_export(EXPORT[:length])
    else:
        assert verify_export([]) == []


def test_a_log_that_was_written_anew_is_found_through_the_anchor() -> None:
    """Whoever can write the log can seal it again from the first altered record on, but not change the anchor."""
    forged: list[AuditRecord] = []
    for record in HUNDRED:
        altered = replace(record, actor="cli:mallory") if record.sequence == 7 else record
        forged.append(replace(altered, digest=digest_of(forged[-1].digest if forged else START, altered)))

    assert verify_export(make_export(forged))
    with pytest.raises(BrokenAuditLog, match="at record 100 of chain ra1: the anchor has another digest"):
        verify_export(make_export(forged), [HEAD])


def test_two_anchors_that_contradict_each_other_fit_no_log() -> None:
    """One of them is of another log."""
    with pytest.raises(BrokenAuditLog, match="another digest"):
        verify_export(EXPORT, [HEAD, replace(HEAD, digest=START)])
    with pytest.raises(BrokenAuditLog, match="begins with record 51"):
        verify_export(make_export(HUNDRED[50:]), [head_of(HUNDRED[49]), replace(head_of(HUNDRED[49]), digest=START)])


def test_a_chain_that_is_gone_is_found_through_its_anchor() -> None:
    """The other chains hold."""
    with pytest.raises(BrokenAuditLog, match="at record 1 of chain ra2"):
        verify_export(EXPORT, [replace(HEAD, chain="ra2")])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: [*lines, write_line(HEAD)], "two heads"),
        (lambda lines: [lines[-1], *lines[:-1]], "behind the heads"),
        (lambda lines: [*lines[:-1], write_line(replace(HEAD, sequence=99))], "does not end with the head"),
        (lambda lines: [*lines, write_line(replace(HEAD, chain="ra2"))], "no record is there"),
        (lambda lines: [*lines[:5], b"[1]\n", *lines[5:]], r"at line 6 of the export: neither"),
        (lambda lines: [*lines[:5], b"\xff\n", *lines[5:]], r"at line 6 of the export: neither"),
        (lambda lines: [*lines[:-1], lines[-1].rstrip()], r"at line 101 of the export: neither"),
    ],
    ids=["second head", "head first", "wrong head", "head of nothing", "other JSON", "no JSON", "no newline"],
)
def test_an_export_of_another_shape_is_refused(change: Callable[[list[bytes]], list[bytes]], message: str) -> None:
    """Records, then the head of each chain, as they were written."""
    with pytest.raises(BrokenAuditLog, match=message):
        verify_export(change(EXPORT))


def test_a_verification_goes_on_from_any_record() -> None:
    """A store is followed page by page, without its heads in between."""
    verification = Verification()
    for record in HUNDRED[:50]:
        verification.follow(record)
    assert verification.heads == [head_of(HUNDRED[49])]
    for record in HUNDRED[50:]:
        verification.follow(record)

    assert verification.finish() == [ChainReport(first=1, head=HEAD)]
