"""Models as settings describe them: made, found, listed, and refused with the reason."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from rerank_servers import serve
from serving import serving
from table_scorer import TableScorer
from uprank import DiskCache, MemoryCache, Reranker, calibrations
from uprank.errors import ConfigurationError, UnknownModelError
from uprank.scorers.combined.base import leaves
from uprank.server import ServerSettings
from uprank.server.refusals import Refusal
from uprank.server.served import ServedModels

KEY = "key-0123456789"


def models_of(**models: object) -> ServedModels:
    return ServedModels(ServerSettings.of({"models": models}))


class TestMaking:
    def test_options_of_the_reranker_and_of_the_model(self):
        reranker = models_of(a={"model": "bm25", "top_n": 2, "fields": ["title", "text"], "k1": 0.9}).rerankers["a"]
        assert reranker.top_n == 2
        assert reranker.scorer._k1 == 0.9
        ranking = reranker.rank("fox", [{"text": "-", "title": "fox"}, "fox fox", "dog"])
        assert [hit.index for hit in ranking] == [1, 0]

    def test_cascade_fusion_and_fallback_of_members_with_options_of_their_own(self):
        nested = {
            "cascade": {
                "models": ["bm25", {"fusion": {"models": [{"model": "bm25", "b": 0.25}, "bm25"], "weights": [2, 1]}}],
                "keep": [2],
            },
            "fallback": [{"model": "tei", "base_url": "http://127.0.0.1:1", "fallback": ["bm25"]}],
        }
        reranker = models_of(a=nested).rerankers["a"]
        cascade, spare = reranker.scorer.members
        assert cascade.name == "cascade(bm25, fusion(bm25, bm25))"
        assert [leaf._b for leaf in leaves(cascade)] == [0.75, 0.25, 0.75]
        assert [leaf.name for leaf in leaves(spare)] == ["tei", "bm25"]
        assert len(reranker.rank("fox", ["dog", "fox", "cat"])) == 3

    def test_caches(self, tmp_path):
        path = str(tmp_path / "scores.sqlite")
        models = models_of(
            memory={"model": "bm25", "cache": True},
            few={"model": "bm25", "cache": {"max_entries": 7}},
            one={"model": "bm25", "cache": path},
            other={"model": "bm25", "cache": {"path": path, "max_entries": 9}},
        ).rerankers
        assert isinstance(models["memory"].cache, MemoryCache)
        assert (type(models["few"].cache), models["few"].cache._most) == (MemoryCache, 7)
        assert (type(models["other"].cache), models["other"].cache._most) == (DiskCache, 9)
        models["one"].rank("fox", ["dog", "fox"])
        models["other"].rank("fox", ["dog", "fox"])
        assert [models[name].cache.stats().hits for name in ("one", "other")] == [0, 1], (
            "one file, and each its own hits"
        )
        for reranker in models.values():
            reranker.close()

    def test_a_calibrator_by_its_file(self):
        path = Path(calibrations.__path__[0]) / "embedded.json"
        settings = {"model": "embedded", "score": "probability", "calibrator": str(path)}
        assert models_of(a=settings).rerankers["a"].rank("q", []).score_kind == "probability"
        with pytest.raises(ConfigurationError, match=r"The model b cannot be set up: .*embedded"):
            models_of(b={**settings, "model": "bm25"})  # of which it is not

    @pytest.mark.parametrize("place", ["env", "file"])
    def test_secrets_are_read_from_where_they_are_also_of_members(self, tmp_path, monkeypatch, place):
        (tmp_path / "key").write_text(f"{KEY}\n", encoding="utf-8")
        monkeypatch.setenv("SOME_KEY", KEY)
        monkeypatch.setenv("SOME_HEADER", f"Bearer {KEY}")
        (tmp_path / "header").write_text(f"Bearer {KEY}\n", encoding="utf-8")
        key = {"env": "SOME_KEY"} if place == "env" else {"file": str(tmp_path / "key")}
        header = {"env": "SOME_HEADER"} if place == "env" else {"file": str(tmp_path / "header")}
        with serve("jina", key=KEY) as service:
            jina = {"model": "jina:jina-reranker-v2-base-multilingual", "base_url": service.base_url}
            models = models_of(
                top={**jina, "api_key": key},
                headers={**jina, "headers": {"authorization": header}},
                cascade={"cascade": {"models": ["bm25", {**jina, "api_key": key}], "keep": [3]}},
            ).rerankers
            for name, reranker in models.items():
                assert len(reranker.rank("whales", ["Whales swim.", "A dog sleeps."])) == 2, (
                    name
                )  # 401 with another key
                assert KEY not in f"{reranker!r} {vars(reranker)!r}", name
                reranker.close()
            assert len(service.posts) == len(models)

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"model": "bm26"}, "No scheme or preset 'bm26'"),
            ({"model": "bm25", "k2": 1}, "unexpected keyword argument 'k2'"),
            ({"model": "bm25", "top_n": 0}, "top_n"),
            ({"model": "bm25", "cache": "."}, "is a folder"),
            (
                {"model": "bm25", "cache": {"pth": "x"}},
                "In cache: There is no setting pth; did you mean path? There are path, max_entries, store_text.",
            ),
            ({"model": "bm25", "cache": {"max_entry": 3}}, "no setting max_entry; did you mean max_entries?"),
            ({"model": "bm25", "cache": {"store_text": True}}, "In cache: path is missing."),
            ({"model": "bm25", "alias": ["x"]}, "Did you mean aliases?"),
            ({"model": "bm25", "cache": 3}, "cache must be True"),
            ({"model": "bm25", "hooks": ["x"]}, "hook"),
            ({"model": "bm25", "count_tokens": "len"}, "count_tokens must be a function"),
            ({"model": "bm25", "score": "probability", "calibrator": "none.json"}, "none.json: No such file"),
            ({"model": "bm25", "calibrator": 3}, "calibrator must be the path of a file"),
            ({"cascade": {"models": ["bm25"], "keep": []}}, "at least two models"),
            ({"cascade": {"models": ["bm25", "bm25"]}}, "In cascade: keep is missing."),
            (
                {"cascade": {"models": ["bm25", "bm25"], "kep": [3]}},
                "no setting kep; did you mean keep? There are keep, ",
            ),
            ({"cascade": {"models": ["bm25", "bm25"], "keep": [3], "clock": 3}}, "no setting clock. There are keep, "),
            (
                {"fusion": {"models": ["bm25", "bm25"], "weight": 3}},
                "In fusion: There is no setting weight; did you mean weights?",
            ),
            ({"model": "bm25", "fallback": [{"model": "bm25", "cache": True}]}, "unexpected keyword argument 'cache'"),
            ({"model": "jina:m", "api_key": {"env": "NOT_SET_HERE"}}, "the environment variable NOT_SET_HERE"),
            ({"model": "jina:m", "api_key": {"file": "none.key"}}, "the file none.key"),
        ],
    )
    def test_what_cannot_be_set_up_is_named(self, settings, told, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigurationError, match="The model mine cannot be set up: ") as error:
            models_of(ok="bm25", mine=settings)
        assert told in str(error.value)
        assert "__init__" not in str(error.value)

    def test_the_cause_is_chained(self):
        with pytest.raises(ConfigurationError) as error:
            models_of(a="bm26")
        assert isinstance(error.value.__cause__, UnknownModelError)


class TestFinding:
    @pytest.fixture
    def models(self) -> ServedModels:
        settings = {
            "models": {"a": {"model": "bm25", "aliases": ["x"]}, "b": {"model": "bm25", "aliases": ["rerank-v3.5"]}},
            "default_model": "b",
        }
        return ServedModels(ServerSettings.of(settings))

    @pytest.mark.parametrize(
        ("asked", "found"), [(None, "b"), ("", "b"), ("a", "a"), ("x", "a"), ("rerank-v3.5", "b"), ("b", "b")]
    )
    def test_by_id_alias_and_default(self, models, asked, found):
        assert models.find(asked) == (found, models.rerankers[found])

    def test_an_unknown_one_is_404_and_told_what_there_is(self, models):
        with pytest.raises(Refusal, match="There are a, b") as refusal:
            models.find("c")
        assert (refusal.value.status, refusal.value.code) == (404, "model_not_found")
        assert "'c'" not in refusal.value.message

    def test_a_star_stands_for_all_others(self):
        models = models_of(a="bm25", b={"model": "bm25", "aliases": ["*", "x"]}, c={"model": "bm25", "aliases": ["y"]})
        assert [models.find(asked)[0] for asked in (None, "c", "y", "z")] == ["a", "c", "c", "b"]


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    key = tmp_path_factory.mktemp("keys") / "key"
    key.write_text(KEY, encoding="utf-8")
    table = Reranker(TableScorer("table", {"a": 1.0}))
    with serving(
        {"table": table, "other/name": Reranker("bm25")},
        keys=[{"name": "k", "file": str(key), "requests_per_minute": 1}],
        models={"table": {"model": "bm25", "aliases": ["rerank-v3.5", "t"]}, "other/name": "bm25"},
        default_model="other/name",
    ) as address:
        yield address


class TestListing:
    def get(self, address: str, path: str) -> dict[str, object]:
        reply = httpx.get(f"{address}{path}", headers={"authorization": f"Bearer {KEY}"})
        assert reply.status_code == 200
        return reply.json()

    def test_models_in_the_forms_of_openai_and_cohere(self, address):
        listed = self.get(address, "/v1/models")
        assert listed["object"] == "list"
        table, other = listed["data"]
        created = table.pop("created")
        assert isinstance(created, int)
        assert table == {
            "id": "table",
            "object": "model",
            "owned_by": "uprank",
            "aliases": ["rerank-v3.5", "t"],
            "default": False,
            "score_kind": "logit",
        }
        assert (other["id"], other["default"], other["score_kind"]) == ("other/name", True, "rank")
        assert (listed["models"][0]["name"], listed["models"][0]["endpoints"]) == ("table", ["rerank"])

    @pytest.mark.parametrize(("asked", "found"), [("table", "table"), ("t", "table"), ("other/name", "other/name")])
    def test_one_model_by_its_id_which_may_hold_a_slash_or_an_alias(self, address, asked, found):
        assert self.get(address, f"/v1/models/{asked}")["id"] == found

    def test_lists_need_the_key_and_are_not_counted(self, address):
        for path in ("/v1/models", "/v1/models/table", "/v1/models/none"):
            reply = httpx.get(f"{address}{path}")
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
            assert reply.json()["error"]["type"] == "missing_api_key"
        for _ in range(3):  # more than the key may make in a minute
            self.get(address, "/v1/models")

    def test_a_model_that_is_not_there(self, address):
        reply = httpx.get(f"{address}/v1/models/none", headers={"authorization": f"Bearer {KEY}"})
        assert (reply.status_code, reply.json()["error"]["type"]) == (404, "model_not_found")

    @pytest.mark.parametrize(
        "path", ["/health", "/health/live", "/health/ready", "/v1/health/live", "/v1/health/ready"]
    )
    def test_probes_need_no_key(self, address, path):
        reply = httpx.get(f"{address}{path}")
        assert reply.status_code == 200
        assert reply.json()["status"] == ("live" if path.endswith("live") else "ready")
