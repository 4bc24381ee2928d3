"""Readers for files of published data sets, each in the layout its authors gave it.

The files are not part of mechlab. Every reader lists all rows it cannot use, with line numbers.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from mechlab.errors import PromptError
from mechlab.prompts.arithmetic import result_of
from mechlab.prompts.drawing import chosen, pick
from mechlab.prompts.ioi import IoiWords
from mechlab.prompts.kinds import Fact, PromptPair
from mechlab.prompts.reading import collect, fill_template
from mechlab.prompts.records import Record, read_list, read_object, read_records
from mechlab.prompts.sets import PromptSet

__all__ = [
    "read_arithmetic_templates",
    "read_comp_mech",
    "read_lre",
    "read_mib_ioi",
    "read_one_to_many",
]

File = str | os.PathLike[str]


def read_comp_mech(path: File, *, corrupted: Literal["true", "base"] = "true") -> PromptSet[Any]:
    """Read the prompts of Ortu et al. 2024 (`full_data_sampled_*.json` of francescortu/comp-mech).

    The clean prompt redefines a fact ("Redefine: ... Chrysler. ..."); `answer` is the in-context,
    counterfactual token, `wrong_answer` the memorised, factual one: **a positive logit difference
    means that the context wins**. `about` says `row`, the row's number from 0.

    Args:
        path: the file.
        corrupted: the same text with the `true` answer in the context, or the `base` prompt
            without any context (fewer tokens: only for methods that read the last position).

    Raises:
        PromptError: when the file cannot be read, or listing all bad rows.
    """
    chosen("corrupted", [corrupted], ("true", "base"))
    fields = ("prompt", "base_prompt", "template", "target_true", "target_new")
    records = read_records(Path(path))
    number = {id(record): index for index, record in enumerate(records)}

    def pair(record: Record) -> PromptPair:
        prompt, base, template, true, new = _texts(record, fields)
        word, _, _ = prompt.partition(":")
        if template.count("{}") != 2 or prompt != _filled(template, word, new):
            raise PromptError("prompt is not the template with a word and target_new")
        other = base if corrupted == "base" else _filled(template, word, true)
        row = number[id(record)]
        return PromptPair(
            prompt, other, new, true, label=f"{base}: {new.strip()} (row {row})",
            about=(("row", row),),
        )  # fmt: skip

    return collect(Path(path), records, pair)


def read_lre(path: File, *, template: int = 0, zero_shot: bool = False) -> PromptSet[Any]:
    """Read one relation of Hernandez et al. 2024 (a JSON file of evandez/relations) as facts.

    Args:
        path: the file.
        template: number of the relation's prompt template.
        zero_shot: take the templates written for use without examples.

    Raises:
        PromptError: when the file cannot be read, the template does not exist, or listing all bad
            samples.
    """
    path = Path(path)
    name = "prompt_templates_zs" if zero_shot else "prompt_templates"
    templates = read_object(path).get(name)
    if not isinstance(templates, list) or template not in range(len(templates)):
        has = len(templates) if isinstance(templates, list) else "no"
        raise PromptError(
            f"{path} has {has} {name}, and template={template!r} is asked for.\n"
            "  Allowed: numbers from 0 of those it has.\n  Choose one, or check the file."
        )

    def fact(record: Record) -> Fact:
        subject, target = _texts(record, ("subject", "object"))
        return fill_template(templates[template], subject, target=target)

    return collect(path, read_records(path), fact)


def read_mib_ioi(folder: File) -> IoiWords:
    """Read templates, names, places and objects of MIB's IOI task, for `ioi(words=...)`.

    Raises:
        PromptError: when a file cannot be read, or its entries cannot be used.
    """
    names, places, objects, templates = (
        read_list(Path(folder) / f"{name}.json")
        for name in ("names", "places", "objects", "templates")
    )
    field = {"name_A": "a", "name_B": "b", "name_C": "c"}
    ours = []
    for template in templates:
        for theirs, name in field.items():
            template = template.replace(f"{{{theirs}}}", f"{{{name}}}")
        ours.append(template)
    vowels = any(word[0].lower() in "aeiou" for word in objects)
    kept = [text for text in ours if vowels or " an {object}" not in text]
    return IoiWords(tuple(kept), tuple(names), tuple(places), tuple(objects))


def read_one_to_many(path: File, *, seed: int = 0) -> PromptSet[Any]:
    """Read a step of "Promote, Suppress, Iterate" (one .jsonl file: a data set, model and step).

    As `one_to_many`: `answer` is this step's, `wrong_answer` the one given before it, or at step 1
    the answer of the corrupted row. Corrupted is another row, drawn by `seed`; it need not align.
    Special tokens at the start are left out, for the model puts its own; so are quotation marks
    around titles, for an answer follows its prompt after a space.

    Raises:
        PromptError: when the file cannot be read, or listing all bad rows.
    """
    path = Path(path)
    records = read_records(path)
    rows: dict[int, tuple[str, tuple[str, ...], int, str]] = {}

    def row(record: Record) -> PromptPair:
        query, subject = _texts(record, ("query", "subject"))
        answers, step = record.fields.get("three_answers_label_list"), _step(record)
        listed = isinstance(answers, list) and all(isinstance(a, str) for a in answers)
        if not listed or len(answers) != 3:  # type: ignore[arg-type]
            raise PromptError("three_answers_label_list is not a list of three texts")
        query = query.removeprefix("<|begin_of_text|>").removeprefix("<s>")
        query = query.replace('"', "").strip()
        if subject not in query:
            raise PromptError(f"subject {subject!r} does not occur in the query")
        rows[record.line] = (query, tuple(answers), step, subject)  # type: ignore[arg-type]
        return PromptPair(query, query, "answer", "wrong")  # checks the text; made below

    collect(path, records, row)
    return PromptSet(tuple(_many_pairs(list(rows.values()), seed)), path.stem)


def _many_pairs(rows: list[tuple[str, tuple[str, ...], int, str]], seed: int) -> list[PromptPair]:
    pairs = []
    for index, (query, answers, step, subject) in enumerate(rows):
        answer = answers[step - 1]
        first = pick(range(len(rows)), seed, "row", index)
        others = (*range(first, len(rows)), *range(first))
        wanted = (
            o for o in others if rows[o][1][step - 1] not in answers and rows[o][3] != subject
        )
        if (other := next(wanted, None)) is None:
            raise PromptError(
                f"no row has a subject and answers other than those of {subject!r}.\n"
                "  Allowed: files of two or more subjects.\n  Check that it is the right file."
            )
        wrong = answers[step - 2] if step > 1 else rows[other][1][0]
        start = query.index(subject)
        about: dict[str, str | int] = {"step": step, "subject": subject}
        about |= {f"answer_{k}": a.strip() for k, a in enumerate(answers, start=1)}
        places = [("subject", start, start + len(subject)), *_given(query, answers, step)]
        pairs.append(
            PromptPair(
                query, rows[other][0], answer, wrong,
                label=f"{subject} #{step}: {answer.strip()}", group=f"subject {subject}",
                places=tuple(places), about=tuple(about.items()),
            )
        )  # fmt: skip
    return pairs


def _given(query: str, answers: tuple[str, ...], step: int) -> list[tuple[str, int, int]]:
    """Return the places of the answers that the prompt already holds."""
    found, start = [], 0
    for k, answer in enumerate(answers[: step - 1], start=1):
        if (start := query.find(answer.strip(), start)) < 0:
            raise PromptError(f"answer {answer!r} does not occur in the query {query!r:.60}")
        found.append((f"answer_{k}", start, start + len(answer.strip())))
        start += len(answer.strip())
    return found


def _step(record: Record) -> int:
    step = record.fields.get("target_answer_idx")
    if type(step) is not int or not 1 <= step <= 3:
        raise PromptError(f"target_answer_idx is {step!r}, not 1, 2 or 3")
    return step


def read_arithmetic_templates(path: File) -> Mapping[str, tuple[str, ...]]:
    """Read `three_operand_questions.json` of alestolfo/lm-arithmetic, for `arithmetic(templates=)`.

    Raises:
        PromptError: when the file cannot be read, or listing all formulas that cannot be used.
    """
    found, bad = dict[str, tuple[str, ...]](), list[str]()
    for formula, text in read_object(Path(path)).items():
        try:
            result_of(formula, {"x": 1, "y": 1, "z": 1})
        except PromptError as err:
            bad.append(f"  {formula!r}: {str(err).splitlines()[0]}")
            continue
        if not isinstance(text, str) or any(text.count(f"{{{f}}}") != 1 for f in "xyz"):
            bad.append(
                f"  {formula!r}: {text!r:.60} does not hold {{x}}, {{y}} and {{z}} once each"
            )
            continue
        found[formula] = (text.strip(),)
    if bad or not found:
        raise PromptError(
            f"{len(bad)} of {len(found) + len(bad)} formulas of {path} cannot be used:\n"
            + "\n".join(bad)
            + "\n  Correct or remove these; nothing was read."
        )
    return found


def _filled(template: str, word: str, target: str) -> str:
    before, middle, after = template.split("{}")
    return f"{before}{word}{middle}{target}{after}"


def _texts(record: Record, names: tuple[str, ...]) -> list[str]:
    values = [record.fields.get(name) for name in names]
    wrong = [n for n, v in zip(names, values, strict=True) if not isinstance(v, str) or not v]
    if wrong:
        raise PromptError(f"no text under {', '.join(wrong)}")
    return values  # type: ignore[return-value]
