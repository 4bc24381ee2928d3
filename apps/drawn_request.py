"""Requests whose prompts are drawn from a few settings and a seed, such as needles in haystacks.

Such prompts are not written into results. A stored result is recognised by the digest of its
prompts: settings that draw the same are looked for; where none do, the digest stands for them.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

import mechlab as ml
import runs
from pair_request import model_fields_of, stored_options
from request import Request, plain

__all__ = ["SEEDS", "DrawnRequest", "asked_with", "numbers_of", "set_name"]

SEEDS = range(32)
"""Seeds that are tried to find out how a result's prompts were drawn."""

R = TypeVar("R", bound="DrawnRequest")

_fields_of: dict[tuple[str, str], Mapping[str, Any] | None] = {}
"""Fields that drew the prompts, None where none did, by method and digest: a search of seconds."""


@dataclass(frozen=True, kw_only=True)
class DrawnRequest(Request):
    """A run on prompts that settings draw."""

    MAKER: ClassVar[str] = ""
    """Name in `ml.prompts` of the function that draws them."""

    seed: int = 0
    other_prompts: str = ""
    """Digest of prompts that no settings of the page draw; empty otherwise."""

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of the maker.

        Raises:
            PromptError: for fields that cannot be read.
        """
        raise NotImplementedError

    def prompts(self) -> Any:
        """Return the prompts.

        Raises:
            PromptError: when they cannot be drawn, or only the store knows them.
        """
        if self.other_prompts:
            raise ml.PromptError(
                "These prompts were made in Python, and a result does not hold them: their numbers "
                "are here, and can be run again from there."
            )
        return _drawn(self.MAKER, tuple(self.settings.items()))

    def digest(self) -> str | None:
        """Return the digest of the prompts; None when they cannot be used."""
        try:
            return self.other_prompts or str(self.prompts().digest)
        except ml.MechlabError:
            return None

    def prompts_code(self) -> str:
        """Return Python that draws the prompts."""
        if self.other_prompts:
            return "...  # made in Python; digest " + self.other_prompts
        given = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"ml.prompts.{self.MAKER}({given})"

    def spec(self) -> dict[str, Any]:
        """Return what `mechlab run` takes; the prompts by their settings."""
        model = {name: value for name, value in self.load_arguments.items() if value is not None}
        options = {name: plain(value) for name, value in self.options.items()}
        drawn = {name: plain(value) for name, value in self.settings.items()}
        prompts = {"set": self.MAKER, **drawn}
        return {"method": self.method, "model": model, "prompts": prompts, "options": options}


def asked_with(request: R, result: Any, candidates: Iterable[Mapping[str, Any]]) -> R:
    """Return the request with the model, options and prompts of a stored result.

    Args:
        request: of the result's method; the model is the one to load.
        result: whose digest the prompts must have.
        candidates: fields of the page that may have drawn them, likely ones first.
    """
    stored, usual = stored_options(result), {**request.OTHER_DEFAULTS, **request.options}
    mine = {n: _field(stored[n]) for n in request.OPTIONS if n in stored}
    more = {
        n: v for n, v in stored.items()
        if n in usual and n not in mine and plain(usual[n]) != plain(v)
    }  # fmt: skip
    known = replace(
        request, **model_fields_of(result), **mine, more=json.dumps(more, sort_keys=True)
    )
    wanted = str(result.attrs.get("prompts_digest", ""))
    key = (request.method, wanted)
    if key not in _fields_of:
        fitting = (one for one in candidates if replace(known, **one).digest() == wanted)
        _fields_of[key] = next(fitting, None)
    found = _fields_of[key]
    return replace(known, other_prompts=wanted) if found is None else replace(known, **found)


def set_name(result: Any) -> str:
    """Return what the prompt set of a stored result is called; the record says so."""
    wanted = result.attrs.get("prompts_digest")
    return next((r.name for r in runs.recent() if r.prompts == wanted and r.name), "")


def numbers_of(text: str, what: str) -> tuple[int, ...]:
    """Return the whole numbers of a typed list, such as `128, 256`.

    Raises:
        PromptError: for what is no number.
    """
    words = text.replace(",", " ").split()
    if not words or (wrong := [word for word in words if not word.isdecimal()]):
        raise ml.PromptError(
            f"{what} {', '.join(wrong) if words else 'are empty'}: give whole numbers with commas "
            "between them, such as 128, 256."
        )
    return tuple(map(int, words))


def _field(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=64)
def _drawn(maker: str, settings: tuple[tuple[str, Any], ...]) -> Any:
    make: Callable[..., Any] = getattr(ml.prompts, maker)
    return make(**dict(settings))
