"""Synthetic data: short news-like reports of three sentences, rows of repeated word chunks, and rules that parse a report."""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

# Verbs (past and present form) and objects by topic; every object belongs to exactly one topic.
ACTIONS = {
    "arts": ({"painted": "paints", "composed": "composes", "performed": "performs"}, "mural opera ballet symphony portrait song"),
    "business": ({"bought": "buys", "sold": "sells", "founded": "founds"}, "bank factory airline brewery shop mill"),
    "politics": ({"signed": "signs", "rejected": "rejects", "proposed": "proposes"}, "treaty law budget reform ban tax"),
    "science": ({"discovered": "discovers", "studied": "studies", "measured": "measures"}, "comet virus fossil glacier planet enzyme"),
    "sport": ({"won": "wins", "lost": "loses", "hosted": "hosts"}, "match race trophy medal derby final"),
}
FIRST_NAMES = (
    "Anna Omar Lena Hugo Mina Paul Rosa Ivan Nora Karl Ella Amir Zoe Leon Ruth Jose Tara Finn Olga Hans Vera Igor Lucy Bram".split()
)
LAST_NAMES = (
    "Silva Novak Costa Meyer Okoye Tanaka Lopez Weber Khan Rossi Berg Moreau Dubois Larsen Petrov Haddad Kim Nguyen Santos Fischer "
    "Ortiz Jansen Kovac Ahmed"
).split()
CITIES = "Oslo Lima Cairo Delhi Kyoto Quito Paris Tunis Riga Lagos Turin Perth Hanoi Sofia Dakar Malmo Bergen Porto Accra Lyon".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
ASIDES = (
    "People in {city} talked about it for hours.",
    "The weather on {day} was calm and dry.",
    "A friend from {city} watched with joy.",
    "Nobody had expected this so soon.",
    "Local radio spoke with {first} on {day}.",
    "The streets of {city} were full that night.",
    "More details will follow on {day}.",
    "{first} from {city} called it a surprise.",
)
# Words of prompts that no report contains; the repeated chunks expose the model to them before any task does.
NEWSROOM = "Find Write Name Text Answer a key sentence headline topic".split()

_TOPIC_OF = {thing: topic for topic, (_, things) in ACTIONS.items() for thing in things.split()}
_PRESENT = {past: present for verbs, _ in ACTIONS.values() for past, present in verbs.items()}
_KEY = re.compile(rf"(?:^|(?<=\. ))(\w+) (\w+) ({'|'.join(_PRESENT)}) the ({'|'.join(_TOPIC_OF)}) in (\w+) on (\w+)\.")


@dataclass(frozen=True)
class Key:
    """The facts in the key sentence of a report."""

    sentence: str
    last_name: str
    verb: str
    thing: str
    city: str


def reports(rows: int, seed: int) -> Iterator[str]:
    """ROWS different reports: a key sentence (who did what, where and when) somewhere among two asides."""
    generator = random.Random(f"reports {seed}")
    seen: set[str] = set()
    while len(seen) < rows:
        text = _report(generator)
        if text not in seen:
            seen.add(text)
            yield text


def _report(generator: random.Random) -> str:
    verbs, things = ACTIONS[generator.choice(sorted(ACTIONS))]
    who = f"{generator.choice(FIRST_NAMES)} {generator.choice(LAST_NAMES)}"
    what = f"{generator.choice(sorted(verbs))} the {generator.choice(things.split())}"
    key = f"{who} {what} in {generator.choice(CITIES)} on {generator.choice(DAYS)}."
    sentences = [
        aside.format(city=generator.choice(CITIES), day=generator.choice(DAYS), first=generator.choice(FIRST_NAMES))
        for aside in generator.sample(ASIDES, 2)
    ]
    sentences.insert(generator.randrange(3), key)
    return " ".join(sentences)


def copies(rows: int, seed: int) -> Iterator[str]:
    """ROWS texts that repeat two chunks of two to four random words in random order.

    A small model learns to copy from such rows, but not from prose alone (see docs/explanation/decisions).
    """
    generator = random.Random(f"copies {seed}")
    words = lexicon()
    for _ in range(rows):
        chunks = [" ".join(generator.choice(words) for _ in range(generator.randint(2, 4))) + "." for _ in range(2)]
        text: list[str] = []
        while sum(len(chunk.split()) for chunk in text) < 60:
            generator.shuffle(chunks)
            text += chunks
        yield " ".join(text)


def lexicon() -> list[str]:
    """Every word that a report, an answer or a prompt may contain, sorted."""
    asides = {word for aside in ASIDES for word in aside.replace(".", "").split() if "{" not in word}
    fixed = {*FIRST_NAMES, *LAST_NAMES, *CITIES, *DAYS, *NEWSROOM, *ACTIONS, *_TOPIC_OF, *_PRESENT, *_PRESENT.values()}
    return sorted(fixed | asides | {"the", "in", "on"})


def read_key(text: str) -> Key | None:
    """The facts in the key sentence of a report; None if TEXT has none."""
    match = _KEY.search(text)
    return Key(match[0], match[2], match[3], match[4], match[5]) if match else None


def key_sentence(text: str) -> str | None:
    """The key sentence, verbatim."""
    key = read_key(text)
    return key.sentence if key else None


def headline(text: str) -> str | None:
    """Who does what, and where, in the present tense: `Silva paints mural in Oslo`."""
    key = read_key(text)
    return f"{key.last_name} {_PRESENT[key.verb]} {key.thing} in {key.city}" if key else None


def topic(text: str) -> str | None:
    """The topic that the thing in the key sentence belongs to."""
    key = read_key(text)
    return _TOPIC_OF[key.thing] if key else None
