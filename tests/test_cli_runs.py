"""`mechlab runs`: what is stored can be listed, shown, exported, verified and cleaned."""

import json
import warnings
from pathlib import Path

import pytest
import xarray as xr
from typer.testing import CliRunner, Result

import mechlab as ml
from mechlab.cli import app

FACTS = [
    ml.prompts.Fact(f"The capital of {country} is", country, "Rome")
    for country in ("France", "Norway")
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory, model_folder) -> Path:
    """A store with one run on two facts."""
    root = tmp_path_factory.mktemp("store")
    model = ml.load_model(model_folder("llama", "bpe"))
    facts = ml.prompts.as_prompt_set(FACTS)
    options = {"sites": ("mlp_out",), "samples": 2, "score": "target", "known_only": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the toy spells 'Rome' with five tokens
        ml.Store(root).run(ml.causal_trace, model, facts, **options)
    return root


def call(store: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["runs", *words, "--cache", str(store)])


@pytest.fixture
def entry(stored):
    (only,) = ml.Store(stored).find()
    return only


def test_runs_are_listed(stored, entry):
    shown = call(stored, "list").stdout
    assert entry.id in shown
    (told,) = json.loads(call(stored, "list", "--json").stdout)["runs"]
    assert (told["run"], told["method"]) == (entry.id, "causal_trace")
    assert told["labels"] == list(entry.labels)
    assert told["options"]["samples"] == 2


@pytest.mark.parametrize(
    "words", [["list"], ["verify"], ["gc"], ["show", "0123456789ab"], ["list", "--json"]]
)
def test_a_store_that_was_named_but_is_not_there_is_a_mistake(tmp_path, words):
    ended = call(tmp_path / "no" / "where", *words)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert f"there is no folder {tmp_path / 'no' / 'where'}" in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_usual_place_may_be_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("MECHLAB_CACHE", str(tmp_path / "later"))
    ended = CliRunner().invoke(app, ["runs", "list"])
    assert (ended.exit_code, "no results" in ended.stdout) == (0, True)


def test_runs_are_filtered(stored, entry):
    assert entry.id in call(stored, "list", "--model", entry.model_name).stdout
    assert entry.id not in call(stored, "list", "--model", "gpt2").stdout


def test_an_empty_store_is_said_to_be_empty(tmp_path):
    assert "no results" in call(tmp_path, "list").stdout
    assert list(tmp_path.iterdir()) == []


def test_a_run_is_shown_by_the_start_of_its_id(stored, entry):
    shown = call(stored, "show", entry.id[:6])
    assert shown.exit_code == 0, shown.output
    for words in ("mlp_out", "last subject", entry.id, "causal_trace"):
        assert words in shown.stdout.replace("_", " ") or words in shown.stdout
    told = json.loads(call(stored, "show", entry.id, "--json").stdout)
    assert [fact["prompt"] for fact in told["prompts"]] == [fact.prompt for fact in FACTS]


def test_a_run_is_exported(stored, entry, tmp_path):
    assert call(stored, "export", entry.id, str(tmp_path / "run.zarr")).exit_code == 0
    again = xr.open_zarr(tmp_path / "run.zarr", consolidated=False).load()
    xr.testing.assert_allclose(again, ml.Store(stored).get(entry.key))
    refused = call(stored, "export", entry.id, str(tmp_path / "run.docx"))
    assert (refused.exit_code, "unknown extension" in refused.stderr) == (2, True)


def test_an_unknown_run_is_refused(stored):
    ended = call(stored, "show", "0000")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "no such entry" in ended.stderr


def test_damage_is_found_and_named(stored, entry, tmp_path):
    assert call(stored, "verify").exit_code == 0
    copy = tmp_path / "copy"
    for file in stored.rglob("*"):
        if file.is_file():
            to = copy / file.relative_to(stored)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(file.read_bytes())
    files = (path for path in copy.rglob("*") if path.is_file())
    chunk = next(path for path in files if "restored_probability/c/" in path.as_posix())
    chunk.write_bytes(b"?" + chunk.read_bytes()[1:])
    ended = call(copy, "verify")
    assert ended.exit_code == 1
    assert "does not have its checksum" in ended.stdout
    assert json.loads(call(copy, "verify", "--json").stdout)["damaged"]


def test_gc_removes_remains_and_keeps_results(stored, entry):
    remains = stored / "causal_trace" / "ab" / ("ab" * 32)
    (remains / "data-0.zarr").mkdir(parents=True)
    assert "removed 0" in call(stored, "gc").stdout
    assert "removed 1" in call(stored, "gc", "--older-than", "0").stdout
    assert not remains.exists()
    assert [kept.key for kept in ml.Store(stored).find()] == [entry.key]
