import json
from pathlib import Path
from types import SimpleNamespace

import loaded
from cost import Cost, estimate
from text import duration
from trace_request import TraceRequest


def test_a_loaded_model_gives_the_exact_number_of_runs(engine) -> None:
    request = TraceRequest(prompt="a b c", subject="a", samples=5)
    loaded.load(request.load_arguments)
    last = SimpleNamespace(method="causal_trace", sizes={"layer": 4, "pos": 30}, wall_seconds=1.0)
    cost = estimate(request, [last])  # 120 runs in a second
    assert cost == Cost(rows=3 * 4 * 4 * 5, seconds=2.0, loaded=True)
    assert cost.in_words() == "about 240 restored runs · about 2 s at the speed of the last one"


def test_a_folder_tells_its_size_without_being_loaded(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"n_layer": 6}))
    request = TraceRequest(model=str(tmp_path), prompt="a b a", subject="a", samples=2)
    assert estimate(request) == Cost(rows=3 * 6 * 3 * 2, seconds=None, loaded=False)
    assert "the model is loaded first" in estimate(request).in_words()


def test_what_cannot_be_told_is_not_guessed(tmp_path: Path) -> None:
    assert estimate(TraceRequest(model="someone/unknown", prompt="a", subject="a")).rows is None
    (tmp_path / "config.json").write_text("{broken")
    assert estimate(TraceRequest(model=str(tmp_path), prompt="a", subject="a")).rows is None


def test_durations_read_well() -> None:
    assert [duration(s) for s in (0.2, 8.4, 89, 200)] == ["1 s", "8 s", "89 s", "3:20 min"]
    assert [duration(s) for s in (3599, 3600, 86399)] == ["59:59 min", "1 h 00 min", "23 h 59 min"]
    assert [duration(s) for s in (86400, 219_800)] == ["1 day 0 h", "2 days 13 h"]


def test_above_an_hour_a_run_in_a_process_of_its_own_is_advised() -> None:
    long, short = Cost(10**8, 3700.0, True), Cost(10**8, 3500.0, True)
    assert "about 1 h 01 min" in long.in_words() and "consider Run detached" in long.in_words()
    assert "detached" not in short.in_words() + long.in_words(detachable=False)
