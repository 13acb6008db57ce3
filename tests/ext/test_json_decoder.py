"""JsonDecoder against tables of cases; msgspec says what is right (see test_json_decoder_oracle.py for random ones)."""

from __future__ import annotations

import ctypes
import mmap
import struct
from datetime import datetime
from typing import Annotated, Any

import msgspec
import numpy as np
import pytest
from msgspec import Meta

from pythia_fast._ext.decoder_probe import DECODED, FULL, REFUSED, DecoderProbe
from pythia_fast._ext.json_decoder import ENVIRONMENT, JsonDecoder, available_simd
from pythia_fast._ext.plan import Layout, Plan
from pythia_fast.errors import ConfigError
from pythia_fast.refusal import Reason

from .column_reader import decode_oracle, expected, rows, same

SIMD = available_simd()


def probe_of(schema: Any, simd: str | None = None, capacity: int = 16, raw_bytes: int = 1 << 16) -> DecoderProbe:
    plan = Plan(schema)
    return DecoderProbe(Layout(plan, capacity, raw_bytes), JsonDecoder(plan, simd))


def one_field(annotation: Any, **options: Any) -> Any:
    return msgspec.defstruct("One", [("a", annotation)], **options)


@pytest.fixture(params=SIMD)
def simd(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def check(schema: Any, payload: bytes, simd: str) -> None:
    """The decoder and msgspec take the payload with the same value, or both refuse it, whatever the spacing."""
    probe = probe_of(schema, simd)
    assert isinstance(probe.decoder, JsonDecoder)
    assert probe.decoder.simd == simd
    accepted, wanted = decode_oracle(payload, probe.layout.plan.schema)
    outcome, reason, _, _, at = probe.decode(payload)
    if accepted:
        assert outcome == DECODED, (payload, Reason(reason).name, at)
        assert same(rows(probe), [wanted]), payload
    else:
        assert outcome == REFUSED, (payload, rows(probe), wanted)
        assert reason != 0
        assert 0 <= at <= len(payload)


def words(text: str) -> list[str]:
    return text.split()


INTEGERS = words("""
    0 -0 1 -1 7 10 12 99 127 128 -128 -129 255 256 32767 32768 -32768 -32769 65535 65536 2147483647 2147483648
    -2147483648 -2147483649 4294967295 4294967296 1234567 12345678 123456789 1234567890123456 12345678901234567
    123456789012345678 9223372036854775807 -9223372036854775808 00 01 -01 -00 - -- -a +1 1. .5 1.0 1e3 1E3 1e+2 1e-0
    10e-1 0.0 -0.0 0e5 1.5 1e400 9007199254740993.0 1e 1e+ 0x10 1_000 1a 12345678a 123456789012345678.
    1234567890123456e2 true null "1" [] {} NaN Infinity
""")

OUT_OF_RANGE = words("""
    9223372036854775808 -9223372036854775809 18446744073709551615 18446744073709551616 99999999999999999999
    123456789012345678901234567890 -123456789012345678901234567890
""")

FLOATS = words("""
    0 -0 0.0 -0.0 -0e0 0.00 1 -1 1.5 -1.5 100 1e5 1E5 1e+5 1e-5 1.25e10 123456789 1234567890.5 12345678.87654321 0.1
    0.2 0.3 0.30000000000000004 3.141592653589793 2.718281828459045 5e-324 2.4703282292062327e-324
    2.4703282292062328e-324 2.2250738585072014e-308 2.2250738585072011e-308 1.7976931348623157e308
    1.7976931348623159e308 2e308 -2e308 1e400 1e-400 1e99999999999999999999 0e99999999999999999999 0.0e400
    1e-99999999999999999999 9007199254740991 9007199254740992 9007199254740993 9007199254740993.0 9007199254740992.5
    9007199254740993.00000000000000000001 9223372036854775807 9223372036854775808 18446744073709551615
    18446744073709551616 123456789012345678901234567890 -9223372036854775809 0.000001 0.0000001 12345.678901234567
    1234567890123456.7 12345678901234567.8 1e22 1e23 -1e23 8.5e-1 4.35 0.1e1 7.2057594037927933e16
    1.00000000000000011102230246251565 1.00000000000000011102230246251566 1.00000000000000033306690738754695 1. .5
    01.5 00.5 -.5 - 1.e5 1.5e 1.5e+ 1.5ee5 1.5.5 1e5.5 nan NaN Infinity -Infinity true null "1.5" [] {} 1.5a 0x1p3 1,5
""")


@pytest.mark.parametrize("text", INTEGERS)
def test_integers(text: str, simd: str) -> None:
    check(one_field(int), b'{"a":%s}' % text.encode(), simd)
    check(one_field(int), b' { "a" : %s } ' % text.encode(), simd)
    check(one_field(int | None), b'{"a":%s,"b":%s}' % (text.encode(), text.encode()), simd)


@pytest.mark.parametrize("text", INTEGERS + OUT_OF_RANGE)
@pytest.mark.parametrize("name", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_narrow_integers_are_range_checked(name: str, text: str, simd: str) -> None:
    info = np.iinfo(name)
    schema = one_field(Annotated[int, getattr(np, name)])
    payload = b'{"a":%s}' % text.encode()
    try:
        value = msgspec.json.decode(payload, type=schema).a
    except msgspec.MsgspecError:
        check(schema, payload, simd)
        return
    probe = probe_of(schema, simd)
    outcome, reason, _, column, at = probe.decode(payload)
    if info.min <= value <= info.max:
        assert outcome == DECODED
        assert same(rows(probe), [{"a": value}])
    else:
        assert (outcome, Reason(reason), column, at) == (REFUSED, Reason.RANGE, 0, 5)


@pytest.mark.parametrize("text", FLOATS)
def test_floats(text: str, simd: str) -> None:
    check(one_field(float), b'{"a":%s}' % text.encode(), simd)
    check(one_field(float), b'{"a": %s ,"b":"a long tail, so that whole words can be read"}' % text.encode(), simd)
    check(one_field(float | None), b'{"a":%s}' % text.encode(), simd)


@pytest.mark.parametrize(
    "text",
    [
        "1" + "0" * 400,
        "0." + "0" * 400 + "1",
        "1." + "1" * 500,
        "0" * 0 + "9" * 308 + "." + "9" * 308,
        "1" + "0" * 300 + "e-300",
        "0." + "0" * 300 + "1e300",
        # 2**-1075, half of the smallest double, to its last digit; then a hair above and below
        "0." + format(5**1075, "01075d"),
        "0." + format(5**1075, "01075d") + "1",
        "0." + format(5**1075 - 1, "01075d"),
        "0." + format(5**1075, "01075d") + "0" * 1000 + "1",
        format(2**53 + 1, "d") + "." + "0" * 900 + "1",
        format(2**53 + 1, "d") + "." + "0" * 900,
    ],
)
def test_long_floats_are_correctly_rounded(text: str, simd: str) -> None:
    check(one_field(float), b'{"a":%s}' % text.encode(), simd)
    check(one_field(float), b'{"a":-%s}' % text.encode(), simd)


def test_floats_are_those_of_python_bit_for_bit(simd: str) -> None:
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 0x7FF0 << 48, 3000, dtype=np.uint64)
    values = bits.view(np.float64)
    texts = [repr(float(v)) for v in values]
    texts += [f"{v:.25e}" for v in values[:500]]
    texts += [f"{a}.{b}" for a, b in rng.integers(0, 10**12, (1500, 2))]
    texts += [f"{a}e{b}" for a, b in zip(rng.integers(0, 2**63, 1500), rng.integers(-345, 300, 1500), strict=True)]
    probe = probe_of(one_field(float), simd, len(texts), 1 << 20)
    for text in texts:
        if text.startswith("inf") or float(text) == float("inf"):
            continue
        before = probe.rows
        assert probe.decode(b'{"a":%s}' % text.encode())[0] == DECODED, text
        assert probe.rows == before + 1
    wanted = [float(t) for t in texts if float(t) != float("inf")]
    decoded = [row["a"] for row in rows(probe)]
    assert [struct.pack("<d", v) for v in decoded] == [struct.pack("<d", v) for v in wanted]


def test_float32_column_rounds_and_refuses_what_is_beyond_it(simd: str) -> None:
    schema = one_field(Annotated[float, np.float32])
    check(schema, b'{"a":0.1}', simd)
    check(schema, b'{"a":3.4028234e38}', simd)
    probe = probe_of(schema, simd)
    outcome, reason, *_ = probe.decode(b'{"a":1e39}')
    assert (outcome, Reason(reason)) == (REFUSED, Reason.RANGE)


STRINGS = [
    b'""', b'"a"', b'"abcdefg"', b'"abcdefgh"', b'"' + b"x" * 31 + b'"', b'"' + b"x" * 32 + b'"',
    b'"' + b"x" * 33 + b'"', b'"' + b"y" * 63 + b'"', b'"' + b"y" * 64 + b'"', b'"' + b"z" * 1000 + b'"', b'"\xc3\xa9"',
    b'"\xe2\x82\xac"', b'"\xf0\x9f\x98\x80"', b'"' + "é€😀".encode() * 20 + b'"',
    b'"' + b"x" * 31 + "é".encode() + b'"',
    b'"\x7f"', b'"\\u00e9"', b'"\\u00E9"', b'"\\u20ac"', b'"\\ud83d\\ude00"', b'"\\uD83D\\uDE00"', b'"\\u0000"',
    b'"a\\u0000b"', b'"\\b\\f\\n\\r\\t\\"\\\\\\/"', b'"' + b"\\n" * 40 + b'"', b'"' + b"x" * 30 + b'\\n"', b'"\\uFFFF"',
    b'"\\ud7ff\\ue000"', b'"\\udbff\\udfff"',
    # refused
    b'"', b'"a', b'"' + b"x" * 40, b'"\\', b'"\\"', b'"\\u', b'"\\u1', b'"\\u12"', b'"\\u123"', b'"\\uZZZZ"',
    b'"\\u00g0"', b'"\\x"', b'"\\U0041"', b'"\\ud83d"', b'"\\ud83dx"', b'"\\ud83d\\"', b'"\\ud83d\\n"', b'"\\ud83d\\u"',
    b'"\\ud83d\\u0041"', b'"\\ude00"', b'"\\ud83d\\ud83d\\ude00"', b'"\\ude00\\ud83d"', b'"\\ud83dx234567"', b'"\x00"',
    b'"\x01"', b'"\x1f"', b'"\t"', b'"\n"', b'"' + b"x" * 35 + b'\x05"', b'"\xff"', b'"\xc0\x80"', b'"\xc1\xbf"',
    b'"\xc3"', b'"\xc3("', b'"\x80"', b'"\xbf"', b'"\xe0\x80\x80"', b'"\xe0\x9f\xbf"', b'"\xe2\x82"', b'"\xe2("',
    b'"\xed\xa0\x80"', b'"\xed\xbf\xbf"', b'"\xf0\x80\x80\x80"', b'"\xf0\x8f\xbf\xbf"', b'"\xf4\x90\x80\x80"',
    b'"\xf5\x80\x80\x80"', b'"\xf0\x9f\x98"', b'"\xf0\x9f\x98', b'"\xf8\x88\x80\x80\x80"', b"'a'", b"1", b"true",
    b"null", b"[]", b"{}",
]  # fmt: skip


@pytest.mark.parametrize("text", STRINGS)
def test_strings(text: bytes, simd: str) -> None:
    check(one_field(str), b'{"a":%s}' % text, simd)
    check(one_field(str), b'{"a":%s,"tail":"so that a whole block can be read from here on"}' % text, simd)
    check(one_field(str | None), b'{"b":0,"a":%s}' % text, simd)
    check(one_field(list[str]), b'{"a":["first",%s]}' % text, simd)


@pytest.mark.parametrize("tail", ["#", "]", "\x21", "\x1f", "!#!#", "\x7f", "#" * 7])
def test_text_right_behind_a_quote_or_backslash_near_the_end(tail: str, simd: str) -> None:
    """Characters one above those that end a run, where a whole block of the payload is not left."""
    for payload in ('{"i":"%s', '{"i":"%s"}', '{"a":"%s"}', '{"a":"\\\\%s"}', '{"a":"\\"%s"}', '{"a":"b","i":"%s"}'):
        check(one_field(str, forbid_unknown_fields=False), (payload % tail).encode(), simd)


@pytest.mark.parametrize("text", STRINGS)
def test_skipped_strings_are_held_to_the_same_rules(text: bytes, simd: str) -> None:
    """As values and as keys; msgspec does not look at the UTF-8 of either, so the rule is the one of a str field."""
    for payload in (b'{"z":%s,"a":"x"}' % text, b'{"z":[[%s]],"a":"x"}' % text, b'{%s:1,"a":"x"}' % text):
        as_str, _ = decode_oracle(b'{"a":%s}' % text, Plan(one_field(str)).schema)
        as_json, _ = decode_oracle(payload, Plan(one_field(str)).schema)
        try:
            payload.decode()
        except UnicodeDecodeError:
            as_json = as_str
        probe = probe_of(one_field(str), simd)
        assert probe.decode(payload)[0] == (DECODED if as_json else REFUSED), payload


@pytest.mark.parametrize(
    "text",
    [
        "true",
        "false",
        "tru",
        "truE",
        "True",
        "t",
        "f",
        "fals",
        "falsy",
        "falseX",
        "trueX",
        "1",
        "0",
        '"true"',
        "null",
        "[]",
    ],
)
def test_bools(text: str, simd: str) -> None:
    check(one_field(bool), b'{"a":%s}' % text.encode(), simd)
    check(one_field(bool), b'{"a":%s,"tail":1}' % text.encode(), simd)
    check(one_field(bool | None), b'{"a":%s}' % text.encode(), simd)


BASE64 = [
    "", "YQ==", "YQ", "YQ=", "YWI=", "YWJj", "YR==", "YW-_", "YW+/", "Y Q==", "YQ==YQ==", "Y\\u0051==", "=", "====",
    "YWJjZA==", "YWJj=", "YQ\\n==", "Y", "YWJjZ", "é", "YQ==\\n", "Y===", "YWJ==", "\\/\\/\\/\\/", "YWJj" * 50,
    "YWJj" * 50 + "YQ==", "AAAA", "YW=j", "Y=Jj", "=WJj", "\\u0059Q==", "YQ\\u003d\\u003d", "\\ud83d\\ude00",
]  # fmt: skip


@pytest.mark.parametrize("text", BASE64)
def test_base64(text: str, simd: str) -> None:
    check(one_field(bytes), b'{"a":"%s"}' % text.encode(), simd)
    check(one_field(bytes | None), b'{"a":"%s","b":1}' % text.encode(), simd)


DATETIMES = [
    "2020-01-02T03:04:05Z", "2020-01-02T03:04:05", "2020-01-02 03:04:05Z", "2020-01-02t03:04:05z",
    "2020-01-02T03:04:05.1Z", "2020-01-02T03:04:05.123456Z", "2020-01-02T03:04:05.1234565Z",
    "2020-01-02T03:04:05.1234564999Z", "2020-01-02T03:04:05.9999995Z", "2020-12-31T23:59:59.9999995Z",
    "9999-12-31T23:59:59.9999995Z", "9999-12-31T23:59:59.9999995+01:00", "2020-01-02T03:04:05.Z",
    "2020-01-02T03:04:05+01:00", "2020-01-02T03:04:05+0100", "2020-01-02T03:04:05+01", "2020-01-02T03:04:05-23:59",
    "2020-01-02T03:04:05+24:00", "2020-01-02T03:04:05+23:60", "2020-01-02T03:04:05-00:00", "2020-01-02T03:04:60Z",
    "2016-12-31T23:59:60Z", "2020-01-02T24:00:00Z", "2020-02-30T00:00:00Z", "2019-02-29T00:00:00Z",
    "2020-02-29T00:00:00Z", "1900-02-29T00:00:00Z", "2000-02-29T00:00:00Z", "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2020-13-01T00:00:00Z", "2020-1-01T00:00:00Z", "2020-01-02T03:04Z",
    "2020-01-02", "2020-01-02T03:04:05,5Z", "2020-01-02T03:60:05Z", " 2020-01-02T03:04:05Z", "2020-01-02T03:04:05 Z",
    "2020-01-02T03:04:05Zx", "2020-01-02T03:04:05.5+05:30", "2020-01-02T03:04:05.5-05:30", "2020-01-02_03:04:05Z",
    "2020-01-02T03:04:05." + "1" * 300 + "Z", "\\u0032020-01-02T03:04:05Z",
    "\\u0032020-01-02T03:04:05." + "1234565" + "9" * 300 + "Z", "\\u0032020-01-02T03:04:05.1234565\\u0039\\u005a",
    "\\u0032020-01-02T03:04:05.12345678+01:00", "\\u0032020-01-02T03:04:05+01:0000000000000",
    "\\u00e9020-01-02T03:04:05Z", "\\u0032020-01-02T03:04:05.123456789 Z", "", "x" * 100, "\\u0032" * 100,
]  # fmt: skip


@pytest.mark.parametrize("text", DATETIMES)
def test_datetimes(text: str, simd: str) -> None:
    for annotation in (
        datetime,
        datetime | None,
        Annotated[datetime, Meta(tz=True)],
        Annotated[datetime, Meta(tz=False)],
    ):
        check(one_field(annotation), b'{"a":"%s"}' % text.encode(), simd)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_datetime_that_no_utc_datetime_can_hold_is_refused(text: str, simd: str) -> None:
    outcome, reason, *_ = probe_of(one_field(datetime), simd).decode(b'{"a":"%s"}' % text.encode())
    assert (outcome, Reason(reason)) == (REFUSED, Reason.DATETIME)


class Plain(msgspec.Struct):
    a: int = 5
    text: str = "absent"
    ratio: float = 0.5


STRUCTURE = [
    b"{}", b" {} ", b"\t\r\n{ }\n", b'{"a":1}', b'{ "a" : 1 }', b'{"a": 1, "text": "x"}',
    b'{\n  "a": 1,\n  "ratio": 2\n}\n', b'{"text":"x","a":1,"ratio":1}', b'{"a":1,"a":2}',
    b'{"text":"long text","text":"x"}', b'{"\\u0061":7}', b'{"t\\u0065xt":"e"}', b'{"z":1,"a":2}',
    b'{"z":[1,2,{"b":[]}],"a":2}', b'{"z":{},"y":[],"x":[[[]]],"a":1}', b'{"z":1e999}', b'{"":3}', b'{"a\\u0000":3}',
    b'{"aa":1}', b'{"A":1}', b'{"a ":1}', b'{"z":-1.5e-7,"y":true,"x":null,"w":false}', b'{"ratio":3}',
    b'{"' + b"k" * 100 + b'":1,"a":9}',
    # refused
    b"", b" ", b"null", b"[]", b"1", b'"a"', b"true", b"{}x", b"{} {}", b"{},", b"\xef\xbb\xbf{}", b"\xc2\xa0{}",
    b"{\x0b}", b"{", b"}", b'{"a":1,}', b"{,}", b'{"a":1,,"ratio":1}', b'{"a":1 "b":2}', b'{"a"}', b'{"a":}', b"{a:1}",
    b"{'a':1}", b'{"a":1', b'{"a":1,', b'{"a":1, ', b'{"a', b'{"a"', b'{"a":', b'{"a": ', b'{"a":1}\x00', b'{"a"::1}',
    b'{"a" 1}', b'{"a":1]', b'{"a":1}}', b'{"a":1;}', b'{"a":1,"a":"x"}', b'{"a":"x","a":1}', b'{"z":nan}', b'{"z":01}',
    b'{"z":-}', b'{"z":1.}', b'{"z":.5}', b'{"z":1e}', b'{"z":+1}', b'{"z":[1,]}', b'{"z":[,1]}', b'{"z":[1 2]}',
    b'{"z":[1}', b'{"z":{"a":1,}}', b'{"z":{"a":1]}', b'{"z":{"a"}}', b'{"z":{1:2}}', b'{"z":tru}', b'{"z":nul}',
    b'{"z":fals', b'{"z":[', b'{"z":{', b'{"z":{"b"', b'{"z":{"b":', b'{"z":{"b":1', b'{"z":{"b":1,', b'{"z":[1,',
    b'{"z":[1', b'{"z":1,"a":1.0}', b'{"a":\xff}', b'{\xff}', b'{"a":1}\xff', b"\x01" * 64, b"{" + b"\x01" * 64,
    b'{"a":1,' + b"\x01" * 64, b"/**/{}", b'{"a":1/**/}', b'{"a":[1]}', b'{"a":{}}', b'{"text":1}', b'{"ratio":"x"}',
]  # fmt: skip


@pytest.mark.parametrize("payload", STRUCTURE)
def test_structure(payload: bytes, simd: str) -> None:
    check(Plain, payload, simd)


@pytest.mark.parametrize("payload", STRUCTURE)
def test_structure_after_the_order_of_keys_was_learned(payload: bytes, simd: str) -> None:
    """Whatever came before, the answer is the same."""
    seen_before = [b'{"z":1,"text":"t","y":[{}],"a":1}', b'{"ratio":1,"a":1,"text":""}', b'{"text":"q","z":"z"}']
    accepted, wanted = decode_oracle(payload, Plan(Plain).schema)
    probe = probe_of(Plain, simd)
    for earlier in seen_before:
        assert probe.decode(earlier)[0] == DECODED
        before = probe.rows
        outcome, *_ = probe.decode(payload)
        assert outcome == (DECODED if accepted else REFUSED)
        if accepted:
            assert same(rows(probe)[before], wanted)
        else:
            assert probe.rows == before


class Inner(msgspec.Struct):
    x: int
    y: str | None = None


class Leaf(msgspec.Struct, forbid_unknown_fields=True):
    ok: bool = True
    n: float = 1.5


class Outer(msgspec.Struct, rename="camel"):
    inner_one: Inner
    maybe: Inner | None = None
    items: list[Inner] = []
    grid: list[list[float]] = []
    maybe_list: list[int | None] | None = None
    leaf: Leaf = msgspec.field(default_factory=Leaf)
    raw: msgspec.Raw = msgspec.Raw(b"7")
    data: bytes = b"def"
    when: datetime | None = None


NESTED = [
    b'{"innerOne":{"x":1}}',
    b'{"innerOne":{"x":1,"y":"z"},"maybe":{"x":2},"items":[{"x":1},{"x":2,"y":"q"}],"grid":[[1,2.5],[],[3]]}',
    b'{"innerOne":{"x":1,"y":"z"},"innerOne":{"x":3}}',
    b'{"innerOne":{"y":null,"x":1},"maybe":null,"maybeList":[1,null,3],"leaf":{"n":2},"raw":{"a": [1]},"data":"YWJj"}',
    b'{"innerOne":{"x":1},"items":[{"x":1},{"x":2}],"items":[]}',
    b'{"innerOne":{"x":1},"items":[],"items":[{"x":1,"y":"a"},{"x":2,"y":"bb"}]}',
    b'{"innerOne":{"x":1},"maybe":{"x":1,"y":"long"},"maybe":null}',
    b'{"innerOne":{"x":1},"maybe":null,"maybe":{"x":4}}', b'{"innerOne":{"x":1},"maybeList":[1,2],"maybeList":null}',
    b'{"innerOne":{"x":1},"grid":[[1],[2,3]],"grid":[[],[9]]}',
    b'{"innerOne":{"x":1},"raw":null,"when":"2020-01-02T03:04:05Z"}', b'{"innerOne":{"x":1},"raw":" spaced \\u00e9 "}',
    b'{"innerOne":{"x":1}, "items" : [ { "x" : 1 } , { "x" : 2 } ] , "grid" : [ [ ] , [ 1 , 2 ] ] }',
    b'{"innerOne":{"x":1,"unknown":{"x":5}}}',
    # refused
    b"{}", b'{"inner_one":{"x":1}}', b'{"innerOne":{}}', b'{"innerOne":null}', b'{"innerOne":[]}', b'{"innerOne":1}',
    b'{"innerOne":{"x":null}}', b'{"innerOne":{"x":1},"maybe":{"x":null}}', b'{"innerOne":{"x":1},"maybe":{}}',
    b'{"innerOne":{"x":1},"items":null}', b'{"innerOne":{"x":1},"items":[1]}', b'{"innerOne":{"x":1},"items":[{}]}',
    b'{"innerOne":{"x":1},"items":[{"x":1},]}', b'{"innerOne":{"x":1},"items":[{"x":"q"}],"items":[]}',
    b'{"innerOne":{"x":1},"grid":[1]}', b'{"innerOne":{"x":1},"grid":[[1],null]}',
    b'{"innerOne":{"x":1},"maybeList":["1"]}', b'{"innerOne":{"x":1},"leaf":{"n":2,"other":1}}',
    b'{"innerOne":{"x":1},"leaf":null}', b'{"innerOne":{"x":1},"raw":01}', b'{"innerOne":{"x":1},"raw":}',
    b'{"innerOne":{"x":1},"data":null}', b'{"innerOne":{"x":1},"grid":[[1,2}', b'{"innerOne":{"x":1},"grid":[[1,2',
    b'{"innerOne":{"x":1},"items":[{"x":1}', b'{"innerOne":{"x":1', b'{"innerOne":{"x":1}',
]  # fmt: skip


@pytest.mark.parametrize("payload", NESTED)
def test_nested(payload: bytes, simd: str) -> None:
    check(Outer, payload, simd)


def test_rows_do_not_disturb_one_another(simd: str) -> None:
    """All good payloads of the table in one batch, refused ones between them."""
    probe = probe_of(Outer, simd, capacity=256)
    schema = probe.layout.plan.schema
    wanted = []
    for _ in range(3):
        for payload in NESTED:
            accepted, value = decode_oracle(payload, schema)
            assert probe.decode(payload)[0] == (DECODED if accepted else REFUSED)
            if accepted:
                wanted.append(value)
    assert same(rows(probe), wanted)
    probe.reset()
    assert probe.rows == 0
    assert probe.decode(NESTED[1])[0] == DECODED
    assert same(rows(probe), [wanted[1]])


class Tagged(msgspec.Struct, tag="T", tag_field="kind"):
    a: int = 1


class Numbered(msgspec.Struct, tag=-7, tag_field="k", forbid_unknown_fields=True):
    a: int = 1


class Zero(msgspec.Struct, tag=0):
    a: int = 1


TAGGED = [
    '{"kind":"T","a":2}', '{"a":2,"kind":"T"}', '{"a":2}', '{"kind":"x"}', '{"kind":1}', '{"kind":null}',
    '{"kind":"\\u0054"}', '{"k\\u0069nd":"T"}', '{"kind":"T","kind":"x"}', '{"kind":"x","kind":"T"}', '{"kind":"Té"}',
    '{"kind":""}', '{"kind":"\\x"}',
]  # fmt: skip
NUMBERED = [
    '{"k":-7}', '{"k":7}', '{"k":-7.0}', '{"k":"-7"}', "{}", '{"k":-70}', '{"k":-99999999999999999999999}', '{"b":1}',
    '{"k":-7,"b":1}', '{"k":[]}', '{"k":-}', '{"b":nan}',
]  # fmt: skip
ZERO = ['{"type":0}', '{"type":-0}', '{"type":1}', '{"type":0.0}', '{"type":18446744073709551616}']


@pytest.mark.parametrize(
    ("schema", "payload"),
    [(s, text.encode()) for s, texts in ((Tagged, TAGGED), (Numbered, NUMBERED), (Zero, ZERO)) for text in texts],
)
def test_tags_and_unknown_fields(schema: Any, payload: bytes, simd: str) -> None:
    check(schema, payload, simd)


BOUNDS = [
    (Annotated[int, Meta(ge=0, le=10)], ["-1", "0", "10", "11"]),
    (Annotated[int, Meta(gt=0, lt=10)], ["0", "1", "9", "10"]),
    (Annotated[int, Meta(multiple_of=3)], ["0", "3", "-3", "4", "-4"]),
    (Annotated[int, np.uint64, Meta(le=5)], ["5", "6", "18446744073709551615"]),
    (Annotated[int, np.uint64, Meta(ge=1)], ["0", "1", "18446744073709551615"]),
    (Annotated[float, Meta(ge=0.5, lt=1.5)], ["0.5", "0.49999", "1.5", "1", "0"]),
    (Annotated[float, Meta(gt=0.5, le=1.5)], ["0.5", "0.50001", "1.5", "1.50001"]),
    (Annotated[float, Meta(multiple_of=0.1)], ["0.1", "0.2", "0.3", "0.25", "1", "0", "0.30000000000000004"]),
    (Annotated[str, Meta(min_length=2, max_length=3)],
     ['"a"', '"ab"', '"abc"', '"abcd"', '"éé"', '"\\u00e9\\u00e9"', '"😀"', '"😀😀😀"', '"😀😀😀😀"']),
    (Annotated[bytes, Meta(min_length=2, max_length=3)], ['"YQ=="', '"YWI="', '"YWJj"', '"YWJjZA=="']),
    (Annotated[list[int], Meta(min_length=1, max_length=2)], ["[]", "[1]", "[1,2]", "[1,2,3]"]),
    (list[Annotated[int, Meta(ge=0)]], ["[]", "[0,1]", "[0,-1]"]),
    (Annotated[int, Meta(ge=0)] | None, ["null", "-1", "1"]),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "text"), [(annotation, text) for annotation, texts in BOUNDS for text in texts])
def test_bounds(annotation: Any, text: str, simd: str) -> None:
    check(one_field(annotation), b'{"a":%s}' % text.encode(), simd)


REFUSALS = [
    (Plain, None, Reason.NULL, -1, 0),
    (Plain, b"", Reason.EMPTY, -1, 0),
    (Plain, b'{"a":1', Reason.TRUNCATED, -1, 6),
    (Plain, b"[1]", Reason.TYPE, -1, 0),
    (Plain, b'{"a":x}', Reason.SYNTAX, -1, 5),
    (Plain, b'{"a":1}}', Reason.TRAILING, -1, 7),
    (Plain, b'{"z":"ok\xff"}', Reason.UTF8, -1, 8),
    (Plain, b'{"z":"ok\\x"}', Reason.ESCAPE, -1, 8),
    (Plain, b'{"z":"ok\\ud83d?"}', Reason.ESCAPE, -1, 8),
    (Plain, b'{"z":"ok\n"}', Reason.CONTROL, -1, 8),
    (Plain, b'{"z":-x}', Reason.NUMBER, -1, 6),
    (Plain, b'{"a":007}', Reason.NUMBER, -1, 6),
    (Plain, b'{"a":9223372036854775808}', Reason.RANGE, 0, 5),
    (Plain, b'{"ratio":1e400}', Reason.RANGE, 2, 9),
    (Plain, b'{"a":"x"}', Reason.TYPE, 0, 5),
    (Plain, b'{"a":1.5}', Reason.TYPE, 0, 5),
    (Outer, b'{"innerOne":{"y":"x"}}', Reason.MISSING, 1, 20),
    (Outer, b'{"items":[]}', Reason.MISSING, 0, 11),
    (Leaf, b'{"ok":true,"other":1}', Reason.UNKNOWN_FIELD, -1, 11),
    (Plain, b'{"z":' + b"[" * 1024, Reason.DEPTH, -1, 5 + 1023),
    (one_field(Annotated[int, Meta(ge=0)]), b'{"a":-1}', Reason.CONSTRAINT, 0, 5),
    (one_field(datetime), b'{"a":"yesterday"}', Reason.DATETIME, 0, 5),
    (one_field(bytes), b'{"a":"*"}', Reason.BASE64, 0, 5),
    (Tagged, b'{"kind":"other"}', Reason.TAG, -1, 8),
]


@pytest.mark.parametrize(("schema", "payload", "reason", "column", "at"), REFUSALS)
def test_refusals_say_where_and_why(
    schema: Any, payload: bytes | None, reason: Reason, column: int, at: int, simd: str
) -> None:
    outcome, why, _, seen_column, seen_at = probe_of(schema, simd).decode(payload)
    assert (outcome, Reason(why), seen_column, seen_at) == (REFUSED, reason, column, at)


def test_depth_is_limited_to_1024(simd: str) -> None:
    for inside, outcome in ((1023, DECODED), (1024, REFUSED)):
        for opening, closing in ((b"[", b"]"), (b'{"k":', b"}")):
            middle = b"1" if opening != b"[" else b""
            payload = b'{"z":' + opening * inside + middle + closing * inside + b"}"
            assert probe_of(Plain, simd).decode(payload)[0] == outcome
    raw = one_field(msgspec.Raw)
    assert probe_of(raw, simd).decode(b'{"a":' + b"[" * 1023 + b"]" * 1023 + b"}")[0] == DECODED
    assert probe_of(raw, simd).decode(b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")[0] == REFUSED


def wide_struct(n: int) -> Any:
    return msgspec.defstruct("Wide", [(f"field_{i}", int, i) for i in range(n)])


@pytest.mark.parametrize("n", [1, 63, 64, 65, 200, 1024])
def test_wide_structs(n: int, simd: str) -> None:
    schema = wide_struct(n)
    names = [f"field_{i}" for i in range(n)]
    whole = {name: 10 * i for i, name in enumerate(names)}
    for keys in (names, names[::-1], names[::3], names[-1:], []):
        check(schema, msgspec.json.encode({key: whole[key] for key in keys} | {"unknown": 1}), simd)
    required = msgspec.defstruct("Required", [(name, int) for name in names])
    check(required, msgspec.json.encode(whole), simd)
    check(required, msgspec.json.encode({key: whole[key] for key in names[:-1]}), simd)


def test_keys_that_look_alike(simd: str) -> None:
    long = "a_key_that_is_much_longer_than_one_block_of_"
    names = ["k", "kk", "prefix_a_suffix", "prefix_b_suffix", "12345678", "123456789", "1234567890123456",
             "1234567_0123456", "12345678x90123456", "12345678y90123456", long + "a", long + "b", "é", ""]  # fmt: skip
    renames = {f"f{i}": name for i, name in enumerate(names)}
    schema = msgspec.defstruct("Alike", [(f, int) for f in renames], rename=renames)
    payload = {name: i for i, name in enumerate(names)}
    check(schema, msgspec.json.encode(payload), simd)
    check(schema, msgspec.json.encode(dict(reversed(payload.items()))), simd)
    check(schema, msgspec.json.encode({name + "!": 1 for name in names} | payload), simd)
    check(schema, msgspec.json.encode({**payload, "k": 5}).replace(b'"k"', b'"\\u006b"'), simd)


def test_many_unknown_keys(simd: str) -> None:
    probe = probe_of(Plain, simd, capacity=400)
    for i in range(300):
        payload = msgspec.json.encode({f"unknown_{(i * 7 + k) % 173}": k for k in range(20)} | {"a": i})
        assert probe.decode(payload)[0] == DECODED
    assert [row["a"] for row in rows(probe)] == list(range(300))


class Flat(msgspec.Struct):
    a: int
    text: str
    ratio: float = 0.25
    ok: bool = True
    maybe: int | None = None
    a_rather_long_name: str = ""
    values: list[int] = []
    raw: msgspec.Raw = msgspec.Raw(b"")


FLAT = {
    "a": 123456789, "text": "plain text", "ratio": 1183.252, "ok": False, "maybe": 7,
    "a_rather_long_name": "x" * 40, "values": [1, 2, 3], "raw": 5,
}  # fmt: skip


def scattering_probe(simd: str) -> DecoderProbe:
    """A probe whose decoder has met keys in another order in every row."""
    probe = probe_of(Flat, simd, capacity=4096)
    assert isinstance(probe.decoder, JsonDecoder)
    keys = list(FLAT)
    for turn in range(4):
        payload = msgspec.json.encode({key: FLAT[key] for key in keys[turn * 2 :] + keys[: turn * 2]})
        assert probe.decode(payload)[0] == DECODED
        keys.reverse()
    assert probe.decoder.scattering
    probe.reset()
    return probe


SCATTERED = [
    {}, {"ratio": None}, {"a": 1.0}, {"a": "1"}, {"a": -5}, {"a": 2**63}, {"a": None}, {"text": "é"}, {"text": "\n"},
    {"text": 1}, {"text": ""}, {"text": "x" * 31}, {"text": "x" * 64}, {"ratio": -0.5}, {"ratio": 3}, {"ratio": "x"},
    {"ratio": 1e-300}, {"ok": 1}, {"maybe": None}, {"maybe": "1"}, {"values": []}, {"values": ["1"]},
    {"values": [1.5]}, {"values": {}}, {"raw": {"k": [1]}}, {"raw": "text"}, {"raw": None}, {"other": "unknown"},
    {"other": 1.5}, {"other": None}, {"other": {"k": "v"}}, {"b": 1, "c": "d"}, {"a_rather_long_namf": 1},
    {"text": "y" * 2000}, {"many" + "y" * 70: 1}, {f"k{i}": i for i in range(100)},
]  # fmt: skip


@pytest.mark.parametrize("change", SCATTERED, ids=lambda change: str(change)[:40])
def test_rows_with_shuffled_keys(change: dict[str, Any], simd: str) -> None:
    """Every rotation of the keys, whole and with one of them missing, beside what msgspec says."""
    row = FLAT | change
    keys = list(row)[:20]
    for turn in range(len(keys)):
        turned = keys[turn:] + keys[:turn]
        for kept in (turned, turned[1:]):
            payload = msgspec.json.encode({key: row[key] for key in kept})
            probe = scattering_probe(simd)
            accepted, wanted = decode_oracle(payload, probe.layout.plan.schema)
            if accepted and row["a"] == 2**63 and "a" in kept:
                accepted = False
            assert probe.decode(payload)[0] == (DECODED if accepted else REFUSED), payload
            assert same(rows(probe), [wanted] if accepted else [])


@pytest.mark.parametrize("damage", [b"", b" ", b",", b'"', b"}", b"{", b":", b"1", b"\\", b"\x00", b"\xff"])
def test_damaged_rows_with_shuffled_keys(damage: bytes, simd: str) -> None:
    """At every place of a payload: one byte replaced, and one put in."""
    payload = msgspec.json.encode(dict(reversed(FLAT.items())))
    probe = scattering_probe(simd)
    schema = probe.layout.plan.schema
    wanted = []
    for at in range(len(payload)):
        for after in (at, at + 1):
            damaged = payload[:at] + damage + payload[after:]
            if not probe.decoder.scattering:  # type: ignore[attr-defined]
                assert wanted == [] or same(rows(probe), wanted)
                probe, wanted = scattering_probe(simd), []
            accepted, value = decode_oracle(damaged, schema)
            try:
                damaged.decode()
            except UnicodeDecodeError:
                accepted = False
            assert probe.decode(damaged)[0] == (DECODED if accepted else REFUSED), damaged
            if accepted:
                wanted.append(value)
    assert same(rows(probe), wanted)


def test_a_key_twice_in_rows_with_shuffled_keys(simd: str) -> None:
    for first, second in (("1", "2"), ('"x"', "2"), ("1", '"x"')):
        payload = b'{"text":"some longer text here, so that it counts","a":%s,"ratio":1.5,"a":%s}' % (
            first.encode(),
            second.encode(),
        )
        probe = scattering_probe(simd)
        accepted, wanted = decode_oracle(payload, probe.layout.plan.schema)
        assert probe.decode(payload)[0] == (DECODED if accepted else REFUSED)
        assert same(rows(probe), [wanted] if accepted else [])


def test_long_names_alike_at_both_ends_in_rows_with_shuffled_keys(simd: str) -> None:
    """Names that only a comparison in full tells apart, one of them unknown, and one of 63 and one of 64 bytes."""
    names = ["position_a_of_order", "position_b_of_order", "n" * 63, "m" * 64]
    schema = msgspec.defstruct("Long", [(name, int) for name in names])
    probe = probe_of(schema, simd, capacity=4096)
    assert isinstance(probe.decoder, JsonDecoder)
    fields = [*names, "position_c_of_order"]
    scattered = 0
    wanted = []
    for turn in range(200):
        keys = [fields[(turn + at * (1 + turn % 4)) % 5] for at in range(5)]
        if turn % 2:
            keys.remove("m" * 64)
        payload = msgspec.json.encode({key: turn * 10 + fields.index(key) for key in keys})
        accepted, value = decode_oracle(payload, probe.layout.plan.schema)
        scattered += probe.decoder.scattering
        assert probe.decode(payload)[0] == (DECODED if accepted else REFUSED)
        if accepted:
            wanted.append(value)
    assert scattered
    assert wanted
    assert same(rows(probe), wanted)


def test_rows_in_order_end_the_scattering(simd: str) -> None:
    probe = scattering_probe(simd)
    assert isinstance(probe.decoder, JsonDecoder)
    payload = msgspec.json.encode(FLAT)
    for _ in range(600):
        assert probe.decode(payload)[0] == DECODED
    assert not probe.decoder.scattering
    assert same(rows(probe), [decode_oracle(payload, probe.layout.plan.schema)[1]] * 600)


def test_full_batch_changes_nothing(simd: str) -> None:
    probe = probe_of(Plain, simd, capacity=2)
    assert probe.decode(b'{"a":1}')[0] == DECODED
    assert probe.decode(b'{"a":2}')[0] == DECODED
    before = rows(probe)
    assert probe.decode(b'{"a":3}')[0] == FULL
    assert same(rows(probe), before)
    probe.reset()
    assert probe.decode(b'{"a":3}')[0] == DECODED
    assert rows(probe)[0]["a"] == 3


@pytest.mark.parametrize("room", [1, 7, 8, 9, 31, 32, 33, 40, 64, 65])
@pytest.mark.parametrize("unit", ["x", "é", "\\n", "\\u20ac", "\\ud83d\\ude00"])
def test_a_string_fits_to_the_last_byte(room: int, unit: str, simd: str) -> None:
    """Every length around the room that is left: what fits is stored, what does not leaves the batch as it was."""
    schema = one_field(str)
    for count in range(room + 3):
        text = b'{"a":"%s"}' % (unit.encode() * count)
        value = msgspec.json.decode(text, type=schema).a
        probe = probe_of(schema, simd, capacity=4, raw_bytes=room)
        outcome = probe.decode(text)[0]
        assert outcome == (DECODED if len(value.encode()) <= room else FULL)
        assert same(rows(probe), [{"a": value}] if outcome == DECODED else [])
        if outcome == FULL:
            assert probe.decode(b'{"a":"."}')[0] == DECODED
            assert same(rows(probe), [{"a": "."}])


@pytest.mark.parametrize(
    ("annotation", "text", "fits"),
    [
        (bytes, '"YWJjZGVmZ2g="', 8),
        (msgspec.Raw, "[1, 2, 3]", 9),
        (list[int], "[1,2,3,4]", 4),
        (list[str], '["ab","c"]', 3),
        (list[list[int]], "[[1,2],[3]]", 3),
    ],
)
def test_full_for_every_kind_that_takes_room(annotation: Any, text: str, fits: int, simd: str) -> None:
    schema = one_field(annotation)
    payload = b'{"a":%s}' % text.encode()
    assert probe_of(schema, simd, raw_bytes=fits - 1).decode(payload)[0] == FULL
    probe = probe_of(schema, simd, raw_bytes=fits)
    assert probe.decode(payload)[0] == DECODED
    wanted = expected(msgspec.json.decode(payload, type=schema), probe.layout.plan.schema)
    assert same(rows(probe), [wanted])
    assert probe.decode(payload)[0] == FULL
    assert same(rows(probe), [wanted])


def test_one_decoder_fills_several_batches_in_turn(simd: str) -> None:
    plan = Plan(Outer)
    decoder = JsonDecoder(plan, simd)
    probes = [DecoderProbe(Layout(plan, capacity, 1 << 12), decoder) for capacity in (8, 64, 16)]
    wanted: list[list[Any]] = [[], [], []]
    for turn in range(8):
        for probe, values in zip(probes, wanted, strict=True):
            payload = NESTED[(turn + len(values)) % 13]
            assert probe.decode(payload)[0] == DECODED
            values.append(decode_oracle(payload, plan.schema)[1])
    for probe, values in zip(probes, wanted, strict=True):
        assert same(rows(probe), values)


libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def guarded() -> Any:
    """A page followed by one that must not be touched; yields ``place(payload)``, a view that ends where it does."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    assert libc.mprotect(address + page, page, 0) == 0

    def place(payload: bytes) -> memoryview:
        memory[page - len(payload) : page] = payload
        return memoryview(memory)[page - len(payload) : page]

    yield place
    assert libc.mprotect(address + page, page, mmap.PROT_READ | mmap.PROT_WRITE) == 0


def test_no_byte_beyond_the_payload_is_read(guarded: Any, simd: str) -> None:
    """Payloads and every prefix of them, each at the very end of a page that a forbidden page follows."""
    whole = [b'{"a":%s}' % text for text in STRINGS if len(text) < 100]
    whole += [b'{"a":1,"text":"%s","ratio":%s}' % (b"t" * n, b"1.25" * (n % 2) or b"12345678") for n in range(40)]
    whole += [payload for payload in STRUCTURE + NESTED if len(payload) < 150]
    for schema in (Plain, Outer, one_field(str), one_field(float | None)):
        probe = probe_of(schema, simd)
        described = probe.layout.plan.schema
        for payload in whole:
            for size in range(len(payload) + 1):
                probe.reset()
                outcome = probe.decode(guarded(payload[:size]))[0]
                assert outcome in (DECODED, REFUSED)
            probe.reset()
            accepted, wanted = decode_oracle(payload, described)
            outcome = probe.decode(guarded(payload))[0]
            if outcome == DECODED:
                assert accepted
                assert same(rows(probe), [wanted])


def test_a_decoder_cannot_be_had_without_a_plan() -> None:
    with pytest.raises(TypeError):
        JsonDecoder.__new__(JsonDecoder)
    with pytest.raises(TypeError):
        JsonDecoder(None)  # type: ignore[arg-type]


def test_the_environment_picks_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(Plain)
    for name in SIMD:
        monkeypatch.setenv(ENVIRONMENT, name)
        assert JsonDecoder(plan).simd == name
    monkeypatch.setenv(ENVIRONMENT, "sse9")
    with pytest.raises(ConfigError, match=r"PYTHIA_FAST_SIMD=sse9.*scalar, avx2"):
        JsonDecoder(plan)
    monkeypatch.delenv(ENVIRONMENT)
    assert JsonDecoder(plan).simd == SIMD[-1]
    with pytest.raises(ConfigError, match="simd=neon"):
        JsonDecoder(plan, simd="neon")
