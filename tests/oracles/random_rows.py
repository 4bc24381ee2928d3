"""Random counterfactuals of every kind, for holding the engine against the plain loop."""

import random
from collections.abc import Sequence

import numpy as np

from mechlab.engine import Base, Row
from mechlab.hooks import (
    SITES,
    Ablate,
    AddNoise,
    Block,
    Freeze,
    FrozenArray,
    Intervention,
    Patch,
    Scale,
    Site,
    Steer,
    live_sites,
)
from mechlab.models import Model


class RowMaker:
    """Draws sites, interventions and rows for one model and one list of bases."""

    def __init__(self, model: Model, bases: Sequence[Base], seed: int) -> None:
        self.model, self.bases = model, bases
        self.random = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        batch = model.tokenize([base.prompt for base in bases])
        self.lengths = batch.lengths

    def row(self) -> Row:
        base = self.random.randrange(len(self.bases))
        steps = tuple(self.step(base) for _ in range(self.random.choice([1, 1, 1, 2, 3])))
        return Row(base, steps, label=str(steps))

    def step(self, base: int) -> Intervention:
        makers = [self.patch, self.patch, self.ablate, self.scale, self.steer, self.add_noise]
        makers += [self.freeze]
        if self.model.has_attention:
            makers.append(self.block)
        return self.random.choice(makers)(base)

    def site(self, base: int, *, everywhere: bool = True, linear: bool = False) -> Site:
        """A random site; `linear` leaves out scores and patterns."""
        names = [n for n in live_sites(self.model) if not (linear and SITES[n].axes == "bhqk")]
        name = self.random.choice(names)
        layer = self.random.randrange(self.model.n_layers) if SITES[name].per_layer else None
        head = None
        if SITES[name].has_heads and self.random.random() < 0.6:
            n_heads = self.model.n_kv_heads if name in ("k", "v") else self.model.n_heads
            head = self.random.randrange(n_heads or 1)
        pos = self.random.randrange(self.lengths[base])
        return Site(name, layer, head, None if everywhere and self.random.random() < 0.2 else pos)

    def patch(self, base: int) -> Patch:
        twins = [i for i, n in enumerate(self.lengths) if n == self.lengths[base]]
        site = self.site(base)
        if site.pos is None or SITES[site.name].axes == "bhqk":
            return Patch(site, self.random.choice(twins))
        source = self.random.randrange(len(self.bases))
        if site.pos < self.lengths[source] and self.random.random() < 0.7:
            return Patch(site, source)
        return Patch(site, source, source_pos=self.random.randrange(self.lengths[source]))

    def freeze(self, base: int) -> Freeze:
        twins = [i for i, n in enumerate(self.lengths) if n == self.lengths[base]]
        sites = tuple(self.site(base) for _ in range(self.random.randint(1, 4)))
        return Freeze(sites, self.random.choice(twins))

    def ablate(self, base: int) -> Ablate:
        kind = self.random.choice(["zero", "mean", "resample"])
        if kind == "mean":
            site = self.site(base, linear=True)
            return Ablate(site, "mean", reference=self.vector(site))
        if kind == "resample":
            twins = [i for i, n in enumerate(self.lengths) if n == self.lengths[base]]
            return Ablate(self.site(base), "resample", source=self.random.choice(twins))
        site = self.site(base)
        # Scores of zero are scores; a softmax over a causal row stays one.
        return Ablate(site if site.name != "scores" else self.site(base, linear=True))

    def scale(self, base: int) -> Scale:
        return Scale(self.site(base, linear=True), self.random.choice([0.0, 0.5, 1.5]))

    def steer(self, base: int) -> Steer:
        site = self.site(base, linear=True)
        return Steer(site, self.vector(site), scale=0.5)

    def add_noise(self, base: int) -> AddNoise:
        names = [n for n in live_sites(self.model) if SITES[n].axes == "bpd"]
        name = self.random.choice(names)
        layer = self.random.randrange(self.model.n_layers) if SITES[name].per_layer else None
        first = self.random.randrange(self.lengths[base])
        last = self.random.randrange(first, self.lengths[base])
        return AddNoise(Site(name, layer), first, last, 0.5, seed=3, draw=self.random.randrange(9))

    def block(self, base: int) -> Block:
        n_heads, length = self.model.n_heads or 1, self.lengths[base]
        queries = tuple(self.random.sample(range(1, length), self.random.randint(1, 2)))
        # Key 0 is left alone, so that no query loses every key.
        keys = tuple(self.random.sample(range(1, length), self.random.randint(1, 3)))
        some = tuple(self.random.sample(range(n_heads), 2))
        return Block(
            self.random.randrange(self.model.n_layers),
            queries,
            keys,
            heads=self.random.choice([None, some]),
            mode=self.random.choice(["mask", "zero"]),
        )

    def vector(self, site: Site) -> FrozenArray:
        width = self.model.d_model if SITES[site.name].axes == "bpd" else self.model.d_head
        return FrozenArray(self.numbers.normal(size=width or 1).astype(np.float32))
