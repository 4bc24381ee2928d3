"""One fact to rewrite, with the prompts that measure it: from typed text, and as Python.

Nothing here touches Streamlit, the store or a model.
"""

from dataclasses import asdict
from typing import Any

import mechlab as ml

__all__ = ["case_code", "case_of", "lines", "protocol_of"]


def lines(text: str) -> list[str]:
    """Return the lines of a text that hold something, tidied."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def case_of(asked: Any, paraphrases: str, neighbours: str) -> Any:
    """Return what is edited and looked at: that of the country table where it knows the fact.

    Args:
        asked: the `EditRequest`.
        paraphrases: typed ones, one per line; with neighbours they replace the table's.
        neighbours: lines `prompt | object`.

    Raises:
        PromptError: when it cannot be used.
    """
    try:
        found = ml.prompts.edit_cases(asked)[0]
    except ml.PromptError:
        found = ml.prompts.EditCase(asked, generation_prompts=(asked.prompt,))
    if not (paraphrases or neighbours):
        return found
    return ml.prompts.EditCase(
        found.request,
        paraphrases=lines(paraphrases),
        neighbourhood=[_neighbour(line, asked.target) for line in lines(neighbours)],
        generation_prompts=found.generation_prompts,
        reference_texts=found.reference_texts,
    )


def _neighbour(line: str, new_object: str) -> dict[str, str]:
    prompt, _, kept = (part.strip() for part in line.rpartition("|"))
    if not prompt or not kept:
        raise ml.PromptError(f"The neighbour {line!r} is not written as: prompt | object.")
    return {"prompt": prompt, "target": new_object, "target_true": kept, "about": kept}


def protocol_of(request: Any) -> str:
    """Both objects are compared where there are both; else the new one must come out.

    Args:
        request: the `FactEditRequest`; one that cannot be used yet counts as usual.
    """
    try:
        case = request.case()
    except ml.MechlabError:
        return "counterfact"
    every = [one for kind in ml.prompts.PROMPT_KINDS for one in case.prompts_of(kind)]
    both = all(one.target and one.target_true for one in every)
    return "counterfact" if both else "exact"


def case_code(asked: Any, case: Any, *, typed: bool) -> str:
    """Return Python that makes a case; the request alone where the country table has the rest.

    Args:
        asked: the `EditRequest` as it was typed.
        case: what `case_of` made of it.
        typed: whether there are typed prompts.
    """
    if not typed and len(case.generation_prompts) > 1:
        given = ", ".join(repr(text) for text in asdict(asked).values() if text)
        return f"ml.as_edit_cases(ml.EditRequest({given}))"
    held = {name: value for name, value in asdict(case).items() if value and name != "request"}
    held |= {
        name: [{n: v for n, v in one.items() if v} for one in held[name]]
        for name in ("paraphrases", "neighbourhood")
        if name in held
    }
    made = f"ml.EditRequest({', '.join(map(repr, asdict(case.request).values()))})"
    rows = "".join(f"    {name}={value!r},\n" for name, value in held.items())
    return f"ml.as_edit_cases(ml.prompts.EditCase(\n    {made},\n{rows}))"
