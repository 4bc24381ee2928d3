"""Token lists: distinct ids that never were strings, the same for every model until it is asked."""

from collections.abc import Callable

import pytest
import toys

import mechlab as ml
from mechlab.errors import PromptError
from mechlab.models import Model
from mechlab.prompts import (
    PromptSet,
    Text,
    TokenList,
    as_prompt_set,
    as_token_ids,
    repeated_tokens,
    single_probe_lists,
    texts,
    without_repeats,
)


class Vocabulary:
    """What pools ask of a model."""

    def __init__(self, kind: str = "bpe", d_vocab: int = toys.N_VOCAB) -> None:
        self.tokenizer = toys.make_tokenizer(kind)  # type: ignore[arg-type]
        self.d_vocab = d_vocab
        self.name = "vocabulary"


def test_a_repeated_list_is_one_permutation_of_distinct_tokens_read_several_times():
    lists = repeated_tokens(5, 12, copies=3)
    for one in lists:
        assert len(set(one.source)) == 12 and one.probes == one.source * 2 and one.copies == 3
        assert one.matches == (*range(12), *range(12))
        assert len(one.others) == 24 and not set(one.others) & set(one.source)
    assert len({one.source for one in lists}) == 5  # other orders
    assert len({frozenset(one.source) for one in lists}) == 1  # of the same tokens
    drawn = repeated_tokens(5, 12, draw="new")
    assert len({frozenset(one.source) for one in drawn}) == 5


def test_lists_are_frozen_by_their_seed_and_do_not_depend_on_their_number():
    assert repeated_tokens(3, 6).digest == repeated_tokens(9, 6)[:3].digest
    assert repeated_tokens(3, 6).digest != repeated_tokens(3, 6, seed=1).digest
    assert [one.source for one in repeated_tokens(2, 6)] == [(5, 2, 1, 3, 0, 4), (1, 2, 0, 5, 4, 3)]
    assert repeated_tokens(1, 6, bos=False).digest != repeated_tokens(1, 6).digest


def test_one_probe_stands_after_its_list_away_from_the_edges():
    lists = single_probe_lists(2, 12, margin=4)
    assert [one.matches for one in lists] == [(4,), (5,), (6,), (7,)] * 2
    assert lists.groups == ("group list 0",) * 4 + ("group list 1",) * 4
    assert len({one.source for one in lists}) == 2
    for real, control in zip(lists, without_repeats(lists), strict=True):
        assert control.source == real.source and control.matches == (-1,)
    (whole,) = single_probe_lists(1, 12, probes="concatenated")
    assert set(whole.probes) == set(whole.source) and whole.probes != whole.source
    assert [one.matches for one in single_probe_lists(1, 12, positions=[0, 3])] == [(0,), (3,)]


def test_ranks_become_tokens_of_the_model_that_reads_them():
    vocabulary = Vocabulary()
    lists = as_token_ids(vocabulary, list(repeated_tokens(2, 6, pool="words")))
    names = vocabulary.tokenizer.convert_ids_to_tokens(lists[0].source)
    assert all(name.startswith("Ġ") and name[1:].isalpha() and len(name) > 2 for name in names)
    bound = repeated_tokens(2, 6, pool="words", model=vocabulary)
    assert [one.source for one in bound] == [one.source for one in lists] and not bound[0].pool
    special = set(vocabulary.tokenizer.all_special_ids)
    whole = repeated_tokens(1, 300, pool="tokens", model=vocabulary, pool_size="all")[0]
    assert not special & set(whole.source)


def test_auto_takes_words_where_there_are_enough_of_them():
    (small,) = as_token_ids(Vocabulary(), list(repeated_tokens(1, 4)))
    (large,) = as_token_ids(Vocabulary(), list(repeated_tokens(1, 60)))
    names = Vocabulary().tokenizer.convert_ids_to_tokens
    assert all(name.startswith("Ġ") for name in names(small.source))
    assert not all(name.startswith("Ġ") for name in names(large.source))


def test_the_ends_of_a_pool_are_trimmed():
    trimmed = repeated_tokens(1, 8, pool=range(100), trim=0.04, pool_size="all", draw="new")
    every = {t for one in repeated_tokens(40, 8, pool=range(100), trim=0.04, pool_size="all",
                                          draw="new") for t in one.source}  # fmt: skip
    assert min(every) >= 4 and max(every) < 96 and len(trimmed[0].source) == 8


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: TokenList((3, 4, 3), (3,)), "source is not distinct: 3"),
        (lambda: TokenList((3, 4), ()), "probes is empty"),
        (lambda: TokenList((3, -4), (3,)), "source holds -4"),
        (lambda: TokenList((3, 4), (3,), (4,)), "others are in the list too: 4"),
        (lambda: TokenList((3, 4), (3,), pool="all"), "pool is 'all'"),
        (lambda: TokenList("ab", (3,)), "source is str"),  # type: ignore[arg-type]
        (lambda: repeated_tokens(2, 1), "length=1"),
        (lambda: repeated_tokens(2, 5, copies=1), "copies=1"),
        (lambda: repeated_tokens(0, 5), "count=0"),
        (lambda: repeated_tokens(2, 5, pool="letters"), "pool='letters'"),  # type: ignore[arg-type]
        (lambda: repeated_tokens(2, 5, trim=0.1), "not known yet"),
        (lambda: repeated_tokens(2, 5, pool_size="all"), "pool_size='all'"),
        (lambda: repeated_tokens(2, 5, pool=range(4)), "the pool holds 4 tokens"),
        (lambda: repeated_tokens(2, 5, draw="both"), "draw='both'"),  # type: ignore[arg-type]
        (lambda: single_probe_lists(2, 10), "margin=5 leaves no position"),
        (lambda: single_probe_lists(2, 20, positions=[20]), "from 0 to 19"),
        (lambda: single_probe_lists(2, 20, probes="all"), "probes='all'"),  # type: ignore[arg-type]
        (lambda: without_repeats([TokenList((3, 4), (3,))]), "fewer other tokens"),
        (lambda: texts([" "]), "not blank"),
        (lambda: as_token_ids(Vocabulary(), list(repeated_tokens(2, 900))), "2 of 2 token lists"),
    ],
)
def test_lists_that_cannot_be_made_are_refused(make: Callable[[], object], words: str):
    with pytest.raises(PromptError, match=words):
        make()


def test_lists_and_texts_are_kinds_of_prompt_sets():
    lists = repeated_tokens(2, 5)
    assert as_prompt_set(lists, kind="tokens") is lists and lists.kind == "tokens"
    assert as_prompt_set(lists[0], kind="rows")[0] == lists[0]
    assert lists.labels == ("list 0", "list 1")
    assert as_prompt_set([Text("a b")], kind="rows").kind == "text"
    with pytest.raises(PromptError, match="not TokenList"):
        as_prompt_set(texts(["a b"]), kind="tokens")
    with pytest.raises(PromptError, match="not Fact"):
        as_prompt_set(lists, kind="any")
    mixed = [TokenList((1, 2), (1,)), Text("a")]
    with pytest.raises(PromptError, match="not TokenList"):
        PromptSet(tuple(mixed))


def test_a_bos_stands_in_front_also_where_texts_get_none(toy_model: Callable[..., Model]):
    from mechlab.methods.induction.rows import lay_out

    echo = toy_model("gpt2")
    (one,) = lay_out(echo, repeated_tokens(1, 5))
    (bare,) = lay_out(echo, repeated_tokens(1, 5, bos=False))
    assert one.tokens == (echo.tokenizer.bos_token_id, *bare.tokens)
    assert (one.front, bare.front) == (1, 0) and one.source == range(1, 6)
    assert ml.prompts.TokenList is TokenList
