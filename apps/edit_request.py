"""What the edit page asks for: one fact, edited, measured, and traced before and after."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Self

import edit_drift
import mechlab as ml
from edit_case import case_code, case_of, lines, protocol_of
from edit_known import known_settings
from edit_problems import fact_problem, number_problem, token_problem
from request import Request

__all__ = ["OWN", "VARIANTS", "FactEditRequest", "example_of"]

VARIANTS = {"r-rome": "R-ROME", "rome": "ROME", "p-rome": "p-ROME"}
"""Ways to write a fact, in words."""

OWN = ("steps", "learning_rate", "decay_weight", "stop_loss")
"""Fields that are settings of `rank_one_edit` under the same name; `clamp` is left out if empty."""

_ALONE = ["{}"]
_EXAMPLE = ("The capital of {} is", "Poland", "Warsaw", "London")


@dataclass(frozen=True, kw_only=True)
class FactEditRequest(Request):
    """A fact written into one layer, with everything that is looked at afterwards."""

    PAGE: ClassVar[str] = "edit"
    METHODS: ClassVar[tuple[str, ...]] = ("localize_edit_verify",)
    OTHER_DEFAULTS: ClassVar[Mapping[str, Any]] = {
        "new_object": None,
        "site": None,
        "reference": None,
    }
    PLOT: ClassVar[str] = "edit = ml.swept_edit(result)\nprint(edit)"

    template: str = ""
    subject: str = ""
    target: str = ""
    """The object until now; empty when it is the table's, or does not matter."""
    new_object: str = ""
    layer: int | None = None
    variant: str = "r-rome"
    corpus: str = "atlas"
    tokens: int = 100_000
    own: bool = False
    """Whether the settings below count, or those known for the model."""
    steps: int = 20
    learning_rate: float = 0.5
    clamp: float | None = None
    decay_weight: float = 0.5
    stop_loss: float = 0.05
    alone: bool = False
    """Whether the key of the subject at the start of a text counts too."""
    paraphrases: str = ""
    """One per line; empty for those of the country table."""
    neighbours: str = ""
    """Lines `prompt | object`."""
    window: int | None = 1
    samples: int = 10
    noise_scale: float = 3.0
    generation_length: int = 40
    drift: int = 40
    """True sentences on which predictions are compared; 0 for none."""
    seed: int = 0

    # What is edited -----------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """The edited sentence."""
        return f"{self.template.replace('{}', self.subject)} → {self.new_object}"

    @property
    def request(self) -> Any:
        """The association to write.

        Raises:
            PromptError: when it cannot be one.
        """
        return ml.EditRequest(self.template, self.subject, self.new_object, self.target)

    @property
    def own_prompts(self) -> bool:
        """Whether the prompts that measure the edit were typed."""
        return bool(self.paraphrases or self.neighbours)

    def case(self) -> Any:
        """Return what is edited and looked at: that of the country table where it knows the fact.

        Raises:
            PromptError: when it cannot be used.
        """
        return case_of(self.request, self.paraphrases, self.neighbours)

    def prompts(self) -> Any:
        """Return the case as a set of one.

        Raises:
            PromptError: when it cannot be used.
        """
        return ml.prompts.as_prompt_set([self.case()], kind="edit")

    def digest(self) -> str | None:
        """Return the digest of the case; None when it cannot be used."""
        try:
            return str(self.prompts().digest)
        except ml.MechlabError:
            return None

    def prompts_code(self) -> str:
        """Return Python that makes the case."""
        return case_code(self.request, self.case(), typed=self.own_prompts)

    # How ----------------------------------------------------------------------------------------

    @property
    def options(self) -> dict[str, Any]:
        """Options of the method, as plain values, but for the key statistics."""
        return {
            "layers": None if self.layer is None else [self.layer],
            "layer": self.layer,
            "variant": self.variant,
            "corpus": self.corpus,
            "tokens": self.tokens,
            "settings": self.settings,
            "window": self.window,
            "samples": self.samples,
            "noise_scale": self.noise_scale,
            "protocol": protocol_of(self),
            "generation_length": self.generation_length,
            "seed": self.seed,
            **json.loads(self.more),
        }

    @property
    def settings(self) -> dict[str, Any] | None:
        """Options of the edit itself; None for those known for the model."""
        if not self.own:
            return None
        found: dict[str, Any] = {name: getattr(self, name) for name in OWN}
        if self.clamp is not None:
            found["clamp"] = self.clamp
        return found | ({"key_templates": _ALONE} if self.alone else {})

    def call_options(self) -> dict[str, Any]:
        """Return the options as the code shows them: key statistics by the name of a variable."""
        return {**self.options, "key_statistics": _Named("keys")}

    def option_code(self, value: Any) -> str:
        """Return Python that makes the value of an option."""
        return value.name if isinstance(value, _Named) else super().option_code(value)

    def problem(self) -> str:
        """Return why this cannot be run, in a sentence; empty when it can."""
        return (
            fact_problem(self) or number_problem(self) or super().problem() or token_problem(self)
        )

    # Running it ---------------------------------------------------------------------------------

    def compute(self, model: Any, progress: Any, *, recompute: bool) -> str:
        """Count key statistics if need be, edit and measure, and return the result's key.

        The edit is in force for measurements only, under the model's lock.
        """
        store, prompts = ml.Store(), self.prompts()
        function = ml.localize_edit_verify
        layers = self.options["layers"] or range(model.n_layers)
        keys = ml.stored_key_statistics(
            store, model, layer=list(layers), corpus=self.corpus, tokens=self.tokens,
            seed=self.seed, progress=progress,
        )  # fmt: skip
        options = {**self.options, "key_statistics": keys}
        story = store.run(
            function, model, prompts, progress=progress, recompute=recompute, **options
        )
        key = str(store.key(function, model, prompts, **options))
        if self.drift:
            edit_drift.measure(store, model, story, key, self.drift, progress)
        return key

    def code(self, run: str = "") -> str:
        """Return a script that computes this very result, or takes it from the store."""
        layers = self.options["layers"]
        named = "range(model.n_layers)" if layers is None else repr(list(layers))
        counted = (
            f"keys = ml.stored_key_statistics(\n    ml.Store(), model, layer={named}, "
            f"corpus={self.corpus!r},\n    tokens={self.tokens}, seed={self.seed},\n)\n"
        )
        return super().code(run).replace("result = ml.", f"{counted}result = ml.", 1)

    def spec(self) -> dict[str, Any]:
        """Return what `mechlab run` takes.

        Raises:
            PromptError: for typed paraphrases and neighbours, which a spec cannot hold.
        """
        if self.own_prompts:
            raise ml.PromptError("Typed paraphrases and neighbours run in the dashboard only.")
        asked = {name: text for name, text in asdict(self.request).items() if text}
        model = {name: value for name, value in self.load_arguments.items() if value is not None}
        return {
            "method": self.method, "model": model, "prompts": [asked], "options": self.options,
        }  # fmt: skip

    @classmethod
    def from_fields(cls, values: Mapping[str, Any]) -> Self:
        """Return the request that the fields make: texts tidied, the known layer filled in."""
        tidy = dict(values)
        for name in ("subject", "target", "new_object", "corpus"):
            tidy[name] = tidy[name].strip()
        for name in ("paraphrases", "neighbours"):
            tidy[name] = "\n".join(lines(tidy[name]))
        template, subject = tidy["template"].rstrip(), tidy["subject"]
        if subject and "{}" not in template:
            template = template.replace(subject, "{}", 1)
        found = cls(**{**tidy, "template": template})
        if found.layer is None:
            found = replace(found, layer=known_settings(found).get("layer"))
        return found

    def _essence(self) -> dict[str, Any]:
        held = super()._essence()
        del held["drift"]  # of what is shown, not of the result
        if not self.own:
            held |= dict.fromkeys((*OWN, "clamp", "alone"))
        return held


@dataclass(frozen=True)
class _Named:
    """A value that code names by its variable."""

    name: str


def example_of(model: str) -> FactEditRequest:
    """Return an edit to begin with."""
    template, subject, true, new = _EXAMPLE
    request = FactEditRequest(
        model=model, template=template, subject=subject, target=true, new_object=new
    )
    return replace(request, layer=known_settings(request).get("layer"))
