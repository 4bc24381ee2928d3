"""Tokenizers of published models, from the public data folder."""

import os
from pathlib import Path
from typing import Literal

import pytest
import transformers


def public_tokenizer(name: Literal["gpt2", "neox"]) -> transformers.PreTrainedTokenizerBase:
    """Return GPT-2's or GPT-NeoX's tokenizer, or skip the test where the data is not there."""
    if not (data := os.environ.get("MECHLAB_DATA")):
        pytest.skip("MECHLAB_DATA is unset: the public tokenizers are not here")
    if name == "neox":
        file = Path(data) / "tok_neox" / "20B_tokenizer.json"
        return transformers.PreTrainedTokenizerFast(tokenizer_file=str(file))
    folder = Path(data) / "tok_gpt2"
    return transformers.GPT2Tokenizer(
        vocab=str(folder / "encoder.json"), merges=str(folder / "vocab.bpe")
    )
