"""An evaluation of edits in words: averages with intervals, one row per case, a figure."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mechlab.cli.editing.tables import plain, summary_rows, summary_table
from mechlab.errors import OptionError

if TYPE_CHECKING:
    from mechlab.cli.editing.evaluation import Done, Evaluation

__all__ = ["case_rows", "check_table_path", "print_estimate", "show", "write_table"]

_TABLES = (".csv", ".json", ".jsonl")


def show(
    task: "Evaluation", done: "Done", html: Path | None, per_case: Path | None, *, as_json: bool
) -> None:
    """Write the figure, and print the averages as text or one JSON object."""
    from rich.console import Console

    from mechlab import plots
    from mechlab.cli.work import default_figure

    figure = plots.edit_bars(done.summary, before=done.summary_before, title=_title(task))
    page = plots.write_html(figure, html or default_figure(task.store, done.run))
    if as_json:
        print(json.dumps(_about(task, done, page), ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    last = [f"run       {done.run}", f"figure    {page}"]
    last += [] if per_case is None else [f"cases     {per_case}"]
    for part in (_title(task), summary_table(done.summary, everything=True), *_drift(done), *last):
        if isinstance(part, str):
            console.print(part, markup=False, highlight=False, soft_wrap=True)
        else:
            console.print(part)


def _title(task: "Evaluation") -> str:
    plan, n = task.plan, len(task.cases)
    if task.loaded is not None:
        made = len(task.loaded.requests)
        return f"A saved edit of {made} request(s), on {n} case(s), {task.model.name}"
    name = str(plan.options.get("variant", "r-rome")).upper().replace("P-", "p-")
    name = name if plan.method == "rank-one" else {"memit": "MEMIT"}.get(plan.method, plan.method)
    layers = ", ".join(map(str, plan.layers))
    where = f"layer{'s' if len(plan.layers) > 1 else ''} {layers}"
    how = "all at once" if task.together else "each alone"
    return f"{n} edit(s) by {name} at {where} of {task.model.name}, {how}"


def _drift(done: "Done") -> list[str]:
    if done.drift is None:
        return []
    kl, same = float(done.drift["kl"].mean()), float(done.drift["same_top"].mean())
    return [
        f"drift on {done.drift.sizes['prompt']} other texts: KL {kl:.2g} nats a token, "
        f"top token the same at {100 * same:.1f} % of positions"
    ]


def _about(task: "Evaluation", done: "Done", page: Path) -> dict[str, Any]:
    return {
        "run": done.run,
        "model": task.model.name,
        "edit": task.plan.to_json() if task.loaded is None else {"digest": task.loaded.digest},
        "together": task.together,
        "options": dict(task.options),
        "summary": summary_rows(done.summary),
        "drift": None if done.drift is None else plain(done.drift["kl"].mean()),
        "cases": case_rows(done),
        "figure": str(page),
    }


def case_rows(done: "Done") -> list[dict[str, Any]]:
    """Return one row per case: what was asked, and every measure before and after."""
    after, before = done.after, done.before
    names = [str(n) for n, one in after.data_vars.items()
             if one.dims == ("case",) and bool(one.notnull().any())]  # fmt: skip
    chance = {name: np.exp(-one["nll"].sel(prompt_kind="rewrite").isel(prompt=0).values)
              for name, one in (("before", before), ("after", after))}  # fmt: skip
    rows: list[dict[str, Any]] = []
    for index, label in enumerate(after["case"].values):
        row: dict[str, Any] = {"case": str(label), "subject": str(after["subject"].values[index])}
        if "edit_digest" in after.coords:
            row["edit_digest"] = str(after["edit_digest"].values[index])
        for time, one in chance.items():
            for place, short in enumerate(("new", "true")):
                row[f"probability_{short}_{time}"] = plain(one[index, place])
        for name in names:
            row[name] = plain(after[name].values[index])
            if name in before:
                row[f"{name}_before"] = plain(before[name].values[index])
        rows.append(row)
    return rows


def check_table_path(path: Path) -> None:
    """Refuse a place for the table before anything is computed.

    Raises:
        OptionError: another ending, a folder, or one that does not exist.
    """
    lies = path.expanduser().absolute().parent.is_dir()
    if path.suffix.lower() not in _TABLES or path.is_dir() or not lies:
        raise OptionError(
            f"--per-case {path} cannot be written. Allowed: the name of a {', '.join(_TABLES)} "
            "file in an existing folder. Correct it."
        )


def write_table(done: "Done", path: Path) -> None:
    """Write one row per case.

    Raises:
        OptionError: when the file cannot be written.
    """
    rows, kind = case_rows(done), path.suffix.lower()
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            if kind == ".csv":
                from mechlab.plots import rows_to_csv

                file.write(rows_to_csv(rows))
            elif kind == ".json":
                file.write(json.dumps(rows, ensure_ascii=False, indent=1, allow_nan=False))
            else:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    except OSError as error:
        raise OptionError(
            f"{path} cannot be written: {error.strerror or error}. The result is stored. Give "
            "another place with --per-case."
        ) from error


def print_estimate(task: "Evaluation", *, as_json: bool) -> None:
    """Say what the evaluation would take, without running the model."""
    from mechlab.canonical import digest
    from mechlab.prompts import PROMPT_KINDS

    stored = not task.together and digest(task.source) in task.store
    prompts = sum(len(case.prompts_of(kind)) for case in task.cases for kind in PROMPT_KINDS)
    edits = 0 if stored or task.loaded is not None else len(task.cases)
    about = {"stored": stored, "edits": edits, "scored_prompts": 0 if stored else 2 * prompts}
    seconds = None if stored else _seconds(task)
    if as_json:
        print(json.dumps({**about, "seconds": 0.0 if stored else seconds}))
    elif stored:
        print("the evaluation is stored already; showing it computes nothing")
    else:
        told = f", about {seconds:,.0f} s at the speed of the last one" if seconds else ""
        print(f"{edits} edits, {about['scored_prompts']:,} prompts scored, before and after{told}")


def _seconds(task: "Evaluation") -> float | None:
    """Return the time at the speed of the last stored evaluation of single edits."""
    if task.together:
        return None
    for entry in task.store.find(method="evaluate_each_edit", model=task.model.fingerprint):
        before = int(entry.sizes.get("case", 0))
        if entry.wall_seconds > 0 and before:
            return len(task.cases) * entry.wall_seconds / before
    return None
