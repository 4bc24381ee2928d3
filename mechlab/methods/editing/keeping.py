"""Key statistics kept in a store, layer by layer, under what they were counted on."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.canonical import digest
from mechlab.methods.editing.corpora import Corpus, check_corpus, corpus_name, corpus_source
from mechlab.methods.editing.counting import VERSION, key_statistics
from mechlab.methods.editing.modules import EditSite, check_layers, default_site
from mechlab.methods.editing.moments import KeyStatistics, RankDeficientWarning, chosen_ridge
from mechlab.progress import ProgressCallback

if TYPE_CHECKING:
    from mechlab.models import Model
    from mechlab.store import Store

__all__ = ["stored_key_statistics"]


def stored_key_statistics(
    store: "Store",
    model: "Model",
    *,
    layer: int | Sequence[int],
    corpus: Corpus = "atlas",
    tokens: int = 100_000,
    seed: int = 0,
    site: EditSite | None = None,
    max_length: int | None = None,
    dtype: Any = "float32",
    ridge: float | None = None,
    progress: ProgressCallback | None = None,
) -> KeyStatistics:
    """Return key statistics, counting only the layers that the store does not hold.

    Each layer is one entry, kept under the model's fingerprint, the layer and projection, and the
    corpus: its contents for files and lists, its name for datasets, seed and version of mechlab for
    the generated one. Missing layers are counted in one pass; a killed pass resumes.

    Args:
        store: where they are kept.
        model: the model.
        layer: one block, or several.
        corpus: as in `key_statistics`, as are all further options.
        tokens: counting ends with the text that reaches this number.
        seed: of the generator of `"atlas"`.
        site: which projection.
        max_length: tokens per text at most.
        dtype: precision of the products of keys.
        ridge: not part of the key; chosen anew each time.
        progress: called between batches; may raise `Cancelled`.

    Raises:
        OptionError, PromptError, ModelError: as `key_statistics`.
        StoreError: when the store cannot be read or written.
    """
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    check_layers(model, layers)
    check_corpus(corpus)
    site = default_site(model) if site is None else site
    length = max_length if max_length is not None else (model.n_ctx or 512)
    identity = corpus_source(corpus, seed)
    options = {"site": site, "tokens": tokens, "max_length": length, "dtype": dtype}
    sources = {
        one: {
            "method": "key_statistics",
            "method_version": VERSION,
            "model": model.fingerprint,
            "options": {**options, "layer": one},
            "prompts": digest(identity),
        }
        for one in sorted(layers)
    }
    held = {one: store.kept(source) for one, source in sources.items()}
    parts = {one: KeyStatistics.from_dataset(d) for one, d in held.items() if d is not None}
    if missing := [one for one in sorted(layers) if one not in parts]:
        journal = store.journal(sources[missing[0]])  # removed when that layer is kept
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RankDeficientWarning)  # said below, for all layers
            counted = key_statistics(
                model, layer=missing, corpus=corpus, tokens=tokens, seed=seed, site=site,
                max_length=max_length, dtype=dtype, journal=journal, progress=progress,
            )  # fmt: skip
        for index, one in reversed([*enumerate(missing)]):
            alone = replace(
                counted, layers=(one,), moments=counted.moments[index : index + 1], ridge=(0.0,)
            )
            store.keep(sources[one], alone.to_dataset(), name=corpus_name(corpus))
            parts[one] = alone
    chosen = [parts[one] for one in sorted(layers)]
    moments = np.concatenate([part.moments for part in chosen])
    found = chosen[0]
    return replace(
        found,
        layers=tuple(sorted(layers)),
        moments=moments,
        ridge=chosen_ridge(moments, found.tokens, dtype, ridge),
    )
