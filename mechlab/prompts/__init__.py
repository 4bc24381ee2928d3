"""Prompts: frozen text data, its readers and its builders. Nothing here imports torch."""

from mechlab.prompts.countries import Country, countries
from mechlab.prompts.facts import world_facts
from mechlab.prompts.kinds import Fact, Prompt, PromptPair
from mechlab.prompts.reading import read_facts, read_pairs
from mechlab.prompts.roles import TOKEN_ROLES, role_of_positions
from mechlab.prompts.sets import PromptSet, as_prompt_set

__all__ = [
    "TOKEN_ROLES",
    "Country",
    "Fact",
    "Prompt",
    "PromptPair",
    "PromptSet",
    "as_prompt_set",
    "countries",
    "read_facts",
    "read_pairs",
    "role_of_positions",
    "world_facts",
]
