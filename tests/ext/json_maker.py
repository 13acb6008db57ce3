"""Random schemas, and random JSON that mostly fits them: written in odd but legal ways, or damaged.

Everything comes from one random.Random, so that a seed says it all.
"""

from __future__ import annotations

import json
import random
import typing
from datetime import datetime
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta

NAMES = [
    "a",
    "b",
    "ab",
    "ba",
    "price",
    "prices",
    "price_2",
    "quantity",
    "a_long_name_of_a_field",
    "another_long_name_of_a_field",
]
NAMES += ["x" * 30, "x" * 29, "x" * 31, "y" * 8, "y" * 7, "y" * 9, "y" * 16, "y" * 17, "is_ok", "ts"]
RENAMES = ["é", "camelCase", "with space", "", "ключ", "😀", "k" * 40]
INTEGER_DTYPES = [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
SPACES = ["", "", "", "", " ", "\n", "\t", "\r\n", "   "]
PIECES = [
    "",
    "a",
    "plain",
    "x" * 31,
    "y" * 40,
    "é",
    "€uro",
    "😀",
    '"',
    "\\",
    "/",
    "\n",
    "\x00",
    "\x1f",
    "\x7f",
    "\ud7ff",
    "\uffff",
    "ok" * 9,
]


def make_type(rng: random.Random, depth: int = 0) -> Any:
    choice = rng.randrange(13 if depth < 3 else 10)
    if choice == 0:
        made: Any = int
    elif choice == 1:
        made = Annotated[int, rng.choice(INTEGER_DTYPES)]
    elif choice == 2:
        made = Annotated[int, Meta(ge=rng.randrange(-9, 3), le=rng.randrange(3, 99))]
    elif choice == 3:
        made = rng.choice([float, float, Annotated[float, np.float32], Annotated[float, Meta(gt=-1.5)]])
    elif choice == 4:
        made = bool
    elif choice in (5, 6):
        made = rng.choice([str, str, Annotated[str, Meta(min_length=1, max_length=20)]])
    elif choice == 7:
        made = bytes
    elif choice == 8:
        made = rng.choice([datetime, Annotated[datetime, Meta(tz=True)]])
    elif choice == 9:
        return msgspec.Raw
    elif choice == 10:
        made = list[make_type(rng, depth + 1)]  # type: ignore[misc]
    else:
        made = make_struct(rng, depth + 1)
    return made | None if rng.random() < 0.25 else made


def make_struct(rng: random.Random, depth: int = 0) -> Any:
    names = rng.sample(NAMES, rng.randrange(1, 8 if depth else 12))
    if depth == 0 and rng.random() < 0.05:
        names = [f"field{i}" for i in range(rng.choice([63, 64, 65, 130]))]
    required, optional = [], []
    for name in names:
        made = make_type(rng, depth)
        if type(None) in typing.get_args(made) and rng.random() < 0.7:
            optional.append((name, made, None))
        elif made is int and rng.random() < 0.5:
            optional.append((name, made, rng.randrange(-5, 5)))
        elif made is str and rng.random() < 0.5:
            optional.append((name, made, "default é"))
        elif typing.get_origin(made) is list and rng.random() < 0.5:
            optional.append((name, made, msgspec.field(default_factory=list)))
        else:
            required.append((name, made))
    options: dict[str, Any] = {"forbid_unknown_fields": rng.random() < 0.15}
    if rng.random() < 0.1:
        options |= {"tag": rng.choice(["one", 3, -1]), "tag_field": "kind"}
    if rng.random() < 0.2:
        options["rename"] = dict(zip(rng.sample(names, 1), rng.sample(RENAMES, 1), strict=True))
    return msgspec.defstruct(f"Struct{depth}", required + optional, **options)


def space(rng: random.Random) -> str:
    return rng.choice(SPACES) if rng.random() < 0.2 else ""


def text(rng: random.Random, value: str) -> str:
    """A JSON string of ``value``, some of its characters escaped."""
    out = []
    for ch in value:
        if ch in '"\\' or ch < " " or rng.random() < 0.05:
            out.append(json.dumps(ch)[1:-1] if rng.random() < 0.5 else "".join(f"\\u{u:04x}" for u in utf16(ch)))
        else:
            out.append(ch)
    return '"' + "".join(out) + '"'


def utf16(ch: str) -> list[int]:
    data = ch.encode("utf-16-le", "surrogatepass")
    return [int.from_bytes(data[i : i + 2], "little") for i in range(0, len(data), 2)]


def number(rng: random.Random) -> str:
    choice = rng.randrange(8) if rng.random() < 0.5 else 3
    if choice == 0:
        return str(rng.randrange(-10, 100))
    if choice == 1:
        return str(rng.randrange(-(2 ** rng.randrange(1, 66)), 2 ** rng.randrange(1, 66)))
    if choice == 2:
        return repr(rng.uniform(-1000, 1000))
    if choice == 3:
        return f"{rng.uniform(0, 3000):.{rng.randrange(1, 5)}f}"
    if choice == 4:
        return f"{rng.randrange(10**9)}{rng.choice('eE')}{rng.choice(['', '+', '-'])}{rng.randrange(0, 330)}"
    if choice == 5:
        return f"{rng.randrange(10**12)}.{rng.randrange(10 ** rng.randrange(1, 25))}"
    if choice == 6:
        return rng.choice(
            ["-0", "-0.0", "0", "00", "1.", "-", "1e", "0e0", "9007199254740993.0", "1e400", "123456789012345678901"]
        )
    return str(
        rng.choice(
            [127, 128, 255, 256, 32768, 65535, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), -128, -129]
        )
    )


def moment(rng: random.Random) -> str:
    day = rng.choice([rng.randrange(1, 29), rng.randrange(1, 29), 30, 31])
    made = f"{rng.randrange(1900, 2100)}-{rng.randrange(1, 13):02}-{day:02}"
    made += rng.choice("Tt ") + f"{rng.randrange(24):02}:{rng.randrange(60):02}:{rng.randrange(60):02}"
    if rng.random() < 0.5:
        made += f".{rng.randrange(10 ** rng.randrange(1, 10))}"
    return made + rng.choice(["Z", "Z", "z", "", "+01:00", "-05:30", "-0530"])


def any_json(rng: random.Random, depth: int = 0) -> str:
    choice = rng.randrange(7 if depth < 4 else 5)
    if choice == 0:
        return number(rng)
    if choice == 1:
        return text(rng, "".join(rng.choices(PIECES, k=rng.randrange(4))))
    if choice < 5:
        return rng.choice(["null", "true", "false", "1", '""'])
    if choice == 5:
        return "[" + ",".join(any_json(rng, depth + 1) + space(rng) for _ in range(rng.randrange(4))) + "]"
    pairs = (
        text(rng, rng.choice(NAMES)) + space(rng) + ":" + any_json(rng, depth + 1) for _ in range(rng.randrange(4))
    )
    return "{" + ",".join(pairs) + space(rng) + "}"


def make_json(rng: random.Random, made: Any) -> str:
    """JSON text that most likely is a value of the type ``made``."""
    if rng.random() < 0.01:
        return any_json(rng)
    arguments = typing.get_args(made)
    if type(None) in arguments:
        return "null" if rng.random() < 0.3 else make_json(rng, next(a for a in arguments if a is not type(None)))
    if typing.get_origin(made) is Annotated:
        made = arguments[0]
    if isinstance(made, type) and issubclass(made, msgspec.Struct):
        return make_object(rng, made)
    if typing.get_origin(made) is list:
        items = (
            space(rng) + make_json(rng, typing.get_args(made)[0]) + space(rng) for _ in range(rng.choice([0, 1, 2, 5]))
        )
        return "[" + ",".join(items) + "]"
    if made is int:
        return str(rng.choice([rng.randrange(0, 20), rng.randrange(0, 20), rng.randrange(-(2**40), 2**40)]))
    if made is float:
        return number(rng) if rng.random() < 0.7 else "1.5"
    if made is bool:
        return rng.choice(["true", "false"])
    if made is str:
        return text(rng, "".join(rng.choices(PIECES, k=rng.randrange(1, 3))))
    if made is bytes:
        return text(
            rng, rng.choice(["", "YWJj", "YWI=", "YQ==", "/+8A", "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXo=", "YQ="])
        )
    if made is datetime:
        return text(rng, moment(rng))
    return any_json(rng)


def make_object(rng: random.Random, made: Any) -> str:
    config = made.__struct_config__
    pairs = [
        (field.encode_name, make_json(rng, field.type))
        for field in msgspec.structs.fields(made)
        if field.required or rng.random() < 0.7
    ]
    if config.tag_field and rng.random() < 0.9:
        pairs.insert(0, (config.tag_field, json.dumps(config.tag if rng.random() < 0.9 else "other")))
    if rng.random() < 0.3:
        pairs.append(
            rng.choice(pairs) if pairs and rng.random() < 0.5 else (rng.choice(NAMES + RENAMES), any_json(rng))
        )
    if rng.random() < 0.4:
        rng.shuffle(pairs)
    if rng.random() < 0.05:
        pairs = pairs[1:]
    inside = ",".join(
        f"{space(rng)}{text(rng, key)}{space(rng)}:{space(rng)}{value}{space(rng)}" for key, value in pairs
    )
    return "{" + inside + "}"


def make_payload(rng: random.Random, made: Any) -> bytes:
    payload = make_object(rng, made).encode("utf-8", "surrogatepass")
    while rng.random() < 0.2:
        payload = damage(rng, payload)
    return payload


def damage(rng: random.Random, payload: bytes) -> bytes:
    at = rng.randrange(len(payload) + 1)
    to = min(len(payload), at + rng.randrange(1, 12))
    piece = rng.choice([b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"0", b"-", b"e", b".", b"\\u", b" "])
    return rng.choice(
        [
            payload[:at],
            payload[:at] + payload[to:],
            payload[:at] + payload[at:to] * 2 + payload[to:],
            payload[:at] + bytes([rng.randrange(256)]) + payload[at:],
            payload[:at] + bytes([rng.randrange(256)]) + payload[at + 1 :],
            payload[:at] + piece + payload[at:],
        ]
    )
