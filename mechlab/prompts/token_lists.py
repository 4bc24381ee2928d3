"""Builders of token lists: repeated random tokens, lists with one probe, controls, plain texts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mechlab.errors import PromptError
from mechlab.prompts.drawing import check_count, check_seed, is_whole, ordered, sample
from mechlab.prompts.sets import PromptSet, as_prompt_set
from mechlab.prompts.token_kind import POOLS, Text, TokenList
from mechlab.prompts.token_pools import HasTokenizer, token_pool

__all__ = ["repeated_tokens", "single_probe_lists", "texts", "without_repeats"]

Pool = Literal["auto", "words", "tokens"] | Sequence[int]
Draw = Literal["permutations", "new"]


@dataclass(frozen=True)
class _Drawing:
    """Where the tokens of lists come from; `ids` is the pool itself, once it is known."""

    length: int
    seed: int
    pool: str
    ids: tuple[int, ...] | None
    size: int
    new: bool
    bos: bool

    def source(self, index: int) -> list[int]:
        """Return the ranks of one list."""
        if self.new:
            return sample(range(self.size), self.length, "token list", self.seed, index)
        chosen = sample(range(self.size), self.length, "token pool", self.seed)
        return ordered(sorted(chosen), "token list", self.seed, index)

    def others(self, index: int, source: Sequence[int], count: int) -> list[int]:
        """Return ranks that are not in the list, as many as asked for or none."""
        known = self.size + count if self.ids is None else len(self.ids)
        left = sorted(set(range(min(known, self.size + count))) - set(source))
        return sample(left, count, "others", self.seed, index) if len(left) >= count else []

    def made(
        self,
        source: Sequence[int],
        probes: Sequence[int],
        others: Sequence[int],
        label: str,
        group: str | None = None,
    ) -> TokenList:
        """Return a list; of token ids where the pool is known."""
        return TokenList(
            self._numbers(source),
            self._numbers(probes),
            self._numbers(others),
            pool=self.pool,
            bos=self.bos,
            label=label,
            group=group,
        )

    def _numbers(self, ranks: Sequence[int]) -> tuple[int, ...]:
        return tuple(ranks) if self.ids is None else tuple(self.ids[rank] for rank in ranks)


def repeated_tokens(
    count: int = 10,
    length: int = 100,
    *,
    copies: int = 2,
    seed: int = 0,
    model: HasTokenizer | None = None,
    pool: Pool = "auto",
    draw: Draw = "permutations",
    pool_size: int | Literal["all"] | None = None,
    trim: float = 0.0,
    bos: bool = True,
) -> PromptSet[TokenList]:
    """Return lists of random distinct tokens, each repeated as it is.

    One prompt is a beginning-of-sequence token, `length` tokens, and the same tokens again in the
    same order. Nothing but the repetition tells which token follows which.

    Args:
        count: how many lists.
        length: tokens in one copy.
        copies: how often each list is read, 2 or more.
        seed: decides pool and order of every list; list i is the same for every `count`.
        model: makes token ids of this model at once. Without it the prompts hold ranks in the pool,
            and are read as token ids by whichever model they are given to.
        pool: where tokens come from. `words`: tokens of a leading space and letters, the most
            common first; `tokens`: all ordinary ones; `auto`: words where the tokenizer has enough
            of them, else tokens. Or a list of token ids.
        draw: `permutations` takes the same tokens for all lists, in another order; `new` draws
            tokens for each.
        pool_size: only the first so many of the pool are drawn from. Default as many as are needed:
            `length`, twice that for new draws. `all` needs `model` or a list of ids.
        trim: share of the pool that is left out at either end (Olsson et al. 2022 leave out the
            most and least frequent tokens); needs `model` or a list of ids.
        bos: whether the model's beginning-of-sequence token stands in front, also where the model
            does not put it in front of texts (GPT-2).

    Raises:
        PromptError: when an option is out of range, or the pool holds too few tokens.
    """
    check_count(count, "lists")
    _check_whole("copies", copies, 2)
    drawing = _drawing(length, seed, model, pool, draw, pool_size, trim, bos)
    made = []
    for index in range(count):
        source = drawing.source(index)
        others = drawing.others(index, source, length * (copies - 1))
        made.append(drawing.made(source, source * (copies - 1), others, f"list {index}"))
    return PromptSet(tuple(made), f"{length} tokens x {copies}")


def single_probe_lists(
    permutations: int = 5,
    length: int = 100,
    *,
    probes: Literal["single", "concatenated"] = "single",
    margin: int = 5,
    positions: Sequence[int] | None = None,
    seed: int = 0,
    model: HasTokenizer | None = None,
    pool: Pool = "auto",
    draw: Draw = "permutations",
    pool_size: int | Literal["all"] | None = None,
    trim: float = 0.0,
    bos: bool = True,
) -> PromptSet[TokenList]:
    """Return lists with one of their tokens after them: what is attended to, or said, next?

    With one probe per prompt no other probe stands between a probe and its list. Prompts of one
    list share its `group`. The concatenated form is that of Mistry et al. 2025 (arXiv 2502.06902):
    all tokens of the list once more, in another order, in one prompt.

    Args:
        permutations: how many lists.
        length: tokens of a list.
        probes: `single` makes one prompt per probed position, `concatenated` one per list.
        margin: positions at either end that are not probed, so that all lags up to it are there.
            The concatenated form probes all.
        positions: the positions that are probed, from 0, instead of all but the margins.
        seed: as for `repeated_tokens`.
        model: as for `repeated_tokens`.
        pool: as for `repeated_tokens`.
        draw: as for `repeated_tokens`.
        pool_size: as for `repeated_tokens`.
        trim: as for `repeated_tokens`.
        bos: as for `repeated_tokens`.

    Raises:
        PromptError: when an option is out of range, no position is left to probe, or the pool holds
            too few tokens.
    """
    check_count(permutations, "lists")
    if probes not in ("single", "concatenated"):
        raise PromptError(
            f"probes={probes!r}.\n  Allowed: 'single', 'concatenated'.\n  Choose one of these."
        )
    drawing = _drawing(length, seed, model, pool, draw, pool_size, trim, bos)
    probed = _probed(length, margin, positions) if probes == "single" else []
    made = []
    for index in range(permutations):
        source, name = drawing.source(index), f"list {index}"
        if probes == "concatenated":
            again = ordered(sorted(source), "probes", seed, index)
            others = drawing.others(index, source, length)
            made.append(drawing.made(source, again, others, name))
            continue
        others = drawing.others(index, source, 1)
        made += [
            drawing.made(source, [source[at]], others, f"{name} probe {at}", name) for at in probed
        ]
    return PromptSet(tuple(made), f"{length} tokens, {probes} probes")


def without_repeats(prompts: PromptSet[Any] | Sequence[TokenList]) -> PromptSet[TokenList]:
    """Return the same lists with tokens after them that are not in them: the control of a repeat.

    Raises:
        PromptError: for lists that hold too few `others`; all at once.
    """
    lists = as_prompt_set(prompts, kind="tokens")
    short = [
        f"#{index} ({len(one.others)} for {len(one.probes)})"
        for index, one in enumerate(lists)
        if len(one.others) < len(one.probes)
    ]
    if short:
        raise PromptError(
            f"{len(short)} of {len(lists)} lists have fewer other tokens than probes: "
            f"{', '.join(short[:10])}.\n  Allowed: lists whose `others` can stand for the probes.\n"
            "  Take shorter lists, or a larger pool (pool='tokens')."
        )
    made = [
        replace(one, probes=one.others[: len(one.probes)], others=(), label=one.label)
        for one in lists
    ]
    return PromptSet(tuple(made), f"{lists.name} (no repeat)".strip())


def texts(strings: Iterable[str] | str, *, name: str = "") -> PromptSet[Text]:
    """Return plain texts as prompts, for `ml.icl_score` and `ml.copy_loss`.

    Args:
        strings: one text, or several.
        name: what the set is called.

    Raises:
        PromptError: for what is no text, or blank; or when there is none.
    """
    given = [strings] if isinstance(strings, str) else list(strings)
    return PromptSet(tuple(Text(one) for one in given), name)


def _drawing(
    length: int,
    seed: int,
    model: HasTokenizer | None,
    pool: Pool,
    draw: Draw,
    pool_size: int | Literal["all"] | None,
    trim: float,
    bos: bool,
) -> _Drawing:
    """Check what all builders are told, and find the pool where that is possible."""
    _check_whole("length", length, 2)
    check_seed(seed)
    if draw not in ("permutations", "new") or not isinstance(bos, bool):
        raise PromptError(
            f"draw={draw!r}, bos={bos!r}.\n  Allowed: draw='permutations' or 'new'; bos=True or "
            "False.\n  Choose one of these."
        )
    needed = length if draw == "permutations" else 2 * length
    ids = _pool_ids(model, pool, trim, needed=2 * needed)
    if pool_size == "all" and ids is not None:
        size = len(ids)
    elif pool_size is None:
        size = needed if ids is None else min(needed, max(length, len(ids)))
    else:
        size = _check_whole("pool_size", pool_size, length)
    if ids is not None and len(ids) < size:
        raise PromptError(
            f"length={length}, pool_size={pool_size}: the pool holds {len(ids)} tokens.\n"
            f"  Allowed: up to {len(ids)}.\n  Make shorter lists, or take a larger pool."
        )
    kept = "" if ids is not None else str(pool)
    return _Drawing(length, seed, kept, ids, size, draw == "new", bos)


def _pool_ids(
    model: HasTokenizer | None, pool: Pool, trim: object, *, needed: int
) -> tuple[int, ...] | None:
    """Return the pool's token ids where they are known: of a model, or as given."""
    listed = not isinstance(pool, str)
    if not listed and pool not in POOLS:
        raise PromptError(
            f"pool={pool!r}.\n  Allowed: {', '.join(map(repr, POOLS))}, or a list of token ids.\n"
            "  Choose one of these."
        )
    if isinstance(trim, bool) or not isinstance(trim, int | float) or not 0 <= trim < 0.5:
        raise PromptError(f"trim={trim!r}.\n  Allowed: shares from 0 to below 0.5.\n  Give one.")
    if not listed and model is None:
        if trim:
            raise PromptError(
                f"trim={trim} of a pool that is not known yet.\n  Allowed: with model=... or a "
                "list of token ids as pool.\n  Give one of these, or leave trim out."
            )
        return None
    if listed:
        ids = tuple(dict.fromkeys(int(token) for token in pool))
    else:
        assert model is not None
        ids = token_pool(model, "words" if pool == "words" else "tokens")
        words = token_pool(model, "words") if pool == "auto" else ()
        ids = words if len(words) >= needed else ids
    cut = int(trim * len(ids))
    return ids[cut : len(ids) - cut]


def _probed(length: int, margin: int, positions: Sequence[int] | None) -> list[int]:
    _check_whole("margin", margin, 0)
    if positions is None:
        found = list(range(margin, length - margin))
        if not found:
            raise PromptError(
                f"margin={margin} leaves no position of {length} to probe.\n  Allowed: less than "
                "half the length.\n  Lower it, or make longer lists."
            )
        return found
    listed = list(positions)
    wrong = [at for at in listed if not is_whole(at) or not 0 <= at < length]
    if wrong or not listed or len(set(listed)) < len(listed):
        raise PromptError(
            f"positions={positions!r:.80} of lists of {length} tokens.\n  Allowed: whole numbers "
            f"from 0 to {length - 1}, each once, at least one.\n  Correct them."
        )
    return [int(at) for at in listed]


def _check_whole(name: str, value: object, least: int) -> int:
    if not is_whole(value) or value < least:  # type: ignore[operator]
        raise PromptError(
            f"{name}={value!r}.\n  Allowed: whole numbers from {least}.\n  Give one of these."
        )
    return int(value)  # type: ignore[call-overload, no-any-return]
