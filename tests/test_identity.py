"""What tells scorers apart: all that their scores depend on, and nothing that is secret or only looks different."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from planted import HEADER, KEY, PASSWORD, hidden
from uprank.cache import MemoryCache
from uprank.cache.keys import document_keys, identity_digest, list_key
from uprank.errors import ConfigurationError
from uprank.scorers import (
    BM25Scorer,
    CallableScorer,
    CohereScorer,
    CrossEncoderScorer,
    EmbeddingScorer,
    HTTPScorer,
    LateInteractionScorer,
    LLMScorer,
    Scorer,
    ScoreRequest,
    register_scorer,
    registry,
)
from uprank.scorers.combined.cached import Cached
from uprank.scorers.http.providers import PROVIDERS
from uprank.scorers.llm import Example
from uprank.scorers.local.embedded import EmbeddedScorer
from uprank.testing import MockChatModel, MockTransport

TEXTS = ["Paris is the capital of France.", "Whales swim.", "Bread rises."]
Make = Callable[..., Scorer]


def digest(scorer: Scorer) -> bytes:
    identity = scorer.identity()
    assert identity is not None
    return identity_digest(identity, name=scorer.name)


def differ(make: Make, *changes: dict[str, object]) -> None:
    """The scorer as it is usual, and with each of the changes: all have identities of their own."""
    found = {json.dumps(change, default=repr): digest(make(**change)) for change in ({}, *changes)}
    same = [change for change in found if list(found.values()).count(found[change]) > 1]
    assert same == []


def agree(make: Make, *changes: dict[str, object]) -> None:
    """None of the changes makes another scorer of it."""
    usual = digest(make())
    assert [change for change in changes if digest(make(**change)) != usual] == []


def test_identities_and_keys_are_the_same_in_every_process_and_version():
    """A change here makes all that users have kept useless: it must be meant."""
    known = identity_digest({"b": [1, 0.5, None, True], "a": {"é": "x"}}, name="x")
    assert known == identity_digest({"a": {"é": "x"}, "b": (1, 0.5, None, True)}, name="x")
    request = ScoreRequest("query", ["first", "second"], "instruction")
    assert known.hex() == "8ef150e3026b2d3ce4aa021bc4e3399167d63bc639435c495084baa2a0c73aa1"
    assert document_keys(known, request)[1].hex() == "76f445c01af01136b6e77614b4e796d330f087e85676f7d23170442174296767"
    assert list_key(known, request).hex() == "d5efba4ff72c56841a9f4ad291e561c5f13928cdc8eb9572a8c671d27f8c46be"


def test_bm25():
    make = BM25Scorer
    differ(make, {"k1": 1.2}, {"b": 0.5}, {"stopwords": None})
    agree(make, {"k1": 1.5}, {})
    assert digest(BM25Scorer(k1=2)) == digest(BM25Scorer(k1=2.0))


def test_bm25_counts_words_in_the_list_so_a_score_is_never_kept_by_itself():
    scorer, texts = BM25Scorer(), ["the whale swims", "bread and water", "a whale of bread"]
    cached = Cached(scorer, MemoryCache())
    assert cached.score("whale", texts).values == scorer.score("whale", texts).values
    assert cached.score("whale", texts[:2]).values == scorer.score("whale", texts[:2]).values
    assert cached.score("whale", texts[:2]).values != scorer.score("whale", texts).values[:2]


def test_functions():
    def function(query: str, texts: list[str]) -> list[float]:
        return [0.0] * len(texts)

    def make(**options: object) -> Scorer:
        return CallableScorer(function, **{"identity": "v1", **options})  # type: ignore[arg-type]  # of many types

    differ(make, {"identity": "v2"}, {"score_kind": "probability"}, {"name": "another"})
    assert CallableScorer(function).identity() is None


def test_the_embedded_model_is_known_without_being_loaded():
    def make(**options: object) -> EmbeddedScorer:
        return EmbeddedScorer(**{"device": "cpu", "dtype": "float32", **options})  # type: ignore[arg-type]  # as above

    differ(
        make,
        {"max_length": 128},
        {"engine": "onnx"},
        {"engine": "torch"},
        {"dtype": "int8", "engine": "openvino"},
        {"store_dtype": "int8"},
        {"long_query": "truncate"},
    )
    agree(make, {"store": False}, {"token_budget": 64}, {"max_queue": 3}, {"progress": True}, {"store_memory": 1})
    scorer = make()
    digest(scorer)
    assert scorer._scheduler.runner is None


def test_kept_scores_of_the_embedded_model_need_no_model_and_are_bit_by_bit_the_same():
    cache = MemoryCache()
    scorer = EmbeddedScorer()
    try:
        first = Cached(scorer, cache).score("capital of France?", TEXTS)
        assert first.values == scorer.score("capital of France?", TEXTS).values
    finally:
        scorer.close()
    again = EmbeddedScorer()
    found = Cached(again, cache).score("capital of France?", TEXTS[::-1])
    assert found.values == first.values[::-1]
    assert again._scheduler.runner is None
    assert found.calibrator is not None
    assert found.calibrator(0.5) == again.calibrator(0.5)


@pytest.mark.parametrize("kind", [CrossEncoderScorer, LateInteractionScorer, EmbeddingScorer])
def test_local_models(kind: type[Scorer], tiny_models: dict[str, Path], tmp_path: Path):
    folder = shutil.copytree(tiny_models["bert"], tmp_path / "one")

    def make(**options: object) -> Scorer:
        usual = {"model": str(folder), "device": "cpu", "dtype": "float32"}
        return kind(**{**usual, **options})  # type: ignore[call-arg]  # the three take these

    changes: list[dict[str, object]] = [{"max_length": 20}, {"dtype": "bfloat16"}, {"long_query": "truncate"}]
    if kind is not EmbeddingScorer:
        changes += [{"engine": "torch"}, {"engine": "onnx"}, {"engine": "openvino", "dtype": "int8"}]
    if kind is not CrossEncoderScorer:
        changes += [{"store_dtype": "int8"}]
    if kind is CrossEncoderScorer:
        changes += [{"compile": True, "engine": "torch"}]
    differ(make, *changes)
    other_place = shutil.copytree(folder, tmp_path / "two")
    token = {"token": KEY, "local_files_only": True}
    agree(make, {"token_budget": 64}, {"max_queue": 3}, {"progress": True}, token, {"model": str(other_place)})
    identity = make(token=KEY).identity()
    hidden(json.dumps(identity))
    assert str(tmp_path) not in json.dumps(identity)
    usual = digest(make())
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        path = folder / name
        content = path.read_bytes()
        path.write_bytes(content.replace(b'"bert"', b'"bert" ') if name == "config.json" else content + b" ")
        assert digest(make()) != usual, name
        path.write_bytes(content)
    assert digest(make()) == usual


def test_a_repository_is_known_by_its_commit(tiny_models: dict[str, Path], tmp_path: Path):
    commits = {}
    for commit in ("a" * 40, "b" * 40):
        home = tmp_path / commit[0] / "models--owner--name"
        shutil.copytree(tiny_models["bert"], home / "snapshots" / commit)
        (home / "refs").mkdir()
        (home / "refs" / "main").write_text(commit)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home.parent))
            patch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(home.parent))
            identity = CrossEncoderScorer("owner/name", device="cpu", local_files_only=True, token=KEY).identity()
        hidden(json.dumps(identity))
        commits[commit] = identity["model"]
    assert commits == {commit: f"owner/name@{commit}" for commit in commits}


SECRETIVE: list[dict[str, object]] = [
    {"api_key": KEY},
    {"headers": {"X-Team-Token": HEADER}},
    {"proxy": f"http://user:{PASSWORD}@127.0.0.1:9"},
]


def http(**options: object) -> Scorer:
    usual = {"model": "m", "provider": "jina", "api_key": "k" * 20, "transport": MockTransport()}
    return HTTPScorer(**{**usual, **options})  # type: ignore[arg-type]  # of many types


def test_services():
    differ(
        http,
        {"model": "n"},
        {"provider": "mixedbread"},
        {"base_url": "http://127.0.0.1:1"},
        {"truncation": False},
        {"extra_body": {"temperature": 1}},
        {"extra_body": {"session": "a tenant's"}},
        {"score_kind": "logit"},
        {"headers": {"azureml-model-deployment": "green"}},
    )
    agree(
        http,
        *SECRETIVE[:2],
        {"proxy": SECRETIVE[2]["proxy"], "transport": None},
        {"timeout": 1.0, "deadline": None, "max_retries": 0, "max_concurrency": 1, "requests_per_minute": 5},
        {"max_documents": 2, "check": True, "price": {"tokens": 1.0}, "verify": False, "transport": None},
    )
    own = {"provider": "http", "base_url": "http://127.0.0.1:1/rerank"}
    differ(lambda **more: http(**own, **more), {"dialect": "tei"}, {"dialect": "voyage"})


@pytest.mark.parametrize("scheme", sorted(PROVIDERS))
def test_no_secret_is_in_the_identity_of_any_service(scheme: str):
    scorer = http(
        provider=scheme,
        base_url="http://127.0.0.1:1/rerank",
        api_key=KEY,
        headers={"X-Team": HEADER},
        proxy=f"http://user:{PASSWORD}@127.0.0.1:9",
        transport=None,
        extra_body={"session_token": KEY, "nested": {"password": PASSWORD, "kept": 1}},
    )
    identity = scorer.identity()
    hidden(json.dumps(identity), repr(identity))
    assert identity["fields"]["nested"]["kept"] == 1


def test_a_server_whose_model_is_not_named_may_run_another_one_tomorrow():
    scorer = HTTPScorer(provider="tei", base_url="http://127.0.0.1:1")
    assert scorer.identity() is None
    with pytest.raises(ConfigurationError, match="tei cannot be told from others"):
        Cached(scorer, MemoryCache())


def test_a_ready_client_alone_knows_where_it_asks():
    class Client:
        def rerank(self, **arguments: object) -> None: ...

    assert CohereScorer("rerank-v4.0-fast", client=Client()).identity() is None
    keys = (KEY, "another")
    assert len({digest(CohereScorer("rerank-v4.0-fast", api_key=key)) for key in keys}) == 1


def test_a_service_is_asked_once():
    transport = MockTransport()
    cache = MemoryCache()
    first = Cached(http(transport=transport), cache).score("capital of France?", TEXTS)
    again = Cached(http(transport=transport, api_key=KEY, timeout=5.0), cache).score("capital of France?", TEXTS)
    assert len(transport.requests) == 1
    assert again.values == first.values
    assert again.kind == first.kind
    assert again.usage.requests == 0


def llm(**options: object) -> Scorer:
    usual = {"llm": "m", "api_key": "k" * 20, "base_url": "http://127.0.0.1:1/v1"}
    return LLMScorer(**{**usual, **options})  # type: ignore[arg-type]  # of many types


def test_language_models():
    differ(
        llm,
        {"llm": "n"},
        {"base_url": "http://127.0.0.1:2/v1"},
        {"method": "pointwise"},
        {"strategy": "heap"},
        {"quality": "high"},
        {"window": 10},
        {"scores": True},
        {"seed": 1},
        {"temperature": 0.5},
        {"thinking": 100},
        {"max_document_tokens": 50},
        {"context_window": 4096},
        {"examples": [Example("q", ("a", "b"), (1, 0))]},
        {"prompt": "rank-zephyr"},
        {"extra_body": {"reasoning_effort": "low"}},
        {"identity": "after the update"},
    )
    secret = {"extra_body": {"api_key": KEY}, "headers": {"X-Team-Token": HEADER}}
    agree(llm, {"api_key": KEY}, {"timeout": 1.0}, {"budget": {"max_calls": 3}}, {"strict": True}, {"max_retries": 0})
    hidden(json.dumps(llm(api_key=KEY, **secret).identity()))


def test_language_models_that_only_their_owner_knows():
    def answer(messages: list[dict[str, str]]) -> str:
        return ""

    for model in (answer, MockChatModel(lambda query, text: 1.0)):
        assert LLMScorer(model).identity() is None
        with pytest.raises(ConfigurationError, match="identity="):
            Cached(LLMScorer(model), MemoryCache())
        named = [LLMScorer(model, identity="v1"), LLMScorer(model, identity="v2")]
        named.append(LLMScorer(model, identity="v1", window=7))
        assert len(set(map(digest, named))) == 3
    assert llm(count_tokens=len).identity() is None


def test_a_language_model_is_asked_once():
    model, cache = MockChatModel(lambda query, text: 1.0 if "Paris" in text else 0.1), MemoryCache()
    first = Cached(LLMScorer(model, identity="v1"), cache).score("capital of France?", TEXTS)
    asked = len(model.questions)
    again = Cached(LLMScorer(model, identity="v1"), cache).score("capital of France?", TEXTS)
    assert (again.values, again.kind, len(model.questions)) == (first.values, first.kind, asked)
    Cached(LLMScorer(model, identity="v1"), cache).score("capital of France?", TEXTS[::-1])
    assert len(model.questions) > asked


def test_every_scheme_can_be_told_from_others(monkeypatch: pytest.MonkeyPatch):
    """A new scheme needs an identity, or a reason here."""
    monkeypatch.setattr(registry, "_registered", {})
    register_scorer("unknown", CallableScorer)
    for scheme, row in registry.SCHEMES.items():
        made = registry.import_target(row)
        assert made.identity is not Scorer.identity, scheme
