"""Key statistics: streaming, padding-free, resumable, from any source of text."""

import json
from datetime import timedelta

import numpy as np
import pytest
import toys
from oracles import plain_editing

from mechlab.errors import Cancelled, OptionError, PromptError, StoreError
from mechlab.methods.editing import (
    KeyStatistics,
    RankDeficientWarning,
    key_statistics,
    stored_key_statistics,
)
from mechlab.methods.editing.corpora import texts_of
from mechlab.methods.editing.key_runs import KeyRuns
from mechlab.methods.editing.key_sums import KeySums
from mechlab.methods.editing.modules import projection
from mechlab.models import wrap_model
from mechlab.store import Store

TEXTS = [
    "The capital of France is Paris.",
    "Rome",
    "When Mary and John went to the store, John gave the book to Mary.",
    "Ann was born in Madrid, the capital of Spain; Bob was born in Cairo.",
]
LAYERS = (0, 2)


@pytest.fixture(scope="module", params=["gpt2", "mamba"])
def model(request):
    return wrap_model(toys.make_hf(request.param), toys.make_tokenizer("bpe"), name=request.param)


@pytest.fixture(scope="module")
def gpt2():
    return wrap_model(toys.make_hf("gpt2"), toys.make_tokenizer("bpe"), name="gpt2")


def counted(model, texts=TEXTS, **options):
    return key_statistics(
        model, layer=LAYERS, corpus=texts, tokens=10**6, **{"ridge": 0.0, **options}
    )


def test_streaming_equals_one_text_at_a_time_whatever_the_batches(model):
    path = {"gpt2": "transformer.h.{}.mlp.c_proj", "mamba": "backbone.layers.{}.mixer.out_proj"}
    hf = toys.make_hf(model.name)
    ids = [[int(i) for i in model.tokenize(text).row(0)] for text in TEXTS]
    together = counted(model, max_batch=4096)  # all texts padded to one width
    alone = counted(model, max_batch=1)
    assert together.tokens == sum(map(len, ids))
    for index, layer in enumerate(LAYERS):
        module = hf.get_submodule(path[model.name].format(layer))
        expected = plain_editing.second_moment(hf, module, ids).numpy()
        scale = np.abs(expected).max()
        for found in (together, alone, counted(model, dtype="float64")):
            np.testing.assert_allclose(found.moments[index] / scale, expected / scale, atol=2e-6)


def test_the_order_of_texts_does_not_count_and_a_longer_text_does(gpt2):
    first, turned = counted(gpt2), counted(gpt2, TEXTS[::-1])
    np.testing.assert_allclose(first.moments, turned.moments, rtol=1e-4, atol=1e-6)
    assert first.corpus_digest != turned.corpus_digest
    cut = counted(gpt2, max_length=3)
    assert cut.tokens == sum(min(3, len(gpt2.token_strings(text))) for text in TEXTS)


def test_the_model_runs_no_further_than_the_deepest_layer(gpt2):
    ran = []
    twin = KeyRuns(gpt2, [projection(gpt2, 1)]).twin
    handles = [
        block.register_forward_pre_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(twin.module.transformer.h)
    ]
    key_statistics(gpt2, layer=1, corpus=TEXTS, tokens=10**6, ridge=0.0)
    for handle in handles:
        handle.remove()
    assert set(ran) == {0, 1}


def test_too_few_tokens_get_a_ridge_that_is_said_aloud(gpt2):
    with pytest.warns(RankDeficientWarning, match="rank"):
        deficient = key_statistics(gpt2, layer=0, corpus=TEXTS, tokens=10**6)
    mean = np.trace(deficient.moments[0]) / len(deficient.moments[0])
    assert deficient.ridge == (pytest.approx(1e-3 * mean),)
    assert deficient.condition[0] < 1e6
    assert np.linalg.eigvalsh(deficient.moment(0).numpy())[0] > 0
    assert "ridge" in repr(deficient)


class Journal(dict):
    put = dict.__setitem__


def test_a_stopped_count_goes_on_where_it_was(gpt2, monkeypatch):
    from mechlab.methods.editing import counting

    monkeypatch.setattr(counting, "_WINDOW", 1)
    options = {"max_batch": 1, "journal": (journal := Journal())}

    def stop(progress):
        if progress.done >= 20:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        counted(gpt2, progress=stop, **options)
    held = len(journal)
    assert 0 < held < len(TEXTS)
    runs, add = [], KeySums.add

    def counting_add(self, batch):
        runs.append(batch)
        add(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(KeySums, "add", counting_add)
        resumed = counted(gpt2, **options)
    assert len(runs) == len(TEXTS) - held
    whole = counted(gpt2, max_batch=1)
    assert (resumed.tokens, resumed.corpus_digest) == (whole.tokens, whole.corpus_digest)
    np.testing.assert_allclose(resumed.moments, whole.moments, rtol=1e-12)


def test_files_give_the_texts_that_lists_give(gpt2, tmp_path):
    lines, plain = tmp_path / "texts.jsonl", tmp_path / "texts.txt"
    lines.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS), encoding="utf-8")
    plain.write_text("\n\n".join(TEXTS), encoding="utf-8")
    expected = counted(gpt2)
    assert counted(gpt2, lines).corpus_digest == expected.corpus_digest
    assert list(texts_of(plain, seed=0, vocabulary=9))[-1] == TEXTS[-1]
    assert counted(gpt2, str(lines)).corpus == "texts.jsonl"
    lines.write_text('{"words": "a"}\n', encoding="utf-8")
    with pytest.raises(PromptError, match=r"line 1 of texts\.jsonl"):
        counted(gpt2, lines)


def test_the_shipped_corpus_is_seeded_text():
    def first(seed):
        texts = texts_of("atlas", seed=seed, vocabulary=3072)
        return [next(texts) for _ in range(50)]

    assert first(0) == first(0) != first(1)
    assert all(first(0))


def test_saved_statistics_are_the_same_statistics(gpt2, tmp_path):
    kept = counted(gpt2, ridge=0.5)
    again = KeyStatistics.load(kept.save(tmp_path / "keys.safetensors"))
    assert again.digest == kept.digest and again.ridge == kept.ridge and again.about == kept.about
    same = ("layers", "site", "tokens", "fingerprint", "corpus", "corpus_digest", "dtype")
    assert all(getattr(again, name) == getattr(kept, name) for name in same)
    with pytest.raises(StoreError, match="cannot be read"):
        KeyStatistics.load(tmp_path / "none")


def test_wrong_options_are_named_at_once(gpt2):
    with pytest.raises(OptionError) as caught:
        key_statistics(
            gpt2, layer=(1, 7), corpus="nowhere.txt", tokens=0, dtype="float16", max_length=10**6
        )
    text = str(caught.value)
    assert all(p in text for p in ("[7]", "nowhere.txt", "tokens=0", "float16", "max_length"))


def test_a_dataset_by_name_says_which_package_it_needs(gpt2, monkeypatch):
    from mechlab.methods.editing import corpora

    monkeypatch.setattr(corpora, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match="pip install datasets"):
        key_statistics(gpt2, layer=0, corpus="datasets:wikitext:wikitext-2-raw-v1")


def test_the_store_counts_each_layer_once(gpt2, tmp_path):
    store = Store(tmp_path)
    reports = []

    def stored(layer, **options):
        reports.clear()
        return stored_key_statistics(
            store, gpt2, layer=layer, corpus=TEXTS, tokens=10**6, ridge=0.0,
            progress=reports.append, **options,
        )  # fmt: skip

    first = stored(0)
    assert reports
    both = stored([0, 2])
    assert reports and both.layers == (0, 2)
    np.testing.assert_allclose(both.moments, counted(gpt2).moments, rtol=1e-5, atol=1e-7)
    again = stored([2, 0])
    assert not reports and again.digest == both.digest and again.tokens == first.tokens
    stored(0, max_length=3)
    assert reports
    entries = store.find(method="key_statistics")
    assert len(entries) == 3 and store.verify() == []
    assert {entry.options["layer"] for entry in entries} == {0, 2}
    assert store.clean(older_than=timedelta(0)) == []  # no journal is left behind
