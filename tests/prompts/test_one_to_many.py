"""Questions with several answers: what is given, what is asked, and who the partner is."""

import pytest
from tokenizer_only import atlas_tokenizer

from mechlab.errors import PromptError
from mechlab.prompts import CITIES, countries, many_answers, named_positions, one_to_many

relations = pytest.mark.parametrize("relation", ["cities", "continent", "language", "currency"])
forms = pytest.mark.parametrize("form", ["list", "numbered", "sentence"])


def test_the_table_names_known_countries_and_no_city_twice() -> None:
    cities = [city for answers in CITIES.values() for city in answers]
    assert len(set(cities)) == len(cities) and min(map(len, CITIES.values())) >= 3
    assert set(CITIES) <= {country.name for country in countries()}


@relations
def test_every_list_holds_those_that_the_table_of_countries_says(relation: str) -> None:
    if relation != "cities":
        for subject, names in many_answers(relation).items():
            assert names == tuple(c.name for c in countries() if c.answer(relation) == subject)


@relations
@forms
def test_each_step_gives_the_answers_before_it(relation: str, form: str) -> None:
    pairs = one_to_many(30, relation=relation, form=form) if relation == "cities" else one_to_many(
        relation=relation, form=form  # type: ignore[arg-type]
    )  # fmt: skip
    for pair in pairs:
        about = dict(pair.about)
        answers = [str(about[f"answer_{k}"]) for k in (1, 2, 3)]
        step = int(about["step"])
        assert answers == list(many_answers(relation)[str(about["subject"])])[:3]
        held = {name: pair.clean[a:b] for name, a, b in pair.places}
        given = {f"answer_{k}": answers[k - 1] for k in range(1, step)}
        assert held == {"subject": about["subject"], **given}
        assert pair.answer == answers[step - 1]
        assert step == 1 or pair.wrong_answer == answers[step - 2]
        assert not set(answers) & {pair.corrupted[a:b] for _, a, b in pair.corrupted_places}


def test_the_wording_of_the_forms() -> None:
    texts = {
        form: one_to_many(form=form, steps=3)[0].clean  # type: ignore[arg-type]
        for form in ("list", "numbered", "sentence")
    }
    assert texts["list"].startswith("Three cities in ") and texts["list"].endswith(",")
    assert texts["numbered"].endswith(" 3.") and texts["sentence"].endswith(", and")


def test_steps_of_one_subject_are_one_group_and_follow_each_other() -> None:
    pairs = one_to_many(30)
    assert [pairs.groups[i] for i in (0, 1, 2)] == [pairs.groups[0]] * 3
    assert pairs.about("step")[:6] == (1, 2, 3, 1, 2, 3)
    assert one_to_many(12).digest == pairs[:12].digest


def test_drawn_answers_are_others_and_depend_on_the_seed() -> None:
    drawn = [one_to_many(order="drawn", seed=seed) for seed in (0, 1)]
    assert drawn[0].digest != drawn[1].digest and set(drawn[0].about("answer_1")) - set(
        one_to_many().about("answer_1")
    )


def test_with_a_model_pairs_align_and_answers_differ() -> None:
    model = atlas_tokenizer()
    pairs = one_to_many(relation="cities", model=model, steps=(1, 2))
    for pair in pairs:
        assert len(set(model.tokenize([pair.clean, pair.corrupted]).lengths)) == 1
    assert named_positions(model, pairs, "subject") == named_positions(
        model, pairs, "subject", corrupted=True
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relation": "songs"}, "(?s)relation=.*songs.*'cities'"),
        ({"form": "ode"}, "form="),
        ({"steps": (0, 4)}, "steps="),
        ({"order": "up"}, "order="),
        ({"count": 10**5}, "(?s)only [0-9]+ prompts of 'cities'"),
    ],
)
def test_what_cannot_be_made_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        one_to_many(**options)  # type: ignore[arg-type]
