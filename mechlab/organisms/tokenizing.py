"""Tokenizer files that `AutoTokenizer.from_pretrained` reads."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["SPECIAL_TOKENS", "save_tokenizer"]

SPECIAL_TOKENS = ("<bos>", "<eos>", "<pad>")
"""Ids 0, 1 and 2 of every shipped model."""


def save_tokenizer(raw: "Tokenizer", folder: Path, length: int) -> None:
    """Write the files of a tokenizer that prepends BOS, for contexts of `length` tokens."""
    from transformers import PreTrainedTokenizerFast

    bos, eos, pad = SPECIAL_TOKENS
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        add_bos_token=True,
        padding_side="left",
        model_max_length=length,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(str(folder))
