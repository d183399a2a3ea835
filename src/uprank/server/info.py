"""What clients of Text Embeddings Inference ask before they rerank: the model, and how much fits into a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

import uprank
from uprank.server.dialects.tei import TeiBody
from uprank.server.endpoints import refusal_reply
from uprank.server.keys import Keys
from uprank.server.logs import request_id_of
from uprank.server.refusals import Refusal
from uprank.server.served import ServedModels
from uprank.server.settings import ServerSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["add_info"]

_ONE_LABEL: dict[str, dict[str, object]] = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}


def add_info(app: FastAPI, settings: ServerSettings, keys: Keys, models: ServedModels) -> None:
    """Answer ``GET /info`` (https://huggingface.github.io/text-embeddings-inference/), of the default model.

    Args:
        app: Gets the route.
        settings: The limits.
        keys: Who may ask; it is not counted.
        models: What is served.
    """
    limits = settings.limits

    async def info(request: Request) -> Response:
        request_id = request_id_of(request.headers)
        try:
            keys.check(request.headers)
        except Refusal as refusal:
            return refusal_reply(refusal, TeiBody, request_id)
        found = {
            "model_id": models.default,
            "served_model_name": models.default,
            "model_sha": None,
            "model_dtype": "unknown",
            "model_type": {"reranker": _ONE_LABEL},
            # There, of the texts under way; here, of requests.
            "max_concurrent_requests": settings.max_queue * limits.documents,
            # Tokens of a text; not known before a model is loaded, nor of most services.
            "max_input_length": models.rerankers[models.default].scorer.document_window,
            "max_batch_tokens": limits.batch_tokens,
            "max_batch_requests": None,
            "max_client_batch_size": limits.documents,
            "auto_truncate": True,
            "tokenization_workers": 1,
            "version": uprank.__version__,
            "sha": None,
            "docker_label": None,
        }
        return Response(to_json(found), media_type="application/json", headers={"x-request-id": request_id})

    summary = "The default model and the limits, as Text Embeddings Inference has it"
    app.add_api_route("/info", info, methods=["GET"], response_model=None, summary=summary, tags=["operation"])
