"""Which dialects are spoken where: one row a path."""

from __future__ import annotations

from dataclasses import dataclass

from uprank.server.dialects.base import Body
from uprank.server.dialects.mixedbread import MixedbreadBody
from uprank.server.dialects.nvidia import NvidiaBody, NvidiaHostedBody
from uprank.server.dialects.pairs import PairsBody
from uprank.server.dialects.rerank import RerankBody, RerankV1Body
from uprank.server.dialects.sie import SieBody
from uprank.server.dialects.tei import TeiBody
from uprank.server.dialects.voyage import VoyageBody

__all__ = ["ROUTES", "Route"]


@dataclass(frozen=True, slots=True)
class Route:
    """A path that reranks.

    Args:
        paths: All that clients use.
        bodies: The dialects; the first that fits a request is its. The last takes what fits none, and speaks where a
            request is refused before its body is read.
        summary: For the documentation.
    """

    paths: tuple[str, ...]
    bodies: tuple[type[Body], ...]
    summary: str


ROUTES = (
    Route(
        ("/rerank", "/v2/rerank"),
        (TeiBody, VoyageBody, RerankBody),
        "Rerank, as Cohere, Jina, vLLM and others have it; with texts, as TEI does",
    ),
    Route(("/v1/rerank",), (TeiBody, VoyageBody, RerankV1Body), "The same, as version 1 of Cohere's"),
    Route(
        ("/v1/reranking", "/reranking"),
        (TeiBody, MixedbreadBody, RerankBody),
        "Rerank, as llama.cpp has it; with input, as Mixedbread does",
    ),
    Route(("/voyage/v1/rerank",), (VoyageBody,), "Rerank, as Voyage has it"),
    Route(("/v1/score", "/score"), (PairsBody,), "Score pairs of texts, as vLLM has it"),
    Route(("/v1/score/{model:path}",), (SieBody,), "Score items, as SIE has it"),
    Route(("/v1/ranking",), (NvidiaBody,), "Rank passages, as NVIDIA's NIM has it"),
    Route(("/v1/retrieval/{slug:path}/reranking",), (NvidiaHostedBody,), "The same, as NVIDIA hosts it"),
)
