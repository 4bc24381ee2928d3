import pytest

from mechlab.errors import OptionError
from mechlab.prompts.countries import LANGUAGES, RELATIONS, TEMPLATES, countries


def test_every_cell_holds_one_answer() -> None:
    table = countries()
    assert len(table) == 197
    assert [country.rank for country in table] == list(range(197))
    for country in table:
        for language in LANGUAGES:
            cells = [country.name_in(language)]
            cells += [country.answer(relation, language) for relation in RELATIONS]
            assert all(cell and cell == cell.strip() for cell in cells), country.name


def test_names_and_codes_are_unique() -> None:
    assert len({country.name for country in countries()}) == 197
    assert len({country.code for country in countries()}) == 197


def test_known_cells() -> None:
    (poland,) = (country for country in countries() if country.name == "Poland")
    assert [poland.answer(relation) for relation in RELATIONS] == [
        "Warsaw",
        "Polish",
        "zloty",
        "Europe",
    ]
    assert poland.name_in("de") == "Polen"
    assert poland.answer("capital", "fr") == "Varsovie"


def test_no_template_continues_another() -> None:
    # Otherwise the shorter prompt would have two right continuations.
    for templates in TEMPLATES.values():
        texts = [text for forms in templates.values() for text in forms]
        assert len(texts) == len(set(texts))
        assert not [(a, b) for a in texts for b in texts if a != b and b.startswith(a)]


def test_templates_name_the_country_once_and_end_before_the_answer() -> None:
    for templates in TEMPLATES.values():
        assert set(templates) == set(RELATIONS)
        for forms in templates.values():
            assert all(text.count("{}") == 1 and text == text.strip() for text in forms)
    assert all(len(forms) >= 8 for forms in TEMPLATES["en"].values())


def test_unknown_relations_and_languages_are_refused() -> None:
    with pytest.raises(OptionError, match="unknown relation 'river'.*capital, language"):
        countries()[0].answer("river")
    with pytest.raises(OptionError, match="unknown language 'it'.*en, fr, es, de"):
        countries()[0].name_in("it")
