"""How facts flow to the last token, as tests on knockouts, decoded states and Token Lenses.

Layers are chosen on facts about one half of the subjects and measured on the other half, both ways.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

import mechlab as ml

MIN_CHANGE = 0.1
"""A knockout counts when it takes a tenth of the answer's probability away."""
MIN_RATE = 0.1
"""Extraction counts when a tenth of the facts have it."""
MIN_LOGITS = 0.1
"""A decoded logit counts from a tenth of a logit on."""
MIN_FACTS = 8
"""Fewer facts, subjects or lists are not tested."""

Outcome = ml.claims.Outcome


@dataclass(frozen=True)
class Facts:
    """Single-answer facts: what the model did with them.

    Attributes:
        cut: result of `ml.knockout` from the last token to `subject`, `last_subject`, `not_subject`
            and `bos` where there is one.
        lens: result of `ml.logit_lens` at the last token, own norm.
        tokens: result of `ml.token_lens`, centred.
        subjects, sentences: of each fact.
    """

    cut: xr.Dataset
    lens: xr.Dataset
    tokens: xr.Dataset
    subjects: Sequence[str]
    sentences: Sequence[str]

    @property
    def clusters(self) -> list[list[object]]:
        """Groupings of the facts: by subject, and by sentence where there are several."""
        several = len(set(self.sentences)) > 1
        return [list(self.subjects), *([list(self.sentences)] if several else [])]

    def peak_of_other_half(self, profile: xr.DataArray) -> xr.DataArray:
        """Return for each fact the layer at which facts about the other subjects peak."""
        order: dict[str, int] = {}
        half = np.array([order.setdefault(s, len(order)) % 2 for s in self.subjects])
        peaks = [
            int(profile.isel(prompt=half != own).mean("prompt").idxmax("layer")) for own in (0, 1)
        ]
        return xr.DataArray(np.array(peaks)[half], dims="prompt")

    def lost(self, source: str) -> xr.DataArray:
        """Return the share of the answer's probability that a knockout takes, [prompt, layer]."""
        return -self.cut.relative_change.sel(source=source, drop=True)

    def extracted(self, site: str) -> xr.DataArray:
        """Return whether a state's top token is the final one, [prompt, layer]."""
        rank = (
            self.lens["rank"]
            .sel(site=site, answer="predicted", drop=True)
            .squeeze("pos", drop=True)
        )
        return (rank == 0).astype(float)


@dataclass(frozen=True)
class Lists:
    """One-to-many questions at the second and third answer; empty where the model fails at them.

    Attributes:
        tokens: result of `ml.token_lens` with the groups `subject`, `answer_1` and the words
            `answer_1`, `answer_2`, `answer_3` decoded, centred; `None` without lists.
        groups: which prompts are not independent.
        asked, right: lists in all, and lists answered without a fault.
    """

    tokens: xr.Dataset | None
    groups: Sequence[str]
    asked: int
    right: int


@dataclass(frozen=True)
class Flow:
    """What the claims are tested on."""

    facts: Facts
    lists: Lists


def _too_few(found: Flow) -> Outcome | None:
    facts, subjects = len(found.facts.subjects), len(set(found.facts.subjects))
    if min(facts, subjects) >= MIN_FACTS:
        return None
    return Outcome(
        note=f"{facts} facts about {subjects} subjects; at least {MIN_FACTS} of each are needed"
    )


def _mean(facts: Facts, text: str, values: xr.DataArray, bound: float = 0.0) -> "Condition":
    return ml.claims.mean_above(text, values, bound, clusters=facts.clusters)


Condition = ml.claims.Condition


def _layers(layer: xr.DataArray) -> str:
    return " and ".join(map(str, sorted(set(layer.values.tolist()))))


# --- single facts ---------------------------------------------------------------------------------


def subject_to_last(found: Flow) -> Outcome:
    """Cutting attention from the last token to the subject takes the answer away."""
    if (problem := _too_few(found)) is not None:
        return problem
    facts = found.facts
    own = facts.lost("subject")
    layer = facts.peak_of_other_half(own)
    other = facts.lost("not_subject")
    first = own.isel(layer=0)
    return Outcome(
        (
            _mean(
                facts,
                "share of P(answer) lost without the subject",
                own.sel(layer=layer),
                MIN_CHANGE,
            ),
            _mean(
                facts,
                "that minus what is lost without all other tokens, same layers",
                own.sel(layer=layer) - other.sel(layer=layer),
            ),
            _mean(
                facts,
                "that minus what is lost when the first window is cut",
                own.sel(layer=layer) - first,
            ),
        ),
        f"in the window around layer {_layers(layer)}",
    )


def extraction(found: Flow) -> Outcome:
    """Attention of later layers brings the answer, already decodable, to the last token."""
    if (problem := _too_few(found)) is not None:
        return problem
    facts = found.facts
    attention, stream = facts.extracted("attn_out"), facts.extracted("resid_post")
    layer = facts.peak_of_other_half(attention)
    correct = (
        (facts.lens["rank"].sel(site="resid_post", answer="answer", drop=True) == 0)
        .isel(layer=-1)
        .squeeze("pos", drop=True)
    )
    return Outcome(
        (
            _mean(
                facts,
                "share of facts whose answer is the top token of the attention's output",
                attention.sel(layer=layer) * correct,
                MIN_RATE,
            ),
            _mean(
                facts,
                "rise of the share extracted in the residual stream, last layer minus first",
                (stream.isel(layer=-1) - stream.isel(layer=0)) * correct,
                MIN_RATE,
            ),
            _mean(
                facts,
                "rank of the answer in the residual stream (log10), first minus last layer",
                _ranks(facts, 0) - _ranks(facts, -1),
                MIN_LOGITS,
            ),
        ),
        f"attention of layer {_layers(layer)}",
    )


def _ranks(facts: Facts, layer: int) -> xr.DataArray:
    rank = facts.lens["rank"].sel(site="resid_post", answer="answer", drop=True)
    return np.log10(1 + rank.isel(layer=layer, drop=True).squeeze("pos", drop=True))


def subject_carries(found: Flow) -> Outcome:
    """Of what attention brings to the last token, the subject's share writes the answer."""
    if (problem := _too_few(found)) is not None:
        return problem
    facts = found.facts
    written = facts.tokens.source_logit.sel(answer="answer", drop=True).sum("layer")
    subject = written.sel(source="subject", drop=True)
    rest = written.sum("source") - subject
    return Outcome(
        (
            _mean(facts, "logit of the answer read from the subject", subject, MIN_LOGITS),
            _mean(facts, "that minus what is read from all other tokens", subject - rest),
        ),
        "summed over all layers",
    )


# --- lists ----------------------------------------------------------------------------------------


def _no_lists(found: Flow) -> Outcome | None:
    lists = found.lists
    if lists.tokens is not None and len(set(lists.groups)) >= MIN_FACTS:
        return None
    text = f"{lists.right} of {lists.asked} lists are answered without a fault; {MIN_FACTS} are"
    return Outcome(note=f"{text} needed", applies=False)


def promote(found: Flow) -> Outcome:
    """MLPs of middle layers raise all answers, also the one that was given."""
    if (problem := _no_lists(found)) is not None:
        return problem
    tokens, clusters = found.lists.tokens, [list(found.lists.groups)]
    assert tokens is not None
    middle = _third(tokens, 1)
    written = tokens.mlp_logit.isel(layer=middle).sum("layer")
    return Outcome(
        tuple(
            ml.claims.mean_above(
                f"logit of {name} that MLPs of the middle third write",
                written.sel(answer=name, drop=True),
                clusters=clusters,
            )
            for name in ("answer_1", "answer_2", "answer_3")
        ),
        "in the middle third of the layers",
    )


def suppress(found: Flow) -> Outcome:
    """Attention to the answer that was given lowers it in late layers, and MLPs add to that."""
    if (problem := _no_lists(found)) is not None:
        return problem
    tokens, clusters = found.lists.tokens, [list(found.lists.groups)]
    assert tokens is not None
    late = _third(tokens, 2)
    at = {"source": "answer_1", "answer": "answer_1"}
    read = tokens.source_logit.sel(at, drop=True).isel(layer=late).sum("layer")
    mlp = tokens.mlp_logit.sel(answer="answer_1", drop=True).isel(layer=late).sum("layer")
    above = ml.claims.mean_above
    return Outcome(
        (
            above(
                "minus the logit of the first answer read from where it stands",
                -read,
                MIN_LOGITS,
                clusters=clusters,
            ),
            above("minus its logit that late MLPs write", -mlp, clusters=clusters),
        ),
        "in the last third of the layers",
    )


def _third(tokens: xr.Dataset, number: int) -> slice:
    count = tokens.sizes["layer"]
    ends = [round(count * part / 3) for part in range(4)]
    return slice(ends[number], max(ends[number] + 1, ends[number + 1]))


GEVA = "Geva et al. 2023 (arXiv 2304.14767); Fierro et al. (multilingual recall)"
LISTS = "Promote, Suppress, Iterate (arXiv 2502.20475), abstract"
CLAIMS = (
    ml.claims.Claim(
        "subject_to_last",
        "In some window of layers the last token must attend to the subject.",
        GEVA,
        "Where it costs most, cutting these edges takes at least a tenth of the answer's "
        "probability; more than cutting all other earlier tokens there; and more than in the first "
        "window.",
        subject_to_last,
    ),
    ml.claims.Claim(
        "extraction",
        "Late attention extracts the answer: its output alone decodes to it.",
        GEVA,
        "At the best layer the output of the attention decodes to the answer for a tenth of the "
        "facts; the residual stream goes over to it between the first and the last layer.",
        extraction,
    ),
    ml.claims.Claim(
        "subject_carries",
        "What is read from the subject writes the answer.",
        f"{LISTS}; {GEVA}",
        "Decoded by source token, attention to the subject raises the answer by at least a tenth "
        "of a logit, and by more than attention to all other tokens.",
        subject_carries,
    ),
    ml.claims.Claim(
        "promote",
        "MLPs of middle layers promote all answers of a list, given ones too.",
        LISTS,
        "At the second and third answer, MLPs of the middle third raise each of the three answers.",
        promote,
    ),
    ml.claims.Claim(
        "suppress",
        "Late attention to given answers suppresses them, and MLPs add to it.",
        LISTS,
        "At the second and third answer, what is read from the first answer lowers it by a tenth "
        "of a logit in the last third of the layers, and MLPs there lower it as well.",
        suppress,
    ),
)
