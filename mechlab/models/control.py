"""An untrained model of the same shape: the control of what is claimed about a trained one."""

import copy

import torch
import transformers

from mechlab.models.model import Model
from mechlab.models.wrapping import wrap_model

__all__ = ["untrained"]


def untrained(model: Model, seed: int = 0) -> Model:
    """Return a model of the same configuration and tokenizer with freshly drawn weights.

    Args:
        model: the model whose shape, device and dtype are taken.
        seed: of the weights; torch's own generator is left as it is.
    """
    config = copy.deepcopy(model.hf.config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        hf = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return wrap_model(
        hf.to(device=model.device, dtype=model.dtype),
        model.tokenizer,
        name=f"{model.name}-untrained",
        prepend_bos=model.prepend_bos,
    )
