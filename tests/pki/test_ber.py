"""Claims about the scan that every message passes, and about turning BER into DER (X.690 clause 8, SR-07)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scep_ra.pki import ber, der
from scep_ra.pki.certificates import parse_certificate
from scep_ra.pki.errors import MalformedData
from tests.support import vectors

EOC = b"\x00\x00"
STREAMED_SIGNED_DATA = "ber-indefinite-signeddata-openssl-stream.ber"
STREAMED_ENVELOPED_DATA = "ber-indefinite-envelopeddata-openssl-stream.ber"


def indefinite(tag: int, *parts: bytes) -> bytes:
    return bytes((tag, 0x80)) + b"".join(parts) + EOC


def long_form(tag: int, contents: bytes, count: int = 4) -> bytes:
    return bytes((tag, 0x80 | count)) + len(contents).to_bytes(count, "big") + contents


def octets(text: bytes) -> bytes:
    return der.octet_string(text)


def walk(reader: der.Reader) -> Iterator[int]:
    """Yield the tags of all elements in order, entering the constructed ones."""
    while not reader.at_end():
        tag = reader.peek()
        yield tag
        if tag & 0x20:
            yield from walk(reader.enter(tag))
        else:
            reader.contents(tag)


def refuses(pattern: str, message: bytes, limits: ber.Limits = ber.DEFAULT_LIMITS) -> None:
    for function in (ber.scan, ber.normalise):
        with pytest.raises(MalformedData, match=pattern):
            function(message, limits)


# --- what is accepted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", vectors.CAPTURED_REQUESTS)
def test_requests_of_real_clients_are_der_and_come_back_as_the_same_object(name: str) -> None:
    """The captured requests need nothing done, so nothing is copied."""
    message = vectors.message(name)
    assert ber.scan(message) == (len(message), True)
    assert ber.normalise(message) is message


@pytest.mark.parametrize("name", [STREAMED_SIGNED_DATA, STREAMED_ENVELOPED_DATA])
def test_streamed_messages_become_readable_der(name: str) -> None:
    """P-16: what OpenSSL streams in indefinite lengths is walked to the end by the strict reader."""
    message = vectors.read(name)
    assert ber.scan(message) == (len(message), False)
    normal = ber.normalise(message)
    assert ber.scan(normal) == (len(normal), True)
    assert len(list(walk(der.Reader(normal)))) > 20


def test_streamed_signed_data_keeps_certificate_and_content() -> None:
    """The certificate stays byte-identical and eContent is the joined segments: another streamed message."""
    signed = vectors.read(STREAMED_SIGNED_DATA)
    info = der.Reader(ber.normalise(signed)).enter()
    info.oid()
    fields = info.enter(der.context(0)).enter()
    fields.integer()
    fields.element(der.SET)
    encapsulated = fields.enter()
    encapsulated.oid()
    assert encapsulated.enter(der.context(0)).contents(der.OCTET_STRING) == vectors.read(STREAMED_ENVELOPED_DATA)
    certificate = parse_certificate(fields.enter(der.context(0)).element())
    assert certificate.der in signed


def test_streamed_envelope_keeps_context_segments() -> None:
    """The encryptedContent under `a0` is left constructed, with its segments in order, for the envelope parser."""
    info = der.Reader(ber.normalise(vectors.read(STREAMED_ENVELOPED_DATA))).enter()
    info.oid()
    fields = info.enter(der.context(0)).enter()
    fields.integer()
    fields.element(der.SET)
    content = fields.enter()
    content.oid()
    content.element(der.SEQUENCE)
    segments = content.enter(der.context(0))
    assert [len(segments.contents(der.OCTET_STRING)) for _ in range(2)] == [352, 16]
    segments.finish()


@pytest.mark.parametrize(
    ("message", "normal"),
    [
        pytest.param(indefinite(0x30, b"\x02\x01\x05"), der.sequence(b"\x02\x01\x05"), id="indefinite sequence"),
        pytest.param(indefinite(0x30), b"\x30\x00", id="indefinite and empty"),
        pytest.param(indefinite(0xA0, indefinite(0xA3)), b"\xa0\x02\xa3\x00", id="indefinite context tags"),
        pytest.param(b"\x30\x82\x00\x05\x04\x03abc", b"\x30\x05\x04\x03abc", id="P-19 length 82 00 05"),
        pytest.param(b"\x04\x81\x03abc", b"\x04\x03abc", id="length 81 03"),
        pytest.param(long_form(0x04, bytes(200)), octets(bytes(200)), id="length 84 00 00 00 c8"),
        pytest.param(long_form(0x04, bytes(300), 3), octets(bytes(300)), id="length 83 00 01 2c"),
        pytest.param(indefinite(0x24, octets(b"ab"), octets(b"c")), octets(b"abc"), id="P-18 indefinite OCTET STRING"),
        pytest.param(b"\x24\x05" + octets(b"abc"), octets(b"abc"), id="definite OCTET STRING"),
        pytest.param(b"\x24\x00", octets(b""), id="OCTET STRING of no segments"),
        pytest.param(
            indefinite(0x24, indefinite(0x24, octets(b"ab"), indefinite(0x24)), octets(b"c")),
            octets(b"abc"),
            id="segments in segments",
        ),
        pytest.param(
            indefinite(0x23, b"\x03\x02\x00\xaa", b"\x03\x02\x04\xb0"),
            b"\x03\x03\x04\xaa\xb0",
            id="BIT STRING keeps the last count of unused bits",
        ),
        pytest.param(b"\x23\x00", b"\x03\x01\x00", id="BIT STRING of no segments"),
        pytest.param(b"\x2c\x08\x04\x02ab\x04\x02cd", b"\x0c\x04abcd", id="UTF8String of OCTET STRINGs"),
        pytest.param(b"\x33\x08\x13\x02ab\x13\x02cd", b"\x13\x04abcd", id="PrintableString repeating its tag"),
        pytest.param(
            b"\x37\x11\x04\x06260101\x04\x07000000Z", der.element(0x17, b"260101000000Z"), id="UTCTime of segments"
        ),
        pytest.param(b"\xa0\x80\x04\x01a\x04\x01b\x00\x00", b"\xa0\x06\x04\x01a\x04\x01b", id="P-17 context stays"),
        pytest.param(b"\x31\x81\x06\x04\x01b\x04\x01a", b"\x31\x06\x04\x01b\x04\x01a", id="sets keep their order"),
    ],
)
def test_ber_becomes_der(message: bytes, normal: bytes) -> None:
    """Each liberty that BER takes has one DER form."""
    assert ber.scan(message) == (len(message), False)
    assert ber.normalise(message) == normal


def test_segmented_encrypted_content_of_definite_length_is_der_shaped() -> None:
    """P-17: `a0` of three primitive OCTET STRINGs is legal DER by shape and is not touched."""
    message = der.explicit(0, octets(b"a") + octets(b"b") + octets(b"c"))
    assert ber.normalise(message) is message


@pytest.mark.parametrize("trailer", [b"\n", b"\r\n", b"\r\n\r\n"])
def test_trailing_line_ends_are_dropped(trailer: bytes) -> None:
    """N-43: clients that read the message from a text file append line ends."""
    assert ber.scan(der.NULL + trailer) == (2, True)
    assert ber.normalise(der.NULL + trailer) == der.NULL


@pytest.mark.parametrize("trailer", [b"\x00", b" ", b"\r\nx", der.NULL])
def test_other_trailing_octets_are_refused(trailer: bytes) -> None:
    """N-43: whatever else follows the message ends it."""
    with pytest.raises(MalformedData, match=f"{len(trailer)} octets after the end"):
        ber.normalise(der.NULL + trailer)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        pytest.param("cut off", b"", id="nothing"),
        pytest.param("cut off", b"\x30", id="identifier only"),
        pytest.param("longer than", b"\x04\x02a", id="contents cut off"),
        pytest.param("longer than", b"\x30\x82\x01", id="length cut off"),
        pytest.param("cut off", b"\x30\x01\x04", id="child cut off by its parent"),
        pytest.param("longer than", b"\x30\x03\x04\x02ab", id="child longer than its parent"),
        pytest.param("longer than", b"\x30\x84\xff\xff\xff\xff", id="N-46 length of 4 GiB"),
        pytest.param("a length of 5 octets", b"\x04\x85\x00\x00\x00\x00\x01a", id="length of five octets"),
        pytest.param("a length of 127 octets", b"\x04\xff" + bytes(127), id="reserved length octet"),
        pytest.param("not allowed", b"\x1f\x81\x00\x00", id="tag number of several octets"),
        pytest.param("not allowed", b"\xbf\x1f" + bytes(31), id="context tag of several octets"),
        pytest.param("not allowed", EOC, id="end-of-contents alone"),
        pytest.param("not allowed", b"\x30\x02\x00\x00", id="end-of-contents under a definite length"),
        pytest.param("not allowed", b"\x30\x80\x00\x01\x00", id="end-of-contents with contents"),
        pytest.param("not allowed", b"\x20\x00", id="constructed end-of-contents"),
        pytest.param("not allowed", b"\x22\x03\x02\x01\x05", id="constructed INTEGER"),
        pytest.param("not allowed", b"\x10\x00", id="primitive SEQUENCE"),
        pytest.param("not allowed", b"\x11\x00", id="primitive SET"),
        pytest.param("primitive element of indefinite", b"\x04\x80a\x00\x00", id="primitive of indefinite length"),
        pytest.param("primitive element of indefinite", b"\x80\x80a\x00\x00", id="primitive context tag, indefinite"),
        pytest.param("end-of-contents is missing", b"\x30\x80\x05\x00", id="N-47 never ended"),
        pytest.param("end-of-contents is missing", b"\x30\x80\x05\x00\x00", id="N-47 ended by half"),
        pytest.param("end-of-contents is missing", b"\x30\x06\x30\x80\x05\x00\x05\x00" + EOC, id="ended outside"),
    ],
)
def test_impossible_encodings_are_refused(pattern: str, message: bytes) -> None:
    """What no encoder may write is MalformedData, with the place and the reason."""
    refuses(pattern, message)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"\x24\x03\x02\x01\x05", id="INTEGER in an OCTET STRING"),
        pytest.param(b"\x24\x04\x30\x02\x05\x00", id="SEQUENCE in an OCTET STRING"),
        pytest.param(b"\x24\x03\x0c\x01a", id="UTF8String in an OCTET STRING"),
        pytest.param(b"\x23\x03\x04\x01a", id="OCTET STRING in a BIT STRING"),
        pytest.param(b"\x23\x08\x03\x02\x04\xa0\x03\x02\x00\xb0", id="unused bits in the middle"),
        pytest.param(b"\x23\x02\x03\x00", id="BIT STRING segment without its count"),
        pytest.param(b"\x23\x06\x03\x00\x03\x02\x00\xb0", id="first BIT STRING segment without its count"),
    ],
)
def test_strings_of_foreign_segments_are_refused(message: bytes) -> None:
    """A string is joined from segments of its own kind only."""
    assert ber.scan(message) == (len(message), False)
    with pytest.raises(MalformedData):
        ber.normalise(message)


def nested(levels: int, innermost: bytes = der.NULL) -> bytes:
    for _ in range(levels):
        innermost = der.sequence(innermost)
    return innermost


@pytest.mark.parametrize(
    ("largest", "too_much", "pattern"),
    [
        pytest.param(nested(16), nested(17), "deeper than 16", id="depth"),
        pytest.param(der.sequence(der.NULL * 4095), der.sequence(der.NULL * 4096), "more than 4096", id="elements"),
        pytest.param(der.element(6, b"\x81" * 64), der.element(6, b"\x81" * 65), "IDENTIFIER of more", id="OID"),
        pytest.param(der.element(2, bytes(1032)), der.element(2, bytes(1033)), "INTEGER of more", id="INTEGER"),
        pytest.param(octets(bytes(65532)), octets(bytes(65533)), "65537 octets", id="octets"),
        pytest.param(b"\x30\x80" * 16 + EOC * 16, b"\x30\x80" * 17 + EOC * 17, "deeper than 16", id="indefinite depth"),
    ],
)
def test_each_limit_holds_to_the_unit(largest: bytes, too_much: bytes, pattern: str) -> None:
    """SR-07: the largest allowed passes and one more does not."""
    if largest[0] != der.OCTET_STRING:
        assert ber.scan(largest)[0] == len(largest)
    else:  # its header takes four octets: 65532 of contents make 65536 in all
        assert ber.scan(largest) == (65536, True)
    refuses(pattern, too_much)


def test_limits_are_the_callers() -> None:
    """A caller that sets a limit gets that one."""
    assert ber.scan(nested(17), ber.Limits(max_depth=17)) == (len(nested(17)), True)
    refuses("more than 1 elements", nested(1), ber.Limits(max_elements=1))


@pytest.mark.parametrize("max_depth", [0, 65, 100_000])
def test_depth_limits_that_python_could_not_follow_are_refused(max_depth: int) -> None:
    """Misuse of the limits is a ValueError at construction, not a RecursionError under attack."""
    with pytest.raises(ValueError, match="set 1 to 64"):
        ber.Limits(max_depth=max_depth)


def test_the_deepest_settable_limit_is_rebuilt() -> None:
    """Rebuilding recurses once a level; the deepest message that can be allowed stays within Python's stack."""
    limits = ber.Limits(max_depth=64)
    assert ber.normalise(b"\x30\x80" * 64 + EOC * 64, limits) == nested(64, b"")


# --- hostile and random input ----------------------------------------------------------------------------------------


def filled(unit: bytes) -> bytes:
    return der.sequence(unit * (65500 // len(unit)))


HOSTILE = {
    "empty sequences": filled(b"\x30\x00"),
    "empty sequences of indefinite length": filled(b"\x30\x80\x00\x00"),
    "empty strings": filled(b"\x04\x00"),
    "long lengths": der.sequence(b"\x30\x84\x00\x00\x00\x0a\x04\x84\x00\x00\x00\x04abcd" * 2047),
    "open for ever": b"\x30\x80" * 32768,
    "nested definite": b"".join(b"\x30\x84" + (65536 - 6 * level).to_bytes(4, "big") for level in range(1, 10922)),
    "segments at the deepest": b"\x24\x80" * 16 + (b"\x04\x0c" + bytes(12)) * 4080 + EOC * 16,
    "one string": octets(bytes(65532)),
    "a huge arc": der.element(6, b"\x81" * 65532),
    "a huge integer": der.element(2, b"\x7f" * 65532),
    "a huge tag": b"\x1f" + b"\x81" * 65535,
    "end-of-contents only": EOC * 32768,
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("function", [ber.scan, ber.normalise])
def test_hostile_64_kib_cost_milliseconds(name: str, function: Callable[[bytes], object]) -> None:
    """SR-07 asks 5 ms of the scan; ten times that, best of five, tells linear from quadratic on a busy machine."""
    message = HOSTILE[name]
    assert len(message) <= 65536

    def cost() -> float:
        started = time.perf_counter()
        with suppress(MalformedData):
            function(message)
        return time.perf_counter() - started

    assert min(cost() for _ in range(5)) < 0.05


def only_malformed(message: bytes) -> None:
    """Accept or refuse, alike in both functions, and never with another exception; what is accepted is DER-shaped."""
    try:
        length, is_der = ber.scan(message)
    except MalformedData:
        with pytest.raises(MalformedData):
            ber.normalise(message)
        return
    assert 0 < length <= len(message)
    try:
        normal = ber.normalise(message)
    except MalformedData:
        return
    assert ber.normalise(normal) is normal
    if is_der:
        assert normal == message[:length]
    list(walk(der.Reader(normal)))


@given(st.binary(max_size=300))
@example(b"\x30\x80\x30\x80\x00\x00\x00")
def test_only_malformed_data_leaves_on_arbitrary_octets(message: bytes) -> None:
    """Arbitrary octets are refused in one way, or come out in a shape that the reader walks."""
    only_malformed(message)


# Octets that mean something to a decoder, so that random input gets past the first header.
MEANINGFUL = st.sampled_from(bytes.fromhex("00018081828485 ff02030406 0c13 1f2324 3031 a0a3"))


@given(st.lists(MEANINGFUL, max_size=60).map(bytes))
def test_only_malformed_data_leaves_on_octets_that_look_like_ber(message: bytes) -> None:
    """The same for octets drawn from the tags and lengths that decide something."""
    only_malformed(message)


@given(st.data())
def test_only_malformed_data_leaves_on_mutated_messages(data: st.DataObject) -> None:
    """N-44, N-45: real messages cut off, or with octets changed, end in MalformedData or in DER."""
    name = data.draw(st.sampled_from([*vectors.CAPTURED_REQUESTS, STREAMED_SIGNED_DATA, STREAMED_ENVELOPED_DATA]))
    message = bytearray(vectors.message(name) if name.endswith(".http") else vectors.read(name))
    for _ in range(data.draw(st.integers(0, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    only_malformed(bytes(message[: data.draw(st.integers(0, len(message)))]))


# --- any BER of a DER tree -------------------------------------------------------------------------------------------

Tree = tuple[int, "bytes | list[Tree]"]
SEGMENTABLE = (der.OCTET_STRING, der.BIT_STRING, der.UTF8_STRING, der.IA5_STRING, der.BMP_STRING)


def leaves() -> st.SearchStrategy[Tree]:
    plain = st.tuples(st.sampled_from((der.INTEGER, der.OBJECT_IDENTIFIER, 0x80, 0x82)), st.binary(max_size=40))
    bits = st.tuples(st.just(der.BIT_STRING), st.binary(max_size=300).map(lambda octets: b"\x00" + octets))
    strings = st.tuples(st.sampled_from(SEGMENTABLE).filter(lambda tag: tag != der.BIT_STRING), st.binary(max_size=300))
    return st.one_of(plain, bits, strings)


TREES: st.SearchStrategy[Tree] = st.recursive(
    leaves(),
    lambda children: st.tuples(st.sampled_from((der.SEQUENCE, der.SET, 0xA0, 0xA1)), st.lists(children, max_size=4)),
    max_leaves=20,
)


def encode_der(tree: Tree) -> bytes:
    tag, contents = tree
    return der.element(tag, contents if isinstance(contents, bytes) else b"".join(map(encode_der, contents)))


def wrap_freely(draw: st.DrawFn, tag: int, contents: bytes) -> bytes:
    if tag & 0x20 and draw(st.booleans()):
        return indefinite(tag, contents)
    shortest = len(der.element(tag, contents)) - len(contents) - 2
    count = draw(st.integers(shortest, 4))
    return long_form(tag, contents, count) if count else der.element(tag, contents)


def segment_freely(draw: st.DrawFn, tag: int, contents: bytes) -> bytes:
    lead, contents = (contents[:1], contents[1:]) if tag == der.BIT_STRING else (b"", contents)
    cut = draw(st.integers(0, len(contents)))
    segment_tag = tag if lead else der.OCTET_STRING
    parts = [wrap_freely(draw, segment_tag, lead + part) for part in (contents[:cut], contents[cut:])]
    if draw(st.booleans()):
        parts[0] = wrap_freely(draw, segment_tag | 0x20, parts[0])
    return wrap_freely(draw, tag | 0x20, b"".join(parts))


def encode_freely(draw: st.DrawFn, tree: Tree) -> bytes:
    tag, contents = tree
    if not isinstance(contents, bytes):
        return wrap_freely(draw, tag, b"".join(encode_freely(draw, child) for child in contents))
    if tag in SEGMENTABLE and draw(st.booleans()):
        return segment_freely(draw, tag, contents)
    return wrap_freely(draw, tag, contents)


@st.composite
def der_and_ber(draw: st.DrawFn) -> tuple[bytes, bytes]:
    tree = draw(TREES)
    return encode_der(tree), encode_freely(draw, tree)


@given(der_and_ber())
def test_every_ber_of_a_tree_normalises_to_its_der(encodings: tuple[bytes, bytes]) -> None:
    """Indefinite lengths, padded lengths and cut strings, in any mixture, lead back to the one DER encoding."""
    expected, free = encodings
    limits = ber.Limits(max_depth=64)
    assert ber.normalise(expected, limits) is expected
    assert ber.normalise(free, limits) == expected
    assert ber.scan(free, limits) == (len(free), free == expected)
