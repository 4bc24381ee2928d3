"""The claims of Mistry et al. 2025: attention and output become like episodic memory in training.

Their paper is known here by its abstract and two summaries; bounds are ours, fixed beforehand.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from emergence_measure import KINDS, Measured

import mechlab as ml

Claim, Condition, Outcome = ml.claims.Claim, ml.claims.Condition, ml.claims.Outcome

MIN_ATTENTION = 0.01
"""Attention is contiguous, or asymmetric, by more than this much attention weight."""
MIN_PEAK = 0.05
"""The output peaks at +1 when it is more probable by this than the token at any other lag."""
MIN_EDGE = 0.1
"""Attention favours an end by more than this share of what every token would get alike."""
MIN_CORRELATION = 0.8
"""Rank correlation over checkpoints that counts as rising together."""
RESAMPLES = 200


# --- numbers --------------------------------------------------------------------------------------


def of_heads(values: xr.DataArray, heads: Sequence[ml.Head]) -> xr.DataArray:
    """Return the mean over these heads, without the axes layer and head."""
    picked = values.sel(
        layer=xr.DataArray([one.layer for one in heads], dims="chosen"),
        head=xr.DataArray([one.head for one in heads], dims="chosen"),
    )
    return picked.mean("chosen")


def attention(measured: Measured, index: str) -> xr.DataArray:
    """Return contiguity or asymmetry of the induction heads, `[checkpoint, prompt]`."""
    return of_heads(measured.attention[index], measured.heads)


def recalled(measured: Measured, kind: str = "zero", name: str = "intact") -> xr.DataArray:
    """Return the output CRP, `[checkpoint, prompt, lag]`."""
    found: xr.DataArray = measured.recall[kind].probability.sel(head_set=name, drop=True)
    return found


def peak(measured: Measured) -> xr.DataArray:
    """Return how much more probable +1 is than any other lag, `[checkpoint, prompt]`."""
    crp = recalled(measured)
    return crp.sel(lag=1, drop=True) - crp.drop_sel(lag=1).max("lag")


def above(text: str, values: xr.DataArray, measured: Measured, bound: float = 0.0) -> Condition:
    """Return a condition on a mean over probes, lists drawn anew."""
    bare = xr.DataArray(values.values, dims="prompt")
    return ml.claims.mean_above(text, bare, bound, clusters=[measured.lists.probed.groups])


def risen(text: str, values: xr.DataArray, measured: Measured, bound: float) -> list[Condition]:
    """Return that a number lies above a bound at the end, and rose by as much since the start."""
    last, first = values.isel(checkpoint=-1), values.isel(checkpoint=0)
    return [
        above(f"{text}, last checkpoint", last, measured, bound),
        above(f"{text}, last minus first", last - first, measured, bound),
    ]


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's correlation over checkpoints; NaN where one does not change."""
    from scipy import stats  # heavy for a module that the report imports too

    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(stats.spearmanr(one, other).statistic)


def correlated(text: str, one: xr.DataArray, other: xr.DataArray, measured: Measured) -> Condition:
    """Return that two courses `[checkpoint, prompt]` rise together, lists drawn anew.

    Of the other course the lists are drawn apart where it was measured on other lists.
    """
    random, rows = np.random.default_rng(0), _rows_by_list(measured)
    alone = [[i] for i in range(other.sizes["prompt"])]
    others = rows if other.sizes["prompt"] == one.sizes["prompt"] else alone

    def course(values: xr.DataArray, chosen: Sequence[int]) -> np.ndarray:
        found: np.ndarray = values.transpose("checkpoint", "prompt").values[:, chosen].mean(axis=1)
        return found

    whole = rank_correlation(*(course(v, range(v.sizes["prompt"])) for v in (one, other)))
    drawn = []
    for _ in range(RESAMPLES):
        mine = [i for at in random.integers(len(rows), size=len(rows)) for i in rows[at]]
        theirs = [i for at in random.integers(len(others), size=len(others)) for i in others[at]]
        same = others is rows
        drawn.append(rank_correlation(course(one, mine), course(other, mine if same else theirs)))
    if not np.isfinite(drawn).any():
        return Condition(text, whole, float("nan"), float("nan"), MIN_CORRELATION)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Condition(text, whole, min(float(low), whole), max(float(high), whole), MIN_CORRELATION)


def _rows_by_list(measured: Measured) -> list[list[int]]:
    groups = list(measured.lists.probed.groups)
    return [[i for i, one in enumerate(groups) if one == name] for name in dict.fromkeys(groups)]


def steepest(course: np.ndarray) -> int:
    """Return the checkpoint before the largest rise."""
    return int(np.diff(course).argmax())


# --- the claims -----------------------------------------------------------------------------------


def contiguity(measured: Measured) -> Outcome:
    """Attention to what followed the probe's token, beyond what is far away, emerges."""
    text = "contiguity of attention"
    conditions = risen(text, attention(measured, "contiguity"), measured, MIN_ATTENTION)
    return Outcome(tuple(conditions), _of(measured))


def asymmetry(measured: Measured) -> Outcome:
    """Attention ahead of the probe's token, not behind it, emerges."""
    text = "attention at +1 minus at -1"
    conditions = risen(text, attention(measured, "asymmetry"), measured, MIN_ATTENTION)
    return Outcome(tuple(conditions), _of(measured))


def serial_recall(measured: Measured) -> Outcome:
    """The output peaks at +1."""
    text = "output CRP at +1 minus the largest at another lag"
    return Outcome(tuple(risen(text, peak(measured), measured, MIN_PEAK)))


def together(measured: Measured) -> Outcome:
    """Contiguity, output and loss change at the same time."""
    near, next_one = attention(measured, "contiguity"), recalled(measured).sel(lag=1, drop=True)
    gain = -measured.loss.loss.sel(head_set="intact", copy=2, drop=True)
    courses = [one.mean("prompt").values for one in (near, gain)]
    apart = abs(steepest(courses[0]) - steepest(courses[1]))
    return Outcome(
        (
            correlated("rank correlation of contiguity and output CRP at +1", near, next_one,
                       measured),
            correlated("rank correlation of contiguity and minus the loss on copy 2", near, gain,
                       measured),
            Condition("1.5 minus the checkpoints between their steepest changes",
                      *[1.5 - apart] * 3),
        ),
        f"over {len(courses[0])} checkpoints",
    )  # fmt: skip


def ends(measured: Measured) -> Outcome:
    """Attention favours both ends of the list."""
    uniform = 1 / measured.lists.length
    conditions = []
    for index in ("primacy", "recency"):
        values = measured.attention[index].mean(["layer", "head"]).isel(checkpoint=-1)
        text = f"{index} over all heads, times a token's even share"
        conditions.append(above(text, values / uniform, measured, MIN_EDGE))
    return Outcome(tuple(conditions), "at the last checkpoint")


def needed(measured: Measured) -> Outcome:
    """Without induction heads more than half of the peak is gone."""
    conditions = []
    for kind in KINDS:
        intact, without = (
            recalled(measured, kind, name).sel(lag=1).isel(checkpoint=-1)
            for name in ("intact", "induction")
        )
        text = f"half the output CRP at +1, minus what is left of it, {kind} ablation"
        conditions.append(above(text, intact / 2 - without, measured, 0.0))
    text = "output CRP at +1 minus the largest at another lag, intact"
    conditions.append(above(text, peak(measured).isel(checkpoint=-1), measured, MIN_PEAK))
    return Outcome(tuple(conditions), _of(measured))


def specific(measured: Measured) -> Outcome:
    """Random heads in their place do less harm, even the worst of them."""
    last = measured.last
    random = last.head_set.values[(last.control_of == "induction").values]
    if not len(random):
        return Outcome(note="no other heads are left to draw from")
    conditions = []
    for outcome, sign, text in (
        ("recall_next", -1, "fall of the output CRP at +1"),
        ("copy_loss", 1, "rise of the loss on copy 2"),
    ):
        for kind in KINDS:
            cell = last.sel(outcome=outcome, ablation=kind, head_set="induction")
            own, low, high, *others = (
                sign * float(cell[name])
                for name in ("effect", "effect_low", "effect_high", "random_low", "random_high")
            )
            worst = max(others)
            told = f"{text} minus that of the worst random set, {kind} ablation"
            ends_of = sorted((low - worst, high - worst))
            conditions.append(Condition(told, own - worst, *ends_of))
    away = float(last.layer_distance.sel(head_set=list(random)).mean())
    note = f"against {len(random)} random sets, {away:.1f} layers away on average"
    return Outcome(tuple(conditions), note)


def _of(measured: Measured) -> str:
    return f"of {' '.join(map(str, measured.heads))}"


PAPER = "Mistry et al. 2025, abstract"
CLAIMS = (
    Claim("contiguity", "In training, attention becomes contiguous in time.", PAPER,
          "Attention of induction heads to the lags +1 and +2 above that to the lags from 4 on, by "
          f"more than {MIN_ATTENTION} of attention weight beyond a probe that is not in the list, "
          "at the end and since the start.", contiguity),
    Claim("asymmetry", "In training, attention comes to prefer what followed.", PAPER,
          f"Attention of induction heads at +1 above that at -1 by more than {MIN_ATTENTION}, at "
          "the end and since the start.", asymmetry),
    Claim("serial_recall", "What the model says next is what followed: in-context serial recall.",
          PAPER, f"Output CRP at +1 above every other lag by more than {MIN_PEAK}, at the end and "
          "since the start.", serial_recall),
    Claim("together", "Contiguity, output and loss change together.",
          "Mistry et al. 2025; Olsson et al. 2022",
          f"Rank correlations over checkpoints above {MIN_CORRELATION}, steepest changes at most "
          "one checkpoint apart.", together),
    Claim("ends", "Attention prefers the beginning and the end of a list.", PAPER,
          "Primacy and recency, averaged over all heads, above "
          f"{MIN_EDGE} of a token's even share.", ends),
    Claim("needed", "Without induction heads serial recall is gone.", PAPER,
          "With zero and with mean ablation, more than half of the output CRP at +1 is gone where "
          "it was a peak.", needed),
    Claim("specific", "It is the induction heads, not any heads.",
          "not in the paper's abstract", "With zero and with mean ablation, more harm than the "
          "worst set of random heads, of the same layers where some are left.", specific),
)  # fmt: skip
