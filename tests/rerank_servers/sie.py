"""SIE: answers in msgpack unless it is asked for JSON, and with ids rather than indices."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar
from urllib.parse import unquote

from rerank_servers.messages import Reply, Request
from rerank_servers.schema import OBJECT, TEXT, Field, is_object, is_text, listed, required
from rerank_servers.service import Body, Refusal, Service, best, json_reply


def _is_item(value: object) -> bool:
    return (
        isinstance(value, dict)
        and is_text(value.get("text"))
        and (value.get("id") is None or is_text(value["id"]))
        and set(value) <= {"id", "text", "images", "metadata"}
    )


FIELDS: Mapping[str, Field] = {
    "query": required(Field("an object with a text", _is_item)),
    "items": required(listed("objects with a text", _is_item)),
    "instruction": TEXT,
    "options": OBJECT,
}
CODES = {
    400: "INVALID_INPUT",
    404: "MODEL_NOT_FOUND",
    500: "INTERNAL_ERROR",
    502: "MODEL_LOAD_FAILED",
    503: "MODEL_LOADING",
}
START, MSGPACK = "/v1/score/", "application/msgpack"


@dataclass
class Sie(Service):
    """SIE: the model is in the path, results are called ``scores`` and hold an ``item_id``, not an index.

    Attributes:
        provisioning: The first so many POSTs get 202, as while a gateway starts a machine. Default 0.
        provisioning_retry_after: The ``Retry-After`` of these, in seconds; None: not sent. The real one says 120.
    """

    name: ClassVar[str] = "sie"
    path: ClassVar[str] = "/v1/score/{model}"
    hosted: ClassVar[bool] = False
    list_key: ClassVar[str | None] = "scores"
    index_key: ClassVar[str] = "item_id"
    score_key: ClassVar[str] = "score"
    refuses_unknown: ClassVar[bool] = False
    id_header: ClassVar[str | None] = None
    missing_status: ClassVar[int] = 400
    value_status: ClassVar[int] = 400
    unknown_status: ClassVar[int] = 400

    provisioning: int = 0
    provisioning_retry_after: float | None = None
    _provisioned: int = field(default=0, init=False, repr=False)

    def serves(self, route: str) -> bool:
        return route.startswith(START) and len(route) > len(START)

    def rerank(self, body: Body, request: Request) -> Reply:
        if self._provisioned < self.provisioning:
            self._provisioned += 1
            wait = self.provisioning_retry_after
            return json_reply(
                {"status": "provisioning", "gpu": "", "bundle": "default", "estimated_wait_s": 180},
                202,
                {} if wait is None else {"Retry-After": str(wait)},
            )
        self.check(body, FIELDS)
        model = self.check_model(unquote(request.route[len(START) :]))
        items, asked = body["items"], body["query"]
        assert isinstance(items, list)
        assert is_object(asked)
        ids = [f"item-{index}" if item.get("id") is None else item["id"] for index, item in enumerate(items)]
        scores = self.scores(request.query, request.texts, model=model)
        entries = [
            {"item_id": ids[index], "score": score, "rank": rank} for rank, (index, score) in enumerate(best(scores))
        ]
        value = {"model": model, "query_id": dict(asked).get("id"), "scores": entries}  # type: ignore[call-overload]  # checked above
        accepted = request.headers.get("accept", "").lower()
        if "application/json" in accepted and "msgpack" not in accepted:
            return json_reply(value)
        return Reply(200, packed(value), {}, MSGPACK, value)

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        if status in (401, 404) and not self.serves(request.route):
            return json_reply({"detail": message}, status)
        code = CODES.get(status, "INVALID_INPUT" if status < 500 else "INTERNAL_ERROR")
        return json_reply({"detail": {"code": code, "message": message}}, status)


def packed(value: object) -> bytes:
    """``value`` in msgpack, every length in its widest form."""
    if value is None:
        return b"\xc0"
    if isinstance(value, int):
        return b"\xd3" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        raw = value.encode()
        return b"\xdb" + struct.pack(">I", len(raw)) + raw
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(packed, value))
    if isinstance(value, dict):
        pairs = b"".join(packed(key) + packed(each) for key, each in value.items())
        return b"\xdf" + struct.pack(">I", len(value)) + pairs
    raise TypeError(f"no msgpack for {type(value).__name__}")
