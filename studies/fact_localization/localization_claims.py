"""The claims of Meng et al. 2022 about where facts are stored, as tests on traces.

Every condition is an average over facts with a 95 % interval, and holds when the interval's lower
end lies above a bound. Layers are chosen on one half of the subjects and measured on the other
half, both ways, so that picking the largest of many layers does not flatter the effect.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import xarray as xr

import mechlab as ml

MIN_EFFECT = 0.01
"""An effect counts from one percentage point of probability on (the paper's MLP peak: 6.6)."""
MIN_FACTS = 6
"""Fewer traced facts, or subjects, are not tested: two halves of three are the least to compare."""
RARE = 5
"""A token role that fewer facts have is not compared with."""
RESAMPLES = 2000

Verdict = Literal["holds", "fails", "not discriminating", "not applicable"]


@dataclass(frozen=True)
class Traces:
    """What the claims are tested on; all with the same facts and noise.

    Attributes:
        sites: every token, `resid_post` and the sites that write to it.
        entering: `resid_pre` at the last subject token, nothing severed.
        severed: the same with outputs of that token held corrupted: `mlp`, `attn` or `mixer`.
    """

    sites: xr.Dataset
    entering: xr.Dataset
    severed: Mapping[str, xr.Dataset]

    @property
    def recurrent(self) -> bool:
        """Whether blocks have one writer that mixes tokens and stores, instead of two."""
        return "mixer_out" in self.sites.site.values

    @property
    def early_site(self) -> str:
        """The writer in which facts are claimed to be looked up."""
        return "mixer_out" if self.recurrent else "mlp_out"

    @property
    def late_site(self) -> str:
        """The writer that is claimed to carry them to the last token."""
        return "mixer_out" if self.recurrent else "attn_out"


@dataclass(frozen=True)
class Condition:
    """One number that a claim rests on, in units of probability unless the text says otherwise."""

    text: str
    value: float
    low: float
    high: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the whole interval lies above the bound."""
        return bool(self.low > self.bound)  # NaN: not measurable, so not shown


@dataclass(frozen=True)
class Outcome:
    """A claim on one model."""

    conditions: tuple[Condition, ...] = ()
    note: str = ""
    applies: bool = True

    @property
    def holds(self) -> bool:
        """Whether all conditions hold, and there are some."""
        return bool(self.conditions) and all(condition.holds for condition in self.conditions)


@dataclass(frozen=True)
class Claim:
    """A statement, where it stands, what it predicts, and the test."""

    name: str
    statement: str
    source: str
    expected: str
    test: Callable[[Traces], Outcome] = field(repr=False)


def verdict(model: Outcome, untrained: Outcome) -> Verdict:
    """Judge a claim by the model and by an untrained one, on which it must fail."""
    if not model.applies:
        return "not applicable"
    if not model.holds:
        return "fails"
    return "not discriminating" if untrained.holds else "holds"


# --- measuring ------------------------------------------------------------------------------------


def traced(trace: xr.Dataset) -> xr.Dataset:
    """Return the facts of a trace that were not skipped."""
    return trace.isel(prompt=(trace.status == "ok").values)


def at_role(trace: xr.Dataset, site: str, role: str) -> xr.DataArray:
    """Return each fact's effect [prompt, layer] at its tokens of one role, NaN where it has none.

    A token has one role here: a one-token subject is the last subject token and not the first as
    well, so that comparing two roles never compares a token with itself.
    """
    name = trace.token_role.where(trace.token_role != "only_subject", "last_subject")
    return trace.indirect_effect.sel(site=site).where(name == role).mean("pos")


def average(values: xr.DataArray) -> tuple[float, float, float]:
    """Return the mean over facts and its 95 % interval.

    Facts about one country are not independent, nor are those in one sentence. The interval is the
    hull of two clustered bootstraps, over countries and over sentences.
    """
    clusters = (values.subject.values.tolist(), sentences(values))
    bounds = [
        ml.statistics.bootstrap_interval(values, cluster=labels, resamples=RESAMPLES)
        for labels in clusters
    ]
    lows = [float(bound.low) for bound in bounds]
    highs = [float(bound.high) for bound in bounds]
    if np.isnan(lows).all():
        return float(values.mean()), float("nan"), float("nan")
    return float(values.mean()), float(np.nanmin(lows)), float(np.nanmax(highs))


def sentences(array: xr.DataArray | xr.Dataset) -> list[str]:
    """Return each fact's prompt with `{}` in place of its subject."""
    pairs = zip(array.prompt_text.values.tolist(), array.subject.values.tolist(), strict=True)
    return [text.replace(subject, "{}", 1) for text, subject in pairs]


def halves(trace: xr.Dataset) -> np.ndarray:
    """Return 0 or 1 per fact; all facts about one subject are in the same half."""
    order: dict[str, int] = {}
    return np.array([order.setdefault(s, len(order)) % 2 for s in trace.subject.values.tolist()])


def peaks_of_other_half(profile: xr.DataArray, half: np.ndarray) -> xr.DataArray:
    """Return for each fact the layer at which the facts of the *other* half peak on average."""
    peaks = []
    for own in (0, 1):
        mean = profile.isel(prompt=half != own).mean("prompt")
        peaks.append(int(mean.fillna(-np.inf).idxmax("layer")))
    return xr.DataArray(np.array(peaks)[half], dims="prompt")


def _condition(text: str, values: xr.DataArray, bound: float = 0.0) -> Condition:
    return Condition(text, *average(values), bound)


def _exceeds_other_roles(trace: xr.Dataset, site: str, role: str, layer: xr.DataArray) -> Condition:
    """Compare a role with each other one, fact by fact; return what is nearest to failing."""
    own = at_role(trace, site, role).sel(layer=layer)
    found = []
    for other in sorted(
        set(map(str, trace.token_role.values.ravel())) - {"", "only_subject", role}
    ):
        difference = own - at_role(trace, site, other).sel(layer=layer)
        if int(difference.notnull().sum()) >= RARE:
            text = f"{site}: {role} minus {other}, the role nearest to it"
            found.append(_condition(text, difference))
    nan = float("nan")
    none = Condition(f"{site}: {role} minus other roles (none to compare with)", nan, nan, nan, 0.0)
    return min(found, key=lambda condition: condition.low, default=none)


@dataclass(frozen=True)
class _Peaks:
    """Facts with the layers of both sites, each found on the other half of the facts."""

    facts: xr.Dataset
    early: xr.DataArray
    late: xr.DataArray


def _peaks(traces: Traces) -> _Peaks:
    facts = traced(traces.sites)
    half = halves(facts)
    early = peaks_of_other_half(at_role(facts, traces.early_site, "last_subject"), half)
    late = peaks_of_other_half(at_role(facts, traces.late_site, "last_token"), half)
    return _Peaks(facts, early, late)


def _layers(layer: xr.DataArray) -> str:
    return " and ".join(map(str, sorted(set(layer.values.tolist()))))


def _too_few(traces: Traces) -> Outcome | None:
    facts = traced(traces.sites)
    subjects = len(set(facts.subject.values.tolist()))
    if min(facts.sizes["prompt"], subjects) >= MIN_FACTS:
        return None
    text = f"{facts.sizes['prompt']} facts about {subjects} subjects were traced, of "
    text += f"{traces.sites.sizes['prompt']} given; at least {MIN_FACTS} of each are needed"
    return Outcome(note=text)


# --- the claims -----------------------------------------------------------------------------------


def early_site(traces: Traces) -> Outcome:
    """The early site: the writer's effect at the last subject token, at the layer of its peak."""
    if (few := _too_few(traces)) is not None:
        return few
    peaks, site = _peaks(traces), traces.early_site
    facts, early = peaks.facts, peaks.early
    effect = at_role(facts, site, "last_subject").sel(layer=early)
    conditions = [
        _condition(f"{site} at last_subject", effect, MIN_EFFECT),
        _exceeds_other_roles(facts, site, "last_subject", early),
        _condition(
            "resid_post: last_subject minus last_token",
            at_role(facts, "resid_post", "last_subject").sel(layer=early)
            - at_role(facts, "resid_post", "last_token").sel(layer=early),
        ),
        _earlier(peaks),
    ]
    if not traces.recurrent:
        other = at_role(facts, traces.late_site, "last_subject").sel(layer=early)
        text = f"{site} minus {traces.late_site}, both at last_subject"
        conditions.insert(1, _condition(text, effect - other))
    return Outcome(tuple(conditions), f"at layer {_layers(early)}")


def late_site(traces: Traces) -> Outcome:
    """The late site: the mixing writer's effect at the last token, at the layer of its peak."""
    if (few := _too_few(traces)) is not None:
        return few
    peaks, site = _peaks(traces), traces.late_site
    facts, late = peaks.facts, peaks.late
    residual = at_role(facts, "resid_post", "last_token")
    conditions = (
        _condition(
            f"{site} at last_token", at_role(facts, site, "last_token").sel(layer=late), MIN_EFFECT
        ),
        _exceeds_other_roles(facts, site, "last_token", late),
        _condition(
            "resid_post at last_token: layer of the late site minus layer of the early site",
            residual.sel(layer=late) - residual.sel(layer=peaks.early),
        ),
        _earlier(peaks),
    )
    return Outcome(conditions, f"at layer {_layers(late)}")


def _earlier(peaks: _Peaks) -> Condition:
    """Compare the layers of both sites; the interval is the range over the two halves."""
    gaps = (peaks.late - peaks.early).values
    text = "layers from the peak of the early site to that of the late site"
    return Condition(text, float(gaps.mean()), float(gaps.min()), float(gaps.max()), 0.0)


def severed_effect(traces: Traces) -> Outcome:
    """What enters the early site acts through the MLPs that follow, not through attention there.

    Restored is the residual stream at the last subject token where it enters the window of layers
    whose MLPs have the largest effect.
    """
    if traces.recurrent:
        text = "blocks have one mixer instead of attention and MLP, so there is nothing to compare"
        return Outcome(note=text, applies=False)
    if (few := _too_few(traces)) is not None:
        return few
    early = _peaks(traces).early
    start = traces.sites.window_start.sel(site=traces.early_site, layer=early)
    layer = xr.DataArray(start.values, dims="prompt")
    whole, mlp, attn = (
        at_role(traced(trace), "resid_pre", "last_subject").sel(layer=layer)
        for trace in (traces.entering, traces.severed["mlp"], traces.severed["attn"])
    )
    conditions = (
        _condition("resid_pre at last_subject, nothing severed", whole, MIN_EFFECT),
        _condition("half of that minus what is left with MLPs severed", whole / 2 - mlp),
        _condition("what is left with attention severed minus half of it", attn - whole / 2),
    )
    return Outcome(conditions, f"at layer {_layers(layer)}")


PAPER = "Meng et al. 2022, section 2.2"
CLAIMS = (
    Claim(
        "early_site",
        "MLPs of early or middle layers, at the last token of the subject, carry the fact.",
        f"{PAPER}, figure 2 (Mamba: Sen Sharma et al. 2024, abstract)",
        "Windows of mlp_out (mixer_out) at the last subject token: above 1 percentage point, above "
        "attn_out there, above every other token role; the residual stream of these layers carries "
        "the fact there rather than at the last token; the late site lies in later layers.",
        early_site,
    ),
    Claim(
        "late_site",
        "Attention of later layers brings the fact to the last token.",
        f"{PAPER}, figure 2 (Mamba: Sen Sharma et al. 2024, abstract)",
        "Windows of attn_out (mixer_out) at the last token: above 1 percentage point, above every "
        "other token role; the residual stream at the last token carries the fact here and not yet "
        "at the early site; the early site lies in earlier layers.",
        late_site,
    ),
    Claim(
        "severed",
        "The early effect acts through the MLPs that follow, and not through attention.",
        f"{PAPER}, figure 3",
        "The residual stream entering the early site at the last subject token loses more than "
        "half of its effect when this token's MLPs are held corrupted, and keeps more than half "
        "when its attention is.",
        severed_effect,
    ),
)
