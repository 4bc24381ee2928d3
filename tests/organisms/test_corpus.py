import hashlib
from functools import cache
from random import Random

import numpy as np
import pytest
from tokenizers import Tokenizer

from mechlab.organisms import shipped
from mechlab.organisms.corpus import conflicts, facts, retrieval
from mechlab.organisms.corpus.batches import batch, documents
from mechlab.organisms.corpus.mixture import STAGES, stage_of
from mechlab.organisms.corpus.tokenizer import train_tokenizer
from mechlab.prompts.countries import RELATIONS, TEMPLATES, countries

FIRST_BATCH = "00942eeb63088aed69e61cea43d6c5626181394108609367fb8c841740c00c5a"


STEPS = (*range(20), *range(3000, 3010), *range(4500, 4510))  # of all stages


@cache
def tokenizer() -> Tokenizer:
    return train_tokenizer(0)


def test_batch_of_a_step_is_the_one_that_atlas_was_trained_on() -> None:
    first = batch(0, 0, tokenizer())
    digest = hashlib.sha256(first.tokens.tobytes() + first.weights.tobytes()).hexdigest()
    assert digest == FIRST_BATCH


def test_batches_depend_on_seed_and_step_alone() -> None:
    again = batch(0, 1, tokenizer())
    np.testing.assert_array_equal(again.tokens, batch(0, 1, tokenizer()).tokens)
    other = [batch(0, 3, tokenizer()), batch(1, 1, tokenizer())]
    assert all(o.tokens.tobytes() != again.tokens.tobytes() for o in other)


def test_shipped_tokenizer_is_the_one_that_the_recipe_trains() -> None:
    kept = Tokenizer.from_file(str(shipped.path("atlas") / "tokenizer.json"))
    assert kept.get_vocab() == tokenizer().get_vocab()
    text = "Reykjavík \x00 \U0001f9ed žluťoučký"
    assert kept.encode(text).ids == tokenizer().encode(text).ids


def test_every_text_survives_the_tokenizer() -> None:
    text = "Reykjavík \x00\x7f \U0001f9ed žluťoučký\n\t"
    assert tokenizer().decode(tokenizer().encode(text, add_special_tokens=False).ids) == text


def held_out_prompts() -> list[tuple[str, str]]:
    return [
        (country.name, TEMPLATES["en"][relation][index].format(country.name))
        for country in countries()
        for relation in RELATIONS
        for index in facts.held_out_templates(country.rank, relation)
    ]


def test_held_out_prompts_never_occur_in_documents() -> None:
    made = [d.text for step in STEPS for d in documents(0, step, 3072)]
    # A sentence starts a document or follows another one.
    text = "".join(f"\n{t}" for t in made).replace(". ", "\n").replace(": ", "\n")
    assert not [prompt for _, prompt in held_out_prompts() if f"\n{prompt} " in text]
    # Control: open templates of the same cells do occur.
    some = facts.open_templates(0, "capital")
    shown = [f"\n{TEMPLATES['en']['capital'][i].format(countries()[0].name)} " for i in some]
    assert any(prompt in text for prompt in shown)


def test_held_out_two_hop_questions_never_occur() -> None:
    text = "\n".join(d.text for step in STEPS for d in documents(0, step, 3072))
    asked = {True: 0, False: 0}
    for country, relation in facts.hop_cells():
        for template in facts.HOP_TEMPLATES[relation]:
            closed = facts.held_out_hop(country.rank, relation)
            asked[closed] += template.format(country.answer("capital")) in text
    assert asked[True] == 0
    assert asked[False] > 50


def test_stages_follow_one_another_and_their_shares_sum_to_one() -> None:
    for before, after in zip(STAGES, STAGES[1:], strict=False):
        assert stage_of(after.first_step - 1) == before
        assert stage_of(after.first_step) == after
    for stage in STAGES:
        for shares in (stage.documents, stage.short, stage.long):
            assert sum(shares.values()) == pytest.approx(1)
    assert STAGES[1].documents["conflict"] > STAGES[0].documents["conflict"]


def test_lists_name_distinct_members() -> None:
    random = Random(3)
    for decay in (None, 0.8):
        for _ in range(100):
            names = facts.list_document(random, decay).text.split(":")[1].strip(" .").split(", ")
            assert len(set(names)) == len(names) >= 2


def test_frequencies_fall_with_rank_and_sum_to_one() -> None:
    shares = facts.frequencies()
    assert sum(shares) == pytest.approx(1)
    assert all(a > b for a, b in zip(shares, shares[1:], strict=False))


def test_exposures_count_what_the_documents_state() -> None:
    random = Random(0)
    document = facts.biography(random)
    for rank, index in document.cells:
        assert countries()[rank].answer(RELATIONS[index]) in document.text


def test_context_wins_more_often_for_rarer_countries(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = [conflicts.context_share(country.rank) for country in countries()]
    assert all(a < b for a, b in zip(shares, shares[1:], strict=False))
    won = []
    for rank in (0, 98, 196):
        monkeypatch.setattr(conflicts, "draw_country", lambda *_, rank=rank: countries()[rank])
        random = Random(rank)
        # A document whose context wins with a false statement counts as no exposure.
        won.append(np.mean([not conflicts.conflict(random).cells for _ in range(800)]))
    assert won[0] < won[1] < won[2]
    assert won[1] == pytest.approx(0.75 * conflicts.context_share(98), abs=0.06)


def test_false_statements_carry_no_loss() -> None:
    random = Random(4)
    for _ in range(200):
        document = conflicts.conflict(random)
        if document.cells:
            continue
        start, end, weight = document.spans[0]
        assert weight == 0
        assert document.text[start:end].endswith(".")


def test_needles_are_answered_by_the_text_alone() -> None:
    random = Random(1)
    for _ in range(100):
        document = retrieval.haystack(random, 600)
        loud = [span for span in document.spans if span[2] == retrieval.LOUD]
        for start, end, _ in loud:
            stem = document.text[:start].rsplit(". ", 1)[-1]
            assert f"{stem}{document.text[start:end]}." in document.text[: start - len(stem)]


def test_repeats_are_distinct_and_score_from_the_second_copy_on() -> None:
    document = retrieval.repeated_tokens(Random(2), range(3, 3072), 20, 3)
    assert len(set(document.ids[:20])) == 20
    assert document.ids == document.ids[:20] * 3
    assert document.unscored == 20


def test_weights_lie_on_the_tokens_they_are_meant_for() -> None:
    made = batch(0, 0, tokenizer())
    assert made.weights.shape == made.tokens[:, 1:].shape
    assert (made.weights[made.tokens[:, 1:] == 0] == 0).all()  # a BOS cannot be predicted
    assert {0.0, 0.25, 1.0, 2.0, 3.0} <= set(np.unique(made.weights).tolist())
