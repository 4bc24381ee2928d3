"""Counting keys: one pass over text, several layers at once, stopped at the deepest of them."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mechlab.canonical import digest
from mechlab.engine import check_choice, check_number, check_whole
from mechlab.errors import OptionError, PromptError
from mechlab.methods.editing.corpora import Corpus, check_corpus, corpus_name, texts_of
from mechlab.methods.editing.edits import unedited_fingerprint
from mechlab.methods.editing.key_runs import KeyRuns
from mechlab.methods.editing.key_sums import KeySums, Window
from mechlab.methods.editing.modules import (
    EditSite,
    check_layers,
    default_site,
    projection,
)
from mechlab.methods.editing.moments import KeyStatistics, chosen_ridge
from mechlab.methods.editing.rank_one import collect
from mechlab.progress import Journal, Progress, ProgressCallback
from mechlab.results import new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["VERSION", "key_statistics"]

VERSION = 1
"""Raised when the numbers change."""

_WINDOW = 32
"""Batches whose texts are put in order of length before they are cut, so that little is padded."""


def key_statistics(
    model: "Model",
    *,
    layer: int | Sequence[int],
    corpus: Corpus = "atlas",
    tokens: int = 100_000,
    seed: int = 0,
    site: EditSite | None = None,
    max_length: int | None = None,
    dtype: Literal["float32", "float64"] = "float32",
    ridge: float | None = None,
    max_batch: int = 4096,
    journal: Journal | None = None,
    progress: ProgressCallback | None = None,
) -> KeyStatistics:
    """Measure the uncentred second moment of what enters a projection, over text.

    C = mean of k k^T over every token of every text (the beginning-of-sequence token included),
    each text cut to the context length (Meng et al. 2022, appendix E). Texts stand side by side
    padded on the right, where no token of a text can see the padding, and padding is not counted.
    The model runs up to the deepest of the layers and no further.

    Args:
        model: the model; left as found.
        layer: one block, or several, counted in one pass.
        corpus: `"atlas"`, a text or `.jsonl` file, `"datasets:NAME"`, or a list of texts.
        tokens: counting ends with the text that reaches this number.
        seed: of the generator of `"atlas"`.
        site: which projection; the architecture's default when `None`.
        max_length: tokens per text at most; `None`: the context, or 512 without one.
        dtype: precision of the products of keys within a batch; sums are float64.
        ridge: added to C, as a share of its mean eigenvalue; `None`: 0, or 0.001 with a warning
            where C has no usable inverse.
        max_batch: tokens per batch, padding included.
        journal: where sums are kept on the way, so that a killed run resumes.
        progress: called between batches; may raise `Cancelled`.

    Returns:
        `KeyStatistics`, with the number of tokens, the condition number and the ridge.

    Raises:
        OptionError: options out of range, all at once.
        PromptError: texts that cannot be read, or a corpus without a token.
        ModelError: processed weights, or a projection of an unknown kind.

    Differs from the paper: tokens are counted, not articles; sums are float64.
    """
    layers = (layer,) if isinstance(layer, int) else tuple(layer)
    site = default_site(model) if site is None else site
    length = max_length if max_length is not None else (model.n_ctx or 512)
    collect(
        (
            lambda: check_layers(model, layers),
            lambda: projection(model, 0, site),
            lambda: check_corpus(corpus),
            lambda: check_whole("tokens", tokens, at_least=1),
            lambda: check_whole("seed", seed, at_least=0),
            lambda: check_whole("max_batch", max_batch, at_least=1),
            lambda: _check_length(model, max_length),
            lambda: check_choice("dtype", dtype, ("float32", "float64")),
            lambda: check_number("ridge", 0 if ridge is None else ridge, at_least=0),
        ),
        [],
    )
    started = time.time()
    places = [projection(model, one, site) for one in sorted(layers)]
    name = digest([model.fingerprint, sorted(layers), site, seed, length, dtype, max_batch])
    count = KeySums(KeyRuns(model, places), dtype, max_batch)
    texts = texts_of(corpus, seed=seed, vocabulary=model.d_vocab)
    windows = _windows(model, texts, length, max_batch, tokens)
    with model.lock:
        for number, window in enumerate(windows):
            count.skip_or_add(window, journal, f"key statistics {name} {number}")
            if progress is not None:
                progress(Progress(min(count.tokens, tokens), tokens, "tokens"))
    if count.tokens == 0:
        raise PromptError(
            f"the corpus {corpus_name(corpus)!r} has no text.\n  Allowed: at least one token.\n"
            "  Choose another corpus."
        )
    moments = count.means()
    about = new_result(
        {}, method="key_statistics", version=VERSION, model=model,
        prompts=_Counted(count.seen.hexdigest()),
        options={
            "layers": sorted(layers), "site": site, "corpus": corpus_name(corpus),
            "tokens": tokens, "max_length": length, "dtype": dtype,
        },
        seed=seed, started=started,
    )  # fmt: skip
    return KeyStatistics(
        tuple(sorted(layers)), site, moments, count.tokens, unedited_fingerprint(model),
        model.edits, corpus_name(corpus), count.seen.hexdigest(), dtype,
        chosen_ridge(moments, count.tokens, dtype, ridge),
        dict(about.attrs),
    )  # fmt: skip


@dataclass(frozen=True)
class _Counted:
    """The tokens that were counted, as results name the prompts they come from."""

    digest: str


def _check_length(model: "Model", max_length: int | None) -> None:
    check_whole("max_length", max_length, at_least=1, optional=True)
    if max_length is not None and model.n_ctx is not None and max_length > model.n_ctx:
        raise OptionError(
            f"max_length={max_length}, and {model.name} reads at most {model.n_ctx} tokens. "
            "Allowed: up to that. Give less."
        )


def _windows(
    model: "Model", texts: Iterator[str], length: int, max_batch: int, tokens: int
) -> Iterator[Window]:
    """Yield token ids of consecutive texts, `_WINDOW` batches' worth at a time, up to `tokens`."""
    window: Window = []
    held = total = 0
    for text in texts:
        ids = model._encoder.encode_unchecked([text])[0].ids[:length]
        if not ids:
            continue
        window.append(ids)
        held, total = held + len(ids), total + len(ids)
        if held >= _WINDOW * max_batch or total >= tokens:
            yield window
            window, held = [], 0
        if total >= tokens:
            return
    if window:
        yield window
