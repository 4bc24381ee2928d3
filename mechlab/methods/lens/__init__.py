"""The logit lens: intermediate states and writes read through the model's own head."""

from mechlab.methods.lens.lens import logit_lens

__all__ = ["logit_lens"]
