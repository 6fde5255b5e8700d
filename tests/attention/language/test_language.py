"""Programs as values: equality, text, JSON, fingerprints, extensions, and what is refused."""

from __future__ import annotations

import copy
import json
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmattn import attention as A
from mmattn.attention.language.extensions import Extension
from mmattn.attention.language.term import MAX_DEPTH, registered_terms
from mmattn.attention.testing.random_programs import random_program
from mmattn.errors import InputError, MissingDependency
from mmattn.types import Tokens

DESIGN = (
    'Program(score=dot() >> modality_bias("pair") >> graph_bias("kg", relations=7) >> softcap(30.0), '
    'mask=route({"audio": ["*"], "image": ["image", "text"], "text": ["image", "text"]}) '
    '& (window(64) | global_tokens("text")), norm=softmax())'
)


def design() -> A.Program:
    return A.Program(
        score=A.dot() >> A.modality_bias("pair") >> A.graph_bias("kg", relations=7) >> A.softcap(30.0),
        mask=A.route({"text": ["text", "image"], "image": ["image", "text"], "audio": ["*"]})
        & (A.window(64) | A.global_tokens("text")),
        norm=A.softmax(),
    )


def test_the_program_of_the_design_prints_and_comes_back() -> None:
    assert str(design()) == DESIGN
    assert A.parse(DESIGN) == design() == A.Program.from_json(design().to_json())


@settings(max_examples=200)
@given(seed=st.integers(0, 10**9))
def test_every_program_survives_text_and_json(seed: int) -> None:
    program = random_program(random.Random(seed))
    assert A.parse(str(program)) == program
    back = A.Program.from_json(program.to_json())
    assert back == program
    assert hash(back) == hash(program)
    assert back.fingerprint() == program.fingerprint()
    assert program.describe()


def test_programs_are_immutable_values() -> None:
    program = design()
    with pytest.raises(AttributeError):
        program.mask = A.full  # type: ignore[misc]
    assert {program: 1}[design()] == 1
    assert program != A.Program()
    assert copy.deepcopy(program) == program == pickle.loads(pickle.dumps(program))
    assert A.Program(score=A.dot()) == A.Program(score=A.dot(), mask=A.full, norm=A.softmax()) == A.Program()
    assert A.causal() == A.causal


def test_fingerprints_are_the_same_in_every_process() -> None:
    assert A.Program().fingerprint() == "2891cc0cdfc0155cb232fff0b4acdc1a3e5a96c3116e63f6f430c9d1c49e58a6"
    assert A.Program(mask=A.causal).fingerprint() != A.Program().fingerprint()


def test_a_program_says_what_it_does_in_words() -> None:
    words = A.Program(A.cosine >> A.temperature(0.1), A.causal | A.blocks(8), A.topk(3)).describe()
    assert words == (
        "Score: cosine, divided by 0.1. Keys: keys at the query's position or before it or keys of the same "
        "block of 8 positions. Weights: softmax over the 3 best keys."
    )
    hybrid = A.heads({(0, 1): A.Program(), (1, 4): A.Program(mask=A.window(2))})
    assert (
        hybrid.describe().splitlines()[1].startswith("Heads 1 to 3: Score: dot product. Keys: keys at most 2")
    )


def test_spaces_lines_and_prefixes_do_not_matter() -> None:
    text = """A.Program(
        mask = A.causal() &
               A.window(n=64),
    )"""
    assert A.parse(text) == A.Program(mask=A.causal & A.window(64))
    assert A.parse("Program(dot() >> softcap(3), ~causal)") == A.Program(A.dot() >> A.softcap(3.0), ~A.causal)


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("Program(mask=windw(3))", "the word 'windw' is not in the language. Did you mean 'window'?", 13),
        ("Program(mask=window(-3))", "window(n): got -3, expected a whole number from 0", 13),
        ("Program(mask=window(2, 3))", "window: too many positional arguments, expected window(n)", 13),
        ("Program(mask=window(m=3))", "window: missing a required argument: 'n', expected window(n)", 13),
        ("Program(mask=causal & 3)", "&: got causal and 3, expected two masks", 13),
        ("Program(mask=causal | full & dot())", "&: got full and dot(), expected two masks", 22),
        ("Program(mask=causal, score=full >> alibi)", ">>: got full, expected a score such as dot()", 27),
        ("Program(mask=~dot())", "~: got dot(), expected a mask", 13),
        ("Program(mask=dot())", "Program(mask): got dot(), expected a mask such as window(64)", 0),
        ("Program(mask=window)", "window is a word with arguments, expected window(...)", 13),
        ("__import__('os').system('true')", "expected a word of the language", 0),
        ("Program(mask=open('/etc/passwd'))", "the word 'open' is not in the language", 13),
        ("Program(mask=(lambda: causal)())", "expected a word of the language", 14),
        ("Program(mask=[causal for _ in x])", "a ListComp is not in the language", 13),
        ("Program(mask=causal if full else full)", "a IfExp is not in the language", 13),
        ("Program(**{})", "** is not in the language", 0),
        ("Program(mask=causal.mask)", "expected a word of the language", 13),
        ("Program(mask=f'{causal}')", "a JoinedStr is not in the language", 13),
        ("Program(mask=window(2 ** 9))", "a BinOp is not in the language", 20),
        ("window(3)", "got window(3), expected Program(...) or heads(...)", 0),
        ('Program(mask=window("3"))', "window(n): got '3', expected a whole number from 0", 13),
        ('Program(mask=route({"text": "image"}))', "route: got 'image' for 'text', expected a list", 13),
        ("Program(score=dot() >> causal)", ">>: got causal, expected a bias or a change", 14),
        ("Program(norm=softmax)", "softmax is a word with arguments, expected softmax(...)", 13),
        ("Program(score=dot(), mask=causal & exp(3))", "the word 'exp' is not in the language", 35),
        ("Program(", "not an expression: '(' was never closed", 7),
        ("heads({(0, 2): Program(), (1, 4): Program()})", "heads: the ranges overlap at head 1", 0),
        ("heads({(0, 2): Program(), (3, 4): Program()})", "heads: the ranges leave a gap at head 2", 0),
    ],
)
def test_errors_point_into_the_expression(text: str, message: str, column: int) -> None:
    with pytest.raises(InputError) as caught:
        A.parse(text)
    first, shown, caret = str(caught.value).split("\n")
    assert message in first
    assert shown == "  " + text
    assert caret == "  " + " " * column + "^"


def test_carets_count_letters_not_bytes() -> None:
    with pytest.raises(InputError) as caught:
        A.parse('Program(mask=global_tokens("ключ") & windw(3))')
    assert str(caught.value).split("\n")[2].index("^") == 2 + len('Program(mask=global_tokens("ключ") & ')


@pytest.mark.parametrize(
    "text", ["~" * 10_000 + "causal", "(" * 10_000 + "causal" + ")" * 10_000, "~" * 100 + "causal"]
)
def test_deeply_nested_text_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="nested|parenthes"):
        A.parse(f"Program(mask={text})")


def test_json_with_ten_thousand_nested_terms_is_refused() -> None:
    text = '{"mmattn.attention": 1, "program": {"term": "Program", "mask": '
    text += '{"term": "not", "mask": ' * 10_000 + '{"term": "full"}' + "}" * 10_002
    with pytest.raises(InputError, match=f"nested deeper than {MAX_DEPTH} terms"):
        A.Program.from_json(text)


def test_nested_terms_are_refused_where_they_are_built() -> None:
    mask: A.Mask = A.causal
    for _ in range(MAX_DEPTH - 1):
        mask = ~mask
    with pytest.raises(InputError, match=f"nested {MAX_DEPTH + 1} deep, expected at most {MAX_DEPTH}"):
        mask = ~mask


def test_a_long_flat_program_is_fine() -> None:
    mask: A.Mask = A.window(0)
    for n in range(1, 500):
        mask = mask | A.window(n)
    program = A.Program(mask=mask)
    assert A.parse(str(program)) == program == A.Program.from_json(program.to_json())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda d: d.update({"mmattn.attention": 2}),
            "got version 2, this mmattn reads up to 1; install a newer",
        ),
        (lambda d: d.update({"mmattn.attention": "1"}), "got version '1', expected a whole number"),
        (lambda d: d.pop("mmattn.attention"), 'expected JSON with "mmattn.attention"'),
        (lambda d: d["program"].update(term="Progam"), "the word 'Progam' is not in the language"),
        (lambda d: d["program"].update(colour="red"), "Program: got an unexpected keyword argument 'colour'"),
        (
            lambda d: d["program"].update(mask={"n": 3}),
            "got an object with ['n'], expected one with \"term\"",
        ),
        (lambda d: d["program"].update(mask={"term": "window", "n": "3"}), "window(n): got '3'"),
        (lambda d: d.update(program={"term": "full"}), "got full, expected a Program or heads"),
    ],
)
def test_json_that_is_no_program(change: Any, message: str) -> None:
    document = json.loads(A.Program(mask=A.window(3)).to_json())
    change(document)
    with pytest.raises(InputError) as caught:
        A.Program.from_json(json.dumps(document))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"a": 1}'])
def test_text_that_is_no_json(text: str) -> None:
    with pytest.raises(InputError, match="attention program: "):
        A.Program.from_json(text)


@settings(max_examples=200)
@given(text=st.text(max_size=80) | st.text(alphabet="Program(mask=cual&|~wido3,)'\"{}[]: .*", max_size=60))
def test_any_text_is_read_or_refused_cleanly(text: str) -> None:
    for read in (A.parse, A.Program.from_json):
        try:
            assert isinstance(read(text), (A.Program, type(A.heads({(0, 1): A.Program()}))))
        except InputError:
            continue


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({(0, 2): A.Program(), (1, 4): A.Program()}, "heads: the ranges overlap at head 1"),
        ({(0, 2): A.Program(), (3, 4): A.Program()}, "heads: the ranges leave a gap at head 2"),
        ({(1, 2): A.Program()}, "heads: the ranges leave a gap at head 0"),
        ({(2, 2): A.Program()}, "heads: got the range (2, 2), expected whole numbers 0 <= first < last"),
        ({(0, 2): A.causal}, "heads: got causal for (0, 2), expected a Program"),
        ({}, "heads: got no ranges"),
        ({3: A.Program()}, "heads: got {3:"),
    ],
)
def test_head_ranges_that_do_not_fit(parts: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        A.heads(parts)
    assert message in str(caught.value)


def test_one_name_for_two_parameters_is_refused() -> None:
    with pytest.raises(InputError, match="the name 'x' stands for two parameters"):
        A.Program(score=A.dot() >> A.relative("x", 8) >> A.time_bias("x", 9))
    shared = A.Program(score=A.dot(A.learned("x", 1.0)) >> A.temperature(A.learned("x", 1.0)))
    assert [spec.name for spec in shared.parameters()] == ["x"]


def test_extensions_are_words_like_others() -> None:
    near = A.register_mask(
        "near_in_time",
        lambda pairs, seconds: (pairs.query.time - pairs.key.time).abs() <= seconds,
        install="pip install near-in-time",
    )
    lift = A.register_score("lift", lambda score, pairs, by=1.0: score + by)
    program = A.Program(score=A.dot() >> lift >> A.softcap(9.0), mask=near(3.0) & A.causal)
    assert str(program.mask) == "near_in_time(3.0) & causal"
    assert A.parse(str(program)) == program == A.Program.from_json(program.to_json())
    assert pickle.loads(pickle.dumps(program)) == program
    tokens = Tokens.from_lengths(
        torch.randn(3, 4).double(), torch.tensor([3]), "text", time=torch.tensor([0.0, 2.0, 9.0])
    )
    layer = A.Attention(program, dim=4, heads=2).double()
    _, seen = layer(tokens, explain=A.rows([2]))
    assert seen[0].weights.tolist() == [[0.0, 0.0, 1.0]] * 2
    with pytest.raises(InputError, match="the word 'lift' is taken"):
        A.register_score("lift", lambda score, pairs: score)
    with pytest.raises(InputError, match="got the word 'a b', expected an identifier"):
        A.register_mask("a b", lambda pairs: pairs)
    with pytest.raises(InputError, match="'bare' takes 0 arguments, expected 1 or more"):
        A.register_mask("bare", lambda: None)


def test_a_missing_extension_says_how_to_get_it() -> None:
    document = json.loads(A.Program().to_json())
    document["program"]["mask"] = {"term": "orbit", "extension": "pip install orbits", "n": 3}
    with pytest.raises(MissingDependency, match="the word 'orbit' is an extension .* pip install orbits"):
        A.Program.from_json(json.dumps(document))


# The test that holds each word to numbers worked out by hand.
BY_HAND = {
    "scores.test_dot_and_its_scale": ["dot", "chain"],
    "scores.test_cosine": ["cosine"],
    "scores.test_bilinear": ["bilinear"],
    "scores.test_additive": ["additive"],
    "scores.test_softcap_and_temperature": ["softcap", "temperature"],
    "scores.test_every_head_has_its_own_learned_number": ["learned"],
    "scores.test_a_number_from_the_input_reads_the_mean_of_the_sample_s_queries": ["dynamic"],
    "scores.test_head_gate_is_a_clamped_stretch_of_a_sigmoid": ["head_gate"],
    "scores.test_alibi_has_a_slope_a_head": ["alibi"],
    "scores.test_relative_buckets": ["relative"],
    "scores.test_modality_bias_reads_query_then_key": ["modality_bias"],
    "scores.test_graph_bias_adds_up_edges": ["graph_bias"],
    "scores.test_time_bias_buckets_are_logarithmic": ["time_bias"],
    "scores.test_box_bias": ["box_bias"],
    "scores.test_heads_take_their_own_rows_of_the_parameters": ["heads", "Program"],
    "masks.test_masks_over_one_sentence": [
        *("full", "causal", "window", "dilated", "blocks", "and", "or", "not"),
    ],
    "masks.test_masks_over_three_modalities": ["route", "global_tokens", "where"],
    "masks.test_presence_hides_a_modality_that_is_there": ["present"],
    "norms.test_softmax": ["softmax"],
    "norms.test_a_sink_takes_its_share": ["softmax"],
    "norms.test_sigmoid_has_no_competition": ["sigmoid"],
    "norms.test_sparsemax": ["sparsemax"],
    "norms.test_entmax15": ["entmax15"],
    "norms.test_topk_keeps_the_best_and_ties_with_the_last": ["topk"],
}
OPERATORS = {"and", "or", "not", "chain"}


def test_every_word_is_public_and_worked_out_by_hand() -> None:
    words = {name for name, term in registered_terms().items() if not issubclass(term, Extension)}
    assert {word for covered in BY_HAND.values() for word in covered} == words
    assert all(hasattr(A, name) for name in words - OPERATORS)
    for name in BY_HAND:
        file, test = name.split(".")
        text = (Path(__file__).parent / f"test_{file}.py").read_text(encoding="utf-8")
        assert f"def {test}(" in text, f"{name} is gone: {BY_HAND[name]} need another test with numbers"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_pickled_program_is_the_same_value(seed: int) -> None:
    program = random_program(random.Random(seed), 4)
    list(program.walk())
    restored = pickle.loads(pickle.dumps(program))
    assert restored == program
    assert hash(restored) == hash(program)
    assert restored.parameters() == program.parameters()


def test_a_pickled_program_has_the_hash_of_the_process_that_reads_it(tmp_path: Path) -> None:
    """Hashes of texts differ between processes, so a program must not carry one along."""
    (tmp_path / "program.pickle").write_bytes(pickle.dumps(design()))
    script = (
        "import pickle, sys; program = pickle.load(open(sys.argv[1], 'rb')); "
        "assert {program: 1}[type(program).from_json(program.to_json())] == 1"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "program.pickle")]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    assert subprocess.run(command, env=environment, check=False).returncode == 0
