"""Direct logit attribution: what each part of a model writes into the logits of its answers."""

from mechlab.methods.attribution.attribution import direct_logit_attribution
from mechlab.methods.attribution.head_tokens import head_tokens
from mechlab.methods.attribution.token_lens import token_lens

__all__ = ["direct_logit_attribution", "head_tokens", "token_lens"]
