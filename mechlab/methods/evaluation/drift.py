"""How far the model's predictions moved on texts that have nothing to do with an edit."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from mechlab.canonical import digest
from mechlab.engine.options import check_whole
from mechlab.errors import OptionError, PromptError
from mechlab.methods.evaluation.scoring import logits_at
from mechlab.progress import Progress, ProgressCallback
from mechlab.results import new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["prediction_drift", "next_token_reference"]

MAX_BYTES = 2**31
"""Largest reference that is kept in memory."""

LOGITS_AT_ONCE = 2**25
"""So many logits are worked on at a time."""

Array = np.ndarray[Any, Any]


def next_token_reference(
    model: "Model",
    texts: Sequence[str],
    *,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Keep what the model predicts at every position of held-out texts, for `prediction_drift`.

        reference = ml.next_token_reference(model, texts)
        with edit.applied(model):
            moved = ml.prediction_drift(model, reference)

    Args:
        model: any decoder, before it is edited.
        texts: texts that no edit is about.
        max_batch: texts that run side by side.
        progress: called between batches; may raise `Cancelled`.

    Returns:
        Dataset with `log_probability` (nats, float32) of (prompt, pos, vocab), the distribution of
        the token after each position, and `nll` (nats) of (prompt, pos), that of the token that
        really follows, NaN at a text's last token. Cells beyond a text's end are NaN. The axis
        `prompt` holds the texts.

    Raises:
        OptionError: when it would take more than 2 GiB, or a number is out of range.
        PromptError: texts that cannot be tokenised, all at once.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    check_whole("max_batch", max_batch, at_least=1, optional=True)
    held = _Texts.of(model, texts)
    width = max(map(len, held.rows))
    if (size := 4 * len(held.rows) * width * model.d_vocab) > MAX_BYTES:
        raise OptionError(
            f"{len(held.rows)} texts of up to {width} tokens and {model.d_vocab} words of the "
            f"vocabulary take {size / 2**30:.1f} GiB. Allowed: {MAX_BYTES / 2**30:.0f} GiB. "
            "Take fewer or shorter texts."
        )
    logs = np.full((len(held.rows), width, model.d_vocab), np.nan, np.float32)
    nll = np.full(logs.shape[:2], np.nan)
    for row, found in held.run(model, max_batch, progress):
        logs[row, : len(found)] = found
        nll[row, : len(found)] = held.losses(row, found)
    return new_result(
        {
            "log_probability": (("prompt", "pos", "vocab"), logs, {"units": "nats"}),
            "nll": (("prompt", "pos"), nll, {"units": "nats"}),
        },
        {"prompt": list(held.texts)},
        method="next_token_reference", version=1, model=model, prompts=held, options={},
        seed=None, started=started,
    )  # fmt: skip


def prediction_drift(
    model: "Model",
    reference: xr.Dataset,
    *,
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Compare what the model predicts now with what it predicted when the reference was made.

    Args:
        model: the same model, edited.
        reference: result of `next_token_reference`.
        max_batch: texts that run side by side.
        progress: called between batches; may raise `Cancelled`.

    Returns:
        Dataset of (prompt, pos): `kl`, KL(reference ‖ now) in nats; `nll_change`, by how much less
        likely the text's own next token has become, in nats; `same_top`, 1 where the most probable
        token is still the same. Cells beyond a text's end are NaN.

    Raises:
        OptionError: something other than a reference, or one of a model that reads the texts
            differently.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    check_whole("max_batch", max_batch, at_least=1, optional=True)
    if getattr(reference, "attrs", {}).get("method") != "next_token_reference":
        raise OptionError(
            f"reference is {type(reference).__name__} and not the result of next_token_reference. "
            "Allowed: such a result. Make it before the model is edited."
        )
    held = _Texts.of(model, [str(text) for text in reference["prompt"].values])
    base = reference["log_probability"].values
    lengths = [int(n) for n in (~np.isnan(base[..., 0])).sum(1)]
    if lengths != [len(row) for row in held.rows] or base.shape[2] != model.d_vocab:
        raise OptionError(
            f"the reference was made on a model with other tokens than {model.name}. Allowed: the "
            "same model, edited or not. Make a reference on this one."
        )
    kl, nll, top = (np.full(base.shape[:2], np.nan) for _ in range(3))
    for row, now in held.run(model, max_batch, progress):
        then, at = base[row, : len(now)].astype(np.float64), (row, slice(len(now)))
        kl[at] = (np.exp(then) * (then - now)).sum(-1)
        nll[at] = held.losses(row, now)
        top[at] = then.argmax(-1) == now.argmax(-1)
    return new_result(
        {
            "kl": (("prompt", "pos"), kl, {"units": "nats"}),
            "nll_change": (("prompt", "pos"), nll - reference["nll"].values, {"units": "nats"}),
            "same_top": (("prompt", "pos"), top, {"units": "share"}),
        },
        {"prompt": list(held.texts)},
        method="prediction_drift", version=1, model=model, prompts=held,
        options={"reference": reference.attrs["model_fingerprint"]}, seed=None, started=started,
    )  # fmt: skip


@dataclass(frozen=True)
class _Texts:
    """Texts and their tokens."""

    texts: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: "Model", texts: Sequence[str]) -> "_Texts":
        """Tokenise.

        Raises:
            PromptError: no list of texts, or texts that cannot be tokenised, all at once.
        """
        if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
            raise PromptError(
                f"texts are {type(texts).__name__} {texts!r:.60}.\n  Allowed: a list of texts.\n"
                "  Put a single one in brackets."
            )
        batch = model.tokenize(tuple(texts))
        rows = tuple(tuple(batch.row(n).tolist()) for n in range(len(batch)))
        return cls(tuple(texts), rows)

    @property
    def digest(self) -> str:
        """Of the texts in order."""
        return digest(list(self.texts))

    def run(
        self, model: "Model", max_batch: int | None, progress: ProgressCallback | None
    ) -> Iterator[tuple[int, Array]]:
        """Yield each text's number and log-probabilities `[pos, vocab]`, similar lengths first."""
        order = sorted(range(len(self.rows)), key=lambda n: len(self.rows[n]))
        rows = [self.rows[n] for n in order]
        longest = len(rows[-1])
        fits = max(1, LOGITS_AT_ONCE // (longest * model.d_vocab))
        most = fits if max_batch is None else min(fits, max_batch)
        done = 0
        for which, logits in logits_at(model, rows, [range(len(r)) for r in rows], max_batch=most):
            logs = torch.log_softmax(logits, -1).cpu().numpy()
            for row in which:
                yield order[row], logs[: len(rows[row])]
                logs = logs[len(rows[row]) :]
            done += len(which)
            if progress is not None:
                progress(Progress(done, len(rows), "texts"))

    def losses(self, row: int, logs: Array) -> Array:
        """Return the nats of each position's next token in its text, NaN at the last."""
        after = list(self.rows[row][1:])
        return np.append(-logs[np.arange(len(after)), after], np.nan)
