"""Bodies that come in pieces, slowly, or never."""

from __future__ import annotations

import json
import time
from urllib.parse import urlsplit

import pytest

from raw_connection import RawConnection
from serving import serving
from table_scorer import TableScorer
from uprank import Reranker

BODY = json.dumps({"query": "q", "documents": ["a", "b"]}).encode()
HEAD = b"POST /v1/rerank HTTP/1.1\r\nhost: loopback\r\ncontent-length: %d\r\n\r\n" % len(BODY)


@pytest.fixture(scope="module")
def port():
    with serving({"table": Reranker(TableScorer("table", {"a": 0.25, "b": 0.75}))}, deadline=0.5) as address:
        yield urlsplit(address).port


def test_a_body_in_pieces_is_read_whole(port):
    with RawConnection(port, timeout=10) as connection:
        connection.send(HEAD + BODY[:5])
        time.sleep(0.05)
        connection.send(BODY[5:9])
        reply = connection.ask(BODY[9:])
    assert [result["index"] for result in json.loads(reply.body)["results"]] == [1, 0]


def test_a_body_that_does_not_come_is_given_up_and_the_server_lives(port):
    with RawConnection(port, timeout=10) as connection:
        reply = connection.ask(HEAD + BODY[:-1])
    told = json.loads(reply.body)
    assert (reply.status, told["error"]["type"]) == (408, "body_too_slow")
    with RawConnection(port, timeout=10) as connection:
        assert connection.ask(HEAD + BODY).status == 200
