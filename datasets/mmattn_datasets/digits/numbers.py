"""Numbers from 0 to 999 in words, in six languages: exact translations of each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from mmattn.errors import InputError, did_you_mean
from mmattn_datasets.digits.words import DIGIT_WORDS

__all__ = ["NUMBERS", "spell_number"]

_TEENS = {
    "English": "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
    "German": "zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn",
    "French": "dix onze douze treize quatorze quinze seize dix-sept dix-huit dix-neuf",
}
_TENS = {
    "English": "twenty thirty forty fifty sixty seventy eighty ninety",
    "German": "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig",
    "French": "vingt trente quarante cinquante soixante",
    "Turkish": "on yirmi otuz kırk elli altmış yetmiş seksen doksan",
}
_TEEN = {language: line.split() for language, line in _TEENS.items()}
_TEN = {language: line.split() for language, line in _TENS.items()}


def _english(number: int) -> str:
    if number >= 100:
        return _join_words(f"{DIGIT_WORDS['English'][number // 100]} hundred", number % 100, _english)
    if number < 20:
        return [*DIGIT_WORDS["English"], *_TEEN["English"]][number]
    return _join_words(_TEN["English"][number // 10 - 2], number % 10, _english)


def _german(number: int) -> str:
    if number >= 100:
        return _stem(number // 100) + "hundert" + (_german(number % 100) if number % 100 else "")
    if number < 20:
        return [*DIGIT_WORDS["German"], *_TEEN["German"]][number]
    ten, unit = _TEN["German"][number // 10 - 2], number % 10
    return f"{_stem(unit)}und{ten}" if unit else ten


def _stem(digit: int) -> str:
    return "ein" if digit == 1 else DIGIT_WORDS["German"][digit]


def _french(number: int) -> str:
    if number >= 100:
        before = "" if number < 200 else DIGIT_WORDS["French"][number // 100] + " "
        return _join_words(
            before + ("cents" if number >= 200 and not number % 100 else "cent"), number % 100, _french
        )
    if number < 20:
        return [*DIGIT_WORDS["French"], *_TEEN["French"]][number]
    if number == 80:
        return "quatre-vingts"
    base = number // 20 * 20 if number >= 60 else number // 10 * 10  # 70 is 60 and 10, 90 is 80 and 10
    ten = "quatre-vingt" if base == 80 else _TEN["French"][base // 10 - 2]
    if number == base:
        return ten
    unit = _french(number - base)
    return f"{ten} et {unit}" if number % 10 == 1 and number < 80 else f"{ten}-{unit}"


def _turkish(number: int) -> str:
    if number >= 100:
        hundred = "yüz" if number < 200 else f"{DIGIT_WORDS['Turkish'][number // 100]} yüz"
        return _join_words(hundred, number % 100, _turkish)
    if number < 10:
        return DIGIT_WORDS["Turkish"][number]
    return _join_words(_TEN["Turkish"][number // 10 - 1], number % 10, _turkish)


def _indonesian(number: int) -> str:
    words = DIGIT_WORDS["Indonesian"]
    if number >= 100:
        hundred = "seratus" if number < 200 else f"{words[number // 100]} ratus"
        return _join_words(hundred, number % 100, _indonesian)
    if number < 10:
        return words[number]
    if number < 20:
        return {10: "sepuluh", 11: "sebelas"}.get(number, f"{words[number % 10]} belas")
    return _join_words(f"{words[number // 10]} puluh", number % 10, _indonesian)


def _finnish(number: int) -> str:
    words = DIGIT_WORDS["Finnish"]
    if number >= 100:
        hundred = "sata" if number < 200 else f"{words[number // 100]}sataa"
        return hundred + (_finnish(number % 100) if number % 100 else "")
    if number <= 10:
        return [*words, "kymmenen"][number]
    if number < 20:
        return f"{words[number - 10]}toista"
    return f"{words[number // 10]}kymmentä" + (words[number % 10] if number % 10 else "")


def _join_words(before: str, rest: int, spelled: Callable[[int], str]) -> str:
    return f"{before} {spelled(rest)}" if rest else before


# Language -> function that spells a number.
NUMBERS: Mapping[str, Callable[[int], str]] = MappingProxyType(
    {
        "English": _english,
        "German": _german,
        "French": _french,
        "Turkish": _turkish,
        "Indonesian": _indonesian,
        "Finnish": _finnish,
    }
)


def spell_number(number: int, language: str) -> str:
    """Spell a number in words.

    Args:
        number: integer from 0 to 999.
        language: one of `NUMBERS`.

    Raises:
        InputError: a number out of range, or an unknown language.

    Example:
        >>> spell_number(392, "English"), spell_number(392, "German"), spell_number(392, "French")
        ('three hundred ninety two', 'dreihundertzweiundneunzig', 'trois cent quatre-vingt-douze')
    """
    if not 0 <= number <= 999:
        raise InputError(f"number words: got {number}, expected 0 to 999")
    if language not in NUMBERS:
        raise InputError(f"number words: no language {language!r}.{did_you_mean(language, NUMBERS)}")
    return NUMBERS[language](number)
