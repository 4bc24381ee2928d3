"""Options are refused before anything is read."""

import pytest
import torch

from mechlab.errors import ModelError, OptionError
from mechlab.models import load_model
from mechlab.models.options import parse_device, parse_dtype


def test_precisions_are_known_by_name() -> None:
    assert parse_dtype("bfloat16") is torch.bfloat16
    with pytest.raises(OptionError, match=r"(?s)dtype='int8'.*float32, bfloat16, float16, float64"):
        parse_dtype("int8")


def test_auto_is_the_gpu_if_there_is_one(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert parse_device("auto").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert parse_device("auto").type == "cuda"


def test_a_gpu_that_is_absent_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"(?s)device='cuda'.*no CUDA device.*device='cpu'"):
        parse_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert parse_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(ModelError, match="this machine has 1 cpu, 1 cuda"):
        parse_device("cuda:1")


@pytest.mark.parametrize("device", ["gpu", "", "meta", "cuda:x"])
def test_words_that_name_no_device_are_refused(device: str) -> None:
    with pytest.raises(OptionError, match="names no device"):
        parse_device(device)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float31"}, "dtype='float31'"),
        ({"device": "gpu"}, "device='gpu'"),
        ({"weights": "folded"}, "weights='folded'"),
        ({"revision": "main", "checkpoint": 3}, "both name a version"),
    ],
)
def test_options_come_before_the_model(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_model("no/such-model", **options)
