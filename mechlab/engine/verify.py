"""Does this model do what its sites' names say? Checked once, before the first use.

Every check runs on two short texts made of the model's own tokens. A failure switches sites off
(or the wavefront, in favour of plain runs) rather than trusting them; the outcome stays on the
model and `mechlab models check` prints it.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mechlab.engine.forward import run_bases, tokenize_bases
from mechlab.engine.probe import probe_texts
from mechlab.engine.rows import Base, Row
from mechlab.engine.sweep import Sweep
from mechlab.errors import MechlabError, SiteError
from mechlab.hooks import SITES, FrozenArray, Patch, Place, Site, Steer, live_sites

if TYPE_CHECKING:
    from mechlab.models import Model

__all__ = ["Check", "Checks", "EngineWarning", "SiteStatus", "require_proven", "verify"]

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest allowed difference, relative to the largest magnitude compared (at least 1). In float64
no smaller than in float32: transformers takes single steps (softmax, norms, scans) in float32."""


_NOT_AS_LOADED = (
    "the bridge's logits are not those of the Hugging Face model as it was loaded; if weights were "
    "changed in place since, wrap the changed model anew or use an ml.Edit"
)


class EngineWarning(UserWarning):
    """The fast route does not fit this architecture; plain runs are used instead."""


@dataclass(frozen=True)
class Check:
    """One check: its name, whether it held, the largest difference seen, and a sentence."""

    name: str
    passed: bool
    difference: float
    detail: str


@dataclass(frozen=True)
class SiteStatus:
    """What is known of one site on one model.

    Attributes:
        exists: every block has the hook.
        fires: the hook fired in a run.
        verified: it may be used.
        reason: why not, or an empty string.
    """

    exists: bool
    fires: bool
    verified: bool
    reason: str = ""


@dataclass(frozen=True)
class Checks:
    """Outcome of `verify`.

    Attributes:
        results: the checks in the order made.
        sites: status per site name.
        parallel_blocks: whether attention and MLP read the same state; `None` without attention.
        engine_agrees: whether the wavefront equals one plain run per row.
        padding_exact: whether prompts of different length may share a batch.
        resumes_inside: whether rows may resume inside a block, from the heads' outputs on.
    """

    results: tuple[Check, ...]
    sites: Mapping[str, SiteStatus]
    parallel_blocks: bool | None
    engine_agrees: bool
    padding_exact: bool = True
    resumes_inside: bool = False

    def __str__(self) -> str:
        """Return one line per check, and the sites that may be used."""
        lines = [f"{'ok    ' if c.passed else 'FAILED'} {c.name}: {c.detail}" for c in self.results]
        proven = ", ".join(name for name in self.sites if self.usable(name))
        return "\n".join([*lines, f"proven sites: {proven}"])

    def usable(self, site: str) -> bool:
        """Return whether a site may be used on this model."""
        return site in self.sites and self.sites[site].verified

    def reason(self, site: str) -> str:
        """Return why a site may not be used, or an empty string."""
        return self.sites[site].reason if site in self.sites else "unknown site"

    def summary(self) -> str:
        """Return the names of the checks that passed and failed, for provenance."""
        return ", ".join(f"{c.name}: {'ok' if c.passed else 'FAILED'}" for c in self.results)


def verify(model: "Model", *, again: bool = False) -> Checks:
    """Check a model's sites and the engine on it, and keep the outcome on the model.

    Args:
        model: the model; left bitwise as found.
        again: check even if an outcome is there.

    Returns:
        The outcome, also kept as `model.checks`.

    Raises:
        ModelError: when no two texts can be made from the tokenizer's tokens.
    """
    if model.checks is not None and not again:
        return model.checks  # type: ignore[return-value]
    with model.lock, torch.no_grad():
        model.checks = None
        model.checks = checks = _Verifier(model).run()
    if not checks.engine_agrees:
        failed = next(check for check in checks.results if check.name == "engine equals plain runs")
        warnings.warn(
            f"{model.name} ({model.family}): the fast engine differs from plain runs "
            f"({failed.detail}). Plain runs are used: right, but slower.",
            EngineWarning,
            stacklevel=3,
        )
    return checks


def require_proven(model: "Model", sites: Sequence[str]) -> None:
    """Refuse sites that this model was not proven to have.

    Raises:
        SiteError: naming each such site with the reason.
    """
    checks = verify(model)
    if bad := [site for site in dict.fromkeys(sites) if not checks.usable(site)]:
        listed = "; ".join(f"{site!r}: {checks.reason(site)}" for site in bad)
        proven = ", ".join(site for site in SITES if checks.usable(site))
        raise SiteError(
            f"sites that are not proven on {model.name} ({model.family}): {listed}.\n"
            f"  Proven: {proven}\n  See `mechlab models check {model.name}`."
        )


_ANY_FAILURE = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError)
"""What an architecture that does not fit may raise in the middle of a run."""


@dataclass
class _Verifier:
    """Makes the checks on one model."""

    model: "Model"
    results: list[Check] = field(default_factory=list)
    off: dict[str, str] = field(default_factory=dict)
    inside: bool = False

    def run(self) -> Checks:
        texts = probe_texts(self.model)
        self.bases = [Base(texts[0]), Base(texts[1]), Base(texts[2])]
        self.live = live_sites(self.model)
        self._same_as_hugging_face()
        self._padding()
        values = self._site_values()
        parallel = self._residual_identity(values)
        self._pattern_rows(values)
        fired = {name for name in self.live if self._patches(name)}
        agrees = self._engine()
        sites = {name: self._status(name, fired) for name in SITES}
        return Checks(tuple(self.results), sites, parallel, agrees, self.padding_ok, self.inside)

    # --- helpers ---

    def _note(self, name: str, passed: bool, difference: float, detail: str) -> bool:
        self.results.append(Check(name, passed, difference, detail))
        return passed

    def _compare(self, a: Tensor, b: Tensor) -> tuple[bool, float]:
        """Return whether two tensors agree within the dtype's tolerance, and by how much not."""
        difference = float((a.double() - b.double()).abs().max())
        scale = max(1.0, float(b.double().abs().max()))
        return difference <= TOLERANCE.get(self.model.dtype, 1e-2) * scale, difference

    def _logits(self, rows: list[Row], mode: str) -> tuple[Tensor, Tensor]:
        """Return logits of the probe's bases and of `rows`."""
        sweep = Sweep(self.model, self.bases, rows, None, None, {}, mode, "auto", None, self.inside)
        readings = sweep.run(None, None, None)
        return torch.from_numpy(readings.bases), torch.from_numpy(readings.rows)

    def _layers(self) -> list[int]:
        last = self.model.n_layers - 1
        return sorted({0, last // 2, last})

    def _status(self, name: str, fired: set[str]) -> SiteStatus:
        if name not in self.live:
            return SiteStatus(False, False, False, f"{self.model.family} blocks have no such site")
        reason = self.off.get(name, "")
        return SiteStatus(True, name in fired, not reason, reason)

    # --- the checks ---

    def _same_as_hugging_face(self) -> None:
        """Compare with logits that the Hugging Face model gave before the bridge wrapped it."""
        probe = self.model.unwrapped_run
        if probe is None:
            self._note("bridge equals Hugging Face", True, 0.0, "not measured: no witness was kept")
            return
        if self.model.edits:
            self._note("bridge equals Hugging Face", True, 0.0, "not measured: weights are edited")
            return
        ids, expected = probe
        got = self.model.bridge(ids.to(self.model.device), use_cache=False).float().cpu()
        passed, gap = self._compare(got.log_softmax(-1), expected.float().log_softmax(-1))
        self._note(
            "bridge equals Hugging Face", passed, gap, f"log-probabilities differ by {gap:.1e}"
        )
        if not passed:
            self.off.update(dict.fromkeys(self.live, _NOT_AS_LOADED))

    def _padding(self) -> None:
        together, _ = self._logits([], "packed")
        alone = [
            Sweep(self.model, [base], [], None, None, {}, "packed", "auto", None)
            for base in self.bases
        ]
        single = torch.cat([torch.from_numpy(one.run(None, None, None).bases) for one in alone])
        passed, gap = self._compare(together, single)
        self.padding_ok = self._note(
            "padded equals unpadded", passed, gap, f"logits differ by {gap:.1e} under left padding"
        )

    def _site_values(self) -> dict[Place, Tensor]:
        """Return every site's value in every block, on the first text alone."""
        tokens = tokenize_bases(self.model, self.bases[:1])
        places: list[Place] = [
            (name, layer)
            for name in self.live
            if SITES[name].per_layer and name not in ("q", "k", "v", "z", "mixer_in", "scores")
            for layer in range(self.model.n_layers)
        ]
        return run_bases(self.model, self.bases, [0], tokens, places=places).kept.values

    def _residual_identity(self, values: dict[Place, Tensor]) -> bool | None:
        """Check that writes add up to the residual, and find out whether blocks are parallel."""
        n_layers, has = self.model.n_layers, set(self.live)

        def gap(parts: list[str], whole: str) -> tuple[bool, float]:
            pairs = [
                (sum(values[part, layer] for part in parts), values[whole, layer])
                for layer in range(n_layers)
            ]
            found = [self._compare(torch.as_tensor(total), target) for total, target in pairs]
            return all(ok for ok, _ in found), max(size for _, size in found)

        writes = [name for name in ("attn_out", "mlp_out", "mixer_out") if name in has]
        checks = [(["resid_pre", *writes], "resid_post")]
        if "resid_mid" in has and "attn_out" in has:
            checks.append((["resid_pre", "attn_out"], "resid_mid"))
        outcome = [gap(*check) for check in checks]
        for (parts, whole), (passed, size) in zip(checks, outcome, strict=True):
            text = f"{' + '.join(parts)} = {whole}"
            self._note(f"residual identity: {text}", passed, size, f"off by {size:.1e}")
            if not passed:
                broken = [*parts[1:], *([whole] if whole == "resid_mid" else [])]
                self.off.update(dict.fromkeys(broken, f"{text} does not hold (off by {size:.1e})"))
        if not self.model.has_attention:
            return None
        return not ("resid_mid" in has and outcome[-1][0])

    def _pattern_rows(self, values: dict[Place, Tensor]) -> None:
        if "pattern" not in self.live:
            return
        sums = torch.stack(
            [v.float().sum(-1) for (name, _), v in values.items() if name == "pattern"]
        )
        passed, gap = self._compare(sums, torch.ones_like(sums))
        self._note("pattern rows sum to 1", passed, gap, f"off by {gap:.1e}")
        if not passed:
            self.off.update(dict.fromkeys(("pattern", "scores"), "pattern rows do not sum to 1"))

    def _patches(self, name: str) -> bool:
        """Check that a no-op patch at a site changes nothing and a real one does; was it alive?"""
        layers: list[int | None] = [*self._layers()] if SITES[name].per_layer else [None]
        no_op = Row(0, tuple(Patch(Site(name, layer), 0) for layer in layers))
        real = [Row(0, (Patch(Site(name, layer), 1),)) for layer in layers]
        try:
            bases, rows = self._logits([no_op, *real], "packed")
        except SiteError as error:
            self.off[name] = f"its hook never fires ({str(error).splitlines()[0]})"
            self._note(f"patch at {name}", False, 0.0, self.off[name])
            return False
        same, gap = self._compare(rows[:1], bases[:1])
        effect = float((rows[1:] - bases[:1]).abs().amax(-1).min())
        if effect == 0 and SITES[name].axes == "bpd":
            effect = self._effect_of_steering(name, layers)
        replaced, off_by = self._compare(rows[1:], bases[1:2].expand_as(rows[1:]))
        passed = same and effect > 0
        if not same:
            self.off[name] = f"writing a value back changes the logits by {gap:.1e}"
        elif not effect > 0:
            self.off[name] = "a real patch changes nothing"
        elif name.startswith("resid") and not replaced:
            passed = False
            self.off[name] = (
                "taking it whole from another run does not give that run's logits "
                f"(off by {off_by:.1e})"
            )
        detail = self.off.get(name, f"no-op changes {gap:.1e}, a real patch at least {effect:.1e}")
        self._note(f"patch at {name}", passed, gap, detail)
        return True

    def _effect_of_steering(self, name: str, layers: list[int | None]) -> float:
        """Return the smallest effect of adding a vector, for sites equal in both runs.

        A module whose weights are zero writes zeros in every run: patching it changes nothing,
        and yet the site is alive.
        """
        signs = torch.ones(self.model.d_model)
        signs[::2] = -1  # a vector of equal entries would be centred away by the next norm
        steer = [Row(0, (Steer(Site(name, at), FrozenArray(signs.numpy())),)) for at in layers]
        bases, rows = self._logits(steer, "packed")
        return float((rows - bases[:1]).abs().amax(-1).min())

    def _engine(self) -> bool:
        """Compare the wavefront with one plain run per row: three layers, ragged prompts."""
        wanted = ("resid_post", "mlp_out", "attn_out", "z", "mixer_out")
        names = [n for n in wanted if n in self.live]
        names = [name for name in names if name not in self.off]
        length = min(len(self.model.token_strings(base.prompt)) for base in self.bases)
        if not names:
            return self._note(
                "engine equals plain runs", False, 0.0, "no proven site to compare at"
            )
        # Both directions, the short text inside the padded batch, an early and the last position.
        turns = [(0, 1, length // 2), (2, 0, length - 1), (1, 0, length // 2)]
        rows = [
            Row(base, (Patch(Site(name, layer, pos=pos), source),))
            for layer, (base, source, pos) in zip(self._layers(), turns, strict=False)
            for name in names
        ]
        # Edits in the last block take another route through it, so they make a call of their own.
        parts = [part for part in (rows[: -len(names)], rows[-len(names) :]) if part]
        # Resuming inside a block needs an attention that ends in its output projection; where
        # there is none, whole blocks are run.
        for self.inside in (True, False) if "z" in names else (False,):
            try:
                fast = torch.cat([self._logits(part, "wavefront")[1] for part in parts])
                _, slow = self._logits(rows, "plain")
                passed, gap = self._compare(fast, slow)
                detail = f"logits differ by {gap:.1e} over {len(rows)} rows"
            except (*_ANY_FAILURE, MechlabError) as error:
                passed, gap, detail = False, float("nan"), f"{type(error).__name__}: {error}"
            if passed:
                break
        passed = passed and self.padding_ok
        return self._note("engine equals plain runs", passed, gap, detail)
