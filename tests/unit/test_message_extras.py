"""Keys, headers and timestamps that a user gives beside payloads."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from pythia_fast import Batch
from pythia_fast.brokers.framing import decode_headers
from pythia_fast.errors import ConfigError
from pythia_fast.message_extras import header_bytes, key_bytes, timestamps_ms


class Row(msgspec.Struct):
    a: int


PAYLOADS = [b'{"a":1}', b'{"a":2}']


@pytest.mark.parametrize(
    ("extras", "told"),
    [
        ({"keys": [b"k", "text"]}, "Batch.decode: keys[1]='text': bytes or None"),
        ({"keys": [7, None]}, "Batch.decode: keys[0]=7: bytes or None"),
        ({"headers": [None, "text"]}, "Batch.decode: headers[1]='text': a dict of str to bytes or None"),
        ({"headers": [[("trace", b"1")], None]}, "Batch.decode: headers[0]="),
        ({"headers": [{"trace": 1}, None]}, "Batch.decode: headers[0]={'trace': 1}: a dict of str to bytes or None"),
        ({"headers": [{b"trace": b"1"}, None]}, "Batch.decode: headers[0]={b'trace': b'1'}"),
        ({"headers": [{"x" * 70_000: b"1"}, None]}, "at most 65,535 fit"),
        ({"timestamps": [1.5, 2]}, "Batch.decode: timestamps[0]=1.5: "),
        ({"timestamps": [0, "now"]}, "Batch.decode: timestamps[1]='now': "),
        ({"timestamps": [0, 2**70]}, "Batch.decode: timestamps[1]="),
        ({"timestamps": [-2, 0]}, "Batch.decode: timestamps[0]=-2: "),
    ],
)
def test_what_is_none_is_refused_by_its_place(extras: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Batch.decode(PAYLOADS, Row, **extras)
    assert told in str(raised.value)


def test_keys_of_a_subclass_are_what_they_hold() -> None:
    batch = Batch.decode(PAYLOADS, Row, keys=[np.bytes_(b"k"), None], headers=[{"h": np.bytes_(b"v")}, None])
    assert list(batch.keys) == [b"k", None]
    assert list(batch.headers) == [{"h": b"v"}, {}]
    assert type(key_bytes("here", [np.bytes_(b"k")])[0]) is bytes


def test_what_fits_is_taken() -> None:
    assert key_bytes("here", [b"k", None, b""]) == [b"k", None, b""]
    encoded = header_bytes("here", [None, {}, {"a": b"1", "b": None}])
    assert [decode_headers(each) for each in encoded] == [[], [], [("a", b"1"), ("b", None)]]
    assert timestamps_ms("here", np.array([-1, 0, 2**62])) == [-1, 0, 2**62]
