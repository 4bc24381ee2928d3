"""`causal_trace`: clean run, corrupted runs, restored runs (Meng et al. 2022, section 2)."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr

from mechlab import engine
from mechlab.engine import Base, NextTokens
from mechlab.errors import OptionError, PromptError
from mechlab.methods.tracing.corruption import (
    check_interchange,
    interchanged_facts,
    noised_bases,
    reference_subjects,
    subject_embedding_std,
)
from mechlab.methods.tracing.design import (
    Design,
    Layout,
    arrange,
    lay_out,
    token_roles,
)
from mechlab.methods.tracing.options import check_choices, check_numbers
from mechlab.progress import Journal, ProgressCallback
from mechlab.prompts import Fact, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["causal_trace", "check_trace"]

HINTS = frozenset({"model", "facts", "max_batch", "mode", "progress", "journal"})
"""Arguments that decide no number."""


def check_trace(model: "Model", facts: Any, **options: Any) -> None:
    """Refuse what `causal_trace` would refuse, with the same words, before any forward pass.

    The store calls it before it hands over facts one at a time, an estimate before it promises
    anything.

    Raises:
        OptionError, SiteError, PromptError: as `causal_trace`.
    """
    bound = signature(causal_trace).bind(model, facts, **options)
    bound.apply_defaults()
    _prepare(**bound.arguments)


@analysis(version=1, prompt_kind="fact", default_plot="layer_by_token", check=check_trace)
def causal_trace(
    model: "Model",
    facts: PromptSet[Any] | Sequence[Fact] | Fact,
    *,
    sites: Sequence[str] = ("resid_post",),
    window: int | None = None,
    layers: Sequence[int] | None = None,
    positions: Literal["all", "subject", "last_subject"] = "all",
    samples: int = 10,
    noise_scale: float = 3.0,
    noise_std: float | None = None,
    reference: str | Sequence[str] = "countries",
    corruption: Literal["gaussian", "interchange"] = "gaussian",
    other_subjects: Mapping[str, Sequence[str]] | None = None,
    sever: Literal["none", "mlp", "attn", "mixer"] = "none",
    known_only: bool = True,
    score: Literal["top", "target"] = "top",
    seed: int = 0,
    max_batch: int | None = None,
    mode: Literal["auto", "wavefront", "packed", "plain"] = "auto",
    progress: ProgressCallback | None = None,
    journal: Journal | None = None,
) -> xr.Dataset:
    """Measure the indirect effect of restoring one state of a corrupted run.

    Args:
        model: any decoder whose sites are proven (`verify`).
        facts: prompts with their subjects. A fact with a target is traced only when the model's
            most probable next token is the target's first token (`known_only`).
        sites: states to restore: `resid_pre`, `resid_mid`, `resid_post`, `mlp_out`, `attn_out`, or
            `mixer_out` on recurrent models.
        window: layers restored together at `mlp_out`, `attn_out` and `mixer_out`, placed as in
            the published code (10 around l: l - 5 to l + 4), clipped at the ends. Default a
            fifth of the layers, at least 1 (10 on GPT-2 XL). Residual sites: always one layer.
        layers: centre layers to trace; default all.
        positions: tokens to trace: `all`, those of the `subject`, or the `last_subject` token.
        samples: corrupted runs per fact; all cells of a fact share their noise.
        noise_scale: standard deviation of the noise, in units of the standard deviation of the
            embeddings of the subjects in `reference`.
        noise_std: absolute standard deviation instead; `noise_scale` is then not used.
        reference: subjects over which that deviation is measured: `"countries"`, the built-in
            table, or a list of names. It never depends on the facts traced.
        corruption: `gaussian` noise on the subject's embeddings, or `interchange`: other subjects
            in the same sentence, aligned at the subject's end (Sen Sharma et al. 2024).
        other_subjects: for `interchange`, the subjects to put in each subject's place; default
            `samples` names drawn from `reference`.
        sever: hold the outputs of the restored token's MLPs (`mlp`), attention (`attn`) or mixers
            (`mixer`) at their corrupted values in all layers (section 2.2).
        known_only: skip facts whose target is not the model's most probable next token.
        score: score the model's most probable next token (`top`, as published) or the target's
            first token (`target`).
        seed: decides noise and the draw of other subjects.
        max_batch: upper bound on rows per batch; changes no number beyond rounding.
        mode: how the engine runs; `plain` is the slow reference.
        progress: called between batches with a partial result; may raise `Cancelled`.
        journal: keeps finished batches, so that a killed run resumes.

    Returns:
        Dataset with `clean_probability[prompt]`, `corrupted_probability[prompt, sample]`,
        `restored_probability[prompt, site, layer, pos, sample]`, `total_effect[prompt]` (clean
        minus mean corrupted) and `indirect_effect[prompt, site, layer, pos]` (mean restored minus
        mean corrupted). All are probabilities or differences of them. Coordinates: `token` and
        `token_role` of (prompt, pos), `status`, `subject`, `target` and `scored_token` of
        (prompt), `window_start` and `window_stop` (excluded) of (site, layer). A skipped fact is
        NaN but for its clean probability, and its `status` says why. Positions count from the
        first token of the unpadded prompt.

    Raises:
        OptionError: an option outside its range or choices.
        SiteError: a site that this model lacks or that is not proven, or a layer out of range.
        PromptError: facts that cannot be tokenised or scored, all offenders at once.
        Cancelled: when `progress` asked to stop.

    Differs from the paper: the softmax is taken in float32; noise is drawn once per (seed, prompt,
    sample) instead of being seeded anew in every forward call, which shares it between cells in the
    same way; the first token of a target is what must be the top prediction, not the whole word.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in HINTS}
    del options["started"]
    prompts, design, tokens = _prepare(model, facts, max_batch=max_batch, mode=mode, **options)
    samples, seed = int(samples), int(seed)  # numpy's integers are taken, and then forgotten
    checks = engine.verify(model)
    engine.require_proven(model, [*design.needed_sites, "embed"])
    std = 0.0
    if corruption == "gaussian":
        unit = subject_embedding_std(model, reference) if noise_std is None else 1.0
        std = unit * (noise_scale if noise_std is None else noise_std)
    clean = engine.next_tokens(model, [fact.prompt for fact in prompts])
    scored = tokens.targets if score == "target" else clean.tokens
    status = _status(model, prompts, clean, tokens.targets, known_only)

    def corrupt(fact: Fact, span: tuple[int, int]) -> list[tuple[Base, tuple[int, int]]]:
        if corruption == "gaussian":
            bases = noised_bases(fact, *span, std=std, samples=samples, seed=seed)
            return [(base, span) for base in bases]
        others = interchanged_facts(
            fact, samples=samples, seed=seed, reference=reference, other_subjects=other_subjects
        )
        return [(Base(o.prompt, (), o.subject), model.subject_positions(o)) for o in others]

    traced = [index for index, reason in enumerate(status) if reason == "ok"]
    layout = lay_out(design, prompts, traced, tokens.spans, tokens.lengths, corrupt)

    def dataset(bases: np.ndarray, rows: np.ndarray) -> xr.Dataset:
        """Arrange readings; called with the rows so far for a partial picture, and at the end."""
        result = new_result(
            _variables(design, layout, tokens, samples, clean, score, bases, rows),
            _coordinates(model, design, tokens, prompts, samples, status, scored),
            method="causal_trace",
            version=1,
            model=model,
            prompts=prompts,
            options=options,
            seed=seed,
            started=started,
            checks={"verify": checks.summary()},
        )
        return result.assign_attrs(noise_std=float(std), window=design.window)

    if not traced:
        return dataset(np.empty(0, np.float32), np.empty(0, np.float32))
    readings = engine.run(
        model,
        layout.bases,
        layout.rows,
        read="probability",
        answers=[(scored[fact],) for fact in layout.fact_of_base],
        mode=mode,
        max_batch=None if max_batch is None else int(max_batch),
        progress=progress,
        partial=dataset,
        journal=journal,
    )
    _check_finite(readings, std)
    return dataset(readings.bases, readings.rows).assign_attrs(engine_mode=readings.mode)


def _prepare(
    model: "Model",
    facts: PromptSet[Any] | Sequence[Fact] | Fact,
    *,
    sites: Sequence[str],
    window: int | None,
    layers: Sequence[int] | None,
    positions: str,
    samples: int,
    noise_scale: float,
    noise_std: float | None,
    reference: str | Sequence[str],
    corruption: str,
    other_subjects: Mapping[str, Sequence[str]] | None,
    sever: str,
    known_only: bool,
    score: str,
    seed: int,
    max_batch: int | None,
    mode: str,
    **_: Any,
) -> tuple[PromptSet[Any], Design, "PromptTokens"]:
    """Check every option of `causal_trace` and tokenise every fact; nothing is run."""
    check_numbers(
        samples=samples,
        seed=seed,
        max_batch=max_batch,
        noise_scale=noise_scale,
        noise_std=noise_std,
    )
    check_choices(corruption=corruption, score=score, mode=mode, known_only=known_only)
    prompts = as_prompt_set(facts, kind="fact")
    design = Design.make(model, sites, layers, window, positions, sever)
    tokens = PromptTokens.of(model, prompts, needs_target=score == "target")
    reference_subjects(reference)
    if corruption == "interchange":
        check_interchange(
            model,
            prompts,
            tokens.spans,
            samples=samples,
            seed=seed,
            reference=reference,
            other_subjects=other_subjects,
        )
    return prompts, design, tokens


def _check_finite(readings: engine.Readings, std: float) -> None:
    """Refuse probabilities that are not numbers: a NaN in a result means that nothing was run.

    Raises:
        OptionError: when the corrupted runs overflowed.
    """
    if not (np.isfinite(readings.bases).all() and np.isfinite(readings.rows).all()):
        raise OptionError(
            f"with noise of standard deviation {std:.3g} the model's probabilities are no longer "
            "numbers. Allowed: noise that its precision can carry. Lower noise_scale or noise_std, "
            "or load the model with dtype='float32'."
        )


@dataclass(frozen=True)
class PromptTokens:
    """What the tokenizer says about the facts.

    Attributes:
        strings: tokens of each prompt as text.
        spans: first and last position of each subject.
        targets: first token of each target, -1 where a fact has none.
    """

    strings: tuple[tuple[str, ...], ...]
    spans: tuple[tuple[int, int], ...]
    targets: tuple[int, ...]

    @classmethod
    def of(cls, model: "Model", prompts: PromptSet[Any], *, needs_target: bool) -> "PromptTokens":
        """Tokenise facts.

        Raises:
            PromptError: facts that cannot be tokenised, all offenders at once; or that have no
                target though one is needed.
        """
        model.tokenize([fact.prompt for fact in prompts])  # names every prompt that does not fit
        without = [
            label for fact, label in zip(prompts, prompts.labels, strict=True) if not fact.target
        ]
        if needs_target and without:
            raise PromptError(
                f"score='target': {len(without)} of {len(prompts)} facts have no target, such as "
                f"{without[0]!r}. Give them one, or use score='top'."
            )
        with_target = [i for i, fact in enumerate(prompts) if fact.target]
        targets = [-1] * len(prompts)
        if with_target:
            found = model.answer_tokens(
                [prompts[i].prompt for i in with_target], [prompts[i].target for i in with_target]
            )
            for index, ids in zip(with_target, found, strict=True):
                targets[index] = ids[0]
        return cls(
            tuple(tuple(model.token_strings(fact.prompt)) for fact in prompts),
            tuple(model.subject_positions(fact) for fact in prompts),
            tuple(targets),
        )

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens per prompt."""
        return tuple(len(strings) for strings in self.strings)

    @property
    def width(self) -> int:
        """Tokens of the longest prompt."""
        return max(self.lengths)


def _status(
    model: "Model",
    prompts: PromptSet[Any],
    clean: NextTokens,
    targets: Sequence[int],
    known_only: bool,
) -> list[str]:
    """Return `ok` or why a fact is not traced."""
    found = []
    for fact, top, target in zip(prompts, clean.tokens, targets, strict=True):
        if not known_only or target in (-1, top):
            found.append("ok")
        else:
            found.append(
                f"not known: expected {model.token_string(target)!r} ({fact.target.strip()}), "
                f"the model predicts {model.token_string(top)!r}"
            )
    return found


def _variables(
    design: Design,
    layout: Layout,
    tokens: PromptTokens,
    samples: int,
    clean: NextTokens,
    score: str,
    bases: np.ndarray,
    rows: np.ndarray,
) -> dict[str, Any]:
    """Arrange readings of bases and rows as labelled variables."""
    n_facts = len(tokens.strings)
    # With score="top" the clean probability is known for skipped facts as well.
    clean_p = np.array(clean.probabilities if score == "top" else [np.nan] * n_facts, np.float32)
    corrupted = np.full((n_facts, samples), np.nan, dtype=np.float32)
    for cells in layout.facts:
        clean_p[cells.fact] = bases[cells.clean]
        corrupted[cells.fact] = bases[list(cells.corrupted)]
    restored = arrange(design, layout, n_facts, tokens.width, samples, rows)
    mean_corrupted = corrupted.mean(axis=1, dtype=np.float64).astype(np.float32)
    # A position that only some corrupted runs have (interchange) is compared on those runs.
    effect = _mean_over_samples(restored - corrupted[:, None, None, None, :])
    cell = ("prompt", "site", "layer", "pos")
    unit = {"units": "probability"}
    return {
        "clean_probability": ("prompt", clean_p, unit),
        "corrupted_probability": (("prompt", "sample"), corrupted, unit),
        "restored_probability": ((*cell, "sample"), restored, unit),
        "total_effect": ("prompt", clean_p - mean_corrupted, unit),
        "indirect_effect": (cell, effect, unit),
    }


def _mean_over_samples(values: np.ndarray) -> np.ndarray:
    there = ~np.isnan(values)
    count = there.sum(axis=-1)
    total = np.where(there, values, 0).sum(axis=-1, dtype=np.float64)
    mean: np.ndarray = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean.astype(np.float32)


def _coordinates(
    model: "Model",
    design: Design,
    tokens: PromptTokens,
    prompts: PromptSet[Any],
    samples: int,
    status: Sequence[str],
    scored: Sequence[int],
) -> dict[str, Any]:
    """Return the coordinates of a trace."""
    windows = [[design.layers_restored(site, at) for at in design.layers] for site in design.sites]
    roles = [
        token_roles(length, span, tokens.width)
        for length, span in zip(tokens.lengths, tokens.spans, strict=True)
    ]
    strings = [[*row, *[""] * (tokens.width - len(row))] for row in tokens.strings]
    return {
        "prompt": list(prompts.labels),
        "site": list(design.sites),
        "layer": list(design.layers),
        "pos": np.arange(tokens.width),
        "sample": np.arange(samples),
        "token": (("prompt", "pos"), strings),
        "token_role": (("prompt", "pos"), roles),
        "prompt_text": ("prompt", [fact.prompt for fact in prompts]),
        "subject": ("prompt", [fact.subject for fact in prompts]),
        "target": ("prompt", [fact.target.strip() for fact in prompts]),
        "scored_token": ("prompt", [model.token_string(token) for token in scored]),
        "status": ("prompt", list(status)),
        "window_start": (("site", "layer"), [[w.start for w in row] for row in windows]),
        "window_stop": (("site", "layer"), [[w.stop for w in row] for row in windows]),
    }
