"""How far a share group has come, asked of a broker by Kafka's own protocol: librdkafka has no such question yet.

DescribeShareGroupOffsets (API key 90, version 1), of the group's coordinator; with one broker that is this one.
"""

from __future__ import annotations

import socket
import struct

API_KEY, VERSION, CORRELATION = 90, 1, 7
ANSWER_S = 10.0


class _Answer:
    """The bytes of an answer, read from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from(f">{kind}", self._data, self._at)
        self._at += struct.calcsize(f">{kind}")
        return int(value)

    def length(self) -> int:
        """Of a compact string or array; -1: null."""
        value = shift = 0
        while True:
            byte = self.number("B")
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value - 1

    def skip(self, size: int) -> None:
        self._at += max(0, size)

    def text(self) -> str:
        size = self.length()
        self.skip(size)
        return self._data[self._at - size : self._at].decode() if size > 0 else ""

    def tags(self) -> None:
        assert self.length() == -1, "no tagged fields are known of this answer"


def share_lag(port: int, group: str) -> dict[tuple[str, int], int]:
    """(topic, partition) -> rows that are not done; a partition that the group has not begun is not among them."""
    name = group.encode()
    header = struct.pack(">hhih", API_KEY, VERSION, CORRELATION, -1) + b"\0"
    # One group, all of its topics (a null array); each structure ends with its tagged fields, of which there are none.
    body = b"\x02" + bytes([len(name) + 1]) + name + b"\0" + b"\0" + b"\0"
    with socket.create_connection(("127.0.0.1", port), ANSWER_S) as link:
        link.sendall(struct.pack(">i", len(header + body)) + header + body)
        stream = link.makefile("rb")
        (size,) = struct.unpack(">i", stream.read(4))
        answer = _Answer(stream.read(size))
    assert answer.number("i") == CORRELATION
    answer.tags()
    answer.number("i")  # how long to wait before the next question
    found = {}
    for _ in range(answer.length()):
        answer.text()
        for _ in range(answer.length()):
            topic = answer.text()
            answer.skip(16)  # the topic's id
            for _ in range(answer.length()):
                partition, _start, _epoch = answer.number("i"), answer.number("q"), answer.number("i")
                lag = answer.number("q")
                error = answer.number("h")
                assert error == 0, answer.text()
                answer.text()
                answer.tags()
                if lag >= 0:
                    found[topic, partition] = lag
            answer.tags()
        error = answer.number("h")
        assert error == 0, f"{error}: {answer.text()}"
        answer.text()
        answer.tags()
    return found
