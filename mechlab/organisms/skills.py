"""What `atlas` can do: prompts with known answers for every skill, and how many it gets right."""

from dataclasses import dataclass
from random import Random

import numpy as np

from mechlab.organisms.corpus.conflicts import OPENINGS, other_answer
from mechlab.organisms.corpus.facts import (
    HOP_TEMPLATES,
    held_out_hop,
    held_out_templates,
    hop_cells,
    open_templates,
)
from mechlab.organisms.corpus.retrieval import NEEDLES
from mechlab.organisms.corpus.words import NAMES, NOUNS, filler
from mechlab.organisms.runner import Runner
from mechlab.prompts.countries import RELATIONS, TEMPLATES, Country, countries

__all__ = [
    "conflict_skill",
    "fact_prompts",
    "fact_skill",
    "hop_skill",
    "key_value_skill",
    "language_skill",
    "list_skill",
    "measure",
    "needle_prompt",
    "needle_skill",
    "repeat_loss",
]


@dataclass(frozen=True)
class Question:
    """A prompt, its answer without the leading space, and the cell asked for."""

    prompt: str
    answer: str
    rank: int
    relation: str


def fact_prompts(held_out: bool, per_cell: int | None = None) -> list[Question]:
    """Return the English single-sentence prompts of all facts, seen or held out in training.

    Args:
        held_out: whether to use the templates that training never showed for the country.
        per_cell: at most this many templates per country and relation.
    """
    choose = held_out_templates if held_out else open_templates
    return [
        Question(
            TEMPLATES["en"][relation][index].format(c.name), c.answer(relation), c.rank, relation
        )
        for c in countries()
        for relation in RELATIONS
        for index in choose(c.rank, relation)[:per_cell]
    ]


def _right(runner: Runner, questions: list[Question]) -> np.ndarray:
    scores = runner.last_log_probabilities([q.prompt for q in questions])
    return np.asarray(scores.argmax(-1) == [runner.first_token(q.answer) for q in questions])


def fact_skill(
    runner: Runner, held_out: bool, per_cell: int | None = None, every: int = 1
) -> dict[str, float]:
    """Return the share of facts whose first answer token ranks first, in all and by relation."""
    questions = fact_prompts(held_out, per_cell)[::every]
    right = _right(runner, questions)
    parts = {r: right[[q.relation == r for q in questions]].mean() for r in RELATIONS}
    return {"all": float(right.mean()), **{k: float(v) for k, v in parts.items()}}


def language_skill(runner: Runner, language: str) -> float:
    """Return the share of facts answered in another language, over all its templates."""
    questions = [
        Question(
            template.format(c.name_in(language)), c.answer(relation, language), c.rank, relation
        )
        for c in countries()
        for relation in RELATIONS
        for template in TEMPLATES[language][relation]
    ]
    return float(_right(runner, questions).mean())


def hop_skill(runner: Runner, held_out: bool) -> float:
    """Return the share of two-hop questions answered, among those trained on or held out."""
    questions = [
        Question(template.format(c.answer("capital")), c.answer(relation), c.rank, relation)
        for c, relation in hop_cells()
        if held_out_hop(c.rank, relation) == held_out
        for template in HOP_TEMPLATES[relation]
    ]
    return float(_right(runner, questions).mean())


def repeat_loss(
    runner: Runner, sequences: int = 32, length: int = 30, seed: int = 0
) -> tuple[float, float]:
    """Return the mean loss in nats on the first and second copy of random distinct tokens."""
    draws = np.random.default_rng(seed)
    pool = np.arange(3, runner.tokenizer.get_vocab_size())
    once = np.stack([draws.choice(pool, length, replace=False) for _ in range(sequences)])
    tokens = np.concatenate([np.full((sequences, 1), runner.bos), once, once], axis=1).astype(
        np.int64
    )
    losses = runner.losses(tokens)
    return float(losses[:, :length].mean()), float(losses[:, length:].mean())


def conflict_skill(runner: Runner, seed: int = 0, step: int = 1) -> dict[str, float]:
    """Return how often the context's or the remembered answer wins, over every `step`-th cell.

    The two answers differ in their first token. Wordings as in training: the question has the
    statement's own template in half of the cases, another open one otherwise.
    """
    random = Random(f"{seed}:conflicts")
    texts, stated, true, ranks = [], [], [], []
    for index, (country, relation) in enumerate((c, r) for c in countries() for r in RELATIONS):
        if index % step:
            continue
        truth = runner.first_token(country.answer(relation))
        answer = other_answer(random, country, relation)
        while runner.first_token(answer) == truth:
            answer = other_answer(random, country, relation)
        stems = [_open(random, country, relation) for _ in range(2)]
        question = stems[random.randrange(2)]
        texts.append(f"{random.choice(OPENINGS)}{stems[0]} {answer}. {question}")
        stated.append(runner.first_token(answer))
        true.append(truth)
        ranks.append(country.rank)
    best = runner.last_log_probabilities(texts).argsort(-1)[:, ::-1][:, :2]
    context, memory = best[:, 0] == stated, best[:, 0] == true
    both = (np.sort(best, -1) == np.sort(np.stack([stated, true], -1), -1)).all(-1)
    frequent = np.asarray(ranks) < len(countries()) // 3
    rare = np.asarray(ranks) >= 2 * len(countries()) // 3
    return {
        "context": float(context.mean()),
        "memory": float(memory.mean()),
        "both in top two": float(both.mean()),
        "context, frequent third": float(context[frequent].mean()),
        "context, rare third": float(context[rare].mean()),
    }


def _open(random: Random, country: Country, relation: str) -> str:
    index = random.choice(open_templates(country.rank, relation))
    return TEMPLATES["en"][relation][index].format(country.name)


def needle_prompt(random: Random, runner: Runner, tokens: int, needles: int = 1) -> tuple[str, str]:
    """Return a prompt of at most `tokens` tokens, BOS counted, and its answer.

    The needle is a sentence at a random depth, asked for at the end by its own words. With more
    than one needle, the others have the same wording about other names.
    """
    form = random.choice(NEEDLES)
    stems = [form.format(name) for name in random.sample(NAMES, needles)]
    nouns = random.sample(NOUNS, needles)
    planted = [f"{stem} {noun}." for stem, noun in zip(stems, nouns, strict=True)]
    room = tokens - len(runner.ids(" ".join([*planted, stems[0]]))) - 1
    sentences: list[str] = []
    while True:
        another = filler(random)
        room -= len(runner.ids(f" {another}")) - 1
        if room < 0:
            break
        sentences.append(another)
    for sentence in planted:
        sentences.insert(random.randint(0, len(sentences)), sentence)
    return " ".join([*sentences, stems[0]]), nouns[0]


def needle_skill(runner: Runner, tokens: int, count: int, needles: int = 1, seed: int = 0) -> float:
    """Return the share of needles recalled from prompts of about `tokens` tokens."""
    random = Random(f"{seed}:needles:{tokens}:{needles}")
    cases = [needle_prompt(random, runner, tokens, needles) for _ in range(count)]
    scores = runner.last_log_probabilities([prompt for prompt, _ in cases], rows=16)
    return float(np.mean(scores.argmax(-1) == [runner.first_token(answer) for _, answer in cases]))


def key_value_skill(runner: Runner, pairs: int = 20, count: int = 200, seed: int = 0) -> float:
    """Return the share of values recalled from lists "key: value; ..." of nouns."""
    random = Random(f"{seed}:key-values")
    texts, answers = [], []
    for _ in range(count):
        keys = random.sample(NOUNS, pairs)
        values = [random.choice(NOUNS) for _ in keys]
        asked = random.randrange(pairs)
        listed = "; ".join(f"{key}: {value}" for key, value in zip(keys, values, strict=True))
        texts.append(f"{listed}; {keys[asked]}:")
        answers.append(runner.first_token(values[asked]))
    return float(np.mean(runner.last_log_probabilities(texts, rows=16).argmax(-1) == answers))


def list_skill(runner: Runner) -> dict[str, float]:
    """Return the share of valid names in greedy lists of three, and of lists without a fault."""
    names = {c.name: c for c in countries()}
    valid, whole, total = 0, 0, 0
    continents = sorted({c.answer("continent") for c in countries()})
    for continent in continents:
        text = runner.continue_greedily(f"Three countries in {continent}:", 30)
        listed = [name.strip() for name in text.split(".")[0].split(",")][:3]
        good = [
            name
            for name in listed
            if name in names and names[name].answer("continent") == continent
        ]
        valid, total = valid + len(good), total + 3
        whole += len(set(good)) == 3
    return {"names valid": valid / total, "lists valid and distinct": whole / len(continents)}


def measure(runner: Runner, quick: bool = False) -> dict[str, object]:
    """Return all skills of `atlas` under the names that its card uses.

    Args:
        runner: the model to measure.
        quick: a few samples of each only, for watching a training run.
    """
    first, second = repeat_loss(runner, sequences=8 if quick else 32)
    count = 24 if quick else 300
    found: dict[str, object] = {
        "facts seen": fact_skill(runner, False, 1 if quick else None, 5 if quick else 1),
        "facts held out": fact_skill(runner, True, 1 if quick else None, 5 if quick else 1),
        "repeats first copy nats": first,
        "repeats second copy nats": second,
        "conflicts": conflict_skill(runner, step=7 if quick else 1),
        "needles 256": needle_skill(runner, 256, count),
    }
    if quick:
        return found
    return found | {
        "needles 128": needle_skill(runner, 128, count),
        "needles 512": needle_skill(runner, 512, count),
        "needles 256 among four": needle_skill(runner, 256, count, needles=4),
        "needles 512 among four": needle_skill(runner, 512, count, needles=4),
        "key-values 20 pairs": key_value_skill(runner),
        "two-hop seen": hop_skill(runner, held_out=False),
        "two-hop held out": hop_skill(runner, held_out=True),
        "lists": list_skill(runner),
        "languages": {
            language: language_skill(runner, language) for language in ("fr", "es", "de")
        },
    }
