"""From a model name to a scorer: schemes, presets, registered ones, entry points, and what is refused."""

import sys
from importlib.metadata import PackageNotFoundError, version

import pytest

import uprank.scorers
from uprank import ConfigurationError, MissingDependencyError, Reranker, UnknownModelError, UprankError, register_scorer
from uprank.scorers import CallableScorer, Scorer, Scores, registry
from uprank.scorers.presets import PRESETS
from uprank.scorers.registry import SCHEMES, create_scorer, import_target


class Lengths(Scorer):
    """Scores a text by its length."""

    def __init__(self, model="default", *, factor=1.0, name=None):
        self.name = name or f"lengths:{model}"
        self.model = model
        self.factor = factor

    def score(self, query, texts, *, instruction=None):
        return Scores([self.factor * len(text) for text in texts], kind="logit")


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    """Let each test register what it likes."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))


def distribution(folder, name, entry_points, **modules):
    """Lay out an installed distribution as pip would, with its entry points and modules."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)


# --- built-in names


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_on_offer_exists(scheme):
    factory = import_target(SCHEMES[scheme])
    assert issubclass(factory, Scorer)


@pytest.mark.parametrize("preset", ["embedded", "fast", "balanced", "quality", "multilingual"])
def test_every_preset_makes_a_scorer_without_loading_its_model(preset):
    reranker = Reranker(preset)
    assert reranker.model == preset
    assert isinstance(reranker.scorer, Scorer)
    scheme = PRESETS[preset].model.partition(":")[0] if preset in PRESETS else preset
    assert type(reranker.scorer) is import_target(SCHEMES[scheme])


def test_the_default_model_is_the_embedded_one():
    assert Reranker().model == "embedded"


def test_the_public_scorers_can_be_had_by_name():
    for name in uprank.scorers.__all__:
        assert getattr(uprank.scorers, name) is not None
    assert set(uprank.scorers.__all__) <= set(dir(uprank.scorers))
    with pytest.raises(AttributeError, match="NoSuchScorer"):
        uprank.scorers.NoSuchScorer  # noqa: B018 - the access is the test


# --- names that are refused


@pytest.mark.parametrize(
    "name",
    [
        "my-gpt-t5",
        "monot5:base",
        "acme/colbert-cross-encoder-gpt",
        "xcross-encoder:a",
        "cross-encoder-x:a",
        "CROSS-ENCODER:a",
        " cross-encoder:a",
        "bm25s",
        "",
        ":",
        ":model",
    ],
)
def test_a_name_is_never_guessed_from_a_part_of_it(name):
    with pytest.raises(UnknownModelError) as caught:
        Reranker(name)
    assert repr(name) in str(caught.value)
    assert "Known: " in str(caught.value)
    assert "cross-encoder" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("cros-encoder:BAAI/bge-reranker-v2-m3", "Did you mean 'cross-encoder'?"),
        ("embeded", "Did you mean 'embedded'?"),
        ("multi-lingual", "Did you mean 'multilingual'?"),
        ("BAAI/bge-reranker-v2-m3", 'e.g. "cross-encoder:BAAI/bge-reranker-v2-m3"'),
        ("zzz", 'A model is named "scheme:model"'),
        ("openai:gpt-4.1-mini", "Did you mean 'llm:gpt-4.1-mini'? Known"),
        ("gpt-4.1-mini", "Did you mean 'llm:gpt-4.1-mini'? Known"),
        ("ft:gpt-4.1:acme", "Did you mean 'llm:ft:gpt-4.1:acme'? Known"),
        ("o1", "Did you mean 'llm:o1'? Known"),
        ("o3-mini", "Did you mean 'llm:o3-mini'? Known"),
        ("claude-sonnet-4", "Did you mean 'llm:claude-sonnet-4'? It needs base_url="),
        ("gemini-2.5-pro", "Did you mean 'llm:gemini-2.5-pro'? It needs base_url="),
        ("ollama:llama3:8b", "Did you mean 'llm:llama3:8b'? It needs base_url="),
        ("openai/gpt-4.1", "Did you mean 'llm:openai/gpt-4.1'? It needs base_url="),
        ("acme/gpt-reranker", 'e.g. "cross-encoder:acme/gpt-reranker"'),
        ("openai:", 'A model is named "scheme:model"'),
    ],
)
def test_an_unknown_name_comes_with_advice(name, advice):
    with pytest.raises(UnknownModelError) as caught:
        Reranker(name)
    assert advice in str(caught.value)


def test_a_preset_with_a_model_is_not_advised_to_be_itself():
    with pytest.raises(ConfigurationError) as caught:
        Reranker("fast:cross-encoder/ettin-reranker-17m-v1")
    assert "Did you mean 'fast'" not in str(caught.value)


@pytest.mark.parametrize("scheme", [name for name, row in SCHEMES.items() if row.takes_model and row.needs_model])
@pytest.mark.parametrize("colon", ["", ":"])
def test_a_scheme_that_needs_a_model_says_so(scheme, colon):
    with pytest.raises(ConfigurationError, match=f'write "{scheme}:<model>"'):
        Reranker(scheme + colon)


@pytest.mark.parametrize("scheme", [name for name, row in SCHEMES.items() if not row.takes_model])
@pytest.mark.parametrize("model", ["", "x", "a:b"])
def test_a_scheme_without_models_takes_none(scheme, model):
    with pytest.raises(ConfigurationError, match=f'takes no model; write "{scheme}"'):
        Reranker(f"{scheme}:{model}")


@pytest.mark.parametrize("name", [*SCHEMES, *PRESETS])
def test_an_unknown_option_is_named_with_those_there_are(name):
    model = f"{name}:m" if name in SCHEMES and SCHEMES[name].takes_model else name
    with pytest.raises(ConfigurationError, match="no_such_option") as caught:
        Reranker(model, no_such_option=1)
    assert "It takes: " in str(caught.value)


@pytest.mark.parametrize("name", ["cross-encoder:m", "fast"])
def test_the_options_of_a_scheme_are_listed(name):
    with pytest.raises(ConfigurationError, match=r"It takes: .*\bdevice\b.*\bmax_length\b"):
        Reranker(name, max_len=1)


def test_an_option_called_name_is_an_option_like_others():
    register_scorer("lengths", Lengths)
    assert create_scorer("lengths:m", name="mine").name == "mine"
    assert Reranker("lengths:m", name="mine").scorer.name == "mine"


def test_an_option_called_name_is_refused_where_there_is_none():
    register_scorer("nameless", lambda *, factor=1.0: Lengths(factor=factor))
    with pytest.raises(ConfigurationError, match="It takes: factor"):
        Reranker("nameless", name="mine")


# --- register_scorer


def test_a_registered_scheme_takes_a_model_and_options():
    register_scorer("lengths", Lengths)
    reranker = Reranker("lengths:a/b:c", factor=2.0)
    assert reranker.scorer.model == "a/b:c"  # all that follows the first colon
    assert reranker.rank("q", ["a", "bb"])[0].score == 4.0
    assert Reranker("lengths").scorer.model == "default"


def test_the_options_of_a_registered_scheme_are_checked():
    register_scorer("lengths", Lengths)
    with pytest.raises(ConfigurationError, match=r"'lengths:m': .*'factr'.* It takes: model, factor, name"):
        Reranker("lengths:m", factr=2.0)
    register_scorer("strict", lambda model: Lengths(model))
    with pytest.raises(ConfigurationError, match="missing a required argument: 'model'"):
        Reranker("strict")


@pytest.mark.parametrize("taken", ["cross-encoder", "fast", "embedded", "lengths"])
def test_a_taken_name_is_refused_unless_it_is_to_be_replaced(taken):
    register_scorer("lengths", Lengths)

    def other(model="other"):
        return Lengths(model, factor=-1.0)

    with pytest.raises(ConfigurationError, match=rf"'{taken}' is taken; pass replace=True"):
        register_scorer(taken, other)
    register_scorer(taken, other, replace=True)
    assert Reranker(taken).scorer.factor == -1.0
    assert Reranker(f"{taken}:m").scorer.model == "m"


@pytest.mark.parametrize("scheme", ["", "Upper", "has space", "co:lon", "1st", "-x", "under_score", "new\nline", "x\n"])
def test_a_malformed_scheme_is_refused(scheme):
    with pytest.raises(ConfigurationError, match="cannot name a scheme"):
        register_scorer(scheme, Lengths)


@pytest.mark.parametrize(
    "factory", [None, 5, "uprank.scorers:BM25Scorer", Lengths()], ids=lambda value: type(value).__name__
)
def test_a_factory_that_cannot_be_called_is_refused(factory):
    with pytest.raises(ConfigurationError, match="factory"):
        register_scorer("broken", factory)


def test_a_factory_that_makes_no_scorer_is_named():
    register_scorer("function", lambda model: lambda query, texts: [1.0] * len(texts))
    with pytest.raises(ConfigurationError, match=r"function:m.*\bfunction\b"):
        Reranker("function:m")


# --- entry points


def test_an_installed_package_adds_a_scheme(tmp_path, monkeypatch):
    distribution(
        tmp_path,
        "acme-rank",
        "[uprank.scorers]\nacme = acme_rank:AcmeScorer\nbm25 = acme_rank:AcmeScorer\n",
        acme_rank=(
            "from uprank.scorers import Scorer, Scores\n"
            "class AcmeScorer(Scorer):\n"
            "    def __init__(self, model='none', *, sign=1):\n"
            "        self.name, self.sign = f'acme:{model}', sign\n"
            "    def score(self, query, texts, *, instruction=None):\n"
            "        return Scores([self.sign * len(text) for text in texts], kind='rank')\n"
        ),
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert version("acme-rank") == "1.0"
    ranking = Reranker("acme:big", sign=-1).rank("q", ["aa", "b"])
    assert ranking.model == "acme:big"
    assert [hit.index for hit in ranking] == [1, 0]
    with pytest.raises(ConfigurationError, match="It takes: model, sign"):
        Reranker("acme:big", sing=1)
    assert type(Reranker("bm25").scorer) is import_target(SCHEMES["bm25"])  # ours first
    with pytest.raises(UnknownModelError, match=r"Did you mean 'acme'.*Known: acme, "):
        Reranker("acmee:big")
    register_scorer("acme", Lengths)
    assert type(Reranker("acme:big").scorer) is Lengths  # the program's own before any package's
    monkeypatch.delitem(sys.modules, "acme_rank")


def test_without_the_package_there_is_no_such_scheme():
    with pytest.raises(PackageNotFoundError):
        version("acme-rank")
    with pytest.raises(UnknownModelError):
        Reranker("acme:big")


@pytest.mark.parametrize("target", ["no_such_module:Scorer", "json:NoSuchClass", "json:decoder"])
def test_an_entry_point_that_cannot_be_used_is_named(tmp_path, monkeypatch, target):
    distribution(tmp_path, "broken-rank", f"[uprank.scorers]\nbroken = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UprankError, match="broken"):
        Reranker("broken:m")


# --- what else may be a model


def test_a_ready_scorer_is_used_as_it_is():
    scorer = Lengths("m")
    reranker = Reranker(scorer)
    assert reranker.scorer is scorer
    assert reranker.model == "lengths:m"
    with pytest.raises(ConfigurationError, match="give factor, name to Lengths itself"):
        Reranker(scorer, factor=2, name="x")


@pytest.mark.parametrize(
    "function", [lambda messages: "1", lambda chat, /, *, seed=0: "1", lambda messages, temperature=0: "1"]
)
def test_a_function_from_messages_is_sent_to_where_it_belongs(function):
    with pytest.raises(ConfigurationError, match=r"cannot be called as \(query, texts\).*give LLMScorer\(function\)"):
        Reranker(function)


@pytest.mark.parametrize("function", [lambda: [1.0], lambda query, texts, more: [1.0]])
def test_no_other_function_is_taken_for_a_language_model(function):
    with pytest.raises(ConfigurationError, match=r"cannot be called as \(query, texts\)") as caught:
        Reranker(function)
    assert "LLMScorer" not in str(caught.value)


def test_a_function_takes_name_and_score_kind_alone():
    reranker = Reranker(lambda query, texts: [0.5] * len(texts), name="half", score_kind="probability")
    assert isinstance(reranker.scorer, CallableScorer)
    assert (reranker.model, reranker.rank("q", ["a"]).score_kind) == ("half", "probability")
    with pytest.raises(ConfigurationError, match="name, score_kind, listwise and identity, not batch_size, device"):
        Reranker(lambda query, texts: texts, device="cpu", batch_size=8)


def test_a_scorer_class_in_place_of_a_scorer_is_refused():
    with pytest.raises(ConfigurationError, match="Lengths"):
        Reranker(Lengths)


@pytest.mark.parametrize(
    "model",
    [None, 5, b"embedded", ["embedded"], Reranker(lambda query, texts: [0.0])],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_no_model(model):
    with pytest.raises(ConfigurationError, match=f"model must be .* got {type(model).__name__}"):
        Reranker(model)


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("embedding:m", "sentence_transformers", "local"), ("bm25", "bm25s", "bm25")]
)
def test_a_missing_package_shows_when_the_reranker_is_made(monkeypatch, name, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf'{package}.* pip install "uprank\[{extra}\]"'):
        Reranker(name)


def test_a_loaded_model_of_sentence_transformers_is_answered_with_what_to_give(tiny_models):
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(tiny_models["bert"]), device="cpu")
    for given in (model, model.predict):
        with pytest.raises(ConfigurationError, match=r"A loaded CrossEncoder is no model here.*cross-encoder:<name>"):
            Reranker(given)


def test_a_misspelt_option_is_answered_with_those_of_the_reranker_too():
    with pytest.raises(ConfigurationError, match=r"'top_k'.*A Reranker itself takes: top_n, threshold"):
        Reranker("bm25", top_k=3)
