"""World facts: exact, nested in their count, and in the forms of the table."""

import subprocess
import sys
from typing import Any

import pytest

from mechlab.errors import PromptError
from mechlab.prompts import countries, world_facts
from mechlab.prompts.countries import TEMPLATES


def test_all_facts_come_in_the_order_of_the_table() -> None:
    facts = world_facts()
    assert len(facts) == len(countries())
    template = TEMPLATES["en"]["capital"][0]
    for fact, country in zip(facts, countries(), strict=True):
        assert fact.prompt == template.format(country.name)
        assert (fact.subject, fact.target) == (country.name, country.answer("capital"))


def test_the_same_arguments_give_the_same_bytes_in_another_process() -> None:
    code = "from mechlab.prompts import world_facts; print(world_facts(40, seed=3).digest)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == world_facts(40, seed=3).digest != world_facts(40, seed=4).digest


def test_a_larger_count_begins_with_the_same_facts() -> None:
    assert world_facts(50, seed=1)[:20].digest == world_facts(20, seed=1).digest


def test_the_subject_is_where_the_template_has_it() -> None:
    everything = world_facts(
        relations=["capital", "language", "currency", "continent"],
        languages=["en", "fr", "es", "de"],
        templates=None,
    )
    sentences = sum(len(texts) for table in TEMPLATES.values() for texts in table.values())
    assert len(everything) == len(countries()) * sentences
    for fact in everything[:sentences]:
        start, end = fact.subject_span
        table = [text for texts in TEMPLATES.values() for t in texts.values() for text in t]
        assert fact.prompt[:start] + "{}" + fact.prompt[end:] in table


def test_sentences_are_chosen_by_number() -> None:
    facts = world_facts(relations=["currency"], templates=[1, 0])
    assert facts[0].prompt == TEMPLATES["en"]["currency"][1].format(countries()[0].name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relations": ["anthem"]}, "relations=.*'anthem'"),
        ({"relations": "capital"}, "relations='capital'"),
        ({"languages": []}, r"languages=\[\]"),
        ({"templates": [99]}, r"templates \[99\] of 'capital' in 'en' do not exist"),
        ({"count": 0}, "count=0 facts"),
        ({"count": 10_000}, "count=10000 facts"),
    ],
)
def test_what_does_not_exist_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=f"(?s){message}.*Allowed: "):
        world_facts(**options)
