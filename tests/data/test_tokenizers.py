"""Token ids against those of the published libraries."""

import json
import pickle

import numpy as np
from esm.data import Alphabet
from hypothesis import given
from hypothesis import strategies as st

from virnucpro_pl.data.tokenizers import DnaTokenizer, protein_tokenizer


def test_dna_tokens_are_those_recorded_from_the_published_tokenizer(golden):
    tokenizer = DnaTokenizer(str(golden / "models" / "DNABERT-S"))
    vectors = json.loads((golden / "unit" / "tokenizer.json.txt").read_text(encoding="utf-8"))
    # The program gives letters as bytes, so only texts that are bytes can reach the tokenizer.
    vectors = [vector for vector in vectors if all(ord(letter) < 256 for letter in vector["text"])]

    assert len(vectors) > 30
    for vector in vectors:
        (found,) = tokenizer([vector["text"].encode("latin-1")])
        recorded = vector["input_ids"]
        assert len(found) == vector.get("length", len(found)), vector["text"][:80]
        assert found[: len(recorded)].tolist() == recorded, vector["text"][:80]


def test_published_tokenizer_file_asks_for_padding_and_truncation_that_are_never_applied(golden):
    folder = golden / "models" / "DNABERT-S"
    asked = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert asked["truncation"]["max_length"] == asked["padding"]["strategy"]["Fixed"] == 2000

    short, long = DnaTokenizer(str(folder))([b"ACGT", b"ACGTTGCATTACGGATCA" * 2000])

    assert short.tolist() == [1, 5, 6, 1049, 2]
    assert len(long) > 2000
    assert long[-1] == 2


def test_twelve_thousand_bases_are_tokenised_whole(mini, dna_tokenizer):
    vocabulary = json.loads((mini / "models" / "DNABERT-S" / "tokenizer.json").read_text())["model"]["vocab"]
    letters = {number: token for token, number in vocabulary.items()}
    sequence = np.random.default_rng(1).choice(np.frombuffer(b"ACGT", np.uint8), 12_000).tobytes()

    (tokens,) = dna_tokenizer([sequence])

    assert [letters[token] for token in tokens[[0, -1]].tolist()] == ["[CLS]", "[SEP]"]
    assert "".join(letters[token] for token in tokens[1:-1].tolist()).encode() == sequence


def test_sequences_do_not_pad_each_other(dna_tokenizer):
    together = dna_tokenizer([b"A", b"ACGT" * 100])

    assert together[0].tolist() == dna_tokenizer([b"A"])[0].tolist()
    assert len(together[0]) == 3


@given(st.lists(st.text("ACGTN-", max_size=40), max_size=5))
def test_tokenising_together_equals_tokenising_alone(dna_tokenizer, texts):
    sequences = [text.encode() for text in texts]

    assert [tokens.tolist() for tokens in dna_tokenizer(sequences)] == [
        dna_tokenizer([sequence])[0].tolist() for sequence in sequences
    ]


def test_dna_tokenizer_travels_to_worker_processes(dna_tokenizer):
    copy = pickle.loads(pickle.dumps(dna_tokenizer))

    assert copy([b"ACGTNNACGATTA"])[0].tolist() == dna_tokenizer([b"ACGTNNACGATTA"])[0].tolist()


def test_protein_alphabet_is_the_published_one(golden, proteins_to_tokens):
    alphabet = json.loads((golden / "unit" / "esm_alphabet.json").read_text())
    letters = {letter: number for letter, number in alphabet.items() if len(letter) == 1}

    assert len(letters) == 27
    for letter, number in letters.items():
        expected = [alphabet["<cls>"], number, alphabet["<eos>"]]
        assert proteins_to_tokens([letter.encode()])[0].tolist() == expected, letter


def test_protein_tokens_are_those_of_fair_esm(proteins_to_tokens):
    proteins = ["M", "ACDEFGHIKLMNPQRSTVWY", "XBUZO", "MKV" * 700]
    convert = Alphabet.from_architecture("ESM-1b").get_batch_converter()

    found = proteins_to_tokens([protein.encode() for protein in proteins])

    for protein, tokens in zip(proteins, found, strict=True):
        _, _, expected = convert([("name", protein)])
        assert tokens.tolist() == expected[0].tolist(), protein[:20]


def test_letters_outside_the_alphabet_become_unknown(proteins_to_tokens):
    assert proteins_to_tokens([b"MjJ*\xff"])[0].tolist() == [0, 20, 3, 3, 3, 3, 2]
    assert proteins_to_tokens([b""])[0].tolist() == [0, 2]
    assert proteins_to_tokens([]) == []


def test_protein_tokenizer_travels_to_worker_processes():
    copy = pickle.loads(pickle.dumps(protein_tokenizer()))

    assert copy([b"MKV"])[0].tolist() == protein_tokenizer()([b"MKV"])[0].tolist()
