"""`mechlab stats`: the key statistics that edits need, counted once and kept."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mechlab.cli.editing.options import Corpus, Ridge, SiteName, Tokens
from mechlab.cli.options import (
    Cache,
    Device,
    Dtype,
    Estimate,
    JsonOutput,
    ModelName,
    given,
    whole_numbers,
)

if TYPE_CHECKING:
    from mechlab.methods import KeyStatistics
    from mechlab.models import Model
    from mechlab.store import Entry, Store

__all__ = ["perform_stats", "stats"]

_KEYS = "Key statistics"


def stats(
    model: ModelName = "atlas",
    layers: Annotated[
        str | None,
        typer.Option(
            "--layer", "--layers", help="Such as 0,4-7; all if left out.", rich_help_panel=_KEYS
        ),
    ] = None,
    corpus: Corpus = None,
    tokens: Tokens = 100_000,
    seed: Annotated[
        int | None, typer.Option(help="Of the shipped corpus.", rich_help_panel=_KEYS)
    ] = None,
    site: SiteName = None,
    max_length: Annotated[
        int | None,
        typer.Option(help="Tokens per text; the context if left out.", rich_help_panel=_KEYS),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="Of the products of keys: float32 or float64; sums are float64.",
            rich_help_panel=_KEYS,
        ),
    ] = None,
    ridge: Ridge = None,
    stored: Annotated[
        bool, typer.Option("--list", help="List what is stored, and count nothing.")
    ] = False,
    device: Device = "auto",
    dtype: Dtype = "float32",
    estimate: Estimate = False,
    as_json: JsonOutput = False,
    cache: Cache = None,
) -> None:
    """Count the keys of layers over text: the second moment of what enters each down projection.

    Edits preserve what these keys carry. Without arguments it counts 100,000 tokens of the shipped
    corpus in all layers of `atlas`, in one pass. Layers that are stored are not counted again; a
    killed count goes on where it was.
    """
    if stored:
        _list(cache, model, as_json=as_json)
        return
    options = given(
        layer=whole_numbers(layers, "--layer"), corpus=corpus, tokens=tokens, seed=seed, site=site,
        max_length=max_length, dtype=precision, ridge=ridge,
    )  # fmt: skip
    about = {"name": model, "device": device, "dtype": dtype}
    perform_stats(about, options, estimate=estimate, as_json=as_json, cache=cache)


def perform_stats(
    about: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    estimate: bool = False,
    as_json: bool = False,
    cache: str | None = None,
) -> None:
    """Count key statistics, or take them from the store, and say how well they are conditioned.

    Args:
        about: arguments of `load_model`.
        options: of `stored_key_statistics`; all layers when none are named.
        estimate: say what would be counted, and stop.
        as_json: print one JSON object.
        cache: where they are kept.

    Raises:
        MechlabError: when they cannot be counted.
    """
    from mechlab.cli.bar import progress_bar
    from mechlab.cli.editing.usual import note_foreign_corpus
    from mechlab.methods import stored_key_statistics
    from mechlab.models import load_model
    from mechlab.store import Store

    store, model = Store(cache), load_model(**about)
    note_foreign_corpus(model, options)
    wanted = {"layer": range(model.n_layers), **options}
    layers = [wanted["layer"]] if isinstance(wanted["layer"], int) else list(wanted["layer"])
    before = _stored_layers(store, model, wanted)
    if estimate:
        _print_estimate(model, wanted, [one for one in layers if one not in before], as_json)
        return
    with progress_bar("key statistics") as progress:
        found = stored_key_statistics(store, model, progress=progress, **wanted)
    if as_json:
        print(json.dumps({"model": model.name, "layers": _rows(found, before), **_about(found)}))
    else:
        _print(model, found, before)


def _about(found: "KeyStatistics") -> dict[str, Any]:
    return {
        "site": found.site,
        "d_in": int(found.moments.shape[1]),
        "tokens": found.tokens,
        "corpus": found.corpus,
        "corpus_digest": found.corpus_digest,
        "dtype": found.dtype,
    }


def _rows(found: "KeyStatistics", before: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "layer": layer,
            "condition": None if condition == float("inf") else float(f"{condition:.6g}"),
            "ridge": float(f"{ridge:.6g}"),
            "mean_eigenvalue": float(f"{moment.trace() / len(moment):.6g}"),
            "was_stored": layer in before,
        }
        for layer, condition, ridge, moment in zip(
            found.layers, found.condition, found.ridge, found.moments, strict=True
        )
    ]


def _print(model: "Model", found: "KeyStatistics", before: Sequence[int]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console()
    about = _about(found)
    names = ("layer", "condition number", "ridge", "mean eigenvalue", "")
    table = Table(*names, box=box.SIMPLE_HEAD)
    for row in _rows(found, before):
        condition = "infinite" if row["condition"] is None else f"{row['condition']:.2g}"
        ridge = f"{row['ridge']:.2g}" if row["ridge"] else "none"
        came = "from the store" if row["was_stored"] else "counted"
        mean = f"{row['mean_eigenvalue']:.3g}"
        table.add_row(str(row["layer"]), condition, ridge, mean, came)
    head = (
        f"keys of {about['site']} of {model.name}: {about['tokens']:,} tokens of "
        f"{about['corpus']!r} in {about['dtype']}, {about['d_in']} entries each "
        f"({about['tokens'] / about['d_in']:,.0f} tokens per entry)"
    )
    console.print(head, markup=False, highlight=False, soft_wrap=True)
    console.print(table)


# --- what is stored -------------------------------------------------------------------------------


def _stored_layers(store: "Store", model: "Model", options: Mapping[str, Any]) -> list[int]:
    """Return the layers of which statistics of the same corpus and size are stored."""
    name, tokens = _corpus_name(options.get("corpus", "atlas")), options.get("tokens", 100_000)
    return [
        int(entry.options["layer"])
        for entry in store.find(method="key_statistics", model=model.fingerprint)
        if entry.name == name and entry.options.get("tokens") == tokens
    ]


def _corpus_name(corpus: Any) -> str:
    from mechlab.methods.editing.corpora import corpus_name

    return corpus_name(corpus)


def _print_estimate(
    model: "Model", options: Mapping[str, Any], missing: Sequence[int], as_json: bool
) -> None:
    from mechlab.methods.editing.corpora import check_corpus
    from mechlab.methods.editing.modules import check_layers

    check_corpus(options.get("corpus", "atlas"))
    if missing:
        check_layers(model, list(missing))
    tokens = int(options.get("tokens", 100_000)) if missing else 0
    if as_json:
        print(json.dumps({"layers_to_count": list(missing), "tokens": tokens}))
    elif missing:
        print(f"{tokens:,} tokens through the first {max(missing) + 1} of {model.n_layers} layers")
    else:
        print("all of these layers are stored already; showing them counts nothing")


def _list(cache: str | None, model: str, *, as_json: bool) -> None:
    from mechlab.store import Store

    store = Store(cache)
    entries = store.find(method="key_statistics")
    if as_json:
        print(json.dumps({"store": store.root, "statistics": [_entry(one) for one in entries]}))
        return
    if not entries:
        print(f"no key statistics in {store.root}")
        return
    _print_entries(entries)


def _entry(entry: "Entry") -> dict[str, Any]:
    options = dict(entry.options)
    names = ("layer", "site", "tokens", "max_length", "dtype")
    return {
        "run": entry.id, "model": entry.model_name, "corpus": entry.name,
        **{name: options.get(name) for name in names}, "created": entry.created,
        "bytes": entry.size,
    }  # fmt: skip


def _print_entries(entries: "Sequence[Entry]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    names = ("run", "model", "layer", "site", "corpus", "tokens", "dtype", "kB")
    table = Table(*names, box=box.SIMPLE_HEAD)
    for row in sorted(map(_entry, entries), key=lambda r: (r["model"], r["corpus"], r["layer"])):
        cells = [row[name] for name in names[:-1]]
        table.add_row(*map(str, cells), f"{row['bytes'] / 1000:.0f}")
    Console().print(table)
