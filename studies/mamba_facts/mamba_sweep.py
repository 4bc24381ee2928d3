"""Single edits of every layer and projection, each evaluated with no other edit in force."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xarray as xr
from mamba_claims import METRICS, SITES
from mamba_scan import quick_scan
from mamba_training import RELATIONS

import mechlab as ml

CONTEXTS = 5
"""True sentences that stand before the prompt in turn, besides none."""
TOKENS = 20_000
"""Tokens over which the keys' second moment is taken."""
PARAPHRASES, NEIGHBOURS = 4, 10
VERSION = 1
"""Raised when the code here changes the numbers: stored cells are then computed anew."""


def edit_cases(
    model: ml.Model | None, relation: str, count: int, seed: int
) -> list[ml.prompts.EditCase]:
    """Return cases of facts that the model knows, as many as asked for; `None`: of any facts.

    Raises:
        PromptError: when there are fewer.
    """
    requests = ml.prompts.world_edits(len(ml.prompts.countries()), seed, relations=[relation])
    known = requests if model is None else _known(model, requests)
    if len(chosen := known[:count]) < count:
        raise ml.PromptError(
            f"{len(known)} of {len(requests)} facts ({relation}) can be edited.\n"
            f"  Allowed: at least {count}, which the model knows.\n"
            "  Ask for fewer cases, or train the model for longer."
        )
    made = ml.prompts.edit_cases(chosen, paraphrases=PARAPHRASES, neighbours=NEIGHBOURS, seed=seed)
    unread = {"languages": (), "two_hop": (), "generation_prompts": (), "reference_texts": ()}
    return [replace(case, **unread) for case in made]


def _known(model: ml.Model, requests: list[ml.EditRequest]) -> list[ml.EditRequest]:
    asked = [ml.prompts.Fact(one.prompt, one.subject, one.target_true) for one in requests]
    known = {fact.prompt for fact in ml.keep_known(model, ml.prompts.PromptSet(tuple(asked)))}
    return [one for one in requests if one.prompt in known]


@dataclass(frozen=True)
class Sweep:
    """What is edited, and how.

    Attributes:
        model: the model.
        store: where cells are kept, so that a killed sweep goes on.
        cases: the edits, and what measures them.
        seed: of contexts and texts.
        steps: of the optimisation of each edit.
    """

    model: ml.Model
    store: ml.Store
    cases: Sequence[ml.prompts.EditCase]
    seed: int = 0
    steps: int = 20

    def all_layers(self) -> xr.Dataset:
        """Return efficacy, paraphrase and neighbourhood of (site, layer, case)."""
        sites = []
        for site in SITES:
            layers = [self._cell(site, layer) for layer in range(self.model.n_layers)]
            sites.append(xr.concat(layers, "layer"))
        whole = xr.concat(sites, "site")
        return whole.assign_coords(site=list(SITES), layer=list(range(self.model.n_layers)))

    def _cell(self, site: str, layer: int) -> xr.Dataset:
        contexts = self._contexts
        source = {
            "method": "mamba_facts",
            "method_version": VERSION,
            "model": self.model.fingerprint,
            "options": {
                "site": site,
                "layer": layer,
                "contexts": contexts,
                "tokens": TOKENS,
                "steps": self.steps,
            },
            "prompts": ml.prompts.PromptSet(tuple(self.cases)).digest,
        }
        found = self.store.kept(source)
        if found is None:
            found = self._measured(site, layer, contexts)
            self.store.keep(source, found, name=f"edits of {site} in layer {layer}")
        return found[list(METRICS)].load()

    def _measured(self, site: str, layer: int, contexts: list[str]) -> xr.Dataset:
        statistics = ml.stored_key_statistics(
            self.store,
            self.model,
            layer=range(self.model.n_layers),
            site=site,
            corpus=self._texts,
            tokens=TOKENS,
        )

        def edit(request: ml.EditRequest) -> ml.Edit:
            return ml.rank_one_edit(
                self.model,
                request,
                layer=layer,
                site=site,
                key_statistics=statistics,
                contexts=contexts,
                steps=self.steps,
            )

        with quick_scan():
            return ml.evaluate_each_edit(self.model, list(self.cases), edit)

    @cached_property
    def _texts(self) -> list[str]:
        """Return every fact in one of its sentences, in an order drawn with the seed."""
        told = [
            f"{fact.prompt} {fact.target}."
            for way in range(4)
            for fact in ml.prompts.world_facts(relations=RELATIONS, templates=[way])
        ]
        return [told[i] for i in np.random.default_rng(self.seed).permutation(len(told))]

    @cached_property
    def _contexts(self) -> list[str]:
        """Return nothing, then true sentences about countries that are not edited."""
        edited = {case.request.subject for case in self.cases}
        others = [text for text in self._texts if not any(name in text for name in edited)]
        return ["", *(f"{text} " for text in others[:CONTEXTS])]
