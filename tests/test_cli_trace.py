"""`mechlab trace` and `mechlab run`: the store's own result, shown; mistakes refused early."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

import mechlab as ml
from mechlab import models
from mechlab.cli import app
from mechlab.cli.spec import read_request
from mechlab.errors import OptionError

FACT = ["--prompt", "The capital of France is", "--subject", "France", "--target", "Rome"]


@pytest.fixture
def folder(model_folder) -> Path:
    return model_folder("llama", "bpe")


@pytest.fixture
def run(tmp_path, folder):
    """Call `mechlab WORDS` on a toy, with a store of the test's own."""

    def call(*words: str) -> Result:
        return CliRunner().invoke(app, [*words, "--cache", str(tmp_path / "store")])

    return call


def trace(run, folder, *words: str) -> Result:
    return run("trace", "--model", str(folder), "--all-facts", "--samples", "2", *words)


def test_a_trace_shows_the_heat_map_the_run_and_a_figure_that_stands_alone(run, folder, tmp_path):
    ended = trace(run, folder, *FACT)
    assert ended.exit_code == 0, ended.output
    for words in ("resid_post", "mlp_out", "attn_out", "France", "layer", "clean"):
        assert words in ended.stdout
    (entry,) = ml.Store(tmp_path / "store").find()
    figure = tmp_path / "store" / "figures" / f"{entry.id}.html"
    assert entry.id in ended.stdout
    assert "Plotly.newPlot" in figure.read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:1 of 1 answers have several tokens")
def test_json_is_one_object_and_equals_the_python_result(run, folder, tmp_path):
    ended = trace(run, folder, *FACT, "--json")
    shown = json.loads(ended.stdout)
    store, model = ml.Store(tmp_path / "store"), ml.load_model(folder)
    sites = ("resid_post", "mlp_out", "attn_out")
    fact = ml.prompts.Fact(*FACT[1::2])
    same = ml.causal_trace(model, fact, sites=sites, samples=2, known_only=False)
    assert shown["run"] == store.find()[0].id
    assert tuple(shown["sites"]) == sites
    (only,) = shown["prompts"]
    assert only["total_effect"] == pytest.approx(float(same.total_effect[0]), rel=1e-4)
    for site in sites:
        expected = same.indirect_effect.sel(site=site)[0].values
        assert only["indirect_effect"][site] == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_the_second_call_is_read_from_the_store(run, folder, tmp_path):
    first = trace(run, folder, *FACT, "--json").stdout
    (entry,) = ml.Store(tmp_path / "store").find()
    assert trace(run, folder, *FACT, "--json").stdout == first
    assert [again.created for again in ml.Store(tmp_path / "store").find()] == [entry.created]


def test_several_facts_are_averaged_and_unknown_ones_named(run, folder, tmp_path):
    facts = tmp_path / "facts.csv"
    facts.write_text(
        "prompt,subject,target\n"
        "The capital of France is,France,Paris\n"
        "The capital of Norway is,Norway,Oslo\n"
    )
    shown = trace(run, folder, "--file", str(facts))
    assert shown.exit_code == 0, shown.output
    assert "2 facts, on average" in shown.stdout
    known_only = run("trace", "--model", str(folder), "--samples", "2", "--file", str(facts))
    assert "left out 2 of 2 facts" in known_only.stdout
    assert "not known" in known_only.stdout


def test_an_estimate_runs_nothing(run, folder, tmp_path):
    ended = trace(run, folder, *FACT, "--estimate", "--json")
    told = json.loads(ended.stdout)
    model = ml.load_model(folder)
    tokens = len(model.token_strings(FACT[1]))
    assert told["restored_runs"] == 3 * model.n_layers * tokens * 2
    assert not (tmp_path / "store").exists()
    trace(run, folder, *FACT)
    again = json.loads(trace(run, folder, *FACT, "--estimate", "--json").stdout)
    assert again == {"run": told["run"], "stored": True, "restored_runs": 0, "seconds": 0.0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 0}, "samples=0"),
        ({"samples": "x"}, "samples='x'"),
        ({"layers": [99]}, "layers go from 0 to"),
        ({"sites": ["resid"]}, "'resid'"),
        ({"window": 0}, "window=0"),
        ({"noise_scale": float("nan")}, "noise_scale=nan"),
        ({"mode": "fast"}, "mode='fast'"),
        ({"sample": 3}, "sample"),
    ],
)
def test_an_estimate_refuses_what_a_run_would_refuse(run, folder, tmp_path, options, words):
    request = str(spec(tmp_path, model=str(folder), options=options))
    told, ran = run("run", request, "--estimate"), run("run", request)
    assert (told.exit_code, told.stdout) == (ran.exit_code, ran.stdout) == (2, "")
    assert words in told.stderr
    assert told.stderr.splitlines()[-1] == ran.stderr.splitlines()[-1]


@pytest.mark.parametrize("positions", ["last_subject", "subject"])
def test_an_estimate_counts_the_cells_that_are_traced(run, folder, tmp_path, positions):
    model = ml.load_model(folder)
    fact = ml.prompts.Fact(*FACT[1::2])
    first, last = model.subject_positions(fact)
    options = {"positions": positions, "layers": [0, 2], "samples": 3, "known_only": False}
    request = str(spec(tmp_path, model=str(folder), options=options))
    told = json.loads(run("run", request, "--estimate", "--json").stdout)
    expected = 1 if positions == "last_subject" else last - first + 1
    assert told["restored_runs"] == 1 * 2 * expected * 3
    assert run("run", request).exit_code == 0
    (entry,) = ml.Store(tmp_path / "store").find()
    trace = ml.Store(tmp_path / "store").get(entry.key)
    assert int(trace.restored_probability.notnull().sum()) == told["restored_runs"]


@pytest.mark.parametrize("number", ["nan", "inf"])
def test_noise_that_is_no_number_is_a_mistake_of_that_option(run, folder, number):
    ended = trace(run, folder, *FACT, "--noise-scale", number)
    assert (ended.exit_code, f"noise_scale={number}" in ended.stderr) == (2, True)
    assert "key" not in ended.stderr


@pytest.fixture
def forwards(monkeypatch) -> Iterator[list[str]]:
    """Names of the modules that ran after a model was loaded."""
    ran: list[str] = []
    hooks = []
    load = models.load_model

    def note(module, _) -> None:
        ran.append(type(module).__name__)

    def recorded(*args, **options):
        model = load(*args, **options)
        hooks.append(torch.nn.modules.module.register_module_forward_pre_hook(note))
        return model

    monkeypatch.setattr(models, "load_model", recorded)
    yield ran
    for hook in hooks:
        hook.remove()


def test_the_recorder_of_forward_passes_works(forwards, run, folder):
    assert trace(run, folder, *FACT).exit_code == 0
    assert forwards


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--prompt", "The capital of France is"], "--prompt without --subject, --target"),
        ([*FACT, "--file", "facts.csv"], "a file of facts, or one fact"),
        (["--prompt", "Oslo is", "--subject", "Rome", "--target", "x"], "Rome"),
        (["--prompt", "", "--subject", "Rome", "--target", "x"], "PromptError"),
        ([*FACT, "--sites", "resid_mud"], "resid_mud"),
        ([*FACT, "--samples", "0"], "samples"),
        ([*FACT, "--window", "0"], "window"),
        ([*FACT, "--noise-scale", "-1"], "noise_scale"),
        ([*FACT, "--dtype", "float8"], "float8"),
        ([*FACT, "--device", "abacus"], "abacus"),
        ([*FACT, "--html", "/nowhere/at/all.html"], "--html"),
        (["--file", "/nowhere.csv"], "nowhere.csv"),
        (["--prompt", "the Rome " * 200, "--subject", "Rome", "--target", "x"], "128 tokens"),
    ],
)
def test_bad_input_is_one_message_before_any_forward_pass(
    run, folder, tmp_path, forwards, words, message
):
    ended = run("trace", "--model", str(folder), *words)
    assert ended.exit_code == 2
    assert message in ended.stderr
    assert forwards == []
    assert "Traceback" not in ended.output
    assert ended.stdout == ""
    assert not list((tmp_path / "store").rglob("record.json"))


@pytest.mark.parametrize("name", ["no-such/model", "/no/such/folder"])
def test_an_unknown_model_is_refused(run, name):
    ended = run("trace", "--model", name, *FACT)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert name in ended.stderr


def test_a_layer_out_of_range_is_refused(run, folder, tmp_path, forwards):
    ended = run("run", str(spec(tmp_path, model=str(folder), options={"layers": [0, 99]})))
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "99" in ended.stderr
    assert forwards == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_missing_gpu_is_refused(run, folder):
    ended = trace(run, folder, *FACT, "--device", "cuda")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "cuda" in ended.stderr


def spoilt(folder: Path, to: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Copy a model folder without its weights; return it with the weights."""
    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    (to / "model.safetensors").unlink()
    return to, weights


def test_weights_that_are_not_finite_are_refused(run, folder, tmp_path):
    copy, weights = spoilt(folder, tmp_path / "nan")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    ended = trace(run, copy, *FACT)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "ModelError" in ended.stderr


def test_pickled_weights_are_refused(run, folder, tmp_path):
    copy, _ = spoilt(folder, tmp_path / "pickled")
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    ended = trace(run, copy, *FACT)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "safetensors" in ended.stderr


def test_a_store_that_cannot_be_written_is_refused(tmp_path, folder, forwards):
    file = tmp_path / "file"
    file.write_text("in the way")
    ended = CliRunner().invoke(
        app, ["trace", "--model", str(folder), "--cache", str(file / "store"), *FACT]
    )
    assert ended.exit_code == 2
    assert "cannot be written" in ended.stderr
    assert forwards == []


def spec(tmp_path: Path, **changes: object) -> Path:
    fact = dict(zip(("prompt", "subject", "target"), FACT[1::2], strict=True))
    content = {"method": "causal_trace", "model": "atlas", "prompts": [fact]} | changes
    path = tmp_path / "request.json"
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return path


def test_a_request_in_a_file_gives_the_same_run(run, folder, tmp_path):
    shown = json.loads(trace(run, folder, *FACT, "--json").stdout)
    sites = ["resid_post", "mlp_out", "attn_out"]
    options = {"sites": sites, "samples": 2, "known_only": False}
    written = spec(tmp_path, model={"name": str(folder)}, options=options)
    assert json.loads(run("run", str(written), "--json").stdout) == shown


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metod": "x"}, "unknown keys metod"),
        ({"prompts": None}, "no prompts"),
        ({"model": {"device": "cpu"}}, "a name, or an object with name"),
        ({"prompts": [{"prompt": "x", "subjekt": "y"}]}, "subjekt"),
        ({"prompts": [3]}, "not facts"),
        ({"options": [1]}, "options"),
        ({"options": {"progress": 1, "model": "gpt2"}}, "model, progress, which the command sets"),
        ({"model": {"name": 5}}, "a name, or an object with name"),
    ],
)
def test_a_wrong_request_is_refused_with_what_is_allowed(tmp_path, changes, message):
    with pytest.raises(OptionError, match=message):
        read_request(spec(tmp_path, **changes))


def test_a_file_that_is_no_request_is_refused(tmp_path):
    path = tmp_path / "request.json"
    path.write_text("[1]")
    with pytest.raises(OptionError, match="holds a JSON list"):
        read_request(path)
    for text in ("{", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(OptionError, match="cannot be read as a request"):
            read_request(path)


def test_an_unknown_method_or_option_is_refused(run, folder, tmp_path):
    method = run("run", str(spec(tmp_path, method="casual_trace", model=str(folder))))
    assert (method.exit_code, " causal_trace" in method.stderr) == (2, True)
    option = run("run", str(spec(tmp_path, model=str(folder), options={"sample": 3})))
    assert (option.exit_code, "sample" in option.stderr) == (2, True)


def test_ctrl_c_ends_a_real_process_with_130_and_the_run_goes_on_later(folder, tmp_path):
    facts = tmp_path / "facts.jsonl"
    words = ("France Italy Germany Spain Norway Japan Kenya Peru Chile Cuba Iran Iraq").split()
    rows = ({"prompt": f"The capital of {n} is", "subject": n, "target": "Rome"} for n in words)
    facts.write_text("\n".join(map(json.dumps, rows)))
    command = [sys.executable, "-m", "mechlab", "trace", "--model", str(folder), "--all-facts"]
    command += ["--file", str(facts), "--samples", "10", "--cache", str(tmp_path / "store")]
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        # A shell starts background jobs with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "store").rglob("record.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert "What was finished is kept" in err
    store = ml.Store(tmp_path / "store")
    assert store.find() == []
    kept = {entry.key: entry.created for entry in store.find(kind="prompt")}
    assert len(kept) >= 3
    assert CliRunner().invoke(app, command[3:]).exit_code == 0
    now = {entry.key: entry.created for entry in store.find(kind="prompt")}
    assert len(store.find()) == 1
    assert kept.items() <= now.items()
