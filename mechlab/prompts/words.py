"""Names, nouns, needles and a small grammar: the language in which `atlas` learned to look back.

Training text is made of these, so that their order and wording must never change.
"""

from random import Random

__all__ = ["NAMES", "NOUNS", "STEMS", "filler"]

NAMES = tuple(
    """
    Mara Ivo Lena Tom Nadia Oscar Paula Felix Greta Hugo Ines Jonas Karla Leon Mina Nils Olga
    Peter Rosa Simon Tara Ulrich Vera Willem Yara Zeno Alma Boris Celia Dario Edith Franz Gina
    Henry Ida Jakob Kira Lukas Martha Noel Opal Pablo Quinn Rita Stefan Theo Ursula Viktor
    Wanda Xenia Yusuf Zoe Anton Bella Carlo Doris Emil Frida Georg Helga Igor Julia Kurt Lydia
    Milan Nora Otto Petra Rafael Sonja Tilda Uwe Vince Wilma Arno Bruno Clara David Elsa
    Fabian
    """.split()
)
"""First names of needles."""

NOUNS = tuple(
    """
    copper table river lamp stone garden window bottle candle mirror basket hammer ladder
    pencil carpet blanket button ribbon feather shadow thunder winter summer morning evening
    forest meadow desert island valley harbour bridge tower castle temple market school
    kitchen cellar attic chimney engine wagon bicycle rocket anchor compass lantern whistle
    trumpet violin piano drum guitar flute bell clock watch mask crown sword shield arrow
    helmet jacket glove scarf boot hat coat shirt belt ring necklace purse wallet coin ticket
    letter stamp envelope paper notebook novel poem song dance painting statue puppet balloon
    kite marble puzzle dice card chess ball racket saddle apple banana cherry lemon orange
    peach grape melon onion carrot potato tomato pepper garlic ginger honey sugar salt butter
    cheese bread cake cookie coffee tea milk juice soup rice bean corn wheat oat barley tiger
    lion bear wolf fox rabbit squirrel mouse horse donkey camel goat sheep pig cow dog cat
    eagle owl raven swan duck goose parrot turtle snake lizard frog shark whale dolphin salmon
    spider beetle butterfly ant bee iron silver gold bronze tin lead diamond pearl ruby
    crystal glass plastic leather cotton silk wool velvet linen rope wire nail screw brick
    cement clay sand gravel dust smoke steam fog rain snow ice storm cloud rainbow comet
    planet moon star sun ocean lake pond creek cave cliff hill canyon volcano glacier beach
    """.split()
)
"""Nouns that needles and key-value lists ask for."""

STEMS = (
    "The secret word of {} is",
    "The password of {} is",
    "The favourite thing of {} is the",
    "In the bag of {} there is a",
    "{} hid the key under the",
    "The best gift for {} was the",
    "The code name of {} is",
    "{} always dreams about the",
)
"""Needle sentences up to their answer; `{}` stands for a name."""


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split("|"))


_WHO = _phrases(
    """
    the old farmer | a young doctor | the baker | my neighbour | the teacher | a tall
    stranger | the captain | her brother | his aunt | the mayor | two students | the
    gardener | a quiet child | the postman | our cook | the tired nurse | a clever thief |
    the painter | some travellers | the judge | the shepherd | an engineer | the librarian |
    a busy waiter
    """
)
_DID = _phrases(
    """
    walked | hurried | returned | went back | drove | rode slowly | moved | came | climbed |
    ran | wandered | sailed | travelled | strolled
    """
)
_SAW = _phrases(
    """
    found | carried | repaired | sold | bought | lost | painted | cleaned | hid | opened |
    broke | borrowed | admired | forgot | dropped | kept
    """
)
_WHERE = _phrases(
    """
    to the station | to the village | across the field | along the shore | into the old
    house | towards the hills | past the mill | through the park | to the library | down the
    long road | over the wooden fence | behind the church | near the well | around the
    square
    """
)
_WHEN = _phrases(
    """
    before sunrise | after lunch | at noon | on Monday | last week | every day | in the
    afternoon | that night | during the holiday | once again | without a word | in great
    haste | for the first time | as usual
    """
)
_HOW = tuple("big small red blue heavy empty broken new dirty strange round".split())


def filler(random: Random) -> str:
    """Return one sentence with its full stop; it never holds a needle's wording."""
    who, when = random.choice(_WHO), random.choice(_WHEN)
    thing = f"{random.choice(_HOW)} {random.choice(NOUNS)}"
    kind = random.randrange(5)
    if kind == 0:
        text = f"{who} {random.choice(_DID)} {random.choice(_WHERE)} {when}"
    elif kind == 1:
        text = f"{when}, {who} {random.choice(_SAW)} the {thing}"
    elif kind == 2:
        saw, did = random.choice(_SAW), random.choice(_DID)
        text = f"{who} {saw} a {thing} and {did} {random.choice(_WHERE)}"
    elif kind == 3:
        text = f"the {thing} was seen by {who} {when}"
    else:
        text = (
            f"{who} talked about the {thing} while {random.choice(_WHO)} {random.choice(_DID)} away"
        )
    return text[0].upper() + text[1:] + "."
