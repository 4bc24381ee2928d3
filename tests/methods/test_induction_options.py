"""What induction methods refuse, before anything is run, and in which words."""

from collections.abc import Callable
from typing import Any

import induction_models as planted
import pytest

import mechlab as ml
from mechlab.errors import OptionError, PromptError, SiteError
from mechlab.models import Model
from mechlab.prompts import TokenList, repeated_tokens, single_probe_lists, texts, without_repeats

LISTS = repeated_tokens(2, 8, pool=planted.words())
TEXTS = texts(["w1 w2 w3 w4 w5 w6 w7 w8"])
CONTROL = without_repeats(LISTS)

REFUSED: dict[str, tuple[str, Any, dict[str, Any], type[Exception], str]] = {
    "lists longer than the context": (
        "induction_scores",
        repeated_tokens(2, 40, pool="tokens"),
        {},
        PromptError,
        r"2 of 2 prompts are longer than the context.*72 tokens",
    ),
    "lists beyond the vocabulary": (
        "attention_by_lag",
        [TokenList((3, 900), (3,))],
        {},
        OptionError,
        r"max_lag=5 of lists of 2 tokens. Allowed: up to 1",
    ),
    "ids beyond the vocabulary": (
        "output_crp",
        [TokenList((3, 900), (3,))],
        {"max_lag": 1},
        PromptError,
        r"reaches 900",
    ),
    "max_lag beyond the list": (
        "output_crp",
        LISTS,
        {"max_lag": 8},
        OptionError,
        "max_lag=8 of lists of 8 tokens. Allowed: up to 7",
    ),
    "lists without a repeat": (
        "induction_scores",
        CONTROL,
        {},
        PromptError,
        "2 of 2 lists repeat none",
    ),
    "repeats where there must be none": (
        "copying_scores",
        LISTS,
        {"kind": "olsson"},
        PromptError,
        "2 of 2 lists hold a token twice.*without_repeats",
    ),
    "no prompts where some are read": (
        "copying_scores",
        None,
        {"kind": "behavioural"},
        OptionError,
        "Give or leave out prompts",
    ),
    "no other tokens for a baseline": (
        "attention_by_lag",
        [TokenList(tuple(range(4, 12)), tuple(range(4, 12)))],
        {"baseline": "no_repeat"},
        PromptError,
        "fewer other tokens than probes",
    ),
    "far within near": ("attention_by_lag", LISTS, {"near": 3, "far": 3}, OptionError, "Raise far"),
    "an unknown source": ("attention_by_lag", LISTS, {"source": "z"}, OptionError, "'scores'"),
    "an unknown edge": ("induction_scores", LISTS, {"edge": "all"}, OptionError, "'include'"),
    "a mean without a reference": (
        "copy_loss",
        LISTS,
        {"ablate": ["L0H0"], "ablation": "mean"},
        OptionError,
        "reference=None.*without_repeats",
    ),
    "a reference that is not read": (
        "copy_loss",
        LISTS,
        {"ablate": ["L0H0"], "reference": CONTROL},
        OptionError,
        "only there",
    ),
    "a reference too short by position": (
        "copy_loss",
        LISTS,
        {
            "ablate": ["L0H0"],
            "ablation": "mean",
            "average": "by_position",
            "reference": repeated_tokens(1, 4, pool=planted.words()),
        },
        PromptError,
        "the reference has 9 tokens, prompts have up to 17",
    ),
    "heads that are not there": (
        "output_crp",
        LISTS,
        {"ablate": ["L7H1"]},
        SiteError,
        "does not have: L7H1",
    ),
    "a set called intact": (
        "output_crp",
        LISTS,
        {"ablate": {"intact": ["L0H1"]}},
        OptionError,
        "Rename it",
    ),
    "copies of lists": ("copy_loss", LISTS, {"copies": 3}, OptionError, "Leave it out"),
    "texts without a number of copies": ("copy_loss", TEXTS, {}, OptionError, "copies=None"),
    "probes that are no copies": (
        "copy_loss",
        single_probe_lists(1, 12, pool=planted.words()),
        {},
        PromptError,
        "not read the same whole number of times",
    ),
    "texts that are too short": ("icl_score", TEXTS, {}, PromptError, "fewer than the 501 tokens"),
    "indices out of order": ("icl_score", TEXTS, {"hi": 3, "lo": 5}, OptionError, "lo below hi"),
    "an early index without a BOS": (
        "icl_score",
        TEXTS,
        {"hi": 3, "lo": 0},
        OptionError,
        "both from 1",
    ),
    "a window that is none": (
        "icl_score",
        TEXTS,
        {"hi": 5, "lo": 2, "window": (1, 2)},
        OptionError,
        "not in order",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused_in_words(case: str):
    name, prompts, options, error, words = REFUSED[case]
    with pytest.raises(error, match=f"(?s){words}"):
        getattr(ml, name)(planted.induction(), prompts, **options)


def test_a_model_without_attention_is_refused(toy_model: Callable[..., Model]):
    for name in ("induction_scores", "attention_by_lag", "output_crp", "copy_loss"):
        with pytest.raises(SiteError, match="recurrent"):
            getattr(ml, name)(toy_model("mamba"), LISTS)
    with pytest.raises(SiteError, match="recurrent"):
        ml.copying_scores(toy_model("mamba"))


def test_checkpoints_that_are_not_there_or_named_twice_are_refused():
    with pytest.raises(OptionError, match="each once"):
        ml.over_checkpoints(ml.induction_scores, "echo", LISTS, checkpoints=[40, 40])
    with pytest.raises(ml.ModelError, match="no checkpoint 7"):
        ml.over_checkpoints(ml.induction_scores, "echo", LISTS, checkpoints=[7])
    with pytest.raises(OptionError, match="not an analysis"):
        ml.over_checkpoints(len, "echo", LISTS)
