"""An edit in words: what the model says before and after; as text, one JSON object, and a page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mechlab.cli.editing.rows import generation_rows, prompt_rows, request_rows
from mechlab.cli.editing.tables import edit_facts, plain, summary_rows, summary_table

if TYPE_CHECKING:
    import plotly.graph_objects as go
    import xarray as xr

    from mechlab.cli.editing.effects import Effects
    from mechlab.methods import Edit
    from mechlab.models import Model
    from mechlab.prompts import PromptSet

__all__ = ["EditReport"]

_STAYS = ("neighbourhood", "other_relations")
"""Kinds of prompts whose old object is right with the edit, too."""


@dataclass(frozen=True)
class EditReport:
    """Everything about an edit that is shown."""

    model: "Model"
    edit: "Edit"
    cases: "PromptSet[Any]"
    effects: "Effects"
    kept: Mapping[str, str]
    """Where it was saved and exported."""
    top: int = 10
    """How many requests, and prompts that went wrong, are listed."""

    def show(self, html: Path, *, as_json: bool) -> None:
        """Write the figures, and print text or one JSON object.

        Raises:
            OptionError: when a figure cannot be written.
        """
        from rich.console import Console

        from mechlab.cli.report_kind import Report
        from mechlab.cli.work import write_figures

        def no_text(result: "xr.Dataset", /, *, run: str, html: Path | None) -> None: ...

        report = Report(lambda _: self._figure(), no_text, no_text, lambda _: self._more())
        page = write_figures(report, self.effects.after, html)
        if as_json:
            print(json.dumps(self._json(page), ensure_ascii=False, allow_nan=False))
            return
        console = Console()
        for part in self._text(page):
            if isinstance(part, str):
                console.print(part, markup=False, highlight=False, soft_wrap=True)
            else:
                console.print(part)

    # --- pictures ---------------------------------------------------------------------------------

    def _figure(self) -> "go.Figure":
        from mechlab import plots

        title = self.edit.requests[0].label if len(self.edit.requests) == 1 else None
        return plots.edit_bars(
            self.effects.summary, before=self.effects.summary_before, title=title
        )

    def _more(self) -> "dict[str, go.Figure]":
        from mechlab import plots

        drift = self.effects.drift
        return {} if drift is None else {"drift": plots.drift(drift)}

    # --- text -------------------------------------------------------------------------------------

    def _text(self, page: Path | None) -> list[Any]:
        from mechlab.cli.report_kind import beside

        lines: list[Any] = [*self._what(), "", self._probabilities(), *self._next()]
        lines += ["", summary_table(self.effects.summary), *self._wrong(), *self._written()]
        lines += self._drift()
        lines += [f"edit      {self.edit.digest[:12]}"]
        lines += [f"{name:<9} {place}" for name, place in self.kept.items()]
        if page is not None:
            lines += [f"figure    {page}"]
            lines += [f"{name:<9} {beside(page, name)}" for name in self._more()]
        return lines

    def _what(self) -> list[str]:
        requests = self.edit.requests
        first = requests[0]
        old = f", instead of {first.target_true.strip()}" if first.target_true else ""
        asked = f"{first.prompt} → {first.target.strip()}{old}"
        more = f"  (and {len(requests) - 1} more requests)" if len(requests) > 1 else ""
        return [asked + more, self._how()]

    def _how(self) -> str:
        facts = edit_facts(self.edit)
        several = len(facts["layers"]) > 1
        layers = ", ".join(map(str, facts["layers"]))
        told = [
            f"{facts['method']}, layer{'s' if several else ''} {layers} of {self.model.n_layers} "
            f"({facts['site']}) of {self.model.name}",
            f"rank {facts['rank']}, norm {facts['norm']:.3g}",
        ]
        if facts["relative_norm"] is not None:
            told[-1] += f" ({100 * facts['relative_norm']:.0f} % of the weight's)"
        if facts["division_factor"] is not None:
            told.append(f"smallest division factor {facts['division_factor']:.3g}")
        return "; ".join(told)

    def _probabilities(self) -> Any:
        from rich import box
        from rich.table import Table

        table = Table("", *("before", "after"), title=None, box=box.SIMPLE_HEAD)
        for row in request_rows(self.cases, self.effects)[: self.top or 1]:
            for name, word in (("new", row["target"]), ("true", row["target_true"])):
                if word:
                    values = (row[f"probability_{name}_before"], row[f"probability_{name}"])
                    table.add_row(f"p({word} | {row['prompt']})", *map(_chance, values))
        return table

    def _next(self) -> list[str]:
        lines = []
        shown = zip(self.cases, self.effects.next_before, self.effects.next_after, strict=False)
        for case, before, after in list(shown)[: min(self.top, 3)]:
            lines += [
                f"next token after “{case.request.prompt}”",
                f"  before  {_tokens(before)}",
                f"  after   {_tokens(after)}",
            ]
        return lines

    def _wrong(self) -> list[str]:
        wrong = [
            row
            for row in prompt_rows(self.cases, self.effects)
            if row["success"] == 0 and row["kind"] != "rewrite"
        ]
        if not wrong or not self.top:
            return []
        few = f", {self.top} of them" if len(wrong) > self.top else ""
        lines = [
            f"{len(wrong)} prompts fail with the edit (first the object that should come){few}:"
        ]
        for row in wrong[: self.top]:
            order = [("target", "new"), ("target_true", "true")]
            said = ", ".join(
                f"{row[name]} {_chance(row[f'probability_{short}'])}"
                for name, short in (order[::-1] if row["kind"] in _STAYS else order)
                if row[name]
            )
            lines.append(f"  {row['kind'].replace('_', ' ')}: {row['prompt']} … {said}")
        return lines

    def _written(self) -> list[str]:
        texts = generation_rows(self.cases, self.effects)
        if not texts:
            return []
        lines = ["", "the most probable texts:"]
        for row in texts[: min(self.top, 6)]:
            lines += [f"  before  {row['before']}", f"  after   {row['after']}"]
        return lines

    def _drift(self) -> list[str]:
        drift = self._drift_numbers()
        if drift is None:
            return [""]
        return [
            "",
            f"drift on {drift['texts']} other texts: KL {drift['kl']:.2g} nats a token (largest "
            f"text {drift['largest_text']:.2g}), top token the same at "
            f"{100 * drift['same_top']:.1f} % of positions",
        ]

    # --- numbers ----------------------------------------------------------------------------------

    def _json(self, page: Path | None) -> dict[str, Any]:
        return {
            "model": self.model.name,
            "edit": {"digest": self.edit.digest, **edit_facts(self.edit)},
            "options": json.loads(self.edit.details.attrs.get("options", "{}")),
            "requests": request_rows(self.cases, self.effects),
            "summary": summary_rows(self.effects.summary),
            "prompts": prompt_rows(self.cases, self.effects),
            "generations": generation_rows(self.cases, self.effects),
            "drift": self._drift_numbers(),
            "saved": self.kept.get("saved"),
            "exported": self.kept.get("exported"),
            "figure": None if page is None else str(page),
        }

    def _drift_numbers(self) -> dict[str, Any] | None:
        drift = self.effects.drift
        if drift is None:
            return None
        by_text = drift["kl"].mean("pos")
        return {
            "texts": drift.sizes["prompt"],
            "kl": plain(drift["kl"].mean()),
            "largest_text": plain(by_text.max()),
            "same_top": plain(drift["same_top"].mean()),
        }


def _chance(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}" if value >= 1e-4 else f"{value:.0e}"


def _tokens(tokens: Sequence[tuple[str, float]]) -> str:
    from mechlab.plots import show_token

    return "  ".join(f"{show_token(token)} {chance:.3f}" for token, chance in tokens)
