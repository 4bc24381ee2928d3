"""Prompts: frozen text data, its readers and its builders. Nothing here imports torch."""

from mechlab.prompts.kinds import Fact, Prompt, PromptPair
from mechlab.prompts.roles import TOKEN_ROLES, role_of_positions
from mechlab.prompts.sets import PromptSet, as_prompt_set

__all__ = [
    "TOKEN_ROLES",
    "Fact",
    "Prompt",
    "PromptPair",
    "PromptSet",
    "as_prompt_set",
    "role_of_positions",
]
