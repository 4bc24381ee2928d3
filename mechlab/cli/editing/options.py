"""Options of `mechlab edit` and `mechlab edit-eval`: how an edit is made."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from mechlab.cli.editing.plan import EditPlan
from mechlab.cli.options import whole_numbers
from mechlab.errors import OptionError

__all__ = [
    "Clamp",
    "Corpus",
    "DecayWeight",
    "Drift",
    "Generate",
    "KlWeight",
    "Layers",
    "LearningRate",
    "MaxChange",
    "MethodName",
    "MomentWeight",
    "Ridge",
    "Seed",
    "SiteName",
    "Steps",
    "Tokens",
    "Variant",
    "edit_plan",
    "texts_by_default",
]

_HOW, _KEYS, _LOOK = "How it is edited", "Key statistics", "What is measured"

MethodName = Annotated[
    str | None,
    typer.Option(
        help="rank-one (ROME and its variants), memit, or fine-tune; rank-one for one request and "
        "memit for several if left out.",
        rich_help_panel=_HOW,
    ),
]
Variant = Annotated[
    str | None, typer.Option(help="rank-one: r-rome, rome or p-rome.", rich_help_panel=_HOW)
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layer",
        "--layers",
        help="The edited layer; several for memit, such as 2-5. The model's usual if left out.",
        rich_help_panel=_HOW,
    ),
]
SiteName = Annotated[
    str | None,
    typer.Option(
        help="down_proj; of Mamba out_proj, in_proj_ssm, in_proj_gate.", rich_help_panel=_HOW
    ),
]
Clamp = Annotated[
    float | None,
    typer.Option(help="Largest change of the value, by its own norm.", rich_help_panel=_HOW),
]
Steps = Annotated[
    int | None, typer.Option(help="Steps of the optimisation at most.", rich_help_panel=_HOW)
]
LearningRate = Annotated[float | None, typer.Option(help="Of Adam.", rich_help_panel=_HOW)]
KlWeight = Annotated[
    float | None,
    typer.Option(help="Of the divergence in an unrelated sentence.", rich_help_panel=_HOW),
]
DecayWeight = Annotated[
    float | None, typer.Option(help="Of the norm of the change.", rich_help_panel=_HOW)
]
MomentWeight = Annotated[
    float | None,
    typer.Option(
        help="memit: tokens that the key statistics count for; more preserve more.",
        rich_help_panel=_HOW,
    ),
]
MaxChange = Annotated[
    float | None,
    typer.Option(help="fine-tune: largest change of any weight (FT+L).", rich_help_panel=_HOW),
]
Seed = Annotated[
    int | None,
    typer.Option(help="Of the texts put before prompts, and of drawn cases.", rich_help_panel=_HOW),
]
Corpus = Annotated[
    str | None,
    typer.Option(
        help="Texts whose keys are preserved: atlas (the shipped corpus; if left out, with a note "
        "on other models), a text or .jsonl file, datasets:NAME.",
        rich_help_panel=_KEYS,
    ),
]
Tokens = Annotated[int, typer.Option(help="Tokens counted at least.", rich_help_panel=_KEYS)]
Ridge = Annotated[
    float | None,
    typer.Option(
        help="Added to the statistics, by their mean eigenvalue; where needed if left out.",
        rich_help_panel=_KEYS,
    ),
]
Drift = Annotated[
    int | None,
    typer.Option(
        help="Held-out texts of the corpus on which the change of all predictions is measured; 10 "
        "on shipped models, else 0, if left out.",
        rich_help_panel=_LOOK,
    ),
]
Generate = Annotated[
    int, typer.Option(help="Tokens that the model goes on to write.", rich_help_panel=_LOOK)
]


def edit_plan(
    how: Mapping[str, Any], *, several: bool, corpus: str | None, tokens: int
) -> EditPlan:
    """Return the plan that the options make.

    Args:
        how: the options that were typed, by name; `layers` is still text.
        several: whether there are several requests at once.
        corpus: of the key statistics; `None` for the usual one.
        tokens: of the key statistics.

    Raises:
        OptionError: layers that cannot be read, or several for a method that edits one.
    """
    options = dict(how)
    method = str(options.pop("method", "memit" if several else "rank-one"))
    counted: dict[str, Any] = {} if corpus is None else {"corpus": corpus}
    counted |= {} if "ridge" not in options else {"ridge": options.pop("ridge")}
    layers = whole_numbers(options.pop("layers", None), "--layer")
    if layers is not None and method == "memit":
        options["layers"] = layers
    elif layers is not None:
        if len(layers) != 1:
            raise OptionError(
                f"--method {method} edits one layer, and --layer names {len(layers)}. Allowed: one "
                "for it, several for --method memit. Name one, or use that."
            )
        options["layer"] = layers[0]
    return EditPlan(method, options, {"tokens": tokens, **counted})


def texts_by_default(model: str) -> int:
    """Return how many texts the drift is measured on: some where the corpus is the model's own."""
    from mechlab import organisms

    return 10 if model in organisms.names() else 0
