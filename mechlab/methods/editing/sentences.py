"""The sentences that an edit's options name, checked before anything is run."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mechlab.methods.editing.contexts import check_contexts, check_templates
from mechlab.methods.editing.rank_one import collect
from mechlab.methods.editing.rows import subject_rows
from mechlab.prompts import EditRequest

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["check_sentences"]


def check_sentences(
    model: "Model", requests: Sequence[EditRequest], options: Mapping[str, Any]
) -> None:
    """Refuse contexts and templates that cannot be used; those left out have fine defaults.

    Args:
        model: the model.
        requests: what is edited.
        options: of an editing method, of which `contexts`, `key_templates` and `kl_template` are
            looked at.

    Raises:
        OptionError: listing everything that is wrong.
        PromptError: for texts that cannot be tokenised.
    """
    checks: list[Callable[[], object]] = [
        lambda: check_contexts(options.get("contexts")),
        lambda: check_templates(options.get("key_templates", ())),
    ]
    if "kl_template" in options:
        checks.append(lambda: subject_rows(model, requests, options["kl_template"]))
    collect(checks, [])
