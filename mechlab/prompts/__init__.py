"""Prompts: frozen text data, its readers and its builders. Nothing here imports torch."""

from mechlab.prompts.arithmetic import ARITHMETIC_TEMPLATES, arithmetic
from mechlab.prompts.conflicts import CONFLICT_FORMS, capital_conflicts, conflicts
from mechlab.prompts.countries import Country, countries
from mechlab.prompts.edit_cases import edit_cases
from mechlab.prompts.edit_files import read_counterfact, read_edit_cases, read_zsre
from mechlab.prompts.edit_kind import PROMPT_KINDS, EditCase, ScoredPrompt
from mechlab.prompts.edits import EditRequest
from mechlab.prompts.facts import world_facts
from mechlab.prompts.free_recall import read_free_recall, recall_sequences
from mechlab.prompts.haystacks import THEMES, haystack_text
from mechlab.prompts.head_scores import read_head_scores
from mechlab.prompts.ioi import IOI_WORDS, IoiWords, ioi
from mechlab.prompts.kinds import Fact, Place, Prompt, PromptPair
from mechlab.prompts.lag_curves import read_lag_curves
from mechlab.prompts.needle_kind import NeedlePrompt
from mechlab.prompts.needles import NEEDLE_FORMS, NEEDLES, Needle, closed_book, needles
from mechlab.prompts.one_to_many import CITIES, many_answers, one_to_many
from mechlab.prompts.places import named_positions
from mechlab.prompts.published import (
    read_arithmetic_templates,
    read_comp_mech,
    read_lre,
    read_mib_ioi,
    read_one_to_many,
)
from mechlab.prompts.reading import read_facts, read_pairs
from mechlab.prompts.roles import TOKEN_ROLES, role_of_positions
from mechlab.prompts.sets import PromptSet, as_prompt_set
from mechlab.prompts.token_kind import Text, TokenList
from mechlab.prompts.token_lists import repeated_tokens, single_probe_lists, texts, without_repeats
from mechlab.prompts.token_pools import as_token_ids
from mechlab.prompts.world_edits import world_edits

__all__ = [
    "ARITHMETIC_TEMPLATES",
    "CITIES",
    "CONFLICT_FORMS",
    "IOI_WORDS",
    "NEEDLES",
    "NEEDLE_FORMS",
    "PROMPT_KINDS",
    "THEMES",
    "TOKEN_ROLES",
    "Country",
    "EditCase",
    "EditRequest",
    "Fact",
    "IoiWords",
    "Needle",
    "NeedlePrompt",
    "Place",
    "Prompt",
    "PromptPair",
    "PromptSet",
    "ScoredPrompt",
    "Text",
    "TokenList",
    "arithmetic",
    "as_token_ids",
    "as_prompt_set",
    "capital_conflicts",
    "closed_book",
    "conflicts",
    "countries",
    "edit_cases",
    "haystack_text",
    "ioi",
    "many_answers",
    "named_positions",
    "needles",
    "one_to_many",
    "read_arithmetic_templates",
    "read_comp_mech",
    "read_counterfact",
    "read_edit_cases",
    "read_facts",
    "read_free_recall",
    "read_head_scores",
    "read_lag_curves",
    "read_lre",
    "read_mib_ioi",
    "read_one_to_many",
    "read_pairs",
    "read_zsre",
    "recall_sequences",
    "repeated_tokens",
    "role_of_positions",
    "single_probe_lists",
    "texts",
    "without_repeats",
    "world_edits",
    "world_facts",
]
