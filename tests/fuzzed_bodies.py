"""Requests as nobody should send them: examples of every dialect, with their values, bytes and headers changed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any

import msgpack

from uprank.server.routes import ROUTES

JSON = "application/json"
MSGPACK = "application/msgpack"

# fmt: off
HOSTILE: Sequence[Any] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**64), 10**40, 10**400, 0.0, -0.5, 1e308, 5e-324, float("nan"),
    float("inf"), "", " ", "\x00", "a", "a\u0000b", "\u202e\ufeff", "\U0001f9ff" * 50, "x" * 5_000, "12", "true",
    [], {}, [[]], [None], [""], [{}], [{"text": None}], [{"text": 5}], [{"text": ["a"]}], {"text": "a"},
    {"text": None}, {"content": [{"type": "text", "text": "a"}]}, {"image": "https://127.0.0.1/a.png"}, {"": ""},
    {"text": {"text": {}}}, ["a", 1], ["a", None, {"text": "b"}], ["a"] * 1_100, {"__proto__": 1, "__class__": "str"},
    "\ud800", ["\udfff", "a"], {"\ud800": "a"},
)
"""Values that take the place of others."""

LITERALS = (
    b"NaN", b"-Infinity", b"1e400", b"-1e400", b"9" * 5_000, b"1." + b"0" * 3_000 + b"1", b'"\\ud800"',
    b'"\\udc00\\ud800"', b'"\\x"', b"'a'", b"\xff", b'"\xff\xfe"', b'"\xed\xa0\x80"', b"01", b"+1", b".5", b"tru",
    b"/**/1", b"[" * 400, b"[" * 100 + b"]" * 100, b'{"text":' * 300 + b"1" + b"}" * 300, b'{"a":1,"a":2}',
    b"undefined", b"\x00", b"",
)
"""Bytes that take the place of a value."""

WHOLE = (
    b"", b" ", b"null", b"[]", b"{}", b"1", b'"a"', b"\xef\xbb\xbf{}", '{"query":"a"}'.encode("utf-16"),
    b"[" * 100_000, b'{"a":' * 50_000, b"{" * 1_000, b"\x80", b"\xc1", b"\xdf\xff\xff\xff\xff",
    b"\xdd\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 20_000, b"\xd4\x00\x00",
    b"\x81\xa5query\xc4\x01a", b"query=a&documents=b", b"--x\r\n\r\n--x--",
)
"""Whole bodies."""

CONTENT_TYPES = (
    JSON, "application/json; charset=utf-16", "text/plain", "application/x-www-form-urlencoded", MSGPACK,
    "multipart/form-data; boundary=x", "application/x-msgpack", "application/vnd.api+json", "", "json", ";;;", "\xe9",
)
ACCEPTS = (JSON, MSGPACK, "*/*", "text/html", "", "application/json;q=0, */*;q=0.1", ",,;q=x")
NAMES = ("a", "bm25", "a/b", "..", "%2e%2e/x", "%00", "%ff", "%F0%9F%A7%BF", "a" * 2_000, "%20", "a%3Fb", "org/m@1:2")
FIELDS = (
    "top_n", "top_k", "texts", "input", "config", "data_1", "instruction", "rank_fields", "model", "truncate",
    "return_documents", "documents", "query", "\xe9", "",
)
# fmt: on


@dataclass(frozen=True)
class Sent:
    """One request, ready for the wire."""

    path: str
    headers: Sequence[tuple[str, str]]
    body: bytes
    chunks: int = 0

    def wire(self) -> bytes:
        """The bytes; with ``chunks`` the body goes in as many pieces, its length unsaid."""
        framing = ("transfer-encoding", "chunked") if self.chunks else ("content-length", str(len(self.body)))
        lines = [f"POST {self.path} HTTP/1.1", "host: 127.0.0.1", *(": ".join(one) for one in (*self.headers, framing))]
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        if not self.chunks:
            return head + self.body
        size = max(1, -(-len(self.body) // self.chunks))
        pieces = [self.body[start : start + size] for start in range(0, len(self.body), size)]
        return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def fuzzed(seed: int, count: int) -> Iterator[Sent]:
    """Requests to all routes in turn, the same for the same seed."""
    random = Random(seed)
    examples = [
        (path, example)
        for route in ROUTES
        for path in route.paths
        for body in route.bodies
        for example in body.examples
    ]
    assert examples, "no dialect has an example"
    for number in range(count):
        path, example = examples[number % len(examples)]
        yield _request(random, path, example)


def _request(random: Random, path: str, example: Any) -> Sent:
    value = deepcopy(example)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        value = _changed(random, value)
    packed = random.random() < (0.4 if "/score/" in path else 0.05)
    body = _msgpack(value) if packed else _json(random, value)
    if random.random() < 0.25:
        body = _spoilt(random, body)
    if random.random() < 0.04:
        body = random.choice(WHOLE)
    headers = [("content-type", MSGPACK if packed else JSON)]
    if random.random() < 0.08:
        headers = [("content-type", random.choice(CONTENT_TYPES))]
    if random.random() < 0.3:
        headers.append(("accept", random.choice(ACCEPTS)))
    if random.random() < 0.02:
        headers.append(("content-encoding", random.choice(("gzip", "br", "identity", "x"))))
        body = gzip.compress(body, 1)
    if "{" in path:
        path = path[: path.index("{")] + random.choice(NAMES) + path[path.index("}") + 1 :]
    return Sent(path, headers, body, chunks=random.choice((1, 2, 7)) if random.random() < 0.1 else 0)


def _changed(random: Random, value: Any) -> Any:
    """The value with one thing in it replaced, removed, doubled, wrapped or added."""
    places = list(_places(value))
    if not places:
        return random.choice(HOSTILE)
    holder, key = random.choice(places)
    way = random.randrange(8)
    if way < 4:
        holder[key] = deepcopy(random.choice(HOSTILE))
    elif way == 4:
        del holder[key]
    elif way == 5 and isinstance(holder, list):
        holder.extend([holder[key]] * random.choice((1, 3, 40)))
    elif way == 6:
        for _ in range(random.choice((1, 30))):
            holder[key] = [holder[key]] if random.random() < 0.5 else {"text": holder[key]}
    else:
        value[random.choice(FIELDS)] = deepcopy(random.choice(HOSTILE))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder and key within a value."""
    held = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in held:
        yield value, key
        yield from _places(inner)


def _json(random: Random, value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if random.random() < 0.1 and text.startswith(b"{") and len(text) > 2:  # every key twice
        text = text[:-1] + b"," + text[1:]
    return text


def _msgpack(value: Any) -> bytes:
    return msgpack.packb(value, default=str, unicode_errors="surrogatepass") if _packs(value) else b"\x81\xa1a\xc0"


def _packs(value: Any) -> bool:
    """Whether msgpack has numbers that large."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    if isinstance(value, (list, dict)):
        return all(map(_packs, value.values() if isinstance(value, dict) else value))
    return True


def _spoilt(random: Random, body: bytes) -> bytes:
    """Bytes cut, flipped, or put where a value was."""
    if not body:
        return body
    at = random.randrange(len(body))
    way = random.randrange(4)
    if way == 0:
        return body[:at]
    if way == 1:
        return body[:at] + bytes([body[at] ^ (1 << random.randrange(8))]) + body[at + 1 :]
    if way == 2:
        return body[:at] + random.choice(LITERALS) + body[at:]
    starts = [place + 1 for place, byte in enumerate(body) if byte == ord(":")]
    if not starts:
        return body + random.choice(LITERALS)
    start = random.choice(starts)
    end = min((place for place in (body.find(b",", start), body.find(b"}", start)) if place > 0), default=len(body))
    return body[:start] + random.choice(LITERALS) + body[end:]
