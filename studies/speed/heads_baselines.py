"""What head analyses cost without mechlab: TransformerLens' direct paths, one run per head, cells.

All of them run without gradients, on one bridge and the same two prompts, with the same metric.
Where a sweep has thousands of runs of equal cost, some of them are run and the time is scaled.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformer_lens import patching

import mechlab as ml

__all__ = ["HeadCase", "direct_paths", "head_case", "one_run_per_head", "z_cells"]

Node = tuple[int, int]


@dataclass(frozen=True)
class HeadCase:
    """One model and one pair of prompts; the corrupted run is patched with clean values.

    Attributes:
        model: what both sides run.
        pair: the prompts; they differ in tokens 1 and 2.
    """

    model: ml.Model
    pair: ml.prompts.PromptPair

    @property
    def heads(self) -> list[Node]:
        """Every head."""
        return [(n, h) for n in range(self.model.n_layers) for h in range(self.model.n_heads or 0)]

    @cached_property
    def tokens(self) -> tuple[Tensor, Tensor]:
        """Token ids of the clean and the corrupted prompt, `[1, pos]`."""
        clean, corrupted = (self.model.tokenize([t]).tokens for t in self.texts)
        return clean, corrupted

    @property
    def texts(self) -> tuple[str, str]:
        """Clean and corrupted prompt."""
        return self.pair.clean, self.pair.corrupted

    @cached_property
    def caches(self) -> tuple[Any, Any]:
        """Activations of both runs, as TransformerLens keeps them."""
        with torch.no_grad():
            clean, corrupted = (self.model.bridge.run_with_cache(t)[1] for t in self.tokens)
        return clean, corrupted

    @cached_property
    def metric(self) -> Callable[[Tensor], Tensor]:
        """The logit difference at the last position."""
        answers = [self.pair.answer, self.pair.wrong_answer]
        (right,), (wrong,) = self.model.answer_tokens([self.pair.clean] * 2, answers)
        return lambda logits: logits[0, -1, right] - logits[0, -1, wrong]


def head_case(n_tokens: int, *, quick: bool) -> HeadCase:
    """Return GPT-2-small's shape (`quick`: a tiny one) with random weights, and a pair."""
    config = tf.GPT2Config()
    if quick:
        config = tf.GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=400, n_positions=64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = tf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():  # as initialised, attention is uniform and no effect can be seen
        for name, weight in plain.named_parameters():
            if weight.ndim == 2 and "wte" not in name and "wpe" not in name:
                weight.mul_(3)
    model = ml.wrap_model(plain.eval(), _words(), name="gpt2-shape", prepend_bos=False)
    clean = [f"w{i}" for i in range(n_tokens)]
    corrupted = [clean[0], "w70", "w71", *clean[3:]]
    pair = ml.prompts.PromptPair(" ".join(clean), " ".join(corrupted), "w80", "w81")
    return HeadCase(model, pair)


def _words() -> tf.PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel({f"w{i}": i for i in range(100)} | {"<unk>": 100}, "<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="<unk>", pad_token="<unk>", name_or_path="words"
    )


@torch.no_grad()
def direct_paths(case: HeadCase, senders: Sequence[Node]) -> np.ndarray:
    """Return the metric of `get_act_patch_direct_path` to q, `[sender, layer, head]`, NaN before.

    `get_act_patch_direct_path_all_sources` is a loop of exactly these calls over all heads.
    """
    grids = []
    for layer, head in senders:
        grid = patching.get_act_patch_direct_path(
            case.model.bridge,
            case.tokens[1],
            *case.caches,
            case.metric,
            layer,
            head,
            "q",
            verbose=False,
        ).numpy()
        grid[: layer + 1] = np.nan
        grids.append(grid)
    return np.stack(grids)


@torch.no_grad()
def one_run_per_head(case: HeadCase, heads: Sequence[Node]) -> np.ndarray:
    """Return the metric with each head's direct write to the final residual patched, `[head]`.

    One whole forward per head: all that was kept is added at the end of the last block.
    """
    bridge, (clean, corrupted) = case.model.bridge, case.caches
    last = f"blocks.{case.model.n_layers - 1}.hook_out"
    found = []
    for layer, head in heads:
        name = f"blocks.{layer}.attn.hook_z"
        change = (clean[name] - corrupted[name])[:, :, head] @ bridge.blocks[layer].attn.W_O[head]

        def add(residual: Tensor, hook: Any, change: Tensor = change) -> Tensor:
            return residual + change

        logits = bridge.run_with_hooks(case.tokens[1], fwd_hooks=[(last, add)], use_cache=False)
        found.append(float(case.metric(logits)))
    return np.array(found)


@torch.no_grad()
def z_cells(case: HeadCase, every: int) -> tuple[np.ndarray, np.ndarray]:
    """Return some cells of `get_act_patch_attn_head_out_by_pos`, and the metric of each.

    Returns:
        Cells `[cell, 3]` as layer, position, head: every n-th of the grid; and `[cell]`.
    """
    shape = (case.model.n_layers, case.tokens[0].shape[1], case.model.n_heads or 0)
    cells = np.argwhere(np.ones(shape, dtype=bool))[every // 2 :: every]
    values = patching.generic_activation_patch(
        case.model.bridge,
        case.tokens[1],
        case.caches[0],
        case.metric,
        patching.layer_pos_head_vector_patch_setter,
        "z",
        index_df=pd.DataFrame(cells, columns=["layer", "pos", "head"]),
    )
    return cells, values.cpu().numpy()
