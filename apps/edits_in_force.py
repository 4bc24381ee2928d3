"""Edits that one browser session has in force, and what they do to a prompt.

They are ids of stored results in the session, nothing more: a job that looks at them puts them on
the model under its lock and takes them off again. Nothing here touches Streamlit.
"""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, ClassVar

import mechlab as ml
import runs
from request import Request

__all__ = ["Tried", "TryRequest", "tried"]


@dataclass(frozen=True)
class Tried:
    """What a model writes after a prompt, with and without edits."""

    off: str
    on: str
    log_probability_off: float
    """Mean over the new tokens, in nats."""
    log_probability_on: float


@dataclass(frozen=True, kw_only=True)
class TryRequest(Request):
    """A prompt continued twice: without any edit, and with those of this session."""

    PAGE: ClassVar[str] = "edit_tried"
    METHODS: ClassVar[tuple[str, ...]] = ("generate",)
    OPTIONS: ClassVar[tuple[str, ...]] = ("max_new_tokens",)

    prompt: str = ""
    edits: tuple[str, ...] = ()
    """Run ids, in the order in which they are put in force."""
    max_new_tokens: int = 12

    @property
    def label(self) -> str:
        """The prompt."""
        return self.prompt

    def prompts(self) -> Any:
        """Return the prompt.

        Raises:
            PromptError: when it is blank.
        """
        return ml.prompts.Fact(self.prompt, subject=self.prompt)  # as `ml.generate` takes a text

    def compute(self, model: Any, progress: Any, *, recompute: bool) -> Any:
        """Continue the prompt both ways and return both keys; the model is left as it was."""
        store, prompts, options = ml.Store(), self.prompts(), self.options
        off = self._continued(store, model, prompts, options)
        found = []
        for run in self.edits:
            story = runs.load(run)
            if story is None:
                raise ml.StoreError(f"The edit of run {run} is not in this store any more.")
            found.append(ml.swept_edit(story))
        with ExitStack() as stack:
            for edit in found:
                stack.enter_context(edit.applied(model, on_top=True))
            on = self._continued(store, model, prompts, options)
        return off, on

    @staticmethod
    def _continued(store: Any, model: Any, prompts: Any, options: dict[str, Any]) -> str:
        store.run(ml.generate, model, prompts, **options)
        return str(store.key(ml.generate, model, prompts, **options))


def tried(off: str, on: str) -> Tried:
    """Return what two stored continuations say.

    Args:
        off: key of the one without edits.
        on: key of the one with them.
    """
    store = ml.Store()
    both = [store.get(key) for key in (off, on)]
    texts = [str(one["text"].values[0]) for one in both]
    sure = [float(one["log_probability"].mean()) for one in both]
    return Tried(texts[0], texts[1], sure[0], sure[1])
