"""`mechlab models`: what is shipped, what is proved, what is seen."""

import json

import pytest
from typer.testing import CliRunner

import mechlab as ml
from mechlab.cli import app, models
from mechlab.engine import Check, Checks, SiteStatus


def call(*words: str):
    return CliRunner().invoke(app, ["models", *words])


def test_the_shipped_models_are_listed_with_what_they_are():
    shown = call()
    assert shown.exit_code == 0
    for name in ml.organisms.names():
        assert name in shown.stdout
    assert call("list").stdout == shown.stdout
    told = json.loads(call("--json").stdout)["models"]
    assert told == {name: ml.organisms.card(name) for name in ml.organisms.names()}


def test_a_check_shows_every_site_and_ends_with_0_when_all_that_exist_are_proved(model_folder):
    folder = str(model_folder("gpt2"))
    shown = call("check", folder)
    assert shown.exit_code == 0, shown.output
    told = json.loads(call("check", folder, "--json").stdout)
    assert told["engine_agrees"] is True
    for site in told["sites"]:
        assert site in shown.stdout
    assert told["sites"]["mixer_out"]["exists"] is False


def test_a_model_whose_tokenizer_knows_only_bytes_can_be_checked():
    told = json.loads(call("check", "echo", "--json").stdout)
    assert all(check["passed"] for check in told["checks"])


@pytest.mark.parametrize(("proved", "code"), [(True, 0), (False, 1)])
def test_an_unproved_site_ends_with_1(monkeypatch, proved, code):
    status = SiteStatus(exists=True, fires=True, verified=proved, reason="" if proved else "off")
    result = Check("patch at mlp_out", proved, float("nan"), "never fires")
    checks = Checks((result,), {"mlp_out": status}, False, True)
    monkeypatch.setattr(models, "_load", lambda *_: None)
    monkeypatch.setattr("mechlab.engine.verify", lambda model: checks)
    ended = call("check", "any", "--json")
    assert ended.exit_code == code
    assert json.loads(ended.stdout)["checks"][0]["difference"] is None


def test_tokens_are_what_the_model_sees(model_folder):
    folder = str(model_folder("llama", "bpe"))
    told = json.loads(call("tokens", folder, "The capital of France is", "--json").stdout)
    model = ml.load_model(folder)
    assert told["tokens"] == model.token_strings("The capital of France is")
    assert "␠capital" in call("tokens", folder, "The capital of France is").stdout


def test_an_unknown_model_is_one_message_and_exit_code_2():
    ended = call("check", "no-such/model")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith("ModelError: ")
