"""Tiny models with hand-set weights: which heads write the answer, through which edges, is known.

Every circuit is a whole Hugging Face model (GPT-2, mostly Llama with grouped queries as well) that
`mechlab.models.wrap_model` takes like any other. What makes the answers exact:

- **Features.** A feature owns two residual dimensions and is written as (+x, -x), so that the mean
  over dimensions is 0 and centring changes nothing. A token's logit is its `out` feature.
- **Norms.** With `norm="identity"` every norm is the identity to float precision: its epsilon is
  `BIG`, next to which the variance vanishes, and its weight undoes the division. With
  `norm="real"` the usual epsilon and a constant `BALLAST` feature keep the scale within a few per
  cent of the weight: the norm then reacts to what heads write, as in a real model.
- **Attention.** Wanted scores lead by at least `LEAD`, where float32's softmax is exactly 0 or 1.
- **Everything else is alive and silent.** Other heads have random queries, keys and values, other
  MLPs random inputs, but what they write on a circuit's prompts is exactly 0: their `z` differs
  between prompts, and any effect of theirs must come out as exactly 0. Only on `FILLERS`, words
  that no prompt holds, do they write to the fillers' own logits, so that `engine.verify` finds
  every site alive.

`Circuit` names the planted heads, MLPs and edges, with closed-form values under `norm="identity"`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from mechlab.axes import Head
from mechlab.prompts import PromptPair, PromptSet

if TYPE_CHECKING:
    from mechlab.models import Model

N_LAYERS, N_HEADS, N_KV_HEADS, D_MODEL, D_HEAD, D_MLP = 3, 4, 2, 64, 16, 64
BIG, BALLAST, LEAD = 1e8, 20.0, 104.0

Family = Literal["gpt2", "llama"]
Norm = Literal["identity", "real"]

COUNTRIES = ("Poland", "Spain", "Egypt", "Peru", "Norway", "Italy")
CITIES = ("Warsaw", "Madrid", "Cairo", "Lima", "Oslo", "Rome")
"""City i is what the fact head remembers of country i."""
NAMES = ("Mary", "John", "Ann", "Bob", "Eve", "Tom", "Sue")
SOURCES = ("alpha", "beta", "gamma", "delta", "eps", "zeta")
TARGETS = ("one", "two", "three", "four", "five", "six")
FILLERS = tuple(f"w{i}" for i in range(40))


@dataclass(frozen=True)
class Edge:
    """One planted edge: what `sender` writes is read by `receiver` through `via`.

    A component is a `Head`, the layer number of an MLP, or `None` for the logits.
    """

    sender: Head | int
    via: Literal["q", "k", "v", "mlp", "logits"]
    receiver: Head | int | None
    pos: int
    """Position (BOS counted) at which the sender writes what the receiver reads."""


@dataclass(frozen=True)
class Circuit:
    """A model, its prompts, and what is planted in it."""

    model: "Model"
    pairs: PromptSet[PromptPair]
    heads: Mapping[str, Head]
    """Planted heads by role; every other head writes exactly 0."""
    mlps: Mapping[str, int]
    """Layers of planted MLPs by role; every other MLP writes exactly 0."""
    edges: tuple[Edge, ...]
    """Every edge between planted components, and from them to the logits. What else they read are
    token embeddings."""
    direct: Mapping[str, tuple[float, ...]]
    """By role: contribution to logit(answer) - logit(wrong_answer) at the last position of the
    clean prompt, one number per pair."""
    clean: tuple[float, ...]
    """Logit difference after each clean prompt."""
    corrupted: tuple[float, ...]
    """Logit difference after each corrupted prompt."""


# --------------------------------------------------------------------------------- the circuits


def copy_head(family: Family = "gpt2", **options: Any) -> Circuit:
    """L1H2 attends from the last token to the city of the context and raises it by 3.

    `they said Madrid . Poland is` -> Madrid (in-context), not Warsaw (memorised).
    """
    return conflict(family, copy=3.0, fact=0.0, anti=0.0, **options)


def fact_head(family: Family = "gpt2", **options: Any) -> Circuit:
    """L1H1 attends from the last token to the country and raises its memorised city by 2."""
    return conflict(family, copy=0.0, fact=2.0, anti=0.0, **options)


def anti_copy(family: Family = "gpt2", **options: Any) -> Circuit:
    """L2H3 attends from the last token to the city of the context and lowers it by 1."""
    return conflict(family, copy=0.0, fact=0.0, anti=1.0, **options)


def conflict(
    family: Family = "gpt2",
    *,
    copy: float = 3.0,
    fact: float = 2.0,
    anti: float = 0.5,
    norm: Norm = "identity",
    dtype: torch.dtype = torch.float32,
) -> Circuit:
    """Copy, fact and negative head in one model; the strengths decide who wins, 0 leaves one out.

    With the defaults the context wins (3 - 0.5 against 2); without the copy head the memory does.
    Nothing depends on anything but token embeddings: every edge ends at the logits, and effects
    add. The corrupted prompt is another country with other cities; both answers then have logit 0.
    """
    strengths = {"copy": copy, "fact": fact, "anti": anti}
    places = {"copy": Head(1, 2), "fact": Head(1, 1), "anti": Head(2, 3)}
    weights = _Weights(family, norm)
    _conflict_words(weights)
    for role, sign in (("copy", 1.0), ("anti", -1.0)):
        if strengths[role]:
            head = weights.head(places[role])
            head.attend({"one": 200.0}, "city")
            head.move("is_{}", "out_{}", CITIES, sign * strengths[role])
    if fact:
        head = weights.head(places["fact"])
        head.attend({"one": 200.0}, "country")
        for country, city in zip(COUNTRIES, CITIES, strict=True):
            head.carry(f"is_{country}", f"out_{city}", fact)
    heads = {role: place for role, place in places.items() if strengths[role]}
    each = {"copy": copy, "fact": -fact, "anti": -anti}
    return Circuit(
        weights.model("conflict", dtype),
        _conflict_pairs(),
        heads,
        {},
        tuple(Edge(place, "logits", None, 6) for place in heads.values()),
        {role: (each[role],) * len(CITIES) for role in heads},
        (copy - fact - anti,) * len(CITIES),
        (0.0,) * len(CITIES),
    )


def backup(
    family: Family = "gpt2",
    *,
    c: float = 1.0,
    erase: float = 0.0,
    norm: Norm = "identity",
    dtype: torch.dtype = torch.float32,
) -> Circuit:
    """L1H2 repairs L0H1: it writes c times what L0H1 writes, exactly when that write is absent.

    L0H1 copies the context's city with a size that differs by city (1 to 2) and raises a flag.
    With the flag the backup looks at BOS and writes nothing; without it, at the city. An absent
    write is a zero-ablated one; a resampled one still raises the flag, and the backup stays silent.
    Zero-ablating L0H1 gives DE = size, CE = c * size (slope c), TE = (1 - c) * size.

    With `erase` the last MLP writes -erase times the logit that the heads wrote ("erasure"): the
    logit difference is (1 - erase) * size.
    """
    primary, second, eraser = Head(0, 1), Head(1, 2), 2
    sizes = tuple(1 + i / 5 for i in range(len(CITIES)))
    weights = _Weights(family, norm)
    _conflict_words(weights, sizes)
    head = weights.head(primary)
    head.attend({"one": 200.0}, "city")
    head.move("is_{}", "out_{}", CITIES, 1.0)
    head.carry("city", "flag", 1.0)
    head = weights.head(second)
    head.attend({"one": 200.0}, "city")
    head.attend({"flag": 800.0}, "bos")
    head.move("is_{}", "out_{}", CITIES, c)
    if erase:
        mlp = weights.mlp(eraser)
        for city in CITIES:
            mlp.carry(f"out_{city}", f"out_{city}", -erase)
    size = tuple(sizes[(i + 1) % len(CITIES)] for i in range(len(CITIES)))
    edges = (Edge(primary, "logits", None, 6), Edge(primary, "q", second, 6))
    erasing = (Edge(primary, "mlp", eraser, 6), Edge(eraser, "logits", None, 6))
    return Circuit(
        weights.model("backup", dtype),
        _conflict_pairs(),
        {"primary": primary, "backup": second},
        {"eraser": eraser} if erase else {},
        edges + (erasing if erase else ()),
        {"primary": size, "backup": (0.0,) * len(size)}
        | ({"eraser": tuple(-erase * s for s in size)} if erase else {}),
        tuple((1 - erase) * s for s in size),
        (0.0,) * len(size),
    )


def two_hop(
    family: Family = "gpt2",
    *,
    first: float = 1.5,
    second: float = 2.0,
    norm: Norm = "identity",
    dtype: torch.dtype = torch.float32,
) -> Circuit:
    """`alpha link query`: L0H0 writes at `link`, the value of L2H1 reads it there at `query`.

    The logit of the answer is `first * second`. Queries and keys of L2H1 read nothing that L0H0
    writes, and L0H0 alone moves no logit: only the v path counts, at the middle token.
    """
    one, two = Head(0, 0), Head(2, 1)
    weights = _Weights(family, norm)
    weights.words(SOURCES, "source")
    weights.words(("link", "query", "so"))
    weights.token("link", {"mid": 1.0})
    weights.outputs(TARGETS)
    head = weights.head(one)
    head.attend({"one": 200.0}, "source")
    for source, target in zip(SOURCES, TARGETS, strict=True):
        head.carry(f"is_{source}", f"hop_{target}", first)
    head = weights.head(two)
    head.attend({"one": 200.0}, "mid")
    head.move("hop_{}", "out_{}", TARGETS, second)
    pairs = []
    for i, source in enumerate(SOURCES):
        j = (i + 1) % len(SOURCES)
        pairs.append(
            PromptPair(f"so {source} link query", f"so {SOURCES[j]} link query",
                       TARGETS[i], TARGETS[j])
        )  # fmt: skip
    n, gain = len(pairs), first * second
    return Circuit(
        weights.model("two-hop", dtype),
        PromptSet(tuple(pairs), "two-hop"),
        {"first": one, "second": two},
        {},
        (Edge(one, "v", two, 3), Edge(two, "logits", None, 4)),
        {"first": (0.0,) * n, "second": (gain,) * n},
        (gain,) * n,
        (-gain,) * n,
    )


def mlp_relay(
    family: Family = "gpt2",
    *,
    first: float = 1.5,
    second: float = 2.0,
    norm: Norm = "identity",
    dtype: torch.dtype = torch.float32,
) -> Circuit:
    """`alpha query`: L0H0 writes at the last token, MLP 1 turns it into the answer's logit.

    The whole effect of L0H0 on the logits runs through the MLP: with MLPs frozen it is 0.
    """
    one, relay = Head(0, 0), 1
    weights = _Weights(family, norm)
    weights.words(SOURCES, "source")
    weights.words(("query", "so"))
    weights.outputs(TARGETS)
    head = weights.head(one)
    head.attend({"one": 200.0}, "source")
    mlp = weights.mlp(relay)
    for source, target in zip(SOURCES, TARGETS, strict=True):
        head.carry(f"is_{source}", f"hop_{target}", first)
        mlp.carry(f"hop_{target}", f"out_{target}", second)
    pairs = []
    for i, source in enumerate(SOURCES):
        j = (i + 1) % len(SOURCES)
        pairs.append(
            PromptPair(f"so {source} query", f"so {SOURCES[j]} query", TARGETS[i], TARGETS[j])
        )
    n, gain = len(pairs), first * second
    return Circuit(
        weights.model("mlp-relay", dtype),
        PromptSet(tuple(pairs), "mlp-relay"),
        {"first": one},
        {"relay": relay},
        (Edge(one, "mlp", relay, 3), Edge(relay, "logits", None, 3)),
        {"first": (0.0,) * n, "relay": (gain,) * n},
        (gain,) * n,
        (-gain,) * n,
    )


def name_mover(
    family: Family = "gpt2",
    *,
    strength: float = 3.0,
    norm: Norm = "identity",
    dtype: torch.dtype = torch.float32,
) -> Circuit:
    """`When Mary and John went , John gave to` -> Mary, the name that is not repeated.

    Three heads in a chain. L0H1 (duplicate) marks at S2 that the same name stood before. L1H3
    (inhibition) looks from the end at a marked late name and writes that name into the end's
    query. L2H2 (mover) looks at all names but the inhibited one and raises it by `strength`. The
    corrupted prompt has three other names (ABC): nothing is marked, and no answer is raised. GPT-2
    only: early and late are positions.
    """
    if family != "gpt2":
        raise ValueError("name_mover needs position embeddings; only GPT-2 has them here")
    duplicate, inhibition, mover = Head(0, 1), Head(1, 3), Head(2, 2)
    weights = _Weights(family, norm)
    weights.words(NAMES, "name")
    weights.words(("When", "and", "went", ",", "gave", "to"))
    weights.outputs(NAMES)
    weights.positions = {"early": range(1, 6), "late": range(6, 32)}
    head = weights.head(duplicate)
    head.match("is_{}", "is_{}", NAMES, 500.0)
    head.attend({"one": 130.0}, "early")
    head.attend({"one": 300.0}, "bos")
    head.carry("early", "dup", 1.0)
    head = weights.head(inhibition)
    head.attend({"one": 300.0}, "dup")
    head.attend({"one": 300.0}, "late")
    head.attend({"one": 450.0}, "bos")
    head.move("is_{}", "not_{}", NAMES, 1.0)
    head = weights.head(mover)
    head.attend({"one": 200.0}, "name")
    head.match("not_{}", "is_{}", NAMES, -300.0)
    head.move("is_{}", "out_{}", NAMES, strength)
    pairs = _name_pairs()
    n = len(pairs)
    return Circuit(
        weights.model("name-mover", dtype),
        pairs,
        {"duplicate": duplicate, "inhibition": inhibition, "mover": mover},
        {},
        (
            Edge(duplicate, "k", inhibition, 7),
            Edge(inhibition, "q", mover, 9),
            Edge(mover, "logits", None, 9),
        ),
        {"duplicate": (0.0,) * n, "inhibition": (0.0,) * n, "mover": (strength,) * n},
        (strength,) * n,
        (0.0,) * n,
    )


CIRCUITS: dict[str, Callable[..., Circuit]] = {
    "copy_head": copy_head,
    "fact_head": fact_head,
    "anti_copy": anti_copy,
    "conflict": conflict,
    "backup": backup,
    "two_hop": two_hop,
    "mlp_relay": mlp_relay,
    "name_mover": name_mover,
}
"""Every circuit by name; each takes `family` (`name_mover`: GPT-2 only), `norm` and `dtype`."""


@cache
def made(name: str, family: str = "gpt2", **options: Any) -> Circuit:
    """One of `CIRCUITS`, made (and verified) once for all tests; leave its model as found."""
    return CIRCUITS[name](family, **options)


# ---------------------------------------------------------------------------------- the prompts


def _conflict_words(weights: "_Weights", sizes: Sequence[float] = (1.0,) * len(CITIES)) -> None:
    weights.words(COUNTRIES, "country")
    weights.words(("they", "said", ".", "is"))
    for city, size in zip(CITIES, sizes, strict=True):
        weights.token(city, {"city": 1.0, f"is_{city}": size})
    weights.outputs(CITIES)


def _conflict_pairs() -> PromptSet[PromptPair]:
    """In-context city and country, and another of each; four different cities per pair."""
    pairs, n = [], len(CITIES)
    for i in range(n):
        stated, other, elsewhere = CITIES[(i + 1) % n], CITIES[(i + 3) % n], COUNTRIES[(i + 2) % n]
        clean = f"they said {stated} . {COUNTRIES[i]} is"
        corrupted = f"they said {other} . {elsewhere} is"
        pairs.append(PromptPair(clean, corrupted, answer=stated, wrong_answer=CITIES[i]))
    return PromptSet(tuple(pairs), "conflict")


def _name_pairs() -> PromptSet[PromptPair]:
    """Both orders of the two names; the corrupted names are three others."""
    form, pairs, n = "When {} and {} went , {} gave to", [], len(NAMES)
    for i in range(n):
        io, s, a, b, c = (NAMES[(i + k) % n] for k in range(5))  # five different names
        first, second = (io, s) if i % 2 else (s, io)
        clean, corrupted = form.format(first, second, s), form.format(a, b, c)
        pairs.append(PromptPair(clean, corrupted, answer=io, wrong_answer=s))
    return PromptSet(tuple(pairs), "name-mover")


# ---------------------------------------------------------------------------------- the weights


class _HeadWeights:
    """Query, key, value and output maps of one head, in features; dimensions are handed out."""

    def __init__(self, weights: "_Weights", first_score: int) -> None:
        self.weights = weights
        shape = (D_MODEL, D_HEAD)
        self.q, self.k, self.v = (torch.zeros(shape) for _ in range(3))
        self.o = torch.zeros(D_HEAD, D_MODEL)
        weights.fill(self.k, self.v)
        self._scores, self._values = first_score, 0

    def attend(self, queries: Mapping[str, float], key: str) -> None:
        """Give the score sum(gain * query feature) * key feature."""
        dim = self._score_dim()
        for feature, gain in queries.items():
            self.q[:, dim] += self.weights.reader(feature) * gain * D_HEAD**0.5 / 16
        self.k[:, dim] += self.weights.reader(key) * 16

    def match(self, query: str, key: str, words: Sequence[str], gain: float) -> None:
        """Give the score gain * query feature * key feature of the same word."""
        for word in words:
            self.attend({query.format(word): gain}, key.format(word))

    def carry(self, source: str, to: str, gain: float) -> None:
        """Write gain times the attended token's feature `source` into `to`."""
        assert self._values < D_HEAD - 1, "the last dimension is the fillers'"
        self.v[:, self._values] += self.weights.reader(source)
        self.o[self._values] += self.weights.writer(to) * gain
        self._values += 1

    def move(self, source: str, to: str, words: Sequence[str], gain: float) -> None:
        """Carry one feature per word."""
        for word in words:
            self.carry(source.format(word), to.format(word), gain)

    def _score_dim(self) -> int:
        self._scores += 1
        assert self._scores < D_HEAD, "the last dimension is the fillers'"
        return self._scores - 1


class _MlpWeights:
    """A linear map in features; the activation function is undone by pairs or constant gates."""

    def __init__(self, weights: "_Weights") -> None:
        self.weights = weights
        self.into, self.out = torch.zeros(D_MODEL, D_MLP // 2), torch.zeros(D_MLP // 2, D_MODEL)
        self._used = 0

    def carry(self, source: str, to: str, gain: float) -> None:
        """Write gain times the feature `source` of the same position into `to`."""
        self.into[:, self._used] += self.weights.reader(source)
        self.out[self._used] += self.weights.writer(to) * gain
        self._used += 1


class _Weights:
    """Features, vocabulary and planted parts of one model."""

    def __init__(self, family: Family, norm: Norm) -> None:
        if family not in ("gpt2", "llama") or norm not in ("identity", "real"):
            raise ValueError(f"family {family!r} or norm {norm!r} is unknown")
        self.family, self.norm = family, norm
        self._features: dict[str, int] = {}
        self._tokens: dict[str, dict[str, float]] = {
            "<bos>": {"bos": 1.0}, "<eos>": {}, "<pad>": {}, "<unk>": {}
        }  # fmt: skip
        self._outputs: list[str] = []
        self._heads: dict[Head, _HeadWeights] = {}
        self._mlps: dict[int, _MlpWeights] = {}
        self.positions: Mapping[str, range] = {}
        for i, word in enumerate(FILLERS):
            self.token(word, {"fill_a": (i * 7 % 11) / 4 - 1, "fill_b": (i * 5 % 13) / 4 - 1})

    def words(self, words: Sequence[str], group: str = "") -> None:
        """Add words; members of a group carry its feature and one of their own."""
        for word in words:
            self.token(word, {group: 1.0, f"is_{word}": 1.0} if group else {})

    def token(self, word: str, features: Mapping[str, float]) -> None:
        """Add one word with the features of its embedding."""
        self._tokens[word] = dict(features)

    def outputs(self, words: Sequence[str]) -> None:
        """Name the words that have logits; every other logit is 0."""
        for word in words:
            self._tokens.setdefault(word, {})
            self._outputs.append(word)

    def head(self, place: Head) -> _HeadWeights:
        """Plant a head."""
        # Rotary positions turn the dimensions i and i + D_HEAD / 2 by pos * theta**(-2i / D_HEAD);
        # from i = 2 on that is nothing with the theta of `_llama`.
        made = _HeadWeights(self, 2 if self.family == "llama" else 0)
        return self._heads.setdefault(place, made)

    def mlp(self, layer: int) -> _MlpWeights:
        """Plant an MLP."""
        return self._mlps.setdefault(layer, _MlpWeights(self))

    def fill(self, k: Tensor, v: Tensor) -> None:
        """Let the last dimension of keys and values, axes (d_model, d_head), read the fillers."""
        k[:, -1], v[:, -1] = self.reader("fill_b"), self.reader("fill_a")

    def writer(self, feature: str) -> Tensor:
        """Return the residual vector of a feature at value 1, axis d_model."""
        first = 2 * self._features.setdefault(feature, len(self._features))
        assert first < D_MODEL, "more features than d_model / 2"
        vector = torch.zeros(D_MODEL)
        vector[first], vector[first + 1] = 1.0, -1.0
        return vector

    def reader(self, feature: str) -> Tensor:
        """Return the vector whose product with a residual state is a feature's value."""
        return self.writer(feature) / 2

    def model(self, name: str, dtype: torch.dtype) -> "Model":
        """Build the model and wrap it."""
        from mechlab.models import wrap_model

        hf = self._gpt2() if self.family == "gpt2" else self._llama()
        hf = hf.to(dtype).eval()
        return wrap_model(hf, self._tokenizer(), name=f"circuit-{name}-{self.family}")

    def _tokenizer(self) -> PreTrainedTokenizerFast:
        ids = {word: i for i, word in enumerate(self._tokens)}
        raw = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
        raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        raw.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
        special = {f"{kind}_token": f"<{kind}>" for kind in ("bos", "eos", "pad", "unk")}
        return PreTrainedTokenizerFast(
            tokenizer_object=raw, add_bos_token=True, name_or_path="local", **special
        )

    def _embeddings(self) -> tuple[Tensor, Tensor]:
        """Return embedding and unembedding, axes (token, d_model)."""
        into, out = torch.zeros(2, len(self._tokens), D_MODEL)
        for i, (word, features) in enumerate(self._tokens.items()):
            into[i] += self.writer("one")
            into[i] += self.writer("ballast") * (BALLAST if self.norm == "real" else 0.0)
            for feature, value in features.items():
                into[i] += self.writer(feature) * value
            if word in self._outputs:
                out[i] = self.reader(f"out_{word}")
            elif word in FILLERS:
                out[i] = self.reader("fill_out") * features["fill_b"]
        return into, out

    def _norm(self) -> tuple[float, float]:
        """Return epsilon and weight."""
        if self.norm == "identity":
            return BIG, BIG**0.5
        return 1e-5, BALLAST * (2 / D_MODEL) ** 0.5

    def _config(self) -> dict[str, Any]:
        return {"vocab_size": len(self._tokens), "tie_word_embeddings": False,
                "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}  # fmt: skip

    @torch.no_grad()
    def _gpt2(self) -> PreTrainedModel:
        epsilon, weight = self._norm()
        config = transformers.GPT2Config(
            n_embd=D_MODEL, n_layer=N_LAYERS, n_head=N_HEADS, n_inner=D_MLP, n_positions=64,
            layer_norm_epsilon=epsilon, **self._config(),
        )  # fmt: skip
        hf = _quiet_model(config)
        body = hf.transformer
        into, out = self._embeddings()
        body.wte.weight.copy_(into)
        hf.lm_head.weight.copy_(out)
        body.wpe.weight.zero_()
        for feature, places in self.positions.items():
            body.wpe.weight[list(places)] += self.writer(feature)
        for module in hf.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight.fill_(weight)
        for layer, block in enumerate(body.h):
            qkv = block.attn.c_attn.weight.view(D_MODEL, 3, N_HEADS, D_HEAD)
            output = block.attn.c_proj.weight.view(N_HEADS, D_HEAD, D_MODEL)
            output.zero_()
            output[:, -1] = self.writer("fill_out")
            block.mlp.c_proj.weight.zero_()
            for head in range(N_HEADS):
                self.fill(qkv[:, 1, head], qkv[:, 2, head])
            for place, planted in self._heads.items():
                if place.layer == layer:
                    qkv[:, :, place.head] = torch.stack([planted.q, planted.k, planted.v], dim=1)
                    output[place.head] = planted.o
            if mlp := self._mlps.get(layer):  # gelu(x) - gelu(-x) = x
                block.mlp.c_fc.weight.copy_(torch.cat([mlp.into, -mlp.into], dim=1))
                block.mlp.c_fc.bias.zero_()
                block.mlp.c_proj.weight.copy_(torch.cat([mlp.out, -mlp.out], dim=0))
        return hf

    @torch.no_grad()
    def _llama(self) -> PreTrainedModel:
        epsilon, weight = self._norm()
        config = transformers.LlamaConfig(
            hidden_size=D_MODEL, num_hidden_layers=N_LAYERS, num_attention_heads=N_HEADS,
            num_key_value_heads=N_KV_HEADS, intermediate_size=D_MLP, max_position_embeddings=64,
            rms_norm_eps=epsilon, rope_parameters={"rope_type": "default", "rope_theta": 1e36},
            **self._config(),
        )  # fmt: skip
        hf = _quiet_model(config)
        into, out = self._embeddings()
        hf.model.embed_tokens.weight.copy_(into)
        hf.lm_head.weight.copy_(out)
        for name, parameter in hf.named_parameters():
            if "norm" in name:
                parameter.fill_(weight)
        group = N_HEADS // N_KV_HEADS
        for layer, block in enumerate(hf.model.layers):
            q = block.self_attn.q_proj.weight.view(N_HEADS, D_HEAD, D_MODEL)
            k = block.self_attn.k_proj.weight.view(N_KV_HEADS, D_HEAD, D_MODEL)
            v = block.self_attn.v_proj.weight.view(N_KV_HEADS, D_HEAD, D_MODEL)
            output = block.self_attn.o_proj.weight.view(D_MODEL, N_HEADS, D_HEAD)
            output.zero_()
            output[:, :, -1] = self.writer("fill_out")[:, None]
            block.mlp.down_proj.weight.zero_()
            for head in range(N_KV_HEADS):
                self.fill(k[head].T, v[head].T)
            for place, planted in self._heads.items():
                if place.layer == layer:
                    q[place.head] = planted.q.T
                    k[place.head // group], v[place.head // group] = planted.k.T, planted.v.T
                    output[:, place.head] = planted.o.T
            if mlp := self._mlps.get(layer):  # silu(constant) * x, divided by silu(constant)
                gate = self.reader("one")[None] * 4
                block.mlp.gate_proj.weight.copy_(gate.expand(D_MLP, D_MODEL))
                block.mlp.up_proj.weight.zero_()[: D_MLP // 2] = mlp.into.T
                scale = float(torch.nn.functional.silu(torch.tensor(4.0)))
                block.mlp.down_proj.weight[:, : D_MLP // 2] = mlp.out.T / scale
        return hf


@torch.no_grad()
def _quiet_model(config: transformers.PreTrainedConfig) -> Any:
    """Return a model of random matrices and zero biases, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        hf = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(0)
    for parameter in hf.parameters():
        if parameter.ndim == 1:
            parameter.zero_()
        else:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / D_MODEL**0.5)
    return hf
