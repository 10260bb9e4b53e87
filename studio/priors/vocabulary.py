"""What a prompt means to a catalogue: words in, weights over models out.

A prompt is read as English noun phrases are: the first thing that it names is the subject, and every other
word that the catalogue knows (colours, materials, adjectives, further things) narrows the choice down, as
long as something is left. Words about quality, style and view say nothing about which model is meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from studio.errors import StudioError, nearest

View = Literal["front", "side", "back", "above"]
VIEWS: tuple[View, ...] = ("front", "side", "back", "above")

MAX_WORDS = 77
MAX_CHARACTERS = 1000

COLOURS = (
    "white",
    "black",
    "grey",
    "red",
    "orange",
    "brown",
    "yellow",
    "green",
    "blue",
    "purple",
    "pink",
    "beige",
)

_COLOUR_ALIASES = {
    "gray": "grey",
    "silver": "grey",
    "silvery": "grey",
    "metallic": "grey",
    "crimson": "red",
    "scarlet": "red",
    "maroon": "red",
    "golden": "yellow",
    "turquoise": "blue",
    "navy": "blue",
    "cyan": "blue",
    "violet": "purple",
    "lilac": "purple",
    "magenta": "pink",
    "cream": "beige",
    "tan": "beige",
    "lime": "green",
}

_SYNONYMS = {
    "couch": "sofa",
    "settee": "sofa",
    "bike": "bicycle",
    "motorbike": "motorcycle",
    "tv": "television",
    "telly": "television",
    "teddy": "teddy bear",
    "plush bear": "teddy bear",
    "stuffed bear": "teddy bear",
    "fridge": "refrigerator",
    "automobile": "car",
    "auto": "car",
    "plane": "airplane",
    "aeroplane": "airplane",
    "cellphone": "mobile phone",
    "notebook computer": "laptop",
    "pc": "computer",
    "closet": "wardrobe",
    "cooker": "stove",
    "torch": "flashlight",
    "cask": "barrel",
    "kitty": "cat",
    "kitten": "cat",
    "puppy": "dog",
    "hound": "dog",
    "bunny": "rabbit",
    "hare": "rabbit",
    "pony": "horse",
    "lady": "woman",
    "guy": "man",
    "gentleman": "man",
    "lorry": "truck",
    "stone": "rock",
    "boulder": "rock",
    "bin": "trash can",
    "rubbish bin": "trash can",
    "loaf": "bread",
    "burger": "hamburger",
    "spectacles": "glasses",
    "wood": "wooden",
    "timber": "wooden",
}

_IRREGULAR_PLURALS = {
    "shelves": "shelf",
    "knives": "knife",
    "loaves": "loaf",
    "leaves": "leaf",
    "men": "man",
    "women": "woman",
    "children": "child",
    "people": "person",
    "businessmen": "businessman",
    "mice": "mouse",
    "feet": "foot",
}

# What prompts say beside naming a thing: grammar, picture-making, and praise or blame of the picture.
_IGNORED = frozenset(
    """
    a an the this that these those some one single its it his her their my your our is are be being been has
    have having there here and or with without on in at by for from to of into onto as very so such over under
    near beside against upon out off up down all any each every other another both

    photo photograph photography picture image render rendering rendered drawing painting illustration artwork
    art shot dslr camera-shot close-up closeup zoomed zoom wide angle lens bokeh hdr raw unreal engine octane
    blender-render cgi 3d 3-d asset model object mesh scene style styled stylized view viewed seen angle
    sculpted digital depicting depiction showing shows featuring look looks looking like photo-realistic
    studio lighting light-setup lit background plain isolated centered centred full body-shot whole

    high low best good better great bad worst poor top-quality quality resolution high-resolution
    low-resolution high-quality low-quality definition detail details detailed highly extremely intricate
    realistic photorealistic hyperrealistic realism unrealistic sharp focus focused blurry blurred blur noisy
    noise grainy jpeg artifacts artefacts ugly beautiful pretty nice lovely cute amazing stunning masterpiece
    award-winning professional trending artstation contrast saturated oversaturated over-saturated
    desaturated dull dark gloomy bright vivid vibrant crisp clean smooth textured texture 4k 8k 16k hd uhd
    ultra super deformed distorted mutated disfigured watermark text logo cropped out-of-frame duplicate
    anatomy extra limbs pixelated tiling overexposed underexposed washed color colors colour colours colored
    coloured
    """.split()
)

_PREPOSITIONS = frozenset("of with on in under and from for at without over by near".split())

_VIEW_PATTERNS: tuple[tuple[View, str], ...] = (
    ("above", r"\b(?:overhead|top|aerial|bird'?s[- ]eye)[- ](?:down )?(?:view|shot|angle)\b"),
    ("above", r"\b(?:view(?:ed)?|seen|shot)? ?from (?:the )?(?:above|top|overhead)\b"),
    ("back", r"\b(?:back|rear|backside|behind)[- ](?:side )?(?:view|shot|angle)\b"),
    ("back", r"\b(?:view(?:ed)?|seen|shot)? ?from (?:the )?(?:back|behind|rear)\b"),
    ("side", r"\b(?:(?:left|right) )?(?:side|profile)[- ](?:view|shot|angle)\b"),
    ("side", r"\b(?:view(?:ed)?|seen|shot)? ?from (?:the )?(?:(?:left|right) )?side\b"),
    ("side", r"\b(?:left|right)[- ](?:view|shot|angle)\b"),
    ("front", r"\b(?:front|frontal)[- ](?:side )?(?:view|shot|angle)\b"),
    ("front", r"\b(?:view(?:ed)?|seen|shot)? ?from (?:the )?front\b"),
    ("above", r"\bthe top of\b"),
    ("back", r"\bthe (?:back|rear) of\b"),
    ("side", r"\bthe side of\b"),
    ("front", r"\bthe front of\b"),
)


@runtime_checkable
class Captioned(Protocol):
    """What the vocabulary reads of a model."""

    @property
    def noun(self) -> str:
        """The plain name of the thing, in the singular where it has one."""

    @property
    def caption(self) -> str:
        """A noun phrase: article, adjectives, noun."""

    @property
    def synonyms(self) -> tuple[str, ...]:
        """Other names, from near to broad."""

    @property
    def tags(self) -> tuple[str, ...]:
        """Words for families of things: "toy", "kitchen"."""

    @property
    def colours(self) -> tuple[str, ...]:
        """Its dominant colours, strongest first, out of ``COLOURS``."""


@dataclass(frozen=True)
class PromptMatch:
    """How a vocabulary understood one prompt.

    Attributes:
        weights: one number a model, non-negative, summing to one; all zero where nothing was named.
        views: the view words that the prompt holds.
        warnings: what could not be used, each a sentence for the user.
    """

    weights: tuple[float, ...]
    views: tuple[View, ...]
    warnings: tuple[str, ...]

    @property
    def names_something(self) -> bool:
        """Whether any model is meant."""
        return any(self.weights)

    @property
    def members(self) -> tuple[int, ...]:
        """Indices of the models with a weight."""
        return tuple(index for index, weight in enumerate(self.weights) if weight > 0)


@dataclass
class _Meaning:
    """The models that one phrase may stand for, by how directly, and those that it describes."""

    nouns: set[int] = field(default_factory=set)
    synonyms: set[int] = field(default_factory=set)
    tags: set[int] = field(default_factory=set)
    described: set[int] = field(default_factory=set)

    def named(self) -> set[int]:
        """The models that the phrase names, at the most direct level that has any."""
        return self.nouns or self.synonyms or self.tags

    def loosely_named(self) -> set[int]:
        """The models that the phrase names at any level."""
        return self.nouns | self.synonyms | self.tags


class _Phrase(NamedTuple):
    """A known phrase in a prompt, and the places of its first word and of the word after it."""

    key: str
    start: int
    end: int


class Vocabulary:
    """The words of a catalogue.

    Args:
        models: the catalogue's entries, in the order of the weights that ``match`` gives.
        how_to_list: the sentence that tells the user how to see the words.
    """

    def __init__(
        self, models: Sequence[Captioned], how_to_list: str = "'studio prior vocab' lists what it has."
    ) -> None:
        self._count = len(models)
        self._how_to_list = how_to_list
        self._meanings: dict[str, _Meaning] = {}
        self._display: dict[str, str] = {}
        self._colours = [set(model.colours) for model in models]
        for index, model in enumerate(models):
            self._meaning(model.noun).nouns.add(index)
            whole = re.sub(r"^(?:an?|the) ", "", model.caption.lower())
            for phrase in {whole, *caption_phrases(model.caption)}:
                if phrase.endswith(f" {model.noun}"):
                    self._meaning(phrase).nouns.add(index)
            for synonym in model.synonyms:
                self._meaning(synonym).synonyms.add(index)
            for tag in model.tags:
                self._meaning(tag).tags.add(index)
            for word in [*_words(model.caption), *model.colours]:
                if word not in _IGNORED:
                    self._meaning(word).described.add(index)
        self._longest = max((len(phrase.split()) for phrase in self._meanings), default=1)

    def _meaning(self, phrase: str) -> _Meaning:
        key = _folded(phrase)
        self._display.setdefault(key, " ".join(_words(phrase)))
        return self._meanings.setdefault(key, _Meaning())

    def names(self) -> list[tuple[str, int]]:
        """Every name that a prompt can use and how many models it stands for, alphabetically."""
        rows = [(self._display[key], len(meaning.named())) for key, meaning in self._meanings.items()]
        return sorted((name, count) for name, count in rows if count)

    def adjectives(self) -> list[tuple[str, int]]:
        """Every describing word and how many models it fits, alphabetically."""
        return sorted(
            (self._display[key], len(meaning.described))
            for key, meaning in self._meanings.items()
            if meaning.described and not meaning.named()
        )

    def match(self, prompt: str) -> PromptMatch:
        """The models that a prompt means.

        A prompt of quality, style and view words alone names nothing and is no error: negative prompts are
        like that.

        Raises:
            StudioError: an empty or over-long prompt, or one with unknown words and nothing known.
        """
        words = _checked(prompt)
        text = " ".join(words)
        views: list[View] = []
        for view, pattern in _VIEW_PATTERNS:
            text, found = re.subn(pattern, " ", text)
            if found and view not in views:
                views.append(view)
        phrases, unknown = self._phrases(text.split())

        warnings = [self._unknown_word(word) for word in unknown]
        chosen = self._chosen(phrases, warnings)
        if not chosen and unknown:
            raise StudioError(
                f"The catalogue has nothing for the prompt {prompt!r}."
                f"{nearest(unknown[-1], self._display.values())} {self._how_to_list}"
            )
        weight = 1.0 / len(chosen) if chosen else 0.0
        weights = tuple(weight if index in chosen else 0.0 for index in range(self._count))
        return PromptMatch(weights, tuple(views), tuple(warnings))

    def match_something(self, prompt: str) -> PromptMatch:
        """The models that a prompt means, for a prompt that must name something.

        Raises:
            StudioError: as ``match``, and for a prompt of quality, style and view words alone.
        """
        match = self.match(prompt)
        if not match.names_something:
            raise StudioError(f"The prompt {prompt!r} names no thing. {self._how_to_list}")
        return match

    def _unknown_word(self, word: str) -> str:
        return f"The catalogue does not know {word!r}; it is ignored.{nearest(word, self._display.values())}"

    def _phrases(self, words: list[str]) -> tuple[list[_Phrase], list[str]]:
        """The known phrases in reading order, longest first at each place, and the words left over."""
        phrases: list[_Phrase] = []
        unknown: list[str] = []
        start = 0
        while start < len(words):
            for length in range(min(self._longest, len(words) - start), 0, -1):
                key = self._known(" ".join(words[start : start + length]))
                if key is not None and not (length == 1 and words[start] in _IGNORED):
                    phrases.append(_Phrase(key, start, start + length))
                    start += length
                    break
            else:
                if _colour(words[start]) is not None:
                    phrases.append(_Phrase(words[start], start, start + 1))
                elif words[start] not in _IGNORED:
                    unknown.append(words[start])
                start += 1
        return phrases, unknown

    def _known(self, phrase: str) -> str | None:
        """The key of a phrase or, failing that, of its synonym."""
        exact, folded = " ".join(_words(phrase)), _folded(phrase)
        candidates = (
            exact,
            folded,
            _SYNONYMS.get(exact, ""),
            _SYNONYMS.get(folded, ""),
            _colour(exact) or "",
        )
        for candidate in candidates:
            if candidate and _folded(candidate) in self._meanings:
                return _folded(candidate)
        return None

    def _chosen(self, phrases: list[_Phrase], warnings: list[str]) -> set[int]:
        """The subject's models, narrowed down by everything else that leaves some."""
        if not phrases:
            return set()
        subject = self._subject(phrases)
        if subject is None:
            chosen = loosely = set(range(self._count))
            name = "model"
        else:
            meaning = self._meanings[subject.key]
            chosen, loosely = meaning.named(), meaning.loosely_named()
            name = self._display[subject.key]
        for phrase in phrases:
            if phrase is subject:
                continue
            colour = _colour(phrase.key)
            if colour is not None:
                fitting = {index for index in loosely if colour in self._colours[index]}
            else:
                meaning = self._meanings[phrase.key]
                fitting = loosely & (meaning.loosely_named() | meaning.described)
            if fitting:
                chosen, loosely = chosen & fitting or fitting, fitting
            else:
                said = colour or self._display[phrase.key]
                warnings.append(f"The catalogue has no {name} with {said!r}; that word is ignored.")
        return chosen if subject is not None or len(chosen) < self._count else set()

    def _subject(self, phrases: list[_Phrase]) -> _Phrase | None:
        """The thing itself: the last of the first unbroken run of names, as in "glass coffee table"."""
        subject: _Phrase | None = None
        for phrase in phrases:
            meaning = self._meanings.get(phrase.key)
            is_name = meaning is not None and bool(meaning.named())
            if subject is not None and not (is_name and phrase.start == subject.end):
                return subject
            if is_name:
                subject = phrase
        return subject


def _checked(prompt: str) -> list[str]:
    """The prompt's words, if it has some and not too many."""
    words = _words(prompt)
    if not words:
        raise StudioError(f"The prompt {prompt!r} is empty; say what to make, for example 'a teddy bear'.")
    if len(words) > MAX_WORDS or len(prompt) > MAX_CHARACTERS:
        raise StudioError(
            f"The prompt has {len(words)} words and {len(prompt)} characters; "
            f"at most {MAX_WORDS} words and {MAX_CHARACTERS} characters are read. Make it shorter."
        )
    return words


def _words(text: str) -> list[str]:
    """Lower-case words; a hyphen inside a word stays, other marks part."""
    return re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower())


def _colour(word: str) -> str | None:
    """The colour out of ``COLOURS`` that a word names, if any."""
    word = _COLOUR_ALIASES.get(word, word)
    return word if word in COLOURS else None


def _folded(phrase: str) -> str:
    """The phrase with its words in the singular. "Glasses" alone are spectacles; "wine glasses" are not."""
    words = _words(phrase)
    return "glasses" if words == ["glasses"] else " ".join(_singular(word) for word in words)


def _singular(word: str) -> str:
    """A crude singular, the same for prompts and captions: "boxes" → "box", "berries" → "berry"."""
    if word in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[word]
    if len(word) <= 3 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2]
    return word[:-1]


def caption_phrases(caption: str) -> tuple[str, ...]:
    """The names in a caption, longest first: "a red toy car with stripes" → "red toy car", "toy car", "car".

    A name ends at the first preposition.
    """
    words = _words(caption)
    ends = [place for place, word in enumerate(words) if place > 0 and word in _PREPOSITIONS]
    words = [word for word in words[: min(ends, default=len(words))] if word not in _IGNORED]
    return tuple(" ".join(words[start:]) for start in range(len(words)))


def caption_noun(caption: str) -> str:
    """The noun of a caption, or nothing: its shortest name."""
    return (caption_phrases(caption) or ("",))[-1]
