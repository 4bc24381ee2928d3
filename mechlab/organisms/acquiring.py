"""The acquisition record of `atlas`: how often each fact was seen and how well it is known."""

from pathlib import Path

import numpy as np

from mechlab.organisms.corpus.facts import held_out_templates, open_templates
from mechlab.organisms.runner import Runner
from mechlab.prompts.countries import RELATIONS, TEMPLATES, countries

__all__ = ["Record", "log_spaced"]

CONDITIONS = ("seen", "paraphrased", "held_out")


def log_spaced(steps: int, count: int = 24, first: int = 20) -> tuple[int, ...]:
    """Return step 0 and log-spaced steps up to `steps`, at most `count` in all."""
    if steps <= first:
        return tuple(sorted({0, steps // 2, steps}))
    spaced = np.geomspace(first, steps, count - 1).round().astype(int)
    return tuple(sorted({0, *(int(s) for s in spaced)}))


class Record:
    """Rows of the record, one per recorded step.

    Conditions: `seen` is the cell's first open template; `paraphrased` the mean log-probability
    over its next three open templates; `held_out` its first held-out template.
    """

    def __init__(self, path: Path) -> None:
        """Continue the record in `path`, or start an empty one."""
        self.path = path
        self.steps: list[int] = []
        self.exposures: list[np.ndarray] = []
        self.scores: list[np.ndarray] = []
        if path.exists():
            with np.load(path, allow_pickle=False) as kept:
                self.steps = [int(s) for s in kept["step"]]
                self.exposures = list(kept["exposures"])
                self.scores = list(kept["log_probability"])

    def forget_after(self, step: int) -> None:
        """Drop rows of steps later than `step`; they are made again when training resumes."""
        keep = sum(s <= step for s in self.steps)
        del self.steps[keep:], self.exposures[keep:], self.scores[keep:]

    def add(self, step: int, exposures: np.ndarray, runner: Runner) -> None:
        """Measure all facts and write the record anew; a step already there is left alone."""
        if step in self.steps:
            return
        self.steps.append(step)
        self.exposures.append(exposures.reshape(-1).astype(np.int32))
        self.scores.append(_scores(runner))
        self.save()

    def save(self) -> None:
        """Write all rows: arrays over step, condition and case, and the labels of these axes."""
        cases = [(c.name, c.rank, r) for c in countries() for r in RELATIONS]
        temporary = self.path.with_suffix(".tmp.npz")
        np.savez_compressed(
            temporary,
            step=np.asarray(self.steps, dtype=np.int32),
            condition=np.asarray(CONDITIONS),
            country=np.asarray([name for name, _, _ in cases]),
            rank=np.asarray([rank for _, rank, _ in cases], dtype=np.int16),
            relation=np.asarray([relation for _, _, relation in cases]),
            exposures=np.stack(self.exposures),
            log_probability=np.stack(self.scores).astype(np.float16),
        )
        temporary.replace(self.path)


def _scores(runner: Runner) -> np.ndarray:
    """Return log-probabilities of all first answer tokens, float32 [condition, case]."""
    texts, answers = [], []
    for country in countries():
        for relation in RELATIONS:
            forms = TEMPLATES["en"][relation]
            indices = (
                *open_templates(country.rank, relation)[:4],
                held_out_templates(country.rank, relation)[0],
            )
            texts += [forms[i].format(country.name) for i in indices]
            answers += [runner.first_token(country.answer(relation))] * len(indices)
    scores = runner.last_log_probabilities(texts)[np.arange(len(texts)), answers].reshape(-1, 5)
    return np.stack([scores[:, 0], scores[:, 1:4].mean(-1), scores[:, 4]]).astype(np.float32)
