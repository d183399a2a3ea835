"""Which dialects are spoken where: one row a path."""

from __future__ import annotations

from dataclasses import dataclass

from uprank.server.dialects.base import Body
from uprank.server.dialects.rerank import RerankBody

__all__ = ["ROUTES", "Route"]


@dataclass(frozen=True, slots=True)
class Route:
    """A path that reranks.

    Args:
        paths: All that clients use.
        bodies: The dialects; the first that fits a request is its, the last takes what fits none.
        summary: For the documentation.
    """

    paths: tuple[str, ...]
    bodies: tuple[type[Body], ...]
    summary: str


ROUTES = (
    Route(("/rerank", "/v1/rerank", "/v2/rerank"), (RerankBody,), "Rerank, as Cohere, Jina, vLLM and others have it"),
)
