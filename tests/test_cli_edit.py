"""`mechlab edit`, `edit-eval` and `stats` on the shipped model: done, kept, shown, and refused."""

import csv
import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from mechlab import models
from mechlab.cli import app
from mechlab.cli.editing.choice import read_cases, typed_request
from mechlab.cli.editing.options import edit_plan
from mechlab.cli.editing.plan import EditPlan
from mechlab.cli.editing.usual import note_foreign_corpus
from mechlab.errors import Cancelled, OptionError
from mechlab.methods import Edit

FEW = ["--layer", "3", "--steps", "5", "--tokens", "4000", "--ridge", "0.01"]
SHORT = ["--drift", "2", "--generate", "2"]
REQUEST = {"prompt": "The capital of {} is", "subject": "Poland", "target": "London"}


@pytest.fixture(scope="module", autouse=True)
def atlas_loaded_once(_loaded: Any) -> Iterator[None]:
    """As `loaded_once`, for module fixtures too: the commands here load `atlas` again and again."""
    load = models.load_model

    def load_model(name: str, **options: Any) -> Any:
        assert options.items() <= {"device": "auto", "dtype": "float32"}.items()
        key = ("load", name)
        return _loaded.get(key, lambda: load(name, **options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load_model", load_model)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def made(cache: Path) -> dict[str, Any]:
    """The example, edited and saved."""
    saved = ["--save", str(cache / "poland.safetensors")]
    return answer("edit", *FEW, *SHORT, *saved, "--cache", str(cache), "--json")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments])


def answer(*arguments: str) -> Any:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_example_is_edited_measured_saved_and_drawn(made: dict[str, Any]) -> None:
    (request,) = made["requests"]
    assert request["prompt"] == "The capital of Poland is"
    assert (request["target"], request["target_true"]) == ("London", "Warsaw")
    assert request["probability_true_before"] > 0.9
    assert request["probability_new"] > 10 * request["probability_new_before"]
    assert request["next_before"][0]["token"].strip() == "Warsaw"
    assert made["edit"]["layers"] == [3] and made["edit"]["rank"] == 1
    assert made["options"]["steps"] == 5 and made["drift"]["texts"] == 2
    kinds = {row["kind"] for row in made["prompts"]}
    assert {"rewrite", "paraphrase", "neighbourhood", "languages"} <= kinds
    assert len(made["generations"]) == 3
    figure = Path(made["figure"])
    assert figure.is_file() and figure.with_name(f"{figure.stem}-drift.html").is_file()


def test_a_saved_edit_is_shown_with_the_same_numbers(made: dict[str, Any], cache: Path) -> None:
    shown = answer("edit", "--load", made["saved"], *SHORT, "--cache", str(cache), "--json")
    assert shown["edit"]["digest"] == made["edit"]["digest"]
    assert shown["requests"] == made["requests"] and shown["prompts"] == made["prompts"]


def test_an_edit_of_another_model_is_refused_before_anything_runs(
    made: dict[str, Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = type(models.load_model("atlas").bridge)
    foreign = replace(Edit.load(made["saved"]), fingerprint="0" * 64)
    file = str(foreign.save(cache / "foreign.safetensors"))
    monkeypatch.setattr(bridge, "forward", lambda *a, **k: pytest.fail("it ran"))
    for command in ("edit", "edit-eval"):
        result = run(command, "--load", file, "--cache", str(cache))
        assert result.exit_code == 2 and "fingerprint 000000" in result.stderr, result.output


def test_the_same_edit_typed_with_its_subject_comes_from_the_store(
    made: dict[str, Any], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EditPlan, "make", None)  # nothing may be computed
    typed = ["--prompt", "The capital of Poland is", "--subject", "Poland", "--target", "London"]
    truth = ["--target-true", "Warsaw"]
    text = run("edit", *typed, *truth, *FEW, *SHORT, "--cache", str(cache))
    assert text.exit_code == 0, text.output
    assert "The capital of Poland is → London, instead of Warsaw" in text.stdout
    assert f"edit      {made['edit']['digest'][:12]}" in text.stdout
    told = answer("edit", *FEW, "--estimate", "--cache", str(cache), "--json")
    assert told["stored"] and told["optimised_rows"] == 0


def test_statistics_are_counted_once_listed_and_shown(made: dict[str, Any], cache: Path) -> None:
    few = ["stats", "--layer", "3", "--tokens", "4000", "--cache", str(cache), "--json"]
    found = answer(*few)
    assert found["layers"][0]["was_stored"] and found["tokens"] >= 4000
    assert answer(*few, "--estimate")["layers_to_count"] == []
    (listed,) = answer("stats", "--list", "--cache", str(cache), "--json")["statistics"]
    assert (listed["layer"], listed["tokens"], listed["corpus"]) == (3, 4000, "atlas")
    for stored in answer("runs", "list", "--cache", str(cache), "--json")["runs"]:
        shown = answer("runs", "show", stored["run"], "--cache", str(cache), "--json")
        assert shown["method"] == stored["method"]


def test_a_stopped_evaluation_goes_on_and_a_spec_finds_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    make = EditPlan.make

    def counted(self: EditPlan, model: Any, requests: Any, *rest: Any) -> Any:
        calls.append(requests[0].subject)
        if len(calls) == 2:
            raise Cancelled("stopped here")
        return make(self, model, requests, *rest)

    monkeypatch.setattr(EditPlan, "make", counted)
    table, file = tmp_path / "table.csv", tmp_path / "cases.jsonl"
    asked = [("Peru", "Madrid", "Lima"), ("Egypt", "Oslo", "Cairo")]
    rows = [{"prompt": "The capital of {} is", "subject": subject, "target": new,
             "target_true": old, "paraphrases": [f"{subject}'s capital is"]}
            for subject, new, old in asked]  # fmt: skip
    file.write_text("\n".join(map(json.dumps, rows)))
    two = ["edit-eval", "--file", str(file), *FEW, "--drift", "0", "--cache", str(cache)]
    assert run(*two).exit_code == 130
    done = answer(*two, "--per-case", str(table), "--json")
    assert len(calls) == 3 and calls[1] == calls[2] != calls[0]  # the first was not made again
    written = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["case"] for row in written] == [row["case"] for row in done["cases"]]
    mean = sum(float(row["paraphrase"]) for row in written) / 2
    summary = {row["metric"]: row for row in done["summary"]}
    assert summary["paraphrase"]["mean"] == pytest.approx(mean, abs=1e-5)
    assert answer(*two, "--estimate", "--json")["stored"]

    statistics = {"tokens": 4000, "ridge": 0.01, "corpus": "atlas"}
    edit = {"method": "rank_one_edit", "layer": 3, "steps": 5, "key_statistics": statistics}
    spec = {"method": "evaluate_each_edit", "model": "atlas", "options": {"edit": edit},
            "prompts": file.name}  # fmt: skip
    asked_for = tmp_path / "spec.json"
    asked_for.write_text(json.dumps(spec))
    again = answer("run", str(asked_for), "--cache", str(cache), "--json")
    assert again["run"] == done["run"] and again["summary"] == done["summary"]
    assert len(calls) == 3


def test_requests_of_a_file_are_read_in_each_known_form(tmp_path: Path) -> None:
    rewrite = {"prompt": "{} speaks", "subject": "Ann", "target_new": {"str": "Dutch"},
               "target_true": {"str": "Greek"}}  # fmt: skip
    counterfact = tmp_path / "counterfact.json"
    counterfact.write_text(json.dumps([{"requested_rewrite": rewrite}] * 2))
    (case,) = read_cases(counterfact, count=1)
    assert case.request.label == "Ann speaks Dutch"
    own = tmp_path / "own.csv"
    own.write_text("prompt,subject,target\nThe capital of Poland is,Poland,London\n")
    (case,) = read_cases(own)
    assert case.request.target_true == "Warsaw" and len(case.neighbourhood) == 10
    with pytest.raises(OptionError, match="Allowed: 1 to 2"):
        read_cases(counterfact, count=3)
    with pytest.raises(OptionError, match="'xml' is unknown"):
        read_cases(own, "xml")


def test_what_was_not_typed_comes_from_the_example() -> None:
    assert typed_request(None, "France", None, None).label == "The capital of France is London"
    assert edit_plan({}, several=True, corpus="atlas", tokens=9).method == "memit"
    assert edit_plan({"layers": "2"}, several=False, corpus="a", tokens=9).layers == (2,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("edit --prompt Hello", "--prompt without --subject and --target"),
        ("edit --prompt Hello --subject Ann --target Bob", "does not occur in --prompt"),
        ("edit --method guess", "Allowed: rank-one, memit, fine-tune"),
        ("edit --method memit --variant rome", "--variant (of --method rank-one)"),
        ("edit --layer 0,1", "--method rank-one edits one layer"),
        ("edit --load a.safetensors --steps 3", "--load shows an edit that is made already"),
        ("edit --load none.safetensors", "cannot be read as an edit"),
        ("edit --file a.csv --subject Ann", "were all given"),
        ("edit --save /nowhere/at/all", "--save /nowhere/at/all cannot be written"),
        ("edit --layer 99 --clamp -1 --variant b", "clamp=-1.0"),
        ("edit --target Warsaw", "target and target_true are both"),
        ("edit-eval --format zsre", "no --file was given"),
        ("edit-eval --load a.safetensors --each", "--each say how to make edits"),
        ("edit-eval --per-case cases.xml", "Allowed: the name of a .csv, .json, .jsonl"),
        ("edit-eval --count 1 --protocol best", "protocol='best'"),
        ("stats --layer 99", "layers [99] of atlas"),
        ("stats --corpus nowhere.txt", "corpus='nowhere.txt' is no file"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: str, message: str, cache: Path) -> None:
    result = run(*arguments.split(), "--cache", str(cache))
    assert result.exit_code == 2, result.output
    assert message in " ".join((result.stderr + result.stdout).split())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"options": {"kl_template": "is a", "contexts": "x"}}, "kl_template='is a'"),
        ({"options": {"key_templates": ["of"]}}, "key_templates=['of']"),
        ({"method": "memit", "options": {"layers": "2"}}, "in a list"),
        ({"method": "memit", "options": {"moment_weight": 0}}, "moment_weight"),
        ({"options": {"layer": 0, "colour": 1}}, "has no --colour"),
        ({"options": {"key_statistics": {"words": 3}}}, "the options words, which there are not"),
        ({"prompts": [{"prompt": "a", "subject": 3}]}, "prompts that are not edits"),
        ({"method": "evaluate_each_edit", "options": {"edit": "rome"}}, "the edit 'rome'"),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = type(models.load_model("atlas").bridge)
    monkeypatch.setattr(bridge, "forward", lambda *a, **k: pytest.fail("it ran"))
    spec: dict[str, Any] = {"method": "rank_one_edit", "model": "atlas", "prompts": [REQUEST]}
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(spec | change))
    result = run("run", str(file), "--cache", str(tmp_path))
    assert result.exit_code == 2, result.output
    assert message in " ".join((result.stderr + result.stdout).split())


def test_a_corpus_that_is_not_the_models_own_is_noted_unless_it_is_named() -> None:
    own, other = SimpleNamespace(name="atlas"), SimpleNamespace(name="gpt2")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        note_foreign_corpus(own, {})
        note_foreign_corpus(other, {"corpus": "atlas"})
    with pytest.warns(UserWarning, match="statistics of gpt2 are counted on the shipped corpus"):
        note_foreign_corpus(other, {})


def test_nothing_named_in_a_spec_is_what_is_usual() -> None:
    model = SimpleNamespace(name="toy", family="llama", n_layers=4, d_model=8)
    plan = EditPlan("rank-one", {"layer": None, "clamp": None}).completed(model)  # type: ignore[arg-type]
    assert plan.layers == (1,) and "clamp" not in plan.options
    assert EditPlan("memit", {"layers": 2}).completed(model).layers == (2,)  # type: ignore[arg-type]
