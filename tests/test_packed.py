"""Packed batches compute what transformers computes, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers_torch import as_jobs_give_them, chained, load, own_logits, random_rows

torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from uprank.errors import ConfigurationError  # noqa: E402
from uprank.scorers.local.engines.base import Tokens  # noqa: E402
from uprank.scorers.local.engines.torch import TorchPairRunner  # noqa: E402
from uprank.scorers.local.engines.torch.attention import (  # noqa: E402
    KernelAttention,
    RunAttention,
    _works,
    choose_attention,
    kernels,
)
from uprank.scorers.local.engines.torch.heads import anatomy  # noqa: E402
from uprank.scorers.local.engines.torch.packed import PackedModel  # noqa: E402
from uprank.scorers.local.engines.torch.packing import pack_tokens  # noqa: E402

CPU = torch.device("cpu")
LENGTHS = (5, 100, 17, 64, 17, 3, 99, 17)


def modernbert(folder: Path, source: Path, *, layers: int, pooling: str) -> Path:
    """A ModernBERT whose last layer is local (3 layers) or global (4)."""
    from transformers import AutoTokenizer, ModernBertConfig, ModernBertForSequenceClassification

    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    config = ModernBertConfig.from_pretrained(source)
    config = ModernBertConfig(
        **{
            **{key: value for key, value in config.to_dict().items() if key not in ("layer_types", "rope_parameters")},
            "num_hidden_layers": layers,
            "classifier_pooling": pooling,
        }
    )
    assert (config.layer_types[-1] == "full_attention") == (layers == 4)
    torch.manual_seed(5)
    ModernBertForSequenceClassification(config).save_pretrained(folder)
    return folder


NAMES = ("bert", "xlm-roberta", "modernbert", "modern-first-local", "modern-first-global", "chain-first", "chain-mean")


@pytest.fixture(scope="module")
def loaded(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory):
    """Cross-encoders by name, each loaded once."""
    ready = {}

    def get(name: str):
        if name in ready:
            return ready[name]
        if name.startswith("modern-first"):
            layers = 3 if name.endswith("local") else 4
            folder = tmp_path_factory.mktemp(name)
            model = load(modernbert(folder, tiny_models["modernbert"], layers=layers, pooling="cls"))
        elif name.startswith("chain"):
            source, pooling = ("modernbert", "mean") if name == "chain-mean" else ("xlm-roberta", "cls")
            model = chained(tiny_models[source], pooling)
        else:
            model = load(tiny_models[name])
        return ready.setdefault(name, model)

    return get


def packed_logits(model, rows: list[Tokens]) -> np.ndarray:
    runner = TorchPairRunner([model], packed=True)
    return runner.part(runner.run(as_jobs_give_them(rows), 0), range(len(rows)))


def prepared(model, attention) -> PackedModel:
    return PackedModel(anatomy(model), attention, CPU, compile=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lengths", [LENGTHS, (40,), (12, 12, 12), (1, 2)])
def test_logits_are_those_of_the_model_itself(loaded, name: str, lengths: tuple[int, ...]):
    model = loaded(name)
    rows = random_rows(model, lengths, types=name == "bert")
    expected = own_logits(model, rows)
    assert len(lengths) == 1 or np.ptp(expected) > 0.01  # or rows taken for one another would go unseen
    np.testing.assert_allclose(packed_logits(model, rows), expected, atol=1e-4)


@pytest.mark.parametrize("name", ["modernbert", "modern-first-local"])
def test_rows_of_many_windows(loaded, name: str):
    """Local layers look at 8 tokens on either side: 200 tokens are cut into several stripes."""
    model = loaded(name)
    rows = random_rows(model, (200, 9, 10, 73, 200))  # 10 is the shortest that does not fit
    np.testing.assert_allclose(packed_logits(model, rows), own_logits(model, rows), atol=1e-4)


def test_a_padding_token_within_a_text_has_no_position_of_its_own(loaded):
    """RoBERTa's positions leave out tokens of the padding id, wherever they stand."""
    model = loaded("xlm-roberta")
    rows = random_rows(model, (20, 30, 9))
    for row in rows:
        row.ids[4:6] = model.tokenizer.pad_token_id
    np.testing.assert_allclose(packed_logits(model, rows), own_logits(model, rows), atol=1e-4)


def test_types_count(loaded):
    model = loaded("bert")
    rows = random_rows(model, (20, 30), types=True)
    without = [Tokens(row.ids) for row in rows]
    assert np.abs(packed_logits(model, rows) - packed_logits(model, without)).max() > 0.01
    np.testing.assert_allclose(packed_logits(model, without), own_logits(model, without), atol=1e-4)


@pytest.mark.parametrize("name", ["bert", "modernbert"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_as_close_as_the_models_own(tiny_models, name: str, dtype: str):
    whole = load(tiny_models[name])
    half = load(tiny_models[name], model_kwargs={"torch_dtype": dtype})
    rows = random_rows(whole, LENGTHS)
    exact = own_logits(whole, rows)
    own = np.abs(own_logits(half, rows) - exact).max()
    found = packed_logits(half, rows)
    assert found.dtype == np.float32
    assert np.abs(found - exact).max() < 2 * own + 0.01
    assert np.abs(found - exact).max() > 1e-5  # it was half precision


def flash(query, key, value, query_bounds, key_bounds, most_queries, most_keys, window):
    """What a kernel for sequences of unequal length computes, as flash-attn documents it.

    A window is counted from the end of a sequence where it has fewer queries than keys.
    """
    lengths = [bounds.diff() for bounds in (query_bounds, key_bounds)]
    assert [int(length.max()) for length in lengths] == [most_queries, most_keys]
    assert query_bounds.dtype == key_bounds.dtype == torch.int32
    seen = torch.empty_like(query)
    for sequence in range(len(query_bounds) - 1):
        asks = slice(*query_bounds[sequence : sequence + 2].tolist())
        holds = slice(*key_bounds[sequence : sequence + 2].tolist())
        scores = torch.einsum("qhd,khd->hqk", query[asks], key[holds]) / query.shape[-1] ** 0.5
        if window is not None:
            _, queries, keys = scores.shape
            distance = torch.arange(queries)[:, None] + keys - queries - torch.arange(keys)
            scores = scores.masked_fill(distance.abs() > window, -torch.inf)
        seen[asks] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value[holds])
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_gives_the_same(loaded, name: str):
    model = loaded(name)
    rows = random_rows(model, LENGTHS)
    with torch.inference_mode():
        found = prepared(model, KernelAttention(flash)).logits(rows)
    np.testing.assert_allclose(np.asarray(found), own_logits(model, rows), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_is_launched_once_a_layer(loaded, name: str):
    """And in the last layer asks for the first tokens alone, where these are all that is read."""
    model = loaded(name)
    asked = []

    def counting(query, *rest):
        asked.append(len(query))
        return flash(query, *rest)

    with torch.inference_mode():
        prepared(model, KernelAttention(counting)).logits(random_rows(model, LENGTHS))
    first = name in ("bert", "xlm-roberta", "modern-first-global", "chain-first")
    layers = {"bert": 2, "xlm-roberta": 2, "chain-first": 2, "modern-first-global": 4}.get(name, 3)
    assert asked == [sum(LENGTHS)] * (layers - 1) + [len(LENGTHS) if first else sum(LENGTHS)]


@pytest.mark.parametrize("name", ["bert", "xlm-roberta", "modernbert", "modern-first-global"])
def test_nothing_waits_for_the_device_while_a_batch_is_launched(loaded, name: str):
    """No number is read from a tensor (``.item()``, a mask as index), which one peer does twice a document."""
    seen = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.add(function.overloadpacket.__name__)
            if function.overloadpacket is torch.ops.aten.index:
                assert all(index is None or index.dtype != torch.bool for index in args[1])
            return function(*args, **(kwargs or {}))

    model = loaded(name)
    packed = prepared(model, KernelAttention(lambda query, key, value, *rest: query * 1))
    with torch.inference_mode(), Watch():
        packed.logits(random_rows(model, LENGTHS))
    assert {"addmm", "embedding"} & seen
    assert not seen & {"_local_scalar_dense", "item", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2"}


def matrix_work(model, lengths: tuple[int, ...]) -> int:
    """Multiplications in linear layers."""
    packed = prepared(model, KernelAttention(lambda query, key, value, *rest: query * 1))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        packed.logits(random_rows(model, lengths))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", ["bert", "modernbert"])
def test_padding_is_not_computed(loaded, name: str):
    """The work for unequal rows is the sum of the work for each."""
    model = loaded(name)
    assert matrix_work(model, (5, 100)) == matrix_work(model, (5,)) + matrix_work(model, (100,))


def test_of_the_last_layer_only_what_is_read_is_computed(loaded):
    tokens, wide, inner = 50, 32, 64
    layer = 4 * wide * wide + 2 * wide * inner
    last = tokens * 2 * wide * wide + 2 * wide * wide + 2 * wide * inner  # keys and values of all, the rest of one
    assert matrix_work(loaded("bert"), (tokens,)) == tokens * layer + last + wide * wide + wide  # and the head


def test_sequences_are_bounded_on_the_host():
    rows = [Tokens(np.full(length, length, dtype=np.int32)) for length in (2, 5, 5, 1)]
    batch = pack_tokens(rows, CPU)
    assert batch.order.tolist() == [1, 2, 0, 3]
    assert batch.bounds.tolist() == [0, 5, 10, 12, 13]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 0]
    assert batch.ids.tolist() == [5] * 10 + [2, 2, 1]
    assert [tuple(run) for run in batch.runs] == [(0, 2, 5), (10, 1, 2), (12, 1, 1)]
    assert batch.longest == 5


def test_kernels_are_tried_before_they_are_trusted():
    def forgets_windows(*arguments):
        return flash(*arguments[:-1], None)

    def raises(*_):
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")

    def is_off(*arguments):
        return flash(*arguments) + 0.1

    def works(kernel, *, windows: bool) -> bool:
        return _works(kernel, CPU, torch.float32, 16, windows=windows)

    assert works(flash, windows=True)
    assert works(forgets_windows, windows=False)
    assert not works(forgets_windows, windows=True)
    assert not works(raises, windows=False)
    assert not works(is_off, windows=False)


@pytest.mark.skipif(torch.__version__ < "2.11", reason="torch has no such kernel, or one without windows")
def test_torchs_own_kernel_takes_what_it_is_given():
    """On tensors without contents: the names, order and types of arguments are those of the installed torch."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    kernel = next(kernels())
    with FakeTensorMode():
        query = torch.empty(12, 4, 16, dtype=torch.float16)
        bounds = torch.empty(4, dtype=torch.int32)
        for window in (None, 8):
            assert kernel(query, query, query, bounds, bounds, 6, 6, window).shape == (12, 4, 16)


def test_on_a_cpu_there_is_no_kernel():
    assert isinstance(choose_attention(CPU, torch.bfloat16, 32, windows=False), RunAttention)


def test_the_model_goes_on_to_work_and_holds_no_weights_twice(tiny_models):
    model = load(tiny_models["bert"])
    rows = random_rows(model, LENGTHS)
    before = own_logits(model, rows)
    TorchPairRunner([model, model])
    np.testing.assert_array_equal(own_logits(model, rows), before)
    own = model.model.bert.encoder.layer[0].attention.self
    storages = {part.weight.untyped_storage().data_ptr() for part in (own.query, own.key, own.value)}
    assert len(storages) == 1  # of the one matrix that packed batches use


def unsuited(tiny_models: dict[str, Path]) -> Iterator[tuple[object, str]]:
    from torch import nn

    class Adapted(nn.Linear):
        """As adapters of low rank put in the place of a linear layer."""

    yield load(tiny_models["causal"]), "not a transformer, a pooling and a head"
    hooked = load(tiny_models["bert"])
    hooked.model.bert.pooler.register_forward_hook(lambda module, given, made: 2 * made)
    yield hooked, "hooks"
    adapted = load(tiny_models["bert"])
    adapted.model.bert.encoder.layer[1].attention.self.value.__class__ = Adapted
    yield adapted, "Adapted"
    decoder = load(tiny_models["bert"])
    decoder.model.config.is_decoder = True
    yield decoder, "decoder"
    yield chained(tiny_models["bert"], "max"), "pooling is 'max'"
    yield chained(tiny_models["bert"], "mean", include_prompt=False), "without the prompt"
    scaled = load(tiny_models["modernbert"])
    scaled.model.config.rope_parameters["full_attention"]["rope_type"] = "linear"
    yield scaled, "rotary positions are scaled"


def test_other_models_are_padded(tiny_models):
    for model, reason in unsuited(tiny_models):
        assert not TorchPairRunner([model]).packed
        with pytest.raises(ConfigurationError, match=reason):
            TorchPairRunner([model], packed=True)


def test_a_forward_that_computes_something_else_is_not_replaced(tiny_models, caplog: pytest.LogCaptureFixture):
    """As another version of transformers might."""
    model = load(tiny_models["bert"])
    encoder = model.model.bert.encoder
    encode = encoder.forward
    encoder.forward = lambda hidden, *args, **kwargs: encode(1.5 * hidden, *args, **kwargs)
    with caplog.at_level(logging.WARNING, "uprank"):
        runner = TorchPairRunner([model])
    assert not runner.packed
    assert "are not those of the model itself" in caplog.text
    rows = random_rows(model, LENGTHS)
    found = np.asarray(runner.run(as_jobs_give_them(rows), 0))
    np.testing.assert_allclose(found, own_logits(model, rows), atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_gpu(loaded, name: str, dtype):
    import copy

    model = loaded(name)
    rows = random_rows(model, LENGTHS)
    exact = own_logits(model, rows)
    half = copy.deepcopy(model).to("cuda", dtype)
    runner = TorchPairRunner([half])
    assert runner.packed
    assert runner.ahead
    given = as_jobs_give_them(rows)
    runner.run(given, 0).numpy()  # whatever is set up on the first call
    torch.cuda.set_sync_debug_mode("error")
    try:
        logits = runner.run(given, 0)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert np.abs(np.asarray(logits) - exact).max() < 0.05 * (1 + np.abs(exact).max())
