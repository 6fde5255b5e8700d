from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from mmattn.encoders.image.tiny_image import TinyImage
from mmattn.encoders.text.tiny_text import TinyText
from mmattn.errors import InputError


class TestTinyText:
    def test_places_tell_field_and_word(self) -> None:
        tokens = TinyText(dim=5, max_words=3)([["one two three four", "", "five"], None, "six, seven"])
        assert tokens.lengths.tolist() == [4, 0, 3]
        assert tokens.position.tolist() == [0, 1, 2, 512, 0, 1, 2]

    def test_words_that_share_letters_are_near(self) -> None:
        torch.manual_seed(0)
        encoder = TinyText(dim=64, layers=0)
        siebzehn, siebzig, acht = encoder(["siebzehn", "siebzig", "acht"]).values
        near = torch.cosine_similarity(siebzehn, siebzig, dim=0)
        far = torch.cosine_similarity(siebzehn, acht, dim=0)
        assert near > far + 0.2

    def test_the_mean_of_the_grams_by_hand(self) -> None:
        import zlib

        encoder = TinyText(dim=5, buckets=101, layers=0)
        # <a>: a, <a, a>, <a>; the lone marks are no n-grams.
        rows = [zlib.crc32(gram.encode()) % 101 for gram in ("a", "<a", "a>", "<a>")]
        torch.testing.assert_close(encoder(["A"]).values[0], encoder.ngram_embedding.weight[rows].mean(0))

    def test_neighbours_matter_within_a_field_only(self) -> None:
        torch.manual_seed(0)
        encoder = TinyText(dim=5, layers=1)
        alone = encoder(["seven"]).values[0]
        with_neighbour = encoder(["seven eight"]).values[0]
        other_field = encoder([["seven", "eight"]]).values[0]
        other_sample = encoder(["seven", "eight"]).values[0]
        assert not torch.allclose(alone, with_neighbour)
        torch.testing.assert_close(alone, other_field)
        torch.testing.assert_close(alone, other_sample)

    def test_reach_grows_by_a_word_a_layer(self) -> None:
        torch.manual_seed(0)
        encoder = TinyText(dim=5, layers=2)
        entry, other = encoder(["a b c d e", "a b c d f"])
        assert not torch.allclose(entry[2], other[2])
        torch.testing.assert_close(entry[1], other[1])

    def test_hashes_are_the_same_in_every_process(self) -> None:
        code = "from mmattn.encoders.text.tiny_text import TinyText; print(TinyText().read('öst').ngrams)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert other.stdout.strip() == str(TinyText().read("öst").ngrams)

    def test_options_out_of_range(self) -> None:
        with pytest.raises(InputError, match="got max_words=257, expected 1 to 256"):
            TinyText(max_words=257)


class TestTinyImage:
    def test_patches_see_their_part_of_the_picture(self) -> None:
        torch.manual_seed(0)
        encoder = TinyImage(dim=11, size=64, grid=4).eval()
        dark = np.zeros((64, 64), np.uint8)
        lit = dark.copy()
        lit[50:62, 2:14] = 255  # the last row's first patch
        before, after = encoder([dark, lit])
        moved = (after - before).norm(dim=1)
        assert int(moved.argmax()) == 12

    def test_learns_to_tell_pictures_apart(self) -> None:
        torch.manual_seed(0)
        generator = np.random.default_rng(0)
        pictures = [generator.integers(0, 99, (16, 16), np.uint8) for _ in range(16)]
        for index, picture in enumerate(pictures):
            picture[(slice(None), 5) if index % 2 else (5, slice(None))] = 255  # an upright or a lying bar
        encoder = TinyImage(dim=8, size=16, grid=2)
        read = [encoder.read(picture) for picture in pictures]
        head = torch.nn.Linear(8, 2)
        optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=3e-3)
        wanted = torch.arange(16) % 2
        for _ in range(25):
            means = torch.stack([row.mean(0) for row in encoder(read)])
            loss = torch.nn.functional.cross_entropy(head(means), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 0.1

    def test_options_out_of_range(self) -> None:
        with pytest.raises(InputError, match="got size=4 and grid=4"):
            TinyImage(size=4)
