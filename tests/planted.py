"""What the tests of several studies share: runs on saved folders, and many planted prompts."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import circuits

import mechlab as ml


class Unstored:
    """A store that keeps nothing and hands the whole set to the method: quick."""

    def run(self, function: Any, *args: Any, **options: Any) -> Any:
        return function(*args, **options)


def verdicts(out: Path) -> dict[str, str]:
    """Verdict per claim of the one report below a folder."""
    (file,) = out.glob("*/verdicts.json")
    return {name: c["verdict"] for name, c in json.loads(file.read_text())["claims"].items()}


def conflicts() -> ml.prompts.PromptSet:
    """Every country with three cities that are not its own, grouped by country."""
    pairs, cities = [], circuits.CITIES
    for i, country in enumerate(circuits.COUNTRIES):
        for step in (1, 2, 4):
            stated, other = cities[(i + step) % 6], cities[(i + step + 1) % 6]
            clean, corrupted = (f"they said {c} . {country} is" for c in (stated, other))
            pairs.append(ml.prompts.PromptPair(clean, corrupted, stated, cities[i], group=country))
    return ml.prompts.PromptSet(tuple(pairs), "conflicts")


def without_weights(study: ModuleType, capsys: Any) -> str:
    """What a study says when its weights are not there; its exit code must be 2."""
    assert study.main(["--model", "no-such-model-here"]) == 2
    return str(capsys.readouterr().err)
