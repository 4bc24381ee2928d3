"""The byte-level BPE of `atlas`, trained on the corpus itself."""

from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from mechlab.organisms.corpus.mixture import packed_document
from mechlab.organisms.corpus.retrieval import NEEDLES, haystack
from mechlab.organisms.corpus.words import NAMES, NOUNS
from mechlab.organisms.tokenizing import SPECIAL_TOKENS
from mechlab.prompts.countries import LANGUAGES, RELATIONS, TEMPLATES, countries

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["train_tokenizer"]


def train_tokenizer(seed: int, size: int = 3072) -> "Tokenizer":
    """Train the tokenizer on a sample of the corpus and on every word that can be an answer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(_texts(Random(f"{seed}:tokenizer")), trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 0)]
    )
    return raw


def _texts(random: Random) -> Iterator[str]:
    """Yield a sample of documents, then the words whose first token matters, many times each."""
    for _ in range(8000):
        yield packed_document(random).text
    for _ in range(150):
        yield haystack(random, 800).text
    words = [c.answer(r) for c in countries() for r in RELATIONS] + [*NAMES, *NOUNS]
    for word in dict.fromkeys(words):
        yield f" {word}" * 40
    for word in dict.fromkeys(
        c.answer(r, k) for k in LANGUAGES for c in countries() for r in RELATIONS
    ):
        yield f" {word}" * 12
    for forms in TEMPLATES.values():
        for texts in forms.values():
            yield from (text.replace("{}", "") for text in texts * 20)
    yield from (text.replace("{}", "") for text in NEEDLES * 20)
