"""Requests and cases from the country table: what they hold, and that they stay the same."""

import pytest

from mechlab.errors import PromptError
from mechlab.prompts import EditRequest, countries, edit_cases, world_edits

POLAND = EditRequest("The capital of {} is", "Poland", "London")
BY_NAME = {country.name: country for country in countries()}


def test_requests_are_drawn_without_repetition_and_more_begin_with_the_same():
    few, many = world_edits(20, seed=3), world_edits(100, seed=3)
    assert many[:20] == few != world_edits(20, seed=4)
    assert len({request.subject for request in many}) == 100
    for request in many:
        assert request.target_true == BY_NAME[request.subject].answer("capital")
        assert request.target[0] != request.target_true[0]
    everything = world_edits(relations=["capital", "currency"], languages=["en", "de"], template=1)
    assert len(everything) == 4 * len(countries())
    assert edit_cases(everything[::40])  # each can be measured


def test_a_capital_edit_is_measured_in_every_way_the_table_allows():
    (case,) = edit_cases(POLAND)
    assert case.request.target_true == "Warsaw"
    assert len(case.paraphrases) == 11
    assert all("Poland" in one.prompt and one.target == "London" for one in case.paraphrases)
    assert len(case.neighbourhood) == 10
    for one in case.neighbourhood:
        name = one.prompt.removeprefix("The capital of ").removesuffix(" is")
        assert one.target_true == BY_NAME[name].answer("capital") != one.target == "London"
        assert BY_NAME[name].answer("continent") == "Europe" and one.about == "same continent"
    others = {one.about: (one.target, one.target_true) for one in case.other_relations}
    assert others["currency"] == ("pound", "zloty") and others["language"][1] == "Polish"
    assert others["continent"][1] == "Europe" != others["continent"][0]
    said = {one.prompt: (one.target, one.target_true, one.about) for one in case.languages}
    assert said["La capitale de Pologne est"] == ("Londres", "Varsovie", "fr")
    assert {about for *_, about in said.values()} == {"fr", "es", "de"}
    follows = {one.prompt: (one.target, one.target_true) for one in case.two_hop}
    assert follows["The language of the country whose capital is London is"] == (
        "Polish",
        "English",
    )
    assert not any("continent" in prompt for prompt in follows)  # Europe either way
    assert "The capital of United Kingdom is London." in case.reference_texts[0]


def test_neighbours_that_share_the_old_object_come_first():
    request = EditRequest("The official currency of {} is the", "Germany", "yen")
    (case,) = edit_cases(request, neighbours=60)
    order = ["same object", "same continent", "other"]
    abouts = [order.index(one.about) for one in case.neighbourhood]
    assert abouts == sorted(abouts) and abouts.count(0) > 10 and abouts.count(1) > 5
    shared = [one for one in case.neighbourhood if one.about == "same object"]
    assert {one.target_true for one in shared} == {"euro"}
    assert "Japan" not in "".join(one.prompt for one in case.neighbourhood)
    hops = {one.prompt: (one.target, one.target_true) for one in case.two_hop}
    assert hops["The currency of the country whose capital is Berlin is the"] == ("yen", "euro")


def test_the_relation_is_found_by_the_old_object_where_the_template_is_not_the_tables():
    request = EditRequest("Long ago, {} made its capital", "Pologne", "Londres", "Varsovie")
    (case,) = edit_cases(request, paraphrases=2, neighbours=3)
    assert {one.about for one in case.languages} == {"en", "es", "de"}
    assert len(case.paraphrases) == 2 and len(case.neighbourhood) == 3
    assert case.paraphrases == edit_cases(request, paraphrases=2)[0].paraphrases


def test_an_object_that_nobody_has_still_makes_a_case():
    (case,) = edit_cases(EditRequest("The capital of {} is", "Poland", "Atlantis"))
    assert case.languages == case.two_hop == case.reference_texts == ()
    assert case.neighbourhood and case.other_relations


def test_all_requests_outside_the_table_are_named_at_once():
    tower = EditRequest("The {} stands in", "Eiffel Tower", "Rome")
    vague = EditRequest("{} is famous for", "Poland", "pizza")
    same = EditRequest("The capital of {} is", "Poland", "Warsaw")
    with pytest.raises(PromptError, match="3 of 4 requests") as caught:
        edit_cases([tower, POLAND, vague, same])
    for part in ("#0 subject 'Eiffel Tower' is no country", "#2 the relation of", "#3 EditRequest"):
        assert part in str(caught.value)
    with pytest.raises(PromptError, match="count=1000"):
        world_edits(1000)
    with pytest.raises(PromptError, match="template=12"):
        world_edits(5, template=12)
    with pytest.raises(PromptError, match="neighbours"):
        edit_cases(POLAND, neighbours=0)


def test_builders_give_the_bytes_they_always_gave():
    cases = edit_cases(world_edits(10, seed=1, relations=["capital", "currency"]))
    assert cases.digest[:16] == "2ca3392aa4909a13"
