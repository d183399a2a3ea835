"""Every service by its name."""

from __future__ import annotations

from rerank_servers.cohere import Cohere
from rerank_servers.hosted import Fireworks, Mixedbread, OpenRouter, Pinecone, Together
from rerank_servers.jina import Jina
from rerank_servers.llama_cpp import LlamaCpp
from rerank_servers.nvidia import Nvidia
from rerank_servers.self_hosted import Infinity, LocalAi, Xinference
from rerank_servers.service import Service
from rerank_servers.sie import Sie
from rerank_servers.tei import Tei
from rerank_servers.vllm import Vllm, VllmScore
from rerank_servers.voyage import Voyage

_CLASSES: tuple[type[Service], ...] = (
    Cohere,
    Jina,
    Voyage,
    Mixedbread,
    Together,
    Fireworks,
    Pinecone,
    Nvidia,
    OpenRouter,
    Vllm,
    VllmScore,
    Tei,
    LlamaCpp,
    Infinity,
    Xinference,
    LocalAi,
    Sie,
)

SERVICES: dict[str, type[Service]] = {service.name: service for service in _CLASSES}
