"""Where, and with which options, rank-one edits are known to work on a model."""

from typing import TYPE_CHECKING, Any

from mechlab import organisms

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["default_clamp", "edit_settings"]

_PUBLISHED: dict[tuple[str, int, int], dict[str, Any]] = {
    ("gpt2", 24, 1024): {"layer": 8, "clamp": 3.0},
    ("gpt2", 36, 1280): {"layer": 12},
    ("gpt2", 48, 1600): {"layer": 17},
    ("gptj", 28, 4096): {"layer": 5},
    ("gpt_neox", 44, 6144): {"layer": 15},
    ("gpt_neox", 32, 2560): {"layer": 15},
    ("mamba", 64, 2560): {"layer": 15},
}
"""By (family, layers, width): GPT-2 M, L and XL, GPT-J, GPT-NeoX-20B, Pythia-2.8B, Mamba-2.8B; in
the code of Meng et al. 2022 and of Sharma et al. 2024."""


def default_clamp(model: "Model") -> float:
    """Return the clamp factor that the authors' code has for the architecture."""
    return 4.0 if model.has_attention and model.family != "gpt_neox" else 3.0


def edit_settings(model: "Model") -> dict[str, Any]:
    """Return options of `rank_one_edit` that are known for a model of this shape.

        settings = ml.edit_settings(model)
        keys = ml.key_statistics(model, layer=settings["layer"])
        edit = ml.rank_one_edit(model, request, key_statistics=keys, **settings)

    The published layer (and clamp, where it departs from the default) for models of the papers. For
    `atlas`, and models trained anew in its shape, what is on its card under `edit_settings`: found
    on a development set, see `studies/fact_editing`. Everything else is `rank_one_edit`'s default.

    Args:
        model: any model; only its family, number of layers and width are looked at.

    Returns:
        Keyword options, `layer` among them; empty when nothing is known about the shape: then trace
        a fact, and try layers.
    """
    known = dict(_PUBLISHED)
    for card in map(organisms.card, organisms.names()):
        shape = card["architecture"]
        family = shape["class"].removesuffix("LMHeadModel").removesuffix("ForCausalLM").lower()
        known[family, shape["layers"], shape["width"]] = card.get("edit_settings", {})
    return dict(known.get((model.family, model.n_layers, model.d_model), {}))
