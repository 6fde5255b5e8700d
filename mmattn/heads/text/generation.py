"""Texts written from fused tokens: captions, translations, transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.attention.language.program import parse
from mmattn.attention.layer.attention import Attention
from mmattn.errors import InputError
from mmattn.evaluation.tasks.text_metrics import text_examples, text_metrics
from mmattn.heads.base import SupervisedHead
from mmattn.heads.text.beam_search import SearchOptions, beam_search
from mmattn.heads.text.decoder import TextDecoder, TextDecoderLayer
from mmattn.heads.text.subwords import END, START, UNKNOWN, TextTokenizer, learn_vocabulary, read_word_pieces
from mmattn.types import Fused, Tokens

if TYPE_CHECKING:
    from mmattn.evaluation.tasks.examples import PredictedItem, TaskExamples
    from mmattn.evaluation.tasks.task_metrics import TaskMetrics

__all__ = ["GeneratedText", "GenerationHead"]

_WHERE = "generation head"


@dataclass(frozen=True)
class GeneratedText:
    """One text that could be written.

    Args:
        text: what it says.
        log_prob: of all its symbols and its end.
        score: what texts are ranked by: the same after the length penalty.
    """

    text: str
    log_prob: float
    score: float


class GenerationHead(SupervisedHead):
    """A decoder that attends to all fused tokens of a sample, of whatever modalities are there.

    A word that the vocabulary lacks is learned as unknown and never written. A sample without any token takes
    no part in the loss, and what is written of it is "".

    Args:
        dim: width D of the fused tokens, even.
        vocabulary: words, word pieces or characters (see `mmattn.heads.text.subwords`), or the path of a
            tokenizer's file with word pieces, `vocab.txt` or `tokenizer.json`.
        unit: "word", "piece" or "character".
        lowercase: write everything in lower case.
        layers: of the decoder.
        heads: of its attentions.
        expansion: hidden width of its token-wise networks, as a multiple of D.
        dropout: probability, in the layers and on the embedded symbols.
        label_smoothing: share of the target that is spread over the vocabulary (Szegedy et al., 2016).
        max_length: symbols of the longest text, its end not counted.
        min_length: symbols of the shortest text that `predict` writes.
        num_beams: hypotheses that `predict` follows; 1 is greedy.
        length_penalty: of `predict`, see `mmattn.heads.text.beam_search.SearchOptions`.
        self_attention: attention program among what is written; it looks back only.
        cross_attention: attention program from what is written, whose modality is "written", to the fused
            tokens.

    Raises:
        InputError: an option out of its range, or a vocabulary that is none.

    Example:
        >>> head, fused, inputs = GenerationHead.example(dim=8)
        >>> head.loss(fused, **inputs).dim(), len(head.predict(fused))
        (0, 4)
        >>> len(head.search(fused, num_return_sequences=3)[0])
        3
    """

    target_roles: ClassVar[tuple[str, ...]] = ("transcript", "label")

    def __init__(
        self,
        dim: int,
        vocabulary: Sequence[str] | str,
        *,
        unit: str = "word",
        lowercase: bool = False,
        layers: int = 2,
        heads: int = 4,
        expansion: float = 2.0,
        dropout: float = 0.1,
        label_smoothing: float = 0.1,
        max_length: int = 64,
        min_length: int = 0,
        num_beams: int = 4,
        length_penalty: float = 0.6,
        self_attention: str = "Program(score=dot(), mask=causal, norm=softmax())",
        cross_attention: str = "Program(score=dot(), mask=full, norm=softmax())",
    ):
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise InputError(f"{_WHERE}: got smoothing {label_smoothing}, expected a share from 0 to below 1")
        if dim % 2:
            raise InputError(f"{_WHERE}: got width {dim}, expected an even number")
        if layers < 1:
            raise InputError(f"{_WHERE}: got {layers} layers, expected at least one")
        names = read_word_pieces(vocabulary) if isinstance(vocabulary, str) else vocabulary
        self.tokenizer = TextTokenizer(names, unit, lowercase, _WHERE)
        self.label_smoothing = label_smoothing
        self.search_options = SearchOptions(
            num_beams, length_penalty=length_penalty, min_length=min_length, max_length=max_length
        )
        stack = [
            TextDecoderLayer(
                Attention(parse(self_attention), dim, heads),
                Attention(parse(cross_attention), dim, heads),
                expansion,
                dropout,
            )
            for _ in range(layers)
        ]
        self.decoder = TextDecoder(dim, len(self.tokenizer), stack, dropout)

    @classmethod
    def options_for(
        cls,
        targets: Sequence[Any],
        *,
        unit: str = "word",
        lowercase: bool = False,
        vocab_size: int = 8000,
        min_frequency: int = 1,
    ) -> Mapping[str, Any]:
        """The vocabulary, and a `max_length` a quarter above that of the longest text.

        Args:
            targets: training texts; None if unknown.
            unit: as in the constructor.
            lowercase: as in the constructor.
            vocab_size: as in `mmattn.heads.text.subwords.learn_vocabulary`.
            min_frequency: as in `mmattn.heads.text.subwords.learn_vocabulary`.

        Example:
            >>> GenerationHead.options_for(["a dog", None, "a red dog"])["vocabulary"]
            ['a', 'dog', 'red']
        """
        texts = [_check_text(target) for target in targets if target is not None]
        names = learn_vocabulary(
            texts, unit, vocab_size=vocab_size, min_frequency=min_frequency, lowercase=lowercase
        )
        units = TextTokenizer(names, unit, lowercase, _WHERE)
        longest = max(len(units.encode(text)) for text in texts)
        return {
            "vocabulary": names,
            "unit": unit,
            "lowercase": lowercase,
            "max_length": longest + longest // 4,
        }

    @classmethod
    def metrics(cls, targets: Sequence[Any], name: str = "") -> TaskMetrics:
        """Return the metrics of predicted texts, see `mmattn.evaluation.tasks.text_metrics`.

        Args:
            targets: all known targets.
            name: "transcript" (the default) or "translation".

        Raises:
            InputError: another name.
        """
        return text_metrics(name)

    @classmethod
    def examples(cls, items: Sequence[PredictedItem]) -> TaskExamples:
        return text_examples(items)

    def forward(self, fused: Fused) -> list[str]:
        """The text of each sample, as `predict` writes it.

        Args:
            fused: B samples.
        """
        return self.predict(fused)

    def loss(self, fused: Fused, targets: Sequence[str | None]) -> Tensor:
        """Cross-entropy of each symbol and of the end, after the true ones before it; their mean.

        Args:
            fused: B samples.
            targets: B texts; None where it is not known.

        Raises:
            InputError: another number of targets, a target that is no text, or one that is too long.
        """
        if len(targets) != len(fused):
            raise InputError(f"{_WHERE}: got {len(targets)} targets, expected {len(fused)}, one a sample")
        sizes = fused.tokens.length_list
        rows = [row for row, target in enumerate(targets) if target is not None and sizes[row]]
        if not rows:
            return (fused.tokens.values.sum() + self.decoder.bias.sum()) * 0.0
        texts = [self._token_ids(targets[row]) for row in rows]
        device = fused.tokens.device
        before = [torch.tensor([START, *text], device=device) for text in texts]
        after_N = torch.tensor([number for text in texts for number in (*text, END)], device=device)
        logits_NV = self.decoder(before, fused.tokens.select(rows)).float()
        return F.cross_entropy(logits_NV, after_N, label_smoothing=self.label_smoothing)

    @torch.no_grad()
    def predict(self, fused: Fused) -> list[str]:
        """Return the best text of each sample.

        Args:
            fused: B samples.
        """
        return [written[0].text for written in self.search(fused)]

    @torch.no_grad()
    def search(self, fused: Fused, **options: Any) -> list[list[GeneratedText]]:
        """Several texts of each sample, the best first.

        Args:
            fused: B samples.
            **options: of `mmattn.heads.text.beam_search.SearchOptions`, in place of the head's own.
        """
        rows = [row for row, size in enumerate(fused.tokens.length_list) if size]
        texts = [[GeneratedText("", 0.0, 0.0)] for _ in range(len(fused))]
        if not rows:
            return texts
        memory = fused.tokens.select(rows)
        searched = beam_search(
            self.decoder.start_decoding(memory),
            len(memory),
            replace(self.search_options, **options),
            start=START,
            end=END,
            forbidden_symbols=(START, UNKNOWN),
            device=memory.device,
        )
        for row, hypotheses in zip(rows, searched, strict=True):
            texts[row] = [
                GeneratedText(self.tokenizer.decode(each.symbols), each.log_prob, each.score)
                for each in hypotheses
            ]
        return texts

    def _token_ids(self, target: Any) -> list[int]:
        numbers = self.tokenizer.encode(_check_text(target))
        longest = self.search_options.max_length
        if len(numbers) > longest:
            raise InputError(
                f"{_WHERE}: got a target of {len(numbers)} {self.tokenizer.unit}s, expected at most "
                f"{longest} "
                f"(max_length): {target[:60]!r}"
            )
        return numbers

    @classmethod
    def example(cls, dim: int) -> tuple[GenerationHead, Fused, dict[str, Any]]:
        """A head, fused samples and loss arguments, for `mmattn.testing.plugin_checks.check_head`.

        Args:
            dim: width D.
        """
        dim += dim % 2
        tokens = Tokens.from_lengths(torch.randn(7, dim), torch.tensor([2, 1, 3, 1]), "image")
        fused = Fused(tokens, torch.randn(4, dim), torch.randn(4, 1, dim), tokens.presence)
        head = cls(dim, ["a", "dog", "runs"], heads=2, max_length=5)
        return head, fused, {"targets": ["a dog runs", None, "a zebra", ""]}


def _check_text(target: Any) -> str:
    if not isinstance(target, str):
        raise InputError(f"{_WHERE}: got {target!r} as target, expected a text")
    return target
