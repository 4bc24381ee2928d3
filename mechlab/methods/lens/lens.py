"""The logit lens: what the model would say if it stopped after a layer, or said one part alone.

nostalgebraist 2020, "interpreting GPT: the logit lens"; extraction events as in Geva et al. 2023
and Fierro et al. ("How Do Multilingual Models Remember?"); early decoding of attention and MLP
outputs as in arXiv 2502.20475.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import xarray as xr

from mechlab import engine
from mechlab.engine.options import check_choice, check_whole
from mechlab.errors import OptionError, SiteError
from mechlab.hooks import SITES, Intervention
from mechlab.methods.lens.decoding import STREAM, WRITES, Decoded, Decoder, states_of
from mechlab.models import chosen_layers, scored_pairs, scored_prompts
from mechlab.progress import Progress, ProgressCallback
from mechlab.prompts import Fact, PromptPair, PromptSet, as_prompt_set
from mechlab.results import analysis, new_result

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["logit_lens"]

AT_ONCE = 16
_HINTS = ("model", "prompts", "progress", "max_batch")


def _check_all(model: "Model", prompts: PromptSet[Any], **options: Any) -> None:
    """Tokenise all prompts, so that the store names all offenders before it starts."""
    _Texts.of(model, prompts, options.get("run", "clean"))


@analysis(version=1, prompt_kind="any", default_plot="lines", check=_check_all)
def logit_lens(
    model: "Model",
    prompts: PromptSet[Any] | Sequence[Fact] | Sequence[PromptPair] | Fact | PromptPair,
    *,
    sites: Sequence[str] = ("resid_post",),
    layers: Sequence[int] | None = None,
    positions: Literal["last", "all"] = "last",
    norm: Literal["own", "frozen", "none"] = "own",
    run: Literal["clean", "corrupted"] = "clean",
    top_k: int = 5,
    interventions: Sequence[Intervention] = (),
    max_batch: int | None = None,
    progress: ProgressCallback | None = None,
) -> xr.Dataset:
    """Read intermediate states as if they were the final one: logits, probabilities, ranks.

    Besides the answers of a prompt the model's own prediction is followed: its rank is 0 exactly
    where the state's top token is the token that the model predicts at that position in the end (an
    "extraction event" of Geva et al. 2023). The mean over prompts of `lens["rank"].sel(
    answer="predicted") == 0` is the extraction rate.

    Args:
        model: any decoder whose sites are proven (`verify`).
        prompts: facts or pairs.
        sites: states to read: the residual stream (`resid_pre`, `resid_mid`, `resid_post`), or what
            one module adds to it (`attn_out`, `mlp_out`, `mixer_out`).
        layers: layers to read; default all.
        positions: the `last` token of each prompt, or `all`.
        norm: how the final norm is applied. `own`: the model's own head runs on the state, so the
            scale is the state's own and all biases count (the logit lens; the last residual gives
            the model's own logits). `frozen`: with the scale of the run's final residual at that
            position, which makes decoding linear; of a module's output biases are left out, so that
            decoded writes add up (arXiv 2502.20475). `none`: unembedding times state, no norm.
        run: which prompt of a pair is read; the answers stay as they are.
        top_k: number of most probable tokens to keep.
        interventions: changes that hold in the run.
        max_batch: prompts that run side by side.
        progress: called between batches; may raise `Cancelled`.

    Returns:
        Dataset with `logit`, `log_probability` (nats), `probability` and `rank` (0 is the top) of
        (prompt, site, layer, pos, answer), the axis `answer` holding `predicted` (the model's final
        top token at that position), `answer` and, for pairs, `wrong_answer`, each by its first
        token; `top_token` and `top_probability` of (prompt, site, layer, pos, k). With
        `positions="last"` the axis `pos` has the one entry -1, else positions count from the first
        token of the unpadded prompt and cells beyond its end are NaN. Coordinates `token` and
        `predicted_token` of (prompt, pos), `answer_token` of (prompt, answer), empty for
        `predicted`.

    Raises:
        OptionError: an option outside its choices.
        SiteError: a site that this model lacks or that cannot be decoded, a layer out of range.
        PromptError: prompts or answers that cannot be tokenised; all offenders at once.
        ModelError: `norm="frozen"` on a model whose final norm has no linear form.
        Cancelled: when `progress` asked to stop.
    """
    started = time.time()
    options = {name: value for name, value in locals().items() if name not in _HINTS}
    del options["started"]
    _check_options(model, positions, norm, run, top_k, max_batch)
    chosen = _chosen_sites(sites)
    levels = chosen_layers(model, layers)
    given = as_prompt_set(prompts, kind="any")
    texts = _Texts.of(model, given, run)
    engine.require_sites(model, chosen)
    lengths = model.tokenize(texts.texts).lengths
    bases = engine.check_bases(model, texts.texts, lengths, interventions)
    checks = engine.verify(model)
    engine.require_proven(model, [*chosen, "resid_post"])
    last = ("resid_post", model.n_layers - 1)
    places = list(dict.fromkeys([*((site, n) for site in chosen for n in levels), last]))
    found: list[Decoded] = []
    with model.lock, torch.no_grad():
        decoder = Decoder(model, norm, top_k)
        step = max_batch or AT_ONCE
        for start in range(0, len(bases), step):
            group = bases[start : start + step]
            states = [
                states_of(recording, chosen, levels, positions, last)
                for recording in engine.record(model, group, places, at_once=step)
            ]
            found += decoder.decode(states, texts.answers[start : start + step], chosen)
            if progress is not None:
                progress(Progress(len(found), len(bases), "prompts"))
    return new_result(
        _variables(model, found),
        _coordinates(model, given, texts, chosen, levels, positions, found),
        method="logit_lens",
        version=1,
        model=model,
        prompts=given,
        options=options,
        seed=None,
        started=started,
        checks={"verify": checks.summary()},
    )


# --- what is asked for ----------------------------------------------------------------------------


def _check_options(
    model: "Model", positions: str, norm: str, run: str, top_k: int, max_batch: int | None
) -> None:
    check_choice("positions", positions, ("last", "all"))
    check_choice("norm", norm, ("own", "frozen", "none"))
    check_choice("run", run, ("clean", "corrupted"))
    check_whole("top_k", top_k, at_least=1)
    check_whole("max_batch", max_batch, at_least=1, optional=True)
    if top_k > model.d_vocab:
        raise OptionError(f"top_k={top_k} of {model.d_vocab} tokens. Allowed: 1 to that. Lower it.")


def _chosen_sites(sites: Sequence[str]) -> tuple[str, ...]:
    given = (sites,) if isinstance(sites, str) else tuple(sites)
    allowed = (*STREAM, *WRITES)
    wrong = [site for site in given if site not in allowed]
    if wrong or not given or len(set(given)) < len(given):
        raise SiteError(
            f"sites {list(wrong or given)} cannot be decoded. Allowed: {', '.join(allowed)}, each "
            "once: states and writes of the residual stream. Name some of these."
        )
    return tuple(site for site in SITES if site in given)


@dataclass(frozen=True)
class _Texts:
    """What is run, and the tokens followed.

    Attributes:
        texts: what the model reads.
        names: entries of the axis `answer`.
        answers: per prompt the tokens of `names[1:]`, -1 where it has none.
    """

    texts: tuple[str, ...]
    names: tuple[str, ...]
    answers: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, model: "Model", prompts: PromptSet[Any], run: str) -> "_Texts":
        """Tokenise.

        Raises:
            OptionError: the corrupted run of facts.
            PromptError: all offenders at once.
        """
        if prompts.kind == "pair":
            pairs = scored_pairs(model, prompts, same_length=False)
            texts = pairs.texts if run == "clean" else pairs.corrupted
            return cls(texts, ("predicted", "answer", "wrong_answer"), pairs.answers)
        if run == "corrupted":
            raise OptionError(
                "run='corrupted' of facts, which have one prompt. Allowed: 'clean'. Use pairs."
            )
        facts = scored_prompts(model, prompts, "kl_divergence")  # a target is not needed
        answers = tuple(
            row if fact.target else (-1,) for fact, row in zip(prompts, facts.answers, strict=True)
        )
        return cls(facts.texts, ("predicted", "answer"), answers)


# --- the result -----------------------------------------------------------------------------------


def _variables(model: "Model", found: Sequence[Decoded]) -> dict[str, Any]:
    """Return the variables of a result."""
    kind = np.float64 if model.dtype == torch.float64 else np.float32
    width = max(one.logit.shape[2] for one in found)

    def padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
        first = arrays[0]
        out = np.full((len(arrays), *first.shape[:2], width, first.shape[3]), np.nan, kind)
        for row, array in enumerate(arrays):
            out[row, :, :, : array.shape[2]] = array
        return out

    cell = ("prompt", "site", "layer", "pos")
    logs = padded([one.log_probability for one in found])
    tops = np.full((len(found), *found[0].top.shape[:2], width, found[0].top.shape[3]), "", object)
    for row, one in enumerate(found):
        tops[row, :, :, : one.top.shape[2]] = np.vectorize(model.token_string, otypes=[object])(
            one.top
        )
    return {
        "logit": ((*cell, "answer"), padded([o.logit for o in found]), {"units": "logits"}),
        "log_probability": ((*cell, "answer"), logs, {"units": "nats"}),
        "probability": ((*cell, "answer"), np.exp(logs), {"units": "probability"}),
        "rank": ((*cell, "answer"), padded([o.rank for o in found]), {"units": "ranks"}),
        "top_token": ((*cell, "k"), tops.astype(str)),
        "top_probability": (
            (*cell, "k"),
            np.exp(padded([one.top_log_probability for one in found])),
            {"units": "probability"},
        ),
    }


def _coordinates(
    model: "Model",
    prompts: PromptSet[Any],
    texts: _Texts,
    sites: Sequence[str],
    layers: Sequence[int],
    positions: str,
    found: Sequence[Decoded],
) -> dict[str, Any]:
    """Return the coordinates of a result."""
    strings = [model.token_strings(text) for text in texts.texts]
    if positions == "last":
        strings = [row[-1:] for row in strings]
    width = max(map(len, strings))
    predicted = [[model.token_string(int(token)) for token in one.predicted] for one in found]

    def padded(rows: Sequence[Sequence[str]]) -> list[list[str]]:
        return [[*row, *[""] * (width - len(row))] for row in rows]

    answers = [
        ["", *(model.token_string(token) if token >= 0 else "" for token in row)]
        for row in texts.answers
    ]
    return {
        "prompt": list(prompts.labels),
        "site": list(sites),
        "layer": list(layers),
        "pos": [-1] if positions == "last" else np.arange(width),
        "answer": list(texts.names),
        "token": (("prompt", "pos"), padded(strings)),
        "predicted_token": (("prompt", "pos"), padded(predicted)),
        "answer_token": (("prompt", "answer"), answers),
        "prompt_text": ("prompt", list(texts.texts)),
    }
