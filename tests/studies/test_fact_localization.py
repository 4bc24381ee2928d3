"""The study of fact localization: its claims can hold, can fail, and it reaches its verdicts."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import xarray as xr

StudyFile = Callable[[str, str], ModuleType]
N_LAYERS, WINDOW = 8, 2
ROLES = ["before_subject", "first_subject", "last_subject", "first_subsequent", "last_token"]
EARLY, LATE = 2, 5
BUMPS = {
    ("mlp_out", "last_subject"): (EARLY, 0.30),
    ("attn_out", "last_token"): (LATE, 0.40),
}
"""Where the effects of a model that keeps facts as the paper says lie: (layer, height)."""


def bump(layer: int, height: float) -> np.ndarray:
    return height * np.exp(-((np.arange(N_LAYERS) - layer) ** 2) / 2.0)


def handmade_trace(
    sites: Mapping[str, Mapping[str, np.ndarray]], *, spread: float = 0.3, seed: int = 0
) -> xr.Dataset:
    """A trace of 12 countries in 3 sentences: `sites[site][role]` is the mean effect per layer.

    Facts differ by a factor around 1 with deviation `spread`, the same at all sites of a seed.
    """
    rng = np.random.default_rng(seed)
    facts = [(f"Land{i}", f"In {{}} of {s} is") for i in range(12) for s in "abc"]
    size = 1 + spread * rng.standard_normal(len(facts))
    mean = np.zeros((len(sites), N_LAYERS, len(ROLES)))
    for number, roles in enumerate(sites.values()):
        for role, profile in roles.items():
            mean[number, :, ROLES.index(role)] = profile
    effect = size[:, None, None, None] * mean
    effect += 0.002 * rng.standard_normal(effect.shape)
    start = np.maximum(np.arange(N_LAYERS) - WINDOW // 2, 0)
    n = len(facts)
    return xr.Dataset(
        {
            "indirect_effect": (("prompt", "site", "layer", "pos"), effect),
            "total_effect": ("prompt", np.full(n, 0.8)),
            "clean_probability": ("prompt", np.full(n, 0.9)),
            "corrupted_probability": (("prompt", "sample"), np.full((n, 2), 0.1)),
        },
        {
            "prompt": [text.format(name) for name, text in facts],
            "site": list(sites),
            "layer": np.arange(N_LAYERS),
            "status": ("prompt", ["ok"] * n),
            "subject": ("prompt", [name for name, _ in facts]),
            "prompt_text": ("prompt", [text.format(name) for name, text in facts]),
            "token_role": (("prompt", "pos"), [ROLES] * n),
            "window_start": (("site", "layer"), np.tile(start, (len(sites), 1))),
        },
    )


def handmade(
    claims: ModuleType,
    *,
    bumps: Mapping[tuple[str, str], tuple[int, float]] = BUMPS,
    left: tuple[float, float] = (0.1, 0.9),
    scale: float = 1.0,
    spread: float = 0.3,
) -> Any:
    """Traces with the given bumps; `left` is the share left with MLPs and attention severed."""
    sites: dict[str, dict[str, np.ndarray]] = {"resid_post": {}, "mlp_out": {}, "attn_out": {}}
    sites["resid_post"]["last_subject"] = scale * np.linspace(0.6, 0.0, N_LAYERS)
    sites["resid_post"]["last_token"] = scale * np.linspace(0.0, 0.8, N_LAYERS)
    for (site, role), (layer, height) in bumps.items():
        sites[site][role] = bump(layer, scale * height)

    def entering(share: float) -> xr.Dataset:
        profile = scale * share * np.linspace(0.6, 0.0, N_LAYERS)
        return handmade_trace({"resid_pre": {"last_subject": profile}}, spread=spread)

    return claims.Traces(
        sites=handmade_trace(sites, spread=spread),
        entering=entering(1.0),
        severed={"mlp": entering(left[0]), "attn": entering(left[1])},
    )


@pytest.fixture
def claims(study_file: StudyFile) -> ModuleType:
    return study_file("fact_localization", "localization_claims")


def held(claims: ModuleType, traces: Any) -> set[str]:
    return {claim.name for claim in claims.CLAIMS if claim.test(traces).holds}


ALL = {"early_site", "late_site", "severed"}
MOVED = {
    "an early site at the first subject token": (
        {"bumps": {**BUMPS, ("mlp_out", "first_subject"): (EARLY, 0.4)}},
        {"late_site", "severed"},
    ),
    "attention at the last subject token": (
        {"bumps": {**BUMPS, ("attn_out", "last_subject"): (EARLY, 0.4)}},
        {"late_site", "severed"},
    ),
    "a late site before the early one": (
        {"bumps": {**BUMPS, ("attn_out", "last_token"): (0, 0.4)}},
        {"severed"},
    ),
    "attention as strong at another token": (
        {"bumps": {**BUMPS, ("attn_out", "first_subsequent"): (LATE, 0.4)}},
        {"early_site", "severed"},
    ),
    "an early effect that needs no MLP": ({"left": (0.9, 0.9)}, {"early_site", "late_site"}),
    "an early effect that needs attention": ({"left": (0.1, 0.1)}, {"early_site", "late_site"}),
    "the same pattern below a percentage point": ({"scale": 0.02}, set()),
    "facts that do not agree": ({"spread": 12.0}, set()),
}


def test_all_claims_hold_where_facts_lie_as_published(claims):
    assert held(claims, handmade(claims)) == ALL


@pytest.mark.parametrize(("changes", "expected"), MOVED.values(), ids=MOVED)
def test_a_claim_fails_where_it_is_not_true(claims, changes, expected):
    assert held(claims, handmade(claims, **changes)) == expected


def test_the_layers_are_those_of_the_effects(claims):
    traces = handmade(claims)
    early, late, severed = (claim.test(traces).note for claim in claims.CLAIMS)
    assert early == f"at layer {EARLY}"
    assert late == f"at layer {LATE}"
    assert severed == f"at layer {EARLY - WINDOW // 2}", "where the window of MLPs begins"


def test_layers_are_chosen_on_other_facts(claims):
    profile = xr.DataArray(np.eye(4)[[0, 0, 3, 3]], dims=("prompt", "layer"))
    profile = profile.assign_coords(layer=np.arange(4))
    chosen = claims.peaks_of_other_half(profile, np.array([0, 0, 1, 1]))
    assert chosen.values.tolist() == [3, 3, 0, 0]


def test_facts_about_one_subject_are_in_one_half(claims):
    trace = handmade(claims).sites
    half = claims.halves(trace)
    assert set(half) == {0, 1}
    for subject in set(trace.subject.values):
        assert len(set(half[trace.subject.values == subject])) == 1


def test_a_recurrent_model_has_both_sites_in_its_mixer(claims):
    sites = {
        "resid_post": {
            "last_subject": np.linspace(0.6, 0.0, N_LAYERS),
            "last_token": np.linspace(0.0, 0.8, N_LAYERS),
        },
        "mixer_out": {"last_subject": bump(EARLY, 0.3), "last_token": bump(LATE, 0.4)},
    }
    trace = handmade_trace(sites)
    traces = claims.Traces(trace, trace, {"mixer": trace})
    assert held(claims, traces) == {"early_site", "late_site"}
    severed = claims.CLAIMS[2].test(traces)
    assert claims.verdict(severed, severed) == "not applicable"
    sites["mixer_out"]["last_subject"] = bump(LATE, 0.3)
    turned = handmade_trace(sites)
    assert held(claims, claims.Traces(turned, turned, {})) == set()


def test_few_facts_are_not_tested(claims):
    traces = handmade(claims)
    few = claims.Traces(traces.sites.isel(prompt=slice(5)), traces.entering, traces.severed)
    outcome = claims.CLAIMS[0].test(few)
    assert not outcome.holds
    assert outcome.note.startswith("5 facts about 2 subjects were traced, of 5 given")


def test_a_claim_that_holds_on_an_untrained_model_says_nothing(claims):
    good, bad = (claims.Outcome((claims.Condition("", 1.0, low, 2.0, 0.0),)) for low in (0.5, -0.5))
    assert claims.verdict(good, bad) == "holds"
    assert claims.verdict(good, good) == "not discriminating"
    assert claims.verdict(bad, bad) == claims.verdict(bad, good) == "fails"
    assert not claims.Outcome().holds, "a claim without conditions shows nothing"


class Unstored:
    """A store that keeps nothing and hands the whole set to the method: quick."""

    def run(self, function: Callable[..., xr.Dataset], *args: Any, **options: Any) -> xr.Dataset:
        return function(*args, **options)


def run_study(
    study: ModuleType, folder: Path, out: Path, count: int = 6
) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON report of a run on all of `count` facts."""
    arguments = ["--model", str(folder), "--count", str(count), "--samples", "1", "--all-facts"]
    code = study.main([*arguments, "--out", str(out)])
    (report,) = out.glob("*/verdicts.json")
    return code, json.loads(report.read_text())


@pytest.mark.parametrize(
    "family",
    [
        "neox",
        "mamba",
        pytest.param("gpt2", marks=pytest.mark.slow),
        pytest.param("llama", marks=pytest.mark.slow),
    ],
)
def test_random_weights_reach_their_verdicts(
    family: str,
    study_file: StudyFile,
    model_folder: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = study_file("fact_localization", "study")
    monkeypatch.setattr(study.ml, "Store", Unstored)
    code, report = run_study(study, model_folder(family, "bpe"), tmp_path)
    assert code == 1, "a model with random weights keeps no facts"
    claims = report["claims"]
    applies = ALL if family != "mamba" else ALL - {"severed"}
    assert {name for name, claim in claims.items() if claim["verdict"] == "fails"} == applies
    assert {c["verdict"] for n, c in claims.items() if n not in applies} <= {"not applicable"}
    for name in applies:
        for model in ("model", "untrained"):
            conditions = claims[name][model]["conditions"]
            assert len(conditions) >= 3
            assert all(c["value"] is not None for c in conditions if c["bound"])
    assert "| claim | source | verdict |" in capsys.readouterr().out
    pages = {path.name for path in tmp_path.glob("*/*.html")}
    assert pages == {"roles-model.html", "roles-untrained.html", "severed.html"}


def test_a_second_run_traces_nothing(study_file, model_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MECHLAB_CACHE", str(tmp_path / "cache"))
    study = study_file("fact_localization", "study")
    folder = model_folder("gpt2", "bpe")
    first = run_study(study, folder, tmp_path / "first", count=2)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a forward pass")

    monkeypatch.setattr("mechlab.methods.tracing.trace.engine.run", never)
    monkeypatch.setattr("mechlab.methods.tracing.trace.engine.next_tokens", never)
    assert run_study(study, folder, tmp_path / "second", count=2) == first


def test_an_unknown_model_ends_with_one_error(study_file, capsys):
    study = study_file("fact_localization", "study")
    assert study.main(["--model", "no-such-model-here"]) == 2
    assert capsys.readouterr().err.startswith("ModelError: ")
