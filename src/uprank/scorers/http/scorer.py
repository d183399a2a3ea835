"""Rerank services behind httpx: hosted, self-hosted, or any server that speaks a known dialect."""

# ruff: noqa: E402 - the check comes before the imports of what it checks
from __future__ import annotations

from uprank.extras import require

require("A model behind HTTP", "http", "httpx", "anyio")

import inspect
from collections.abc import Mapping
from typing import get_args

from uprank.errors import ConfigurationError
from uprank.scorers.base import ScoreKind
from uprank.scorers.http.addresses import origin
from uprank.scorers.http.clients import ClientOptions, Transport, Verify
from uprank.scorers.http.endpoint import HTTPEndpoint
from uprank.scorers.http.gate import shared_gate
from uprank.scorers.http.plan import Target
from uprank.scorers.http.providers import Provider
from uprank.scorers.http.remote import RemoteScorer
from uprank.scorers.http.retries import RetryPolicy
from uprank.scorers.http.settings import (
    Keys,
    find_address,
    find_dialect,
    find_provider,
    secrets_in,
    valid_body,
    valid_count,
    valid_fields,
    valid_headers,
    valid_price,
    valid_proxy,
    valid_transport,
    valid_verify,
)
from uprank.scorers.http.splitting import Limits
from uprank.scorers.http.talking import Endpoint
from uprank.secrets import KeyLike, header_prints, masked, without_secrets

__all__ = ["HTTPScorer"]

# Seconds to wait at most at first after a 429 without a hint: hosted services count by the minute, a
# server of one's own is only busy for the moment.
_PER_MINUTE, _PER_REQUEST = 5.0, 0.5


class HTTPScorer(RemoteScorer):
    """Scores by a rerank service.

    Connections are opened when first needed, kept alive, and shared by all threads; each event loop
    has its own. More documents than the service takes are split over several requests, sent at
    once and merged exactly. Failures that may pass are retried; see :class:`RetryPolicy`.

    Args:
        model: As the service names it; may be empty for a server that runs one model.
        provider: A scheme of the table in docs/providers.md, or a row of your own.
        dialect: The shape of the requests, for the provider ``"http"`` only: ``"cohere"``,
            ``"jina"``, ``"voyage"``, ``"mixedbread"``, ``"tei"``, ``"infinity"``, ``"nim"``, ``"pinecone"``,
            ``"score"`` or ``"sie"``.
        api_key: The key, also as a ``SecretStr``; by default from the service's environment variable.
        base_url: The server's address, with or without the path; for ``"http"`` the full address.
        timeout: Seconds for one attempt, from sending to the last byte of the reply. (Synchronous calls
            cannot be called off in the midst of headers: there each wait for a piece is bounded.)
        deadline: Seconds for the whole call, all waiting included; ``None`` sets none. A bulk
            ``rank_many`` counts it for each query, from when its first request is taken up.
        max_retries: Further attempts of one request. Only failures that may pass are retried, and a
            timeout only once.
        max_concurrency: Most requests in flight to this host; fewer for a while after it answers 429.
        requests_per_minute: Most requests within any 60 seconds; ``None`` sets no limit.
        max_documents: Most documents of one request, where it should be fewer than the service takes.
        score_kind: What the scores mean, where you know better than the provider's row, and than a reply of
            ``uprank serve``, which tells it in a header.
        check: Score an obvious pair before the first call, and fail if the server gets it wrong.
        price: What a unit costs, by ``"tokens"``, ``"search_units"`` or ``"requests"``, e.g.
            ``{"tokens": 0.05 / 1e6}``; fills ``usage.cost``.
        headers: Sent with every request; one that carries a key takes the place of the environment's.
        proxy: A proxy's URL; by default the environment's (``HTTPS_PROXY``, ``NO_PROXY``).
        verify: ``False`` trusts any server; a path is a file of certificates to trust; or an
            ``ssl.SSLContext``.
        transport: Instead of the network: an httpx transport, e.g. :class:`uprank.testing.MockTransport`.
        extra_body: Further fields of the request body that the provider's row does not list.
        fields: The service's own request fields, e.g. ``max_tokens_per_doc=8000``; see docs/providers.md.

    Raises:
        ConfigurationError: If an option cannot work, or a key is needed and not there.
        MissingDependencyError: If httpx is not installed.
    """

    def __init__(
        self,
        model: str = "",
        *,
        provider: str | Provider = "http",
        dialect: str | None = None,
        api_key: KeyLike | None = None,
        base_url: str | None = None,
        timeout: float = 60.0,
        deadline: float | None = 120.0,
        max_retries: int = 4,
        max_concurrency: int = 64,
        requests_per_minute: int | None = None,
        max_documents: int | None = None,
        score_kind: ScoreKind | None = None,
        check: bool = False,
        price: Mapping[str, float] | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        verify: Verify = True,
        transport: Transport | None = None,
        extra_body: Mapping[str, object] | None = None,
        **fields: object,
    ) -> None:
        # Masked, so that a traceback that prints this function's variables shows no secret.
        given = masked({name: value for name, value in locals().items() if name in _OPTIONS or name == "provider"})
        api_key, base_url, headers, proxy = (given[name] for name in ("api_key", "base_url", "headers", "proxy"))
        row, model = find_provider(provider), model.strip()
        particular = row.row(model)
        name = f"{row.scheme}:{model}" if model else row.scheme
        valid_fields(name, row, fields, _OPTIONS)
        # A caller who sends that header means it: no environment's key takes its place.
        own_header = row.auth.lower() in map(str.lower, valid_headers(headers or {}))
        variables = () if own_header else row.key_variables
        keys = Keys(name, variables, api_key)
        url = find_address(row, model, base_url, keys.value())
        if row.key_required and base_url is None and not own_header and not self._brings_key():
            keys.check()
        shape = find_dialect(row, dialect)
        if api_key is not None and own_header:
            raise ConfigurationError(
                f"{name}: headers= has {row.auth} already, which api_key= would replace; give one."
            )
        valid_transport(transport)
        valid_body(name, shape, fields, extra_body or {})
        verify = valid_verify(verify)
        always = {**shape.always, **particular.sends, **fields, **(extra_body or {})}
        if score_kind is not None and score_kind not in get_args(ScoreKind):
            raise ConfigurationError(f"score_kind must be one of {', '.join(get_args(ScoreKind))}; got {score_kind!r}.")
        if score_kind == "probability" and "raw_scores" in always:
            always["raw_scores"] = False
        limits = Limits(
            particular.max_documents or row.max_documents,
            particular.max_request_tokens or row.max_request_tokens,
            row.max_request_bytes,
        )
        sent, proxy = {**row.headers, **valid_headers(headers or {})}, valid_proxy(proxy)
        target = Target(
            provider=row.scheme,
            name=name,
            model=model,
            url=url,
            info_url=None if row.info is None else url.removesuffix(row.path) + row.info,
            dialect=shape,
            fields=always,
            instruction=particular.instruction or row.instruction,
            kind=score_kind or particular.score_kind or row.score_kind,
            kind_given=score_kind is not None,
            native=row.native if score_kind is None else None,
            listwise=particular.listwise,
            limits=limits.at_most(valid_count("max_documents", max_documents)),
            max_documents=max_documents,
            counts_tokens=row.counts_tokens,
            check=check,
            price=valid_price(price or {}),
            policy=RetryPolicy(max_retries, timeout, deadline, _PER_MINUTE if row.key_required else _PER_REQUEST),
            gate=shared_gate(origin(url), max_concurrency, requests_per_minute, keys.value()),
            advice=keys.advice,
            keyed=lambda: bool(keys.value()) or self._brings_key() or own_header,
            secrets=lambda: (keys.value(), *secrets_in(sent, proxy)),
        )
        options = ClientOptions(max_concurrency, sent, proxy, verify, transport, secure=url.startswith("https"))
        super().__init__(target, self._endpoint_for(options, row, keys))
        self.key_variable = row.key_variables[0] if row.key_variables else None
        self._recipe: tuple[str, dict[str, object]] = (model, without_secrets({**given, **fields}))

    def __reduce__(self) -> tuple[object, ...]:
        return _remake, (type(self), *self._recipe)

    def identity(self) -> Mapping[str, object] | None:
        told = super().identity()
        return None if told is None else {**told, "headers": header_prints(self._recipe[1].get("headers"))}

    def _brings_key(self) -> bool:
        """Whether the connection has a key of its own."""
        return False

    def _endpoint_for(self, options: ClientOptions, row: Provider, keys: Keys) -> Endpoint:
        return HTTPEndpoint(options, row.auth, keys.current)


_OPTIONS = tuple(
    name
    for name, parameter in inspect.signature(HTTPScorer).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name != "provider"
)


def _remake(cls: type[HTTPScorer], model: str, options: dict[str, object]) -> HTTPScorer:
    return cls(model, **options)  # type: ignore[arg-type]  # the options of an earlier one
