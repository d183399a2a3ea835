"""The services that are known, one row of data each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, get_args

from uprank.errors import ConfigurationError
from uprank.scorers.base import ScoreKind

__all__ = ["PROVIDERS", "ModelRow", "Provider"]


@dataclass(frozen=True, slots=True)
class ModelRow:
    """What is particular to some of a service's models.

    Args:
        pattern: Their names, in lower case, with ``*`` for anything.
        score_kind: What their scores mean, where it differs from the service's.
        listwise: Whether a score depends on the other documents; such requests are never split.
        max_documents: Instead of the service's.
        max_request_tokens: Likewise.
        instruction: Likewise.
        sends: Fields that are always sent; ``None`` leaves one of the dialect's out.
    """

    pattern: str = "*"
    score_kind: ScoreKind | None = None
    listwise: bool = False
    max_documents: int | None = None
    max_request_tokens: int | None = None
    instruction: str | None = None
    sends: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Provider:
    """One rerank service.

    Args:
        scheme: What a model's name starts with.
        title: The service's name.
        dialect: The shape of its requests, a key of ``DIALECTS``.
        base_url: Where it is; ``None`` where the caller must say.
        path: Appended to the base; ``{model}`` stands for the model's name, ``{slug}`` for that name
            with underscores for its dots.
        base_variable: An environment variable that may say where else it is.
        base_by_key: Where it is for keys that begin so.
        own_path: Instead of ``path``, where the caller gives the ``base_url`` of a server of their own.
        example: A model's name, for the documentation.
        takes_model: Whether the service needs to be told which model; one that runs a single model
            does not, but a name helps to tell what its scores mean.
        key_variables: Environment variables that may hold the key, in order.
        key_required: Whether it refuses to serve without one.
        auth: The header that carries the key; all but ``Authorization`` carry it bare.
        headers: Further headers.
        score_kind: What its scores mean, where the model's row does not say. ``"rank"`` where that
            is not known: only the order can be relied on, unless the caller says more.
        native: What is reported instead: ``"probability"`` where raw logits are asked for.
        max_documents: Most documents of one request.
        max_request_tokens: Most tokens of one request, the query counted once for each document.
        max_request_bytes: Most bytes of one request's body.
        info: The path that tells a server's own limits.
        counts_tokens: Whether the tokens that it reports are the model's; some count characters or words.
        fields: The further request fields that a caller may give.
        instruction: ``"query"``: an instruction goes before the query. Otherwise the field it goes
            into. ``None``: it takes none.
        models: Rows for particular models; the first that matches counts.
    """

    scheme: str
    title: str
    dialect: str
    base_url: str | None
    path: str
    base_variable: str | None = None
    base_by_key: Mapping[str, str] = field(default_factory=dict)
    own_path: str | None = None
    example: str = ""
    takes_model: bool = True
    key_variables: tuple[str, ...] = ()
    key_required: bool = False
    auth: str = "Authorization"
    headers: Mapping[str, str] = field(default_factory=dict)
    score_kind: ScoreKind = "rank"
    native: Literal["probability"] | None = None
    max_documents: int | None = None
    max_request_tokens: int | None = None
    max_request_bytes: int | None = None
    info: str | None = None
    counts_tokens: bool = True
    fields: tuple[str, ...] = ()
    instruction: str | None = None
    models: tuple[ModelRow, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what would only show at the first call.

        Raises:
            ConfigurationError: If a field is not what it should be.
        """
        problems = {
            "key_variables must be a tuple": isinstance(self.key_variables, str),
            "fields must be a tuple": isinstance(self.fields, str),
            "path must be empty or begin with a slash": bool(self.path) and not self.path.startswith("/"),
            "score_kind must be one of " + ", ".join(get_args(ScoreKind)): self.score_kind not in get_args(ScoreKind),
            "max_documents must be at least 1": self.max_documents is not None and self.max_documents < 1,
        }
        found = next((problem for problem, there in problems.items() if there), None)
        if found is not None:
            raise ConfigurationError(f"The provider {self.scheme!r}: {found}.")

    def row(self, model: str) -> ModelRow:
        """What is particular to ``model``; an empty row where nothing is."""
        name = model.lower()
        return next((row for row in self.models if fnmatchcase(name, row.pattern)), ModelRow())


_QWEN3 = ModelRow("*qwen3*rerank*", score_kind="probability")  # its two classes are soft-maxed by every server
_LISTWISE_JINA = ModelRow("*jina-reranker-v3*", score_kind="cosine", listwise=True)  # whoever serves it

_ROWS = (
    # Hosted
    Provider(
        scheme="cohere",
        title="Cohere",
        dialect="cohere",
        base_url="https://api.cohere.com",
        path="/v2/rerank",
        score_kind="probability",
        base_variable="CO_API_URL",
        example="rerank-v4.0-fast",
        key_variables=("CO_API_KEY", "COHERE_API_KEY"),
        key_required=True,
        max_documents=1000,  # 10,000 are refused, more than 1,000 discouraged
        fields=("max_tokens_per_doc", "priority", "relevant_spans"),
    ),
    Provider(
        scheme="jina",
        title="Jina AI",
        dialect="jina",
        base_url="https://api.jina.ai",
        path="/v1/rerank",
        score_kind="probability",
        example="jina-reranker-v2-base-multilingual",
        key_variables=("JINA_API_KEY",),
        key_required=True,
        max_documents=1024,
        fields=("truncation", "max_doc_length"),
        models=(
            _LISTWISE_JINA,
            ModelRow("jina-colbert-*", score_kind="rank"),
        ),
    ),
    Provider(
        scheme="voyage",
        title="Voyage AI",
        dialect="voyage",
        base_url="https://api.voyageai.com",
        path="/v1/rerank",
        score_kind="probability",
        base_by_key={"al-": "https://ai.mongodb.com"},  # keys that MongoDB issues
        example="rerank-2.5",
        key_variables=("VOYAGE_API_KEY",),
        key_required=True,
        max_documents=1000,
        max_request_tokens=600_000,
        fields=("truncation",),
        models=(
            ModelRow("rerank-2.5*", instruction="query"),
            ModelRow("rerank-3*", instruction="query"),
            ModelRow("rerank-1", max_request_tokens=100_000),
            ModelRow("rerank-lite-1", max_request_tokens=300_000),
        ),
    ),
    Provider(
        scheme="mixedbread",
        title="Mixedbread",
        dialect="mixedbread",
        base_url="https://api.mixedbread.com",
        path="/v1/reranking",
        example="mixedbread-ai/mxbai-rerank-large-v2",
        key_variables=("MXBAI_API_KEY",),
        key_required=True,
        score_kind="rank",
        max_documents=1000,
        fields=("rewrite_query",),
    ),
    Provider(
        scheme="nvidia",
        title="NVIDIA NIM",
        dialect="nim",
        base_url="https://ai.api.nvidia.com",
        path="/v1/retrieval/{slug}/reranking",
        own_path="/v1/ranking",
        example="nvidia/llama-nemotron-rerank-1b-v2",
        key_variables=("NVIDIA_API_KEY",),
        key_required=True,
        score_kind="logit",
        max_documents=512,
        fields=("truncate",),
    ),
    Provider(
        scheme="pinecone",
        title="Pinecone Inference",
        dialect="pinecone",
        base_url="https://api.pinecone.io",
        path="/rerank",
        score_kind="probability",
        example="bge-reranker-v2-m3",
        key_variables=("PINECONE_API_KEY",),
        key_required=True,
        auth="Api-Key",
        headers={"X-Pinecone-Api-Version": "2026-04"},
        max_documents=100,
        fields=("parameters",),
        models=(
            ModelRow("cohere-rerank-3.5", max_documents=200),
            ModelRow("cohere-rerank-*", max_documents=250),
            ModelRow("bge-reranker-*", sends={"parameters": {"truncate": "END"}}),  # else a long one is an error
            ModelRow("pinecone-rerank-*", sends={"parameters": {"truncate": "END"}}),
        ),
    ),
    Provider(
        scheme="together",
        title="Together AI",
        dialect="jina",
        base_url="https://api.together.ai",
        path="/v1/rerank",
        score_kind="probability",
        example="mixedbread-ai/Mxbai-Rerank-Large-V2",
        key_variables=("TOGETHER_API_KEY",),
        key_required=True,
    ),
    Provider(
        scheme="fireworks",
        title="Fireworks AI",
        dialect="jina",
        base_url="https://api.fireworks.ai/inference",
        path="/v1/rerank",
        score_kind="probability",
        example="fireworks/qwen3-reranker-8b",
        key_variables=("FIREWORKS_API_KEY",),
        key_required=True,
        instruction="task",
    ),
    Provider(
        scheme="openrouter",
        title="OpenRouter",
        dialect="cohere",
        base_url="https://openrouter.ai/api",
        path="/v1/rerank",
        example="cohere/rerank-v3.5",
        key_variables=("OPENROUTER_API_KEY",),
        key_required=True,
        score_kind="rank",
        models=(
            ModelRow("cohere/*", score_kind="probability", max_documents=1000),
            ModelRow("voyageai/*", score_kind="probability", max_documents=1000, max_request_tokens=600_000),
            _LISTWISE_JINA,
        ),
    ),
    # Self-hosted
    Provider(
        scheme="vllm",
        title="vLLM",
        dialect="cohere",
        base_url="http://localhost:8000",
        path="/v1/rerank",
        score_kind="probability",
        example="BAAI/bge-reranker-v2-m3",
        key_variables=("VLLM_API_KEY",),
        fields=("truncate_prompt_tokens", "truncation_side", "max_tokens_per_doc", "max_tokens_per_query", "priority"),
    ),
    Provider(
        scheme="vllm-score",
        title="vLLM, its score route",
        dialect="score",
        base_url="http://localhost:8000",
        path="/v1/score",
        score_kind="probability",
        example="BAAI/bge-reranker-v2-m3",
        key_variables=("VLLM_API_KEY",),
        fields=("truncate_prompt_tokens", "truncation_side", "max_tokens_per_doc", "max_tokens_per_query", "priority"),
    ),
    Provider(
        scheme="tei",
        title="Text Embeddings Inference",
        dialect="tei",
        base_url="http://localhost:3000",
        path="/rerank",
        example="BAAI/bge-reranker-v2-m3",
        takes_model=False,
        key_variables=("TEI_API_KEY",),
        score_kind="logit",
        native="probability",
        max_documents=32,
        max_request_bytes=2_000_000,
        info="/info",
        fields=("truncate", "truncation_direction"),
    ),
    Provider(
        scheme="llama-cpp",
        title="llama.cpp server",
        dialect="cohere",
        base_url="http://localhost:8080",
        path="/v1/rerank",
        example="bge-reranker-v2-m3",
        takes_model=False,
        key_variables=("LLAMA_API_KEY",),
        score_kind="logit",
        models=(_QWEN3,),
    ),
    Provider(
        scheme="infinity",
        title="Infinity",
        dialect="infinity",
        base_url="http://localhost:7997",
        path="/rerank",
        example="BAAI/bge-reranker-v2-m3",
        key_variables=("INFINITY_API_KEY",),
        score_kind="logit",
        native="probability",
        max_documents=2048,
        counts_tokens=False,
    ),
    Provider(
        scheme="xinference",
        title="Xinference",
        dialect="jina",
        base_url="http://localhost:9997",
        path="/v1/rerank",
        example="bge-reranker-v2-m3",
        key_variables=("XINFERENCE_API_KEY",),
        score_kind="rank",  # its engines differ: sigmoid, soft-max, or raw logits
        models=(_QWEN3, _LISTWISE_JINA),
    ),
    Provider(
        scheme="localai",
        title="LocalAI",
        dialect="cohere",
        base_url="http://localhost:8080",
        path="/v1/rerank",
        example="jina-reranker-v1-tiny-en",
        key_variables=("LOCALAI_API_KEY",),
        score_kind="rank",  # its backends differ
        counts_tokens=False,
        fields=("backend",),
    ),
    Provider(
        scheme="sie",
        title="SIE",
        dialect="sie",
        base_url="http://localhost:8080",
        path="/v1/score/{model}",
        example="BAAI/bge-reranker-v2-m3",
        key_variables=("SIE_API_KEY",),
        score_kind="rank",
        fields=("options",),
        instruction="instruction",
        models=(
            ModelRow("baai/bge-reranker-*", score_kind="probability"),
            ModelRow("jinaai/jina-reranker-v2-*", score_kind="probability"),
            ModelRow("alibaba-nlp/gte-reranker-modernbert-base", score_kind="probability"),
            _QWEN3,
            ModelRow("mixedbread-ai/mxbai-rerank-*-v2", score_kind="logit"),
            ModelRow("baai/bge-m3", score_kind="cosine"),
            _LISTWISE_JINA,
        ),
    ),
    Provider(
        scheme="http",
        title="Any server of a known dialect",
        dialect="cohere",
        base_url=None,
        path="",
        example="my-model",
        takes_model=False,
        score_kind="rank",
        models=(_LISTWISE_JINA,),
    ),
)

PROVIDERS: dict[str, Provider] = {row.scheme: row for row in _ROWS}
"""Every service by its scheme. To add one, add a row here and its scheme to the registry."""
