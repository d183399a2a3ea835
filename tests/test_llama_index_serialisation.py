"""RerankPostprocessor as JSON, as a dict, pickled and copied; its key; and its missing extra."""

from __future__ import annotations

import copy
import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.schema import MetadataMode, NodeWithScore, TextNode
from pydantic import SecretStr

import uprank
from uprank import ConfigurationError, Reranker, register_scorer
from uprank.llama_index import RerankPostprocessor
from uprank.scorers import Scorer, Scores, registry

KEY = "sk-42"  # short, as long values are cut out of error messages


class Longest(Scorer):
    """Scores by length, times ``boost``, where it has its key, given or in the environment."""

    score_kind = "logit"

    def __init__(self, model: str, *, api_key: SecretStr | None = None, boost: object = 1.0) -> None:
        self.name = f"longest:{model}"
        self.api_key = api_key
        self.boost = boost

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        key = os.environ.get("LONGEST_API_KEY") if self.api_key is None else self.api_key.get_secret_value()
        if key != KEY:
            raise PermissionError("no key")
        assert isinstance(self.boost, float)
        return Scores([len(text) * self.boost for text in texts], "logit")


@pytest.fixture(autouse=True)
def longest() -> Iterator[None]:
    register_scorer("longest", Longest, replace=True)
    yield
    del registry._registered["longest"]


def by_length(query: str, texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def scores(postprocessor: RerankPostprocessor) -> list[float | None]:
    nodes = [NodeWithScore(node=TextNode(text=text, metadata={"m": 1})) for text in ("a", "abc", "ab")]
    return [item.score for item in postprocessor.postprocess_nodes(nodes, query_str="which is longest?")]


def hosted(**changes: object) -> RerankPostprocessor:
    fields = {
        "model": "longest:model",
        "top_n": 2,
        "threshold": 1.5,
        "metadata_mode": MetadataMode.NONE,
        "api_key": KEY,
        "options": {"boost": 2.0},
    }
    return RerankPostprocessor(**{**fields, **changes})


ROUND_TRIPS: dict[str, Callable[[RerankPostprocessor], RerankPostprocessor]] = {
    "json": lambda one: RerankPostprocessor.from_json(one.to_json(), api_key=KEY),
    "dict": lambda one: RerankPostprocessor.from_dict(one.to_dict(), api_key=KEY),
    "pydantic": lambda one: RerankPostprocessor.from_json(one.model_dump_json(), api_key=KEY),
    "deepcopy": copy.deepcopy,
    "model_copy": lambda one: one.model_copy(),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_round_trips_keep_every_field_and_work(name: str) -> None:
    original = hosted()
    again = ROUND_TRIPS[name](original)
    for field in RerankPostprocessor.model_fields.keys() - {"callback_manager"}:
        assert getattr(again, field) == getattr(original, field), field
    assert scores(again) == scores(original) == [6.0, 4.0]
    assert again.metadata_mode is MetadataMode.NONE


def test_the_json_says_what_it_is_and_holds_plain_values() -> None:
    data = json.loads(hosted().to_json())
    assert data.pop("class_name") == RerankPostprocessor.class_name() == "RerankPostprocessor"
    assert data == {
        "model": "longest:model",
        "top_n": 2,
        "threshold": 1.5,
        "instruction": None,
        "score": "native",
        "min_gap": None,
        "max_tokens": None,
        "diversity": None,
        "keep_at_least": None,
        "on_error": "raise",
        "fallback": [],
        "cache": False,
        "long_documents": "truncate",
        "passage_tokens": None,
        "passage_overlap": None,
        "fields": None,
        "template": None,
        "options": {"boost": 2.0},
        "metadata_mode": "none",
    }


def test_json_without_its_key_fails_at_the_call_not_silently() -> None:
    with pytest.raises(uprank.ScorerError, match="no key"):
        scores(RerankPostprocessor.from_json(hosted().to_json()))


def test_a_ready_reranker_is_never_written_as_something_else() -> None:
    postprocessor = RerankPostprocessor(model=Reranker(by_length))
    with pytest.raises(ConfigurationError, match="cannot be written to JSON"):
        postprocessor.to_json()
    with pytest.raises(ValueError, match="Reranker"):
        postprocessor.model_dump_json()
    again = RerankPostprocessor.from_dict(postprocessor.to_dict())  # within the process it may travel
    assert again.reranker is postprocessor.reranker


def test_r9_a_pickle_keeps_every_field_but_the_key_which_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key in a pickle ends in caches and queues; one that travels by the environment does not."""
    original = hosted()
    data = pickle.dumps(original)
    assert KEY.encode() not in data
    monkeypatch.setenv("LONGEST_API_KEY", KEY)
    again = pickle.loads(data)  # noqa: S301 - our own bytes
    for field in RerankPostprocessor.model_fields.keys() - {"callback_manager", "api_key"}:
        assert getattr(again, field) == getattr(original, field), field
    assert again.api_key is None
    assert scores(again) == [6.0, 4.0]


@pytest.mark.parametrize("model", [by_length, "longest:model"], ids=["function", "name"])
def test_a_ready_reranker_is_pickled_by_its_recipe(
    model: str | Callable[[str, list[str]], list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LONGEST_API_KEY", KEY)
    options = {} if callable(model) else {"api_key": SecretStr(KEY), "boost": 1.0}
    ready = RerankPostprocessor(model=Reranker(model, top_n=2, **options), metadata_mode="none")
    again = pickle.loads(pickle.dumps(ready))  # noqa: S301 - our own bytes
    assert again.reranker.model == ready.reranker.model
    assert scores(again) == scores(ready) == [3.0, 2.0]


def test_what_cannot_be_pickled_is_said_rather_than_replaced_by_the_default() -> None:
    """LlamaIndex drops such attributes with a log line; the copy would have had the default model."""
    with pytest.raises(ConfigurationError, match="model= cannot be pickled"):
        pickle.dumps(RerankPostprocessor(model=Reranker(lambda query, texts: by_length(query, texts))))
    with pytest.raises(ConfigurationError, match="options= cannot be pickled"):
        pickle.dumps(hosted(options={"boost": threading.Lock()}))


def test_a_callback_handler_that_cannot_be_pickled_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGEST_API_KEY", KEY)

    class Handler(LlamaDebugHandler):
        pass  # local, so pickle cannot find it

    manager = CallbackManager([Handler(print_trace_on_end=False)])
    again = pickle.loads(pickle.dumps(hosted(callback_manager=manager)))  # noqa: S301 - our own bytes
    assert scores(again) == [6.0, 4.0]
    assert again.callback_manager.handlers == []


def test_copies_share_the_loaded_model() -> None:
    original = RerankPostprocessor(model=Reranker(by_length))
    assert copy.deepcopy(original).reranker is original.reranker
    assert copy.copy(original).reranker is original.reranker


def test_r9_the_key_is_shown_nowhere() -> None:
    """Jina, SiliconFlow, TEI and Bedrock rerankers printed their keys in repr() or to_json()."""
    postprocessor = hosted()
    assert isinstance(postprocessor.api_key, SecretStr)
    shown = [repr(postprocessor), str(postprocessor), postprocessor.to_json(), str(postprocessor.to_dict())]
    shown += [postprocessor.model_dump_json(), repr(postprocessor.reranker), repr(postprocessor.reranker.scorer)]
    assert [text for text in shown if KEY in text] == []
    assert all("api_key" not in text for text in shown)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "nosuch:model"},
        {"model": "longest:model", "options": {"colour": 1}},
        {"model": "longest:m", "tpo_n": 1},
    ],
    ids=["model", "option", "field"],
)
def test_r9_an_error_does_not_show_the_key(wrong: dict[str, object]) -> None:
    """Pydantic's errors quote the input, keys included, unless told not to."""
    with pytest.raises(ValueError, match="validation error") as raised:
        RerankPostprocessor(api_key=KEY, **wrong)
    assert KEY not in str(raised.value)


@pytest.mark.parametrize("namespace", [False, True], ids=["nothing installed", "another llama-index package installed"])
def test_d5_without_llama_index_the_error_names_the_extra(tmp_path: Path, namespace: bool) -> None:
    """A missing package must be an error that says what to install, not a traceback from deep within."""
    if namespace:
        (tmp_path / "llama_index" / "readers").mkdir(parents=True)
    source = Path(uprank.__file__).parents[1]
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "from uprank import MissingDependencyError\n"
        "try: import uprank.llama_index\n"
        "except MissingDependencyError as error: sys.stdout.write(str(error))\n"
    )
    # -I and -S leave out the environment and the installed packages; only uprank itself is there.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(source), str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == (
        'RerankPostprocessor needs llama_index.core, not installed here. Run: pip install "uprank[llama-index]"'
    )


def test_r9_a_secret_among_the_options_is_refused_rather_than_shown() -> None:
    """Options are shown and dumped, so no key may be among them."""
    with pytest.raises(ValueError, match="token") as caught:
        RerankPostprocessor(model="cross-encoder:a/b", options={"token": "hf_SECRET"})
    assert "hf_SECRET" not in str(caught.value)
