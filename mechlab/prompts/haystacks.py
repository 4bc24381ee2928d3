"""Long texts for needles to be hidden in: written by a grammar, endless, no sentence twice.

Each theme is a narrator with words of its own. A text of n characters is the beginning of every
longer one of the same theme and seed, so that prompts of different lengths share their start.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from mechlab.errors import PromptError
from mechlab.prompts.drawing import check_count, check_seed, number, pick

__all__ = ["THEMES", "bucket", "haystack_text", "until"]

_PARAGRAPH = 6
"""Sentences per paragraph, on average."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(entry.split()) for entry in text.split("|"))


_PATTERNS = (
    "{time}, {who} {did} {what} {where}.",
    "{who} {did} {what} {time}, although {aside}.",
    "Nobody was surprised when {who} {did} {what} {where}.",
    "{where}, {who} {did} {what} and {did2} {what2}.",
    "It was {time} that {who} {did} {what}, and {who2} only shook {feel}.",
    "{who} told {who2} that {aside}, but {did} {what} all the same.",
    "If {aside}, thought {who}, then {what} could wait {where}.",
    "{time} {who} and {who2} argued about {what}, because {aside}.",
    "Of all the things {where}, {who} cared most for {what}.",
    "{aside}, and so {who} {did} {what} before {who2} {did2} {what2}.",
)
_FEEL = _words("a tired head | a heavy bunch of keys | the rain from a sleeve | a doubtful head")
_THEMES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "valley": {
        "who": _words(
            """the miller | the younger of the two carters | old Hanne from the upper farm | the
            schoolmaster | a pedlar with a lame mule | the widow at the ford | the beekeeper | the
            boy who minded the geese | the sexton | one of the charcoal burners | the smith's
            daughter | the bailiff | a cousin from beyond the pass | the woman who sold thread |
            the oldest of the shepherds | the man who mended roofs"""
        ),
        "did": _words(
            """counted | carried off | weighed | traded away | promised to return | covered with
            straw | looked after | quarrelled over | set aside | forgot | kept a record of | asked
            about | brought down | would not part with | divided | praised"""
        ),
        "what": _words(
            """the last sacks of rye | a cart wheel without spokes | the wool of three summers | a
            basket of late plums | the church candles | two barrels of salted cabbage | the
            fence posts | a plough with a split handle | the seed potatoes | a string of dried
            mushrooms | the hay from the wet meadow | a pair of yokes | the shutters of the empty
            house | a stack of slates | the goose feathers | the boundary stones"""
        ),
        "where": _words(
            """beside the mill race | on the sunny side of the slope | behind the tithe barn | at
            the foot of the pass | under the great lime tree | near the washing place | where the
            two brooks meet | along the sunken lane | in the lower orchard | at the edge of the
            common | above the quarry | on the way to the summer pastures"""
        ),
        "time": _words(
            """in the week before the first frost | when the snow had gone | on market day | after
            the second mowing | towards evening | in the year of the long drought | during the
            lambing | at the turn of the month | before the bells had stopped | on the shortest day
            | when the swallows gathered | between two thunderstorms"""
        ),
        "aside": _words(
            """the bridge had not been mended since the flood | the wind had turned to the north |
            nobody had seen the cattle come home | the price of oats had fallen again | the well
            was lower than in other years | the road over the pass was closed | the fair had been
            put off twice | a new tax was spoken of | the old boundary was still in dispute | the
            grain had been cut too early | the dogs had barked all night | the brook was full of
            leaves"""
        ),
    },
    "workshop": {
        "who": _words(
            """the apprentice | the master clockmaker | the clerk from the second floor | a
            customer in a grey coat | the glass cutter | the woman who kept the accounts | the
            night porter | the engraver | a travelling inspector | the owner's nephew | the lens
            grinder | the errand girl | the locksmith next door | the pattern maker | a collector
            of old instruments | the retired foreman"""
        ),
        "did": _words(
            """took apart | polished | labelled | measured twice | wrapped in oilcloth | drew a
            plan of | put back | tested | sent away | filed down | mislaid | ordered again |
            repaired at last | examined under the lamp | wrote a note about | locked up"""
        ),
        "what": _words(
            """the mainspring of a carriage clock | a drawer full of odd screws | the brass gears |
            a barometer without its needle | the soldering iron | an unsigned bill | the smallest
            of the lathes | a tray of watch glasses | the spare belts | a music box that played
            backwards | the new vice | a cracked retort | the catalogue of tools | a bundle of
            steel wire | the balance wheel | an unfinished dial"""
        ),
        "where": _words(
            """at the long bench | beneath the skylight | in the back room | next to the stove | on
            the top shelf | by the delivery door | in the cellar with the acids | at the corner
            table | between the two cabinets | under the staircase | near the drilling machine |
            in front of the ledger"""
        ),
        "time": _words(
            """just before closing | on the first of the quarter | while the kettle boiled | after
            the gas had been turned down | early on Thursday | during the stocktaking | when the
            shutters were still down | towards the end of the shift | over the lunch hour | on the
            day of the audit | once the glue had set | in the quiet after the holidays"""
        ),
        "aside": _words(
            """the regulator on the wall ran four minutes slow | the supplier had changed the
            thread of the screws | the rent was due | the best files had been lent out | the
            drawings showed a different scale | two of the lamps needed new wicks | the order book
            was nearly empty | the inspector had found dust in the movement | no two of the rulers
            agreed | the guarantee had run out in spring | the alloy was softer than promised |
            the window would not shut"""
        ),
    },
    "voyage": {
        "who": _words(
            """the second mate | the ship's cook | a botanist from the university | the harbour
            pilot | our interpreter | the oldest passenger | the man at the wheel | the
            mapmaker | two sailors from the islands | the captain's sister | the purser | a
            missionary with a parrot | the carpenter | the surgeon | the youngest of the cabin boys
            | a merchant in wet boots"""
        ),
        "did": _words(
            """sketched | stowed away | bargained for | threw overboard | took the bearings of |
            lashed down | described at length | collected | signalled for | tasted | unpacked |
            lost at cards | noted in the journal | looked in vain for | held up to the light |
            exchanged"""
        ),
        "what": _words(
            """a crate of unripe mangoes | the torn topsail | the chart of the southern shoals | a
            cask of brackish water | three kinds of seaweed | the signal flags | a hammock full of
            holes | the chronometer | a bag of nutmeg | the anchor cable | an outrigger canoe | a
            box of glass floats | the sounding lead | a bundle of letters | the spare rudder | a
            shell as large as a plate"""
        ),
        "where": _words(
            """off the windward coast | in the shelter of the reef | on the quarterdeck | below the
            waterline | at the mouth of a brown river | within sight of the volcano | in the lee
            of the headland | beside the fish market | half a mile from the beach | under the
            awning | on the far side of the lagoon | among the coral heads"""
        ),
        "time": _words(
            """on the ninth day out | in the middle watch | when the fog lifted | before the
            monsoon broke | at slack water | during a flat calm | the morning after the storm | an
            hour past sunset | as soon as the tide had turned | on the feast of the patron saint |
            between two squalls | when the stars were at their clearest"""
        ),
        "aside": _words(
            """the current set us to the west | the biscuit had gone soft | the barometer was
            falling | no ship had called there for a year | the fishermen of the port spoke of an
            earthquake | the pumps were never silent | the moon stood in its last quarter | the
            owners had sent no word | the wind had died away | the log was a full knot out | the
            birds were flying inland | the pilot's price had doubled"""
        ),
    },
}
THEMES = tuple(_THEMES)
"""Names of the built-in texts."""


def haystack_text(theme: str, characters: int, *, seed: int = 0) -> str:
    """Return a built-in text of at least so many characters, ending with a whole sentence.

    Args:
        theme: one of `THEMES`.
        characters: smallest length; about 4.5 times the number of tokens of a large vocabulary.
        seed: another seed gives another text in the same words.

    Raises:
        PromptError: for an unknown theme, or a count or seed that is no whole number.
    """
    if theme not in _THEMES:
        raise PromptError(
            f"there is no built-in text {theme!r}.\n  Allowed: {', '.join(THEMES)}.\n"
            "  Choose one, or give texts of your own."
        )
    check_seed(seed)
    check_count(characters, "characters of a haystack", at_most=5_000_000)
    return "".join(until(_parts(theme, bucket(characters), seed), characters))


def bucket(characters: int) -> int:
    """Return the power of two not below: texts grow by doubling, so that few are ever made."""
    return 1 << max(0, characters - 1).bit_length()


def until(parts: Iterable[str], characters: int) -> Iterator[str]:
    """Yield parts up to the one with which the sum of their lengths reaches `characters`."""
    written = 0
    for part in parts:
        yield part
        written += len(part)
        if written >= characters:
            return


@lru_cache(maxsize=16)
def _parts(theme: str, characters: int, seed: int) -> tuple[str, ...]:
    return tuple(until(_spaced(theme, seed), characters))


def _spaced(theme: str, seed: int) -> Iterator[str]:
    """Yield sentences with the white space in front of them: a blank line before a paragraph."""
    for index, sentence in enumerate(_sentences(theme, seed)):
        new = number(seed, theme, "paragraph", index) % _PARAGRAPH == 0
        yield ("\n\n" if new else " ") + sentence if index else sentence


def _sentences(theme: str, seed: int) -> Iterator[str]:
    """Yield sentences for ever; one that was there before is left out."""
    seen: set[str] = set()
    words = _THEMES[theme]
    place = 0
    while True:
        place += 1

        def drawn(slot: str, place: int = place) -> str:
            return pick(words[slot.rstrip("2")], seed, theme, place, slot)

        pattern = pick(_PATTERNS, seed, theme, place)
        slots = {slot: drawn(slot) for slot in ("who", "did", "what", "where", "time", "aside")}
        slots |= {slot: drawn(slot) for slot in ("who2", "did2", "what2")}
        slots["feel"] = pick(_FEEL, seed, theme, place, "feel")
        sentence = pattern.format(**slots)
        if slots["who"] == slots["who2"] or slots["what"] == slots["what2"] or sentence in seen:
            continue
        seen.add(sentence)
        yield sentence[0].upper() + sentence[1:]
