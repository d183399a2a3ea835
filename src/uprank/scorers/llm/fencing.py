"""What keeps documents apart from instructions: a fence nobody can guess, labels nobody can guess, texts made harmless.

No prompt is a complete defence: a model may still believe what a document says about itself. What is certain is the
form: a document cannot end the fence that it stands in, name a passage by its label, or bring tokens by which chat
templates tell who speaks.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from uprank.documents import scorable

__all__ = ["Fence", "LabelKind", "labels", "neutral"]

LabelKind: TypeAlias = Literal["nonce", "letter", "numeric"]
"""What passages are called.

* ``"nonce"``: three letters and digits that occur in no text: no document can name one, and prose is never taken for
  one.
* ``"letter"``: single letters, which are single tokens: for models whose first token's probabilities are read.
* ``"numeric"``: 1, 2, 3 …, as fine-tuned models have learnt.
"""

_NONCE_LETTERS = 12


@dataclass(frozen=True, slots=True)
class Fence:
    """Two lines between which texts are quoted.

    Args:
        nonce: A code that occurs in none of the texts.
    """

    nonce: str

    @classmethod
    def make(cls, seed: str, texts: Iterable[str]) -> Fence:
        """Choose a code.

        Args:
            seed: The same seed and texts give the same code.
            texts: All that is shown; the code occurs in none of them, in whatever case.
        """
        plain = [_plain(text).lower() for text in texts]
        digest = _digest("fence", seed, *plain)
        while any(digest[:_NONCE_LETTERS] in text for text in plain):
            digest = _digest("again", digest)
        return cls(digest[:_NONCE_LETTERS])

    @property
    def begin(self) -> str:
        """The line before the passages."""
        return f"<passages-{self.nonce}>"

    @property
    def end(self) -> str:
        """The line after them."""
        return f"</passages-{self.nonce}>"


_LETTERS = "ACDEFHJKMNPQRTVWXY"  # none that looks like a digit or like another letter
_DIGITS = "3479"
_SHAPES = ("LDL", "LLD", "LDD")  # never a word, never a number
_WORDS = re.compile(r"[a-z0-9]+")


def labels(kind: LabelKind, count: int, seed: str, texts: Iterable[str], avoid: Iterable[str] = ()) -> tuple[str, ...]:
    """Names for passages, no two alike.

    Args:
        kind: See :data:`LabelKind`.
        count: How many.
        seed: The same seed and texts give the same labels.
        texts: All that is shown: no ``"nonce"`` occurs in them as a word, in whatever case.
        avoid: Labels that are taken.

    Raises:
        ValueError: If there are not as many letters.
    """
    taken = {label.lower() for label in avoid}
    if kind == "numeric":
        numbers = (str(number) for number in range(1, count + len(taken) + 1))
        return tuple(number for number in numbers if number not in taken)[:count]
    texts = [_plain(text).lower() for text in texts]
    source = random.Random(int(_digest("labels", kind, seed, *texts), 16))  # noqa: S311 - seeded by all that is shown
    if kind == "letter":
        letters = [chr(code) for code in range(ord("A"), ord("Z") + 1) if chr(code).lower() not in taken]
        if count > len(letters):
            raise ValueError(f"there are {len(letters)} letters to label passages with, not {count}")
        return tuple(_shuffled(letters, source)[:count])
    taken.update(word for text in texts for word in _WORDS.findall(text))
    chosen: list[str] = []
    tail, failed = 0, 0
    while len(chosen) < count:
        label = _nonce_label(source, tail)
        if label.lower() in taken:
            failed += 1
            tail = failed // 1000  # so many at once in the texts is no accident: longer labels
            continue
        taken.add(label.lower())
        chosen.append(label)
    return tuple(chosen)


def _nonce_label(source: random.Random, tail: int) -> str:
    shape = _SHAPES[int(source.random() * len(_SHAPES))] + "L" * tail
    alphabets = (_LETTERS if letter == "L" else _DIGITS for letter in shape)
    return "".join(alphabet[int(source.random() * len(alphabet))] for alphabet in alphabets)


def _shuffled(items: list[str], source: random.Random) -> list[str]:
    # Only random() is promised to give the same numbers in every version of Python.
    return [item for _, item in sorted((source.random(), item) for item in items)]


def neutral(text: str, labels: Sequence[str] = ()) -> str:
    r"""A text from outside, with all that a model could take for structure made harmless, and still readable.

    What changes, and nothing else:

    * The brackets of a token by which chat templates mark who speaks or thinks become round: ``<|im_start|>`` becomes
      ``(|im_start|)``, ``</think>`` ``(/think)``, ``[INST]`` ``(INST)``. So do those of tags of the fence's own names,
      ``<passages …>`` and ``<query …>``. Also if they are written with look-alikes (``＜｜``) or with invisible
      characters in between; these are dropped there.
    * A short id in square brackets becomes round: ``[7]``, ``[K7F]``, ``[B]``, ``[US]`` become ``(7)``, ``(K7F)``,
      ``(B)``, ``(US)``: one to four digits, capitals or both. An index after a name (``row[0]``) stays as it is. So
      does any other id, unless it is one of ``labels`` in whatever case.
    * A speaker at the beginning of a line, ``Human:``, ``Assistant:``, ``User:`` or ``System:`` (capitalised), is put
      in brackets: ``(Human):``; in capitals (``USER:``) anywhere. So are the marks of a heading of these names, or of
      ``Instruction`` or ``Response``: ``### Response`` becomes ``(###) Response``.
    * One of ``labels`` that has three characters or more and stands in the text as a word is broken: ``K-7F``.
    * Control characters are dropped, except newlines and tabs; ``\r\n``, ``\r`` and Unicode's separators of lines
      become ``\n``. Unicode's tag characters, by which text is hidden, are dropped (not those of a flag), and so are
      all but the first of consecutive variation selectors. Lone surrogates become U+FFFD.

    To make a text harmless twice changes no more than once.

    Args:
        text: A document or a query.
        labels: Those of the passages that are shown with it.
    """
    text = _rounded(_without_controls(scorable(text)), frozenset(label.lower() for label in labels))
    lowered = text.lower()
    for label in labels:
        if len(label) >= 3 and label.lower() in lowered:
            word = re.compile(rf"(?<![A-Za-z0-9])({label[0]})({label[1:]})(?![A-Za-z0-9])", re.IGNORECASE)
            text = word.sub(r"\1-\2", text)
    return text


_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_BREAKS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
_TAGS = re.compile("(\U0001f3f4[\U000e0030-\U000e007a]{4,6}\U000e007f)|[\U000e0000-\U000e007f]+")
_SELECTORS = re.compile("([\ufe00-\ufe0f\U000e0100-\U000e01ef])[\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff"
)
_ANY_INVISIBLE = re.compile(f"[{_INVISIBLE}]")
_VISIBLE = re.compile(f"[^{_INVISIBLE}]")

# Look-alikes, each for one ASCII character: the fullwidth forms, styled letters, and brackets and bars.
_FOLD = {0xFF01 + offset: 0x21 + offset for offset in range(94)}
_FOLD |= dict.fromkeys(map(ord, "〈⟨❮❰⧼﹤˂ᐸ≺⟪"), ord("<"))
_FOLD |= dict.fromkeys(map(ord, "〉⟩❯❱⧽﹥˃ᐳ≻⟫"), ord(">"))
_FOLD |= dict.fromkeys(map(ord, "│∣ǀ❘❙⎸⎹▏￨ᛁ⏐┃"), ord("|"))
_FOLD |= dict.fromkeys(map(ord, "【〔⟦❲⁅〖﹝"), ord("["))
_FOLD |= dict.fromkeys(map(ord, "】〕⟧❳⁆〗﹞"), ord("]"))
_FOLD |= {0x1D400 + offset: ord("A") + offset % 52 + (6 if offset % 52 > 25 else 0) for offset in range(13 * 52)}
_FOLD |= {0x1D7CE + offset: ord("0") + offset % 10 for offset in range(50)}
_FOLD |= {ord("▁"): ord("_"), ord("⁄"): ord("/"), ord("∕"): ord("/"), ord("："): ord(":"), ord("﹕"): ord(":")}

_SPEAKERS = "Human|HUMAN|Assistant|ASSISTANT|User|USER|System|SYSTEM"
_TAG_NAMES = (
    "s|bos|eos|pad|unk|sop|eop|think|thinking|thought|reasoning|analysis|answer|system|user|assistant|"
    "start_of_turn|end_of_turn|start_of_image|im_start|im_end|im_sep|begin_of_text|end_of_text|begin_of_sentence|"
    "end_of_sentence|beginning_of_sentence|start_of_role|end_of_role|endoftext|tools?|tool_calls?|tool_responses?|"
    r"function_calls?|function_results?|(?:extra_id|special|unused|reserved)_?\d+|seed:[a-z_]+"
)
_SQUARE_NAMES = (
    "INST|SYS|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG|THINK|MASK|gMASK|sMASK|"
    r"UNUSED_TOKEN_\d+"
)
_BARRED = r"[\w/.-]{1,64}"
# No alternative may take in what another would change: it would be left as it is, for a second pass to find.
_DANGEROUS = re.compile(
    rf"""
      (?P<fence> < \s{{0,3}} /? \s{{0,3}} (?:passages|query) \b (?: [^<>\[\]:\n]{{0,80}} > )? )
    | (?P<bars> < (?: \| {_BARRED} \|? | {_BARRED} \| ) >  |  \[ \| {_BARRED} \| \] )
    | (?P<tag> < \s? /? \s? (?:{_TAG_NAMES}) \s? /? > )
    | (?P<llama> << \s? /? \s? SYS \s? >> )
    | (?P<square> \[ \s? /? \s? (?:{_SQUARE_NAMES}) \s? \] )
    | (?P<minimax> \] ~ !? [a-z]{{0,3}} [\[\]] | \[ e ~ \[ )
    | (?P<id> \[ [ ]{{0,2}} \#? (?P<inner> [a-z0-9]{{1,8}} ) [ ]{{0,2}} \] )
    | (?P<speaker> ^ [ \t>*_]* ) (?P<name> (?-i:{_SPEAKERS}) ) (?= [*_]{{0,2}} [ ]? : )
    | (?P<shouted> (?<! [\w(] ) (?-i: HUMAN|ASSISTANT|USER|SYSTEM ) (?= : ) )
    | (?P<marks> ^ \#{{1,6}} ) (?= [ \t]* (?-i:{_SPEAKERS}|Instructions?|Response) \b )
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE | re.ASCII,
)
_SHORT_ID = re.compile("[0-9]{1,4}|[A-Z0-9]{1,4}")
_ROUND = str.maketrans("<>[]", "()()")


def _rounded(text: str, live: frozenset[str]) -> str:
    """The text with dangerous brackets round, found as they look rather than as they are spelt."""
    plain, places = _seen(text)
    parts, copied = [], 0
    for match in _DANGEROUS.finditer(plain):
        if match["id"] and not _names_a_passage(match, live):
            continue
        start, end = match.span()
        parts.append(text[copied : places[start] if places else start])
        parts.append(_harmless(match))
        copied = places[end - 1] + 1 if places else end
    parts.append(text[copied:])
    return "".join(parts)


def _harmless(match: re.Match[str]) -> str:
    if match["name"]:
        return f"{match['speaker']}({match['name']})"
    if match["shouted"] or match["marks"]:
        return f"({match[0]})"
    return match[0].translate(_ROUND)


def _names_a_passage(match: re.Match[str], live: frozenset[str]) -> bool:
    inner = match["inner"]
    before = match.string[match.start() - 1 : match.start()]
    return inner.lower() in live or (bool(_SHORT_ID.fullmatch(inner)) and not (before.isalnum() or before == "_"))


def _seen(text: str) -> tuple[str, list[int] | None]:
    """The text as it looks, and for each of its characters the place of the original, if they differ."""
    if text.isascii():
        return text, None
    if not _ANY_INVISIBLE.search(text):
        return text.translate(_FOLD), None
    places = [match.start() for match in _VISIBLE.finditer(text)]
    return "".join([text[place] for place in places]).translate(_FOLD), places


def _plain(text: str) -> str:
    return _seen(scorable(text))[0]


def _without_controls(text: str) -> str:
    text = _CONTROLS.sub("", _BREAKS.sub("\n", text))
    if not text.isascii():
        text = _SELECTORS.sub(r"\1", _TAGS.sub(r"\1", text))
    return text


def _digest(*parts: str) -> str:
    # Each part with its length, so that no two lists of parts are alike.
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogatepass")).hexdigest()
