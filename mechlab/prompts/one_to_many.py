"""Questions with several answers, asked one answer at a time.

Setting of "Promote, Suppress, Iterate" (arXiv 2502.20475): the first answers are in the prompt, the
next one is asked for. Tables are our own, from general knowledge: three to five cities per country,
largest or best known first, and the lists that the table of countries contains.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Literal, get_args

from mechlab.errors import PromptError
from mechlab.prompts.countries import countries
from mechlab.prompts.drawing import check_count, check_seed, chosen, number, ordered
from mechlab.prompts.kinds import PromptPair
from mechlab.prompts.places import Aligner, Tokenizes, Written, write
from mechlab.prompts.sets import PromptSet

__all__ = ["CITIES", "ManyForm", "ManyRelation", "many_answers", "one_to_many"]

ManyRelation = Literal["cities", "continent", "language", "currency"]
ManyForm = Literal["list", "numbered", "sentence"]

_CITIES = """
United States: New York, Los Angeles, Chicago, Houston, Boston
China: Shanghai, Beijing, Shenzhen, Wuhan, Nanjing
United Kingdom: London, Birmingham, Manchester, Liverpool, Glasgow
France: Paris, Marseille, Lyon, Toulouse, Nice
Germany: Berlin, Hamburg, Munich, Cologne, Frankfurt
Japan: Tokyo, Osaka, Nagoya, Kyoto, Hiroshima
Russia: Moscow, Kazan, Samara, Omsk, Ufa
India: Mumbai, Delhi, Chennai, Kolkata, Pune
Italy: Rome, Milan, Naples, Turin, Florence
Spain: Madrid, Barcelona, Valencia, Seville, Bilbao
Canada: Toronto, Montreal, Vancouver, Calgary, Ottawa
Brazil: Rio de Janeiro, Salvador, Brasilia, Fortaleza, Recife
Australia: Sydney, Melbourne, Brisbane, Perth, Adelaide
Mexico: Guadalajara, Monterrey, Puebla, Tijuana, Cancun
Turkey: Istanbul, Ankara, Izmir, Bursa, Antalya
Poland: Warsaw, Krakow, Gdansk, Poznan, Lublin
Netherlands: Amsterdam, Rotterdam, Utrecht, Eindhoven, Groningen
Belgium: Brussels, Antwerp, Ghent, Bruges, Liege
Switzerland: Zurich, Geneva, Basel, Bern, Lausanne
Austria: Vienna, Graz, Linz, Salzburg, Innsbruck
Portugal: Lisbon, Porto, Braga, Coimbra, Faro
Greece: Athens, Patras, Larissa, Volos
Sweden: Stockholm, Gothenburg, Uppsala, Lund
Norway: Oslo, Bergen, Trondheim, Stavanger
Denmark: Copenhagen, Aarhus, Odense, Aalborg
Finland: Helsinki, Espoo, Tampere, Turku
Ireland: Dublin, Cork, Limerick, Galway
Egypt: Cairo, Alexandria, Giza, Luxor, Aswan
South Africa: Johannesburg, Durban, Pretoria, Bloemfontein
Nigeria: Lagos, Kano, Abuja, Ibadan
Kenya: Nairobi, Mombasa, Kisumu, Nakuru
Morocco: Casablanca, Marrakesh, Rabat, Fez, Tangier
Argentina: Rosario, Mendoza, Salta, Cordoba
Colombia: Bogota, Medellin, Cali, Cartagena
Peru: Lima, Arequipa, Cusco, Trujillo
Chile: Santiago, Concepcion, Antofagasta, Temuco
South Korea: Seoul, Busan, Incheon, Daegu
Vietnam: Hanoi, Hue, Haiphong
Pakistan: Karachi, Lahore, Islamabad, Peshawar, Quetta
Ukraine: Kyiv, Kharkiv, Odesa, Lviv
Czech Republic: Prague, Brno, Ostrava, Plzen
Hungary: Budapest, Debrecen, Szeged, Pecs
Romania: Bucharest, Iasi, Constanta, Craiova
Saudi Arabia: Riyadh, Jeddah, Mecca, Medina
Israel: Tel Aviv, Haifa, Ashdod, Eilat
New Zealand: Auckland, Wellington, Christchurch, Hamilton
"""


def _table(text: str) -> Mapping[str, tuple[str, ...]]:
    rows = (line.partition(": ") for line in text.split("\n") if line)
    return MappingProxyType({name: tuple(cities.split(", ")) for name, _, cities in rows})


CITIES: Mapping[str, tuple[str, ...]] = _table(_CITIES)
"""Cities by country; no city is in two rows."""

_ASKED = {
    "cities": "Three cities in {subject}:",
    "continent": "Three countries in {subject}:",
    "language": "Three countries where people speak {subject}:",
    "currency": "Three countries that use the {subject}:",
}
_SENTENCES = {
    "cities": "The names of three cities in {subject} are",
    "continent": "The names of three countries in {subject} are",
    "language": "The names of three countries where people speak {subject} are",
    "currency": "The names of three countries that use the {subject} are",
}


@cache
def many_answers(relation: str) -> Mapping[str, tuple[str, ...]]:
    """Return all subjects of a relation with their answers, three or more each.

    Raises:
        PromptError: when there is no such relation.
    """
    chosen("relation", [relation], get_args(ManyRelation))
    if relation == "cities":
        return CITIES
    members: dict[str, list[str]] = {}
    for country in countries():
        members.setdefault(country.answer(relation), []).append(country.name)
    return MappingProxyType(
        {subject: tuple(names) for subject, names in members.items() if len(names) >= 3}
    )


def one_to_many(
    count: int | None = None,
    seed: int = 0,
    *,
    relation: ManyRelation = "cities",
    form: ManyForm = "list",
    steps: Sequence[int] | int = (1, 2, 3),
    order: Literal["table", "drawn"] = "table",
    model: Tokenizes | None = None,
) -> PromptSet[PromptPair]:
    """Return prompts that ask for the next of three answers.

    `answer` is the answer of this step. `wrong_answer` is the one given before it (so that the
    logit difference says how well what was given is suppressed), at step 1 the first answer of the
    corrupted prompt. The corrupted prompt is the same step about another subject with its answers.

    Pairs have the places `subject`, `answer_1`, `answer_2` as far as they are given, the group
    `subject` (all steps of a subject together), and `about`: `relation`, `form`, `step`, `subject`,
    `answer_1`, `answer_2`, `answer_3`. The three steps of a subject follow each other; the same
    arguments give the same bytes, and a larger `count` begins with the same pairs.

    Args:
        count: how many pairs; `None` for as many as there are.
        seed: which subjects come first, their partners, and with `order="drawn"` their answers.
        relation: `cities` of a country; or the countries of a `continent`, `language`, `currency`.
        form: `list` ("Three cities in Italy: Rome, Milan,", which `atlas` was trained on for
            countries), `numbered` ("1. Rome 2. Milan 3."), or `sentence`.
        steps: of 1, 2, 3; at step k the first k - 1 answers are in the prompt.
        order: answers as in the table, or drawn.
        model: the model that will read the prompts. With it, clean and corrupted prompts align
            place by place, and the answers of a prompt begin with different tokens.

    Raises:
        PromptError: an option outside its choices, or fewer pairs than asked for.
    """
    check_seed(seed)
    table = many_answers(relation)
    chosen("form", [form], get_args(ManyForm))
    chosen("order", [order], ("table", "drawn"))
    wanted = sorted(chosen("steps", steps, (1, 2, 3)))
    if count is not None:
        check_count(count, "prompts with several answers")
    label = (seed, "many", relation, form)
    three = {
        subject: tuple(answers if order == "table" else ordered(answers, *label, subject))[:3]
        for subject, answers in table.items()
    }
    aligner, pairs = Aligner(model), list[PromptPair]()
    for subject in sorted(three, key=lambda one: number(*label, "subject", one)):
        if count is not None and len(pairs) >= count:
            break
        pairs += _steps(subject, three, wanted, relation, form, label, aligner)
    if not pairs or (count is not None and len(pairs) < count):
        raise PromptError(
            f"only {len(pairs)} prompts of {relation!r} can be made"
            f"{'' if model is None else ' that align on this model'}, of "
            f"{'any number' if count is None else count} asked for.\n"
            "  Ask for fewer, or for another relation."
        )
    return PromptSet(tuple(pairs[:count]), f"one_to_many ({relation})")


def _steps(
    subject: str,
    three: Mapping[str, tuple[str, ...]],
    steps: Sequence[int],
    relation: str,
    form: str,
    label: tuple[object, ...],
    aligner: Aligner,
) -> Iterator[PromptPair]:
    """Yield the pairs of one subject, each with the first partner that aligns."""
    answers = three[subject]
    partners = ordered([s for s in three if not set(three[s]) & set(answers)], *label, subject)
    for step in steps:
        clean = _write(relation, form, subject, answers[: step - 1])
        if not aligner.first_tokens_differ(clean.text, answers):
            continue
        texts = [_write(relation, form, other, three[other][: step - 1]) for other in partners]
        (shape,) = aligner.shapes([clean])
        for other, text, found in zip(partners, texts, aligner.shapes(texts), strict=True):
            wrong = answers[step - 2] if step > 1 else three[other][0]
            fits = shape is not None and found == shape
            if fits and aligner.first_tokens_differ(clean.text, (answers[step - 1], wrong)):
                yield _pair(relation, form, step, subject, answers, wrong, clean, text)
                break


def _pair(
    relation: str,
    form: str,
    step: int,
    subject: str,
    answers: Sequence[str],
    wrong: str,
    clean: Written,
    corrupted: Written,
) -> PromptPair:
    listed = {f"answer_{k}": answer for k, answer in enumerate(answers, start=1)}
    about: dict[str, str | int] = {
        "relation": relation,
        "form": form,
        "step": step,
        "subject": subject,
    }
    about |= listed
    return PromptPair(
        clean.text,
        corrupted.text,
        answer=answers[step - 1],
        wrong_answer=wrong,
        label=f"{subject} #{step}: {answers[step - 1]} ({relation}, {form})",
        group=f"{relation} {subject}",
        places=clean.places,
        corrupted_places=corrupted.places,
        about=tuple(about.items()),
    )


def _write(relation: str, form: str, subject: str, given: Sequence[str]) -> Written:
    """Return the question with the answers given so far."""
    fields = [f"{{answer_{k}}}" for k in range(1, len(given) + 1)]
    if form == "numbered":
        listed = "".join(f" {k}. {field}" for k, field in enumerate(fields, start=1))
        pattern = f"{_ASKED[relation]}{listed} {len(given) + 1}."
    elif form == "list":
        pattern = _ASKED[relation] + "".join(f" {field}," for field in fields)
    else:
        last = " and" if len(given) == 2 else ""
        pattern = _SENTENCES[relation] + "".join(f" {field}," for field in fields) + last
    answers = {f"answer_{k}": answer for k, answer in enumerate(given, start=1)}
    return write(pattern, {"subject": subject, **answers})
