"""`mechlab heads`, `paths`, `knockout`: the store's own result, shown; mistakes refused early."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

import mechlab as ml
from mechlab import models
from mechlab.cli import app
from mechlab.cli.options import nodes
from mechlab.cli.spec import read_request
from mechlab.errors import OptionError

ROWS = [
    ("The capital of France is", "The capital of Norway is", "Paris", "Oslo"),
    ("The capital of Norway is", "The capital of France is", "Oslo", "Paris"),
    ("The capital of Italy is", "The capital of Peru is", "Rome", "Lima"),
]
FIELDS = ("clean", "corrupted", "answer", "wrong_answer")
Call = Callable[..., Result]
pytestmark = pytest.mark.usefixtures("loaded_once")


@pytest.fixture
def folder(model_folder) -> Path:
    return model_folder("llama", "words")


@pytest.fixture
def pairs(tmp_path) -> Path:
    path = tmp_path / "pairs.json"
    path.write_text(json.dumps([dict(zip(FIELDS, row, strict=True)) for row in ROWS]))
    return path


@pytest.fixture
def run(tmp_path, folder) -> Call:
    """Call `mechlab WORDS` on a toy, with a store of the test's own."""

    def call(verb: str, *words: str) -> Result:
        model = () if verb in ("run", "runs") else ("--model", str(folder))
        return CliRunner().invoke(app, [verb, *words, *model, "--cache", str(tmp_path / "store")])

    return call


def shown(ended: Result) -> dict:
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


@pytest.fixture
def python(folder, pairs):
    """The same model and pairs, for the same call in Python."""
    return ml.load_model(folder), ml.prompts.read_pairs(pairs)


def test_text_shows_the_grid_the_strongest_heads_the_run_and_a_figure(run, pairs, tmp_path):
    ended = run("heads", "--file", str(pairs), "--top", "3")
    assert ended.exit_code == 0, ended.output
    (entry,) = ml.Store(tmp_path / "store").find()
    assert entry.id in ended.stdout
    assert "strongest 3, with 95 % intervals" in ended.stdout
    listed = re.findall(r"^  L\d+H\d+ +[+-]\d", ended.stdout, flags=re.M)
    assert len(listed) == 3
    figure = tmp_path / "store" / "figures" / f"{entry.id}.html"
    assert "Plotly.newPlot" in figure.read_text(encoding="utf-8")


def test_json_holds_the_mean_of_the_python_result_and_its_strongest_heads(run, pairs, python):
    about = shown(run("heads", "--file", str(pairs), "--json"))
    same = ml.direct_logit_attribution(*python).head_attribution.mean("prompt")
    (grid,) = about["grids"]
    assert grid["mean"] == [pytest.approx(row, rel=1e-3, abs=1e-6) for row in same.values.tolist()]
    strongest = ml.top_heads(abs(same), k=1)[0]
    assert about["strongest"][0]["at"] == str(strongest)
    assert [row["label"] for row in about["prompts"]] == [row[0] for row in ROWS]


@pytest.mark.parametrize(
    ("words", "method", "options"),
    [
        (["--method", "patch", "--direction", "noising"], "activation_patch",
         {"direction": "noising"}),
        (["--method", "gradient"], "attribution_patch", {}),
        (["--method", "ablate", "--layers", "1"], "ablate", {"layers": (1,)}),
        (["--by", "component"], "direct_logit_attribution", {"by": "component"}),
    ],
)  # fmt: skip
def test_each_method_is_the_function_of_that_name(run, pairs, python, words, method, options):
    about = shown(run("heads", "--file", str(pairs), *words, "--json"))
    assert about["method"] == method
    result = getattr(ml, method)(*python, **options)
    name = ml.plots.main_variable(result)
    strongest = float(abs(result[name].mean("prompt")).max())
    assert abs(about["strongest"][0]["value"]) == pytest.approx(strongest, rel=1e-3)


def test_a_resampling_ablation_of_few_prompts_draws_fewer(run, pairs, python):
    words = ["--file", str(pairs), "--method", "ablate", "--kind", "resample"]
    refused = run("heads", *words)
    assert refused.exit_code == 2 and "draws=10" in refused.output
    about = shown(run("heads", *words, "--draws", "2", "--json"))
    model, prompts = python
    same = ml.ablate(model, prompts, kind="resample", reference=prompts, draws=2)
    expected = same.effect.mean("prompt").values.tolist()
    assert about["grids"][0]["mean"] == [pytest.approx(r, rel=1e-3, abs=1e-6) for r in expected]


def test_a_mean_ablation_takes_the_prompts_themselves_as_reference(run, pairs, python):
    about = shown(run("heads", "--file", str(pairs), "--method", "ablate", "--kind", "mean",
                      "--positions", "last", "--json"))  # fmt: skip
    model, prompts = python
    same = ml.ablate(model, prompts, kind="mean", reference=prompts, positions="last")
    expected = same.effect.mean("prompt").values.tolist()
    assert about["grids"][0]["mean"] == [pytest.approx(r, rel=1e-3, abs=1e-6) for r in expected]


def test_scaling_shows_one_curve_per_outcome_and_the_random_heads(run, pairs):
    words = ["--file", str(pairs), "--method", "scale", "--heads", "L0H0,L1H1", "--alpha=-1,1,2"]
    ended = run("heads", *words, "--controls", "1")
    assert ended.exit_code == 0, ended.output
    for text in ("in context", "memorised", "other", "L0H0", "L1H1", "mean of random heads"):
        assert text in ended.stdout
    about = shown(run("heads", *words, "--controls", "1", "--json"))
    assert [grid["alpha"] for grid in about["grids"]] == [["-1", "1", "2"]] * 2
    for grid in about["grids"]:
        assert [sum(row) for row in grid["mean"]] == pytest.approx([1.0] * 3)


def test_a_screen_lists_exact_effects_and_says_how_far_it_agrees(run, pairs, python):
    words = ["--file", str(pairs), "--method", "screen", "--k", "2"]
    about = shown(run("heads", *words, "--json"))
    same = ml.screen_then_verify(*python, k=2)
    assert about["rank_agreement"] == pytest.approx(float(same.rank_agreement), rel=1e-3)
    exact = abs(same.effect.mean("prompt")).max()
    assert abs(about["strongest"][0]["value"]) == pytest.approx(float(exact), rel=1e-3)
    assert "rank agreement" in run("heads", *words).stdout


def test_one_pair_can_be_typed_and_has_no_interval(run):
    clean, corrupted, answer, wrong = ROWS[0]
    about = shown(
        run("heads", "--clean", clean, "--corrupted", corrupted, "--answer", answer,
            "--wrong-answer", wrong, "--json")
    )  # fmt: skip
    assert about["strongest"][0]["low"] is None
    assert about["grids"][0]["low"] is None


def test_paths_reach_the_receivers_that_were_named(run, pairs, tmp_path):
    words = ["--file", str(pairs), "--senders", "L0H0,MLP0", "--receivers", "L1H1.q,logits"]
    about = shown(run("paths", *words, "--json"))
    assert [grid["title"] for grid in about["grids"]] == ["to L1H1.q", "to logits"]
    assert {cell["at"] for cell in about["strongest"]} == {
        "L0H0 → L1H1.q", "L0H0 → logits", "MLP 0 → L1H1.q", "MLP 0 → logits",
    }  # fmt: skip
    assert "Plotly.newPlot" in Path(about["graph"]).read_text(encoding="utf-8")
    assert Path(about["figure"]) != Path(about["graph"])


def test_paths_equal_the_python_result(run, pairs, python):
    about = shown(run("paths", "--file", str(pairs), "--freeze", "heads+mlps", "--json"))
    same = ml.path_patch(*python, freeze="heads+mlps").effect.mean("prompt")
    assert abs(about["strongest"][0]["value"]) == pytest.approx(float(abs(same).max()), rel=1e-3)


def test_knockout_cuts_the_usual_groups_of_a_fact(run, tmp_path):
    facts = tmp_path / "facts.csv"
    facts.write_text("prompt,subject,target\nThe capital of France is,France,Paris\n")
    about = shown(run("knockout", "--file", str(facts), "--window", "1", "--json"))
    assert about["grids"][0]["source"] == ["subject", "not subject", "last"]
    assert about["options"]["cut"] == "mask"
    zero = shown(run("knockout", "--file", str(facts), "--mode", "zero", "--keys", "1+2,-1",
                     "--json"))  # fmt: skip
    assert zero["options"]["cut"] == "zero"
    assert zero["grids"][0]["source"] == ["1+2", "-1"]


def test_the_second_call_is_read_from_the_store_and_shown_again(run, pairs, tmp_path):
    first = run("heads", "--file", str(pairs), "--json").stdout
    (entry,) = ml.Store(tmp_path / "store").find()
    assert run("heads", "--file", str(pairs), "--json").stdout == first
    again = run("runs", "show", entry.id)
    assert again.exit_code == 0, again.output
    assert "strongest 10" in again.stdout


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        (["heads"], 3),
        (["heads", "--method", "patch", "--layers", "0,2"], 3 * (2 + 2 * 4)),
        (["heads", "--method", "scale", "--heads", "L0H0", "--alpha=0,1"], 3 * (1 + 2)),
        (["paths", "--senders", "L0H0,L0H1", "--receivers", "all_heads_q"], 3 * (2 + 2 * 12)),
        (["knockout", "--keys", "1,last", "--layers", "0-1"], 3 * (1 + 4)),
    ],
)
def test_an_estimate_counts_runs_and_runs_nothing(run, pairs, tmp_path, forwards, words, runs):
    told = json.loads(run(*words, "--file", str(pairs), "--estimate", "--json").stdout)
    assert (told["stored"], told["runs"], told["seconds"]) == (False, runs, None)
    assert forwards == []
    assert not (tmp_path / "store").exists()


def test_an_estimate_tells_the_time_from_the_last_run_of_the_method(run, pairs):
    assert run("heads", "--file", str(pairs)).exit_code == 0
    told = run("heads", "--file", str(pairs), "--by", "component", "--estimate").stdout
    assert "3 runs, about" in told
    assert "stored already" in run("heads", "--file", str(pairs), "--estimate").stdout


def test_a_request_in_a_file_gives_the_same_run(run, folder, pairs, tmp_path):
    typed = shown(run("paths", "--file", str(pairs), "--senders", "L0H0", "--receivers",
                      "L1H1.q+L1H0.q", "--json"))  # fmt: skip
    path = tmp_path / "request.json"
    path.write_text(json.dumps({
        "method": "path_patch", "model": {"name": str(folder)}, "prompts": pairs.name,
        "options": {"senders": ["L0H0"], "receivers": [["L1H1.q", "L1H0.q"]]},
    }))  # fmt: skip
    assert shown(run("run", str(path), "--json"))["run"] == typed["run"]


def test_a_request_names_a_built_in_set_or_lists_pairs(tmp_path):
    path = tmp_path / "request.json"
    spec = {"method": "ablate", "model": "atlas", "prompts": {"set": "facts", "count": 3}}
    path.write_text(json.dumps(spec))
    assert read_request(path).prompts == ml.prompts.world_facts(3)
    listed = [dict(zip(FIELDS, row, strict=True)) for row in ROWS]
    path.write_text(json.dumps(spec | {"prompts": listed}))
    assert read_request(path).prompts.kind == "pair"
    path.write_text(json.dumps(spec | {"prompts": {"set": "fakts"}}))
    with pytest.raises(OptionError, match="no built-in set 'fakts'.*conflicts"):
        read_request(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all_heads", "all_heads"),
        ("L5H3.q", [ml.Site("q", 5, 3)]),
        ("L5H3,MLP4", [ml.Site("z", 5, 3), ml.Site("mlp_out", 4)]),
        ("L5H3.k+L6H1.v", [(ml.Site("k", 5, 3), ml.Site("v", 6, 1))]),
        ("attn2@7,embed", [ml.Site("attn_out", 2, None, 7), "embed"]),
        ([["L1H0", "embed"]], [(ml.Site("z", 1, 0), ml.Site("embed"))]),
    ],
)
def test_nodes_are_read_as_they_are_printed(text, expected):
    assert nodes(text, "--senders") == expected


@pytest.fixture
def forwards(loaded_once, monkeypatch):
    """Names of the modules that ran after a model was loaded, which nobody has proved yet."""
    ran: list[str] = []
    hooks = []
    proved = {}
    load = models.load_model

    def recorded(*args, **options):
        model = load(*args, **options)
        proved.setdefault(model, model.checks)
        model.checks = None  # proving its sites would be forward passes, too
        note = torch.nn.modules.module.register_module_forward_pre_hook
        hooks.append(note(lambda module, _: ran.append(type(module).__name__)))
        return model

    monkeypatch.setattr(models, "load_model", recorded)
    yield ran
    for hook in hooks:
        hook.remove()
    for model, checks in proved.items():
        model.checks = checks


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["heads", "--method", "guess"], "'guess' is unknown. Allowed: attribution"),
        (["heads", "--alpha", "1,2"], "no --alpha (of --method scale)"),
        (["heads", "--method", "scale"], "needs the heads to scale"),
        (["heads", "--method", "scale", "--heads", "L0H0", "--alpha", "x"], "not a number"),
        (["heads", "--pairs", "conflict"], "no built-in set 'conflict'"),
        (["heads", "--pairs", "ioi", "--form", "repeat"], "'ioi' has no form"),
        (["heads", "--clean", "x"], "--clean without --corrupted, --answer, --wrong-answer"),
        (["heads", "--file", "x.csv", "--clean", "y"], "--file and --clean were both given"),
        (["heads", "--file", "x.csv", "--count", "3"], "--count belong to built-in sets"),
        (["heads", "--file", "/nowhere.csv"], "nowhere.csv"),
        (["heads", "--layers", "one"], "'one'"),
        (["heads", "--file", "{pairs}", "--method", "patch", "--heads", "L9H9"], "L9H9"),
        (["paths", "--file", "{pairs}", "--receivers", "L1H0.z+x"], "'x' is not a node"),
        (["paths", "--file", "{pairs}", "--receivers", "all_heds"], "all_heds"),
        (["knockout", "--file", "{pairs}", "--keys", "subject"], "subject"),
        (["knockout", "--keys", "1+x"], "not a list of positions"),
        (["knockout", "--prompt", "x"], "--prompt without --subject, --target"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_before_any_forward_pass(run, pairs, forwards, words, message):
    ended = run(*[word.format(pairs=pairs) for word in words])
    assert ended.exit_code == 2
    assert message in ended.stderr
    assert forwards == []
    assert ended.stdout == ""
    assert "Traceback" not in ended.output


def test_a_path_that_does_not_exist_is_refused_with_the_reason(run, pairs):
    ended = run("paths", "--file", str(pairs), "--senders", "L1H0", "--receivers", "L0H0.q")
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "no such path" in ended.stderr
