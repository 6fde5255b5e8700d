"""Numbers in words: those that languages say in a way of their own, and all of them different."""

from __future__ import annotations

import pytest

from mmattn.errors import InputError
from mmattn_datasets.digits.numbers import NUMBERS, spell_number

SAID = {
    "English": {0: "zero", 13: "thirteen", 40: "forty", 100: "one hundred", 921: "nine hundred twenty one"},
    "German": {
        1: "eins", 16: "sechzehn", 21: "einundzwanzig", 30: "dreißig", 100: "einhundert",
        101: "einhunderteins", 777: "siebenhundertsiebenundsiebzig",
    },
    "French": {
        0: "zéro", 21: "vingt et un", 22: "vingt-deux", 60: "soixante", 61: "soixante et un",
        70: "soixante-dix", 71: "soixante et onze", 77: "soixante-dix-sept", 80: "quatre-vingts",
        81: "quatre-vingt-un",
        91: "quatre-vingt-onze", 99: "quatre-vingt-dix-neuf", 100: "cent", 101: "cent un", 200: "deux cents",
        280: "deux cent quatre-vingts", 999: "neuf cent quatre-vingt-dix-neuf",
    },
    "Turkish": {10: "on", 45: "kırk beş", 100: "yüz", 110: "yüz on", 999: "dokuz yüz doksan dokuz"},
    "Indonesian": {
        10: "sepuluh", 11: "sebelas", 14: "empat belas", 25: "dua puluh lima", 100: "seratus",
        211: "dua ratus sebelas",
    },
    "Finnish": {
        10: "kymmenen", 11: "yksitoista", 20: "kaksikymmentä", 100: "sata",
        345: "kolmesataaneljäkymmentäviisi",
    },
}  # fmt: skip


@pytest.mark.parametrize("language", SAID)
def test_as_it_is_said(language: str) -> None:
    assert {number: spell_number(number, language) for number in SAID[language]} == SAID[language]


@pytest.mark.parametrize("language", NUMBERS)
def test_every_number_is_said_in_its_own_way(language: str) -> None:
    answer = [spell_number(number, language) for number in range(1000)]
    assert len(set(answer)) == 1000
    assert all(text == " ".join(text.split()) and text == text.lower() for text in answer)


def test_what_cannot_be_said() -> None:
    with pytest.raises(InputError, match="got 1000, expected 0 to 999"):
        spell_number(1000, "English")
    with pytest.raises(InputError, match=r"no language 'Germn'. Did you mean 'German'\?"):
        spell_number(1, "Germn")
