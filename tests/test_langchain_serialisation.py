"""LangChain's dumps and loads, and keys that show up nowhere."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Sequence

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps, loads
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from pydantic import SecretStr, ValidationError

from uprank import Reranker, ScorerError, register_scorer
from uprank.langchain import RerankCompressor, RerankRetriever
from uprank.scorers import registry
from uprank.scorers.base import Scorer, Scores

KEY = "sk-0123456789abcdef"
DOCUMENTS = [Document("a"), Document("ccc"), Document("bb")]


class HostedScorer(Scorer):
    """Takes a key, as a hosted model does; fails on request."""

    score_kind = "logit"

    def __init__(self, model: str, *, api_key: SecretStr | None = None, fails: bool = False) -> None:
        self.name, self.api_key, self.fails = f"hosted:{model}", api_key, fails

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        if self.fails:
            raise ConnectionError(f"refused with key {self.api_key}")
        return Scores([float(len(text)) for text in texts], "logit")


class Base(BaseRetriever):
    """A retriever that can be dumped."""

    language: str = "en"

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    def _get_relevant_documents(self, query: str, *, run_manager: object) -> list[Document]:
        return DOCUMENTS


@pytest.fixture(autouse=True)
def hosted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})
    register_scorer("hosted", HostedScorer)


def revive(text: str, *classes: type, **secrets: str) -> object:
    return loads(text, allowed_objects=classes, valid_namespaces=["uprank", __name__], secrets_map=secrets)


def length(query: str, texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def test_compressor_round_trip() -> None:
    original = RerankCompressor(
        model="hosted:m",
        top_n=2,
        threshold=0.9,
        on_error="passthrough",
        score="probability",
        api_key=KEY,
        options={"fails": False},
    )

    text = dumps(original)
    revived = revive(text, RerankCompressor, UPRANK_API_KEY=KEY)

    assert json.loads(text)["id"] == ["uprank", "langchain", "RerankCompressor"]
    assert isinstance(revived, RerankCompressor)
    assert revived.model_dump() == original.model_dump()
    assert revived.api_key == revived.reranker.scorer.api_key == SecretStr(KEY)
    found = revived.compress_documents(DOCUMENTS, "q")
    assert found == original.compress_documents(DOCUMENTS, "q")
    assert [document.page_content for document in found] == ["ccc"]  # sigmoid(3) is 0.95, sigmoid(2) 0.88


def test_dumped_by_name_the_key_must_be_given_again() -> None:
    text = dumps(RerankCompressor(model="hosted:m", api_key=KEY))
    assert json.loads(text)["kwargs"]["api_key"] == {"lc": 1, "type": "secret", "id": ["UPRANK_API_KEY"]}
    assert revive(text, RerankCompressor).api_key is None


def test_without_a_key_none_is_dumped() -> None:
    assert "api_key" not in dumps(RerankCompressor(model="hosted:m"))


def test_loads_refuses_what_it_was_not_told_to_allow() -> None:
    with pytest.raises(ValueError, match="not allowed"):
        loads(dumps(RerankCompressor(model="hosted:m")), allowed_objects="core", valid_namespaces=["uprank"])


def test_a_ready_reranker_is_dumped_as_not_implemented() -> None:
    text = dumps(RerankCompressor(model=Reranker(length), top_n=2))

    assert json.loads(text)["kwargs"]["model"]["type"] == "not_implemented"
    with pytest.raises(NotImplementedError, match="Reranker"):
        revive(text, RerankCompressor)


def test_retriever_round_trip() -> None:
    original = RerankRetriever(model="hosted:m", k=2, api_key=KEY, base_retriever=Base(language="de"))

    text = dumps(original)
    revived = revive(text, RerankRetriever, Base, UPRANK_API_KEY=KEY)

    assert KEY not in text
    assert isinstance(revived, RerankRetriever)
    assert (revived.top_n, revived.api_key) == (2, SecretStr(KEY))
    assert revived.base_retriever == Base(language="de")
    assert revived.invoke("q") == original.invoke("q")
    assert len(revived.invoke("q")) == 2


def test_retriever_over_what_cannot_be_dumped() -> None:
    text = dumps(RerankRetriever(model="hosted:m", base_retriever=RunnableLambda(lambda query: DOCUMENTS)))

    assert json.loads(text)["kwargs"]["base_retriever"]["type"] == "not_implemented"
    with pytest.raises(NotImplementedError, match="RunnableLambda"):
        revive(text, RerankRetriever)


SHOWN: list[Callable[..., str]] = [
    repr,
    str,
    dumps,
    lambda reranking: repr(reranking.model_dump()),
    lambda reranking: repr(reranking.reranker),
    lambda reranking: repr(reranking.reranker.scorer),
]


@pytest.mark.parametrize("show", SHOWN, ids=["repr", "str", "dumps", "model_dump", "reranker", "scorer"])
@pytest.mark.parametrize("extra", [{}, {"base_retriever": Base()}], ids=["compressor", "retriever"])
def test_r9_the_key_is_not_shown(show: Callable[..., str], extra: dict[str, object]) -> None:
    """R9: repr and to_json of eight rerankers print the API key."""
    made = (RerankRetriever if extra else RerankCompressor)(model="hosted:m", api_key=KEY, **extra)

    assert made.reranker.scorer.api_key.get_secret_value() == KEY  # it did get through
    assert KEY not in show(made)


@pytest.mark.parametrize(
    "mistake",
    [{"model": "hosed:m"}, {"top_n": 0}, {"apikey": KEY}, {"options": {"api_key": KEY}}, {"options": {"unknown": 1}}],
    ids=["model", "top_n", "misspelt key", "key among options", "unknown option"],
)
@pytest.mark.parametrize("extra", [{}, {"base_retriever": Base()}], ids=["compressor", "retriever"])
def test_r9_a_mistake_in_the_fields_does_not_show_the_key(mistake: dict[str, object], extra: dict[str, object]) -> None:
    """R9: likewise in the errors of pydantic, which by default print the whole input."""
    with pytest.raises(ValidationError) as caught:
        (RerankRetriever if extra else RerankCompressor)(**{"model": "hosted:m", "api_key": KEY, **extra, **mistake})
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_r9_a_failing_scorer_does_not_show_the_key() -> None:
    """R9: likewise in the error of a call."""
    reranking = RerankCompressor(model="hosted:m", api_key=KEY, options={"fails": True})
    with pytest.raises(ScorerError, match="refused with key") as caught:
        reranking.compress_documents(DOCUMENTS, "q")
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["token", "hf_token", "api_key", "client_secret", "password", "Authorization"])
def test_r9_a_secret_among_the_options_is_refused_rather_than_shown(name: str) -> None:
    """Options are shown and dumped, so no key may be among them."""
    with pytest.raises(ValueError, match=name) as caught:
        RerankCompressor(model="cross-encoder:a/b", options={name: "hf_SECRET"})
    assert "hf_SECRET" not in str(caught.value)
    assert RerankCompressor(model="cross-encoder:a/b", options={"token_budget": 100}).options == {"token_budget": 100}
