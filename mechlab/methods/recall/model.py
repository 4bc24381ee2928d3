"""The context maintenance and retrieval model of free recall (CMR, Polyn et al. 2009)."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import xarray as xr

from mechlab.errors import OptionError
from mechlab.methods.recall.equations import (
    Memory,
    Rules,
    drift,
    log_choice,
    stop_probability,
    study,
)
from mechlab.methods.recall.likelihood import sequence_log_likelihood
from mechlab.methods.recall.sequences import read_sequences
from mechlab.prompts.free_recall import recall_sequences

__all__ = ["CMR", "LIMITS", "PARAMETERS"]

Array = np.ndarray[Any, Any]

LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("beta_enc", "beta_rec", "beta_start", "beta_dist"), (0.0, 1.0)),
    **dict.fromkeys(("gamma_fc", "gamma_cf"), (0.0, 1.0)),
    **dict.fromkeys(("phi_s", "phi_d", "theta_s", "theta_r"), (0.0, np.inf)),
    **dict.fromkeys(("temperature", "power"), (0.0, np.inf)),
}
"""Where each parameter is defined; temperature and power above 0."""
PARAMETERS = tuple(LIMITS)
_RULES = {
    "association": ("updated", "previous"),
    "choice": ("softmax", "power"),
    "stopping": ("exponential", "none"),
}


@dataclass(frozen=True)
class CMR:
    """CMR with one setting of its parameters: simulates recalls, and tells how likely recalls are.

    Howard & Kahana 2002, Polyn et al. 2009. Items are unlike each other. Context drifts by the rho
    form, `c <- rho c + beta c_IN`; `convert_beta` takes its betas to the `1 - beta` form of the
    simplified model and back. No item is recalled twice. Defaults are the reference set of the
    package cymr, except its free `beta_enc`, which its documentation sets to 0.7.

    Differs from Polyn et al.: a choice rule with a closed form in place of accumulators that race,
    no source or task units, no similarity between items.

    Attributes:
        beta_enc: drift of context in study.
        beta_rec: drift of context towards what a recalled item brings back.
        beta_start: drift back to the context of the start of the list, after the list.
        beta_dist: drift to a distractor between list and recall; 0 is immediate recall.
        gamma_fc: share of the studied context, as against its own unit, in what an item brings
            back. In study it brings its own unit, whatever `gamma_fc`.
        gamma_cf: share of the studied context in what supports an item.
        phi_s: extra learning of the first item, as a multiple of `gamma_cf`:
            `phi_i = 1 + phi_s exp(-phi_d (i - 1))`.
        phi_d: decay of that by item.
        temperature: of the softmax over supports.
        power: exponent of the power rule, which does not use `temperature`.
        theta_s: probability of stopping at once.
        theta_r: growth of it: `theta_s exp(theta_r n)` after n recalls, at most 1.
        association: an item is bound to the context that it entered (`updated`) or to the one
            before (`previous`).
        choice: `softmax` of support over temperature, or support to a `power`, normalised.
        stopping: `exponential`, or `none`: every list is recalled to its last item.
    """

    beta_enc: float = 0.7
    beta_rec: float = 0.9
    beta_start: float = 0.3
    beta_dist: float = 0.0
    gamma_fc: float = 0.15
    gamma_cf: float = 0.15
    phi_s: float = 0.2 / 0.15
    phi_d: float = 2.0
    temperature: float = 0.1
    power: float = 1.0
    theta_s: float = 0.001
    theta_r: float = 0.25
    association: Literal["updated", "previous"] = "updated"
    choice: Literal["softmax", "power"] = "softmax"
    stopping: Literal["exponential", "none"] = "exponential"

    def __post_init__(self) -> None:
        """Check parameters and choices.

        Raises:
            OptionError: naming everything out of range.
        """
        given = asdict(self)
        wrong = [
            f"{name}={given[name]!r}"
            for name, (low, high) in LIMITS.items()
            if not _is_inside(given[name], low, high, above=name in ("temperature", "power"))
        ]
        wrong += [
            f"{name}={given[name]!r} ({' or '.join(allowed)})"
            for name, allowed in _RULES.items()
            if given[name] not in allowed
        ]
        if wrong:
            raise OptionError(
                f"CMR: {', '.join(wrong)} out of range. Allowed: betas and gammas from 0 to 1, phi "
                "and theta from 0, temperature and power above 0, all finite. Correct them."
            )

    def simulate(self, n_lists: int, list_length: int, seed: int = 0) -> xr.DataArray:
        """Simulate free recall of lists.

        Args:
            n_lists: how many lists, all of one simulated subject.
            list_length: items per list.
            seed: of all draws.

        Returns:
            Serial positions `[list, output_position]` from 1, -1 after the last recall, in the form
            of `ml.prompts.recall_sequences`.

        Raises:
            OptionError: when a number is not whole or too small.
        """
        wrong = [
            f"{name}={value!r} (from {least})"
            for name, value, least in (
                ("n_lists", n_lists, 1), ("list_length", list_length, 1), ("seed", seed, 0)
            )
            if type(value) is not int or value < least
        ]  # fmt: skip
        if wrong:
            raise OptionError(
                f"simulate: {', '.join(wrong)}. Allowed: whole numbers as said. Correct them."
            )
        drawn = self._draw(n_lists, list_length, np.random.default_rng(seed))
        rows = [row[row > 0].tolist() for row in drawn]
        made = recall_sequences(rows, list_length=list_length)
        about = {name: float(getattr(self, name)) for name in PARAMETERS}
        return made.assign_attrs({**about, **vars(self.rules), "seed": seed})

    def log_likelihood(self, recalls: xr.DataArray) -> xr.DataArray:
        """Return the log likelihood of each list's recalls, the stop after the last one included.

        Intrusions and repeats, which the model does not make, are passed over.

        Args:
            recalls: `[list, output_position]`, as `ml.prompts.recall_sequences` makes them.

        Returns:
            `[list]`, in nats; minus infinity for recalls that the model cannot produce.

        Raises:
            OptionError: when `recalls` has another form.
        """
        held = read_sequences(recalls)
        found = sequence_log_likelihood(
            self.values, held.without_invalid(), held.length, self.rules
        )
        kept = {name: coord for name, coord in recalls.coords.items() if coord.dims == ("list",)}
        return xr.DataArray(
            found[0], kept, ("list",), name="log_likelihood", attrs={"units": "nats"}
        )

    def memory(self, list_length: int) -> Memory:
        """Return contexts and associations after study, each with one setting."""
        return study(self.values, list_length, self.rules)

    @property
    def rules(self) -> Rules:
        """The choices of the model."""
        return Rules(**{field.name: getattr(self, field.name) for field in fields(Rules)})

    @property
    def values(self) -> dict[str, Array]:
        """The parameters as the equations take them, one setting each."""
        return {name: np.array([float(getattr(self, name))]) for name in PARAMETERS}

    def _draw(self, lists: int, items: int, random: np.random.Generator) -> Array:
        """Return recalled positions from 1, and 0 after the end, `[list, item]`."""
        memory = self.memory(items)
        context = np.tile(memory.start[0], (lists, 1))
        available = np.ones((lists, items), dtype=bool)
        going = np.arange(lists)
        drawn = np.zeros((lists, items), dtype=int)
        beta = np.array(float(self.beta_rec))
        for output in range(items):
            stop = stop_probability(output, items, self.values, self.rules)[0]
            going = going[random.random(len(going)) >= stop]
            support = context[None, going] @ memory.to_item[0].T
            score = log_choice(support, available[going], self.values, self.rules)[0]
            # The largest of log probabilities with Gumbel noise is a draw from them.
            item = (score + random.gumbel(size=score.shape)).argmax(axis=1)
            drawn[going, output] = item + 1
            available[going, item] = False
            context[going] = drift(context[going], memory.brought[0, item], beta)
        return drawn


def _is_inside(value: object, low: float, high: float, *, above: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return False
    number = float(value)
    return bool(np.isfinite(number) and low <= number <= high and not (above and number <= low))
