"""Checks of options that many methods share, those that ask the model among them."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, get_args

from mechlab.checks import check_choice, check_number, check_whole
from mechlab.engine.rows import Base, check_rows
from mechlab.errors import OptionError, SiteError
from mechlab.hooks import Intervention, live_sites

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = [
    "HINTS",
    "MODES",
    "check_bases",
    "check_choice",
    "check_number",
    "check_whole",
    "require_heads",
    "require_sites",
]

MODES = ("auto", "wavefront", "packed", "plain")

HINTS = frozenset(
    {"model", "prompts", "pairs", "max_batch", "mode", "progress", "journal", "started"}
)
"""Names within a method that decide no number, and so are not recorded among its options."""


def require_heads(
    model: "Model",
    instead: str = "on this model site='mixer_out' with by='layer'",
    what: str = "attention heads",
) -> None:
    """Refuse a recurrent model where heads are needed, before anything else that is wrong.

    Args:
        model: the model.
        instead: what is allowed, for the message.
        what: what it lacks.

    Raises:
        SiteError: on a model without attention.
    """
    if not model.has_attention:
        raise SiteError(
            f"{model.name} ({model.family}) is recurrent and has no {what}. Allowed: {instead}. "
            "Use that, or a model with attention."
        )


def require_sites(model: "Model", names: Iterable[str]) -> None:
    """Refuse sites that a model does not have, without running it.

    Raises:
        SiteError: naming all of them, and the sites there are.
    """
    live = live_sites(model)
    if missing := [name for name in dict.fromkeys(names) if name not in live]:
        raise SiteError(
            f"{', '.join(map(repr, missing))}: {model.family} blocks have no such site "
            f"({model.name}). Allowed: {', '.join(sorted(live))}. Name one of these."
        )


def check_bases(
    model: "Model", texts: Sequence[str], lengths: Sequence[int], interventions: Any
) -> list[Base]:
    """Return base runs in which interventions hold, checked without running them.

    Args:
        model: the model.
        texts: the prompts.
        lengths: tokens of each.
        interventions: changes that hold in all of the runs.

    Raises:
        OptionError: what is no list of interventions, or one that reads another run.
        SiteError: sites, layers, heads or positions that are not there, all at once.
    """
    listed = isinstance(interventions, Iterable) and not isinstance(interventions, str)
    steps = tuple(interventions) if listed else ()
    wrong = [one for one in steps if not isinstance(one, get_args(Intervention))]
    if not listed or wrong:
        received = wrong if listed else interventions
        raise OptionError(
            f"interventions={received!r:.80}. Allowed: a list of ml.Ablate, ml.Scale, ml.Steer, "
            "ml.Block and the like. Put them in brackets."
        )
    bases = [Base(text, steps) for text in texts]
    check_rows(model, bases, [], lengths, {})
    return bases
