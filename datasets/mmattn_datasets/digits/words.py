"""Number words and phrases around them in twelve languages."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

__all__ = ["DIGIT_WORDS", "phrase_digit"]

_WORD_LINES = {
    "English": "zero one two three four five six seven eight nine",
    "German": "null eins zwei drei vier fünf sechs sieben acht neun",
    "French": "zéro un deux trois quatre cinq six sept huit neuf",
    "Spanish": "cero uno dos tres cuatro cinco seis siete ocho nueve",
    "Italian": "zero uno due tre quattro cinque sei sette otto nove",
    "Portuguese": "zero um dois três quatro cinco seis sete oito nove",
    "Dutch": "nul een twee drie vier vijf zes zeven acht negen",
    "Swedish": "noll ett två tre fyra fem sex sju åtta nio",
    "Polish": "zero jeden dwa trzy cztery pięć sześć siedem osiem dziewięć",
    "Finnish": "nolla yksi kaksi kolme neljä viisi kuusi seitsemän kahdeksan yhdeksän",
    "Turkish": "sıfır bir iki üç dört beş altı yedi sekiz dokuz",
    "Indonesian": "nol satu dua tiga empat lima enam tujuh delapan sembilan",
}

# Language -> its words for 0 to 9.
DIGIT_WORDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {language: tuple(line.split()) for language, line in _WORD_LINES.items()}
)

# Language -> phrases around the word; the bare word is the most common.
_PHRASE_TEMPLATES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "English": ("the number {}", "a {}", "it says {}"),
        "German": ("die Zahl {}", "eine {}", "da steht {}"),
        "French": ("le chiffre {}", "voici {}", "c'est {}"),
        "Spanish": ("el número {}", "un {}", "dice {}"),
        "Italian": ("il numero {}", "un {}", "dice {}"),
        "Portuguese": ("o número {}", "aqui está {}", "diz {}"),
        "Dutch": ("het getal {}", "dit is {}", "er staat {}"),
        "Swedish": ("siffran {}", "en {}", "det står {}"),
        "Polish": ("liczba {}", "cyfra {}", "to jest {}"),
        "Finnish": ("numero {}", "luku {}", "tämä on {}"),
        "Turkish": ("{} sayısı", "rakam {}", "bu {}"),
        "Indonesian": ("angka {}", "nomor {}", "ini {}"),
    }
)


def phrase_digit(digit: int, language: str, generator: np.random.Generator) -> str:
    """Draw a phrase for a digit: the bare word half of the time, otherwise in a phrase, in some case.

    Args:
        digit: 0 to 9.
        language: one of `DIGIT_WORDS`.
        generator: the random generator.

    Example:
        >>> phrase_digit(7, "German", np.random.default_rng(0)).lower().endswith("sieben")
        True
    """
    text = DIGIT_WORDS[language][digit]
    if generator.random() < 0.5:
        text = str(generator.choice(_PHRASE_TEMPLATES[language])).format(text)
    case = generator.choice(["as it is", "capital", "upper"], p=[0.7, 0.2, 0.1])
    return text[0].upper() + text[1:] if case == "capital" else text.upper() if case == "upper" else text
