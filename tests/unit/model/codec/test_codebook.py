"""A codebook as a file: identity, what it was made for, and every way in which it can be unusable."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from model.codec.codebook import Codebook, CodebookError
from tests.helpers.codebooks import a_codebook


def test_a_saved_codebook_is_loaded_with_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "codebook.safetensors"
    a_codebook().save(path)
    loaded = Codebook.load(path)
    assert loaded == a_codebook()
    assert loaded.origin == a_codebook().origin
    np.testing.assert_array_equal(loaded.bits_LKI, a_codebook().bits_LKI)
    assert [file.name for file in tmp_path.iterdir()] == ["codebook.safetensors"]


def test_pages_are_kept_with_it_and_part_of_its_identity(tmp_path: Path) -> None:
    book = a_codebook()
    paged = replace(book, origin=replace(book.origin, pages_per_head=((1, 1), (2, 0), (1, 1))))
    paged.save(tmp_path / "codebook.safetensors")
    assert Codebook.load(tmp_path / "codebook.safetensors").origin == paged.origin
    assert paged.identity != book.identity


def test_identity_is_over_every_array_and_the_origin() -> None:
    book = a_codebook()
    changed = [replace(book, origin=replace(book.origin, weights="b" * 64)), replace(book, value_gain=1.02)]
    for name in ("mean_LKE", "basis_LKIE", "bits_LKI", "levels"):
        array = getattr(book, name).copy()
        array.flat[1] = 0
        changed.append(replace(book, **{name: array}))
    identities = {book.identity, *(other.identity for other in changed)}
    assert len(identities) == 7
    assert all(len(identity) == 32 for identity in identities)


def test_bytes_per_vector_is_a_mean() -> None:
    book = a_codebook()
    bits = np.zeros_like(book.bits_LKI)
    bits[..., :16] = 2  # 16 numbers of 2 bits are 4 bytes for a key and a value
    assert replace(book, bits_LKI=bits).bytes_per_vector == 2.0


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("weights", "b" * 64, "weights"),
        ("memory_layers", (0, 1, 3), r"memory_layers \(0, 1, 2\).*\(0, 1, 3\)"),
        ("rope_theta", 1e6, "rope_theta 10000.0.*1000000.0"),
        ("num_prefix_tokens", 2, "num_prefix_tokens 1.*have 2"),
        ("pages_per_head", ((1, 1), (2, 0), (1, 1)), r"pages_per_head \(\).*\(\(1, 1\), \(2, 0\), \(1, 1\)\)"),
    ],
)
def test_another_model_or_plan_is_refused_with_both_sides(field: str, value: object, named: str) -> None:
    wanted = replace(a_codebook().origin, **{field: value})
    with pytest.raises(CodebookError, match=named):
        a_codebook().check(wanted, (3, 2, 16))


def test_another_shape_is_refused() -> None:
    with pytest.raises(CodebookError, match=r"\(3, 2, 16\).*\(3, 4, 16\).*memory3 quantise"):
        a_codebook().check(a_codebook().origin, (3, 4, 16))
    a_codebook().check(a_codebook().origin, (3, 2, 16))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"mean_LKE": np.zeros((3, 2, 30), np.float32)}, "even head dim"),
        ({"bits_LKI": np.zeros((3, 2, 32), np.uint8)}, "not all 0"),
        ({"bits_LKI": np.full((3, 2, 32), 9, np.uint8)}, "bits reach 9"),
        ({"bits_LKI": np.ones((3, 2, 31), np.uint8)}, "bits have shape"),
        ({"levels": np.zeros(4, np.float32)}, "levels have shape"),
        ({"levels": np.full(1020, np.nan, np.float32)}, "not finite"),
        ({"basis_LKIE": np.ones((3, 2, 32, 32), np.float64)}, "float64"),
        ({"value_gain": 2.5}, "values 2.5 times as large; give 0.5 to 2"),
        ({"value_gain": float("nan")}, "values nan times"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(change: dict[str, np.ndarray], named: str) -> None:
    with pytest.raises(CodebookError, match=named):
        replace(a_codebook(), **change)


def test_a_singular_basis_is_refused_when_it_is_needed() -> None:
    basis = np.zeros((3, 2, 32, 32), np.float32)
    with pytest.raises(CodebookError, match="singular"):
        _ = replace(a_codebook(), basis_LKIE=basis).analysis


def test_files_that_are_no_codebook_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "codebook.safetensors"
    with pytest.raises(CodebookError, match="no codebook"):
        Codebook.load(path)
    a_codebook().save(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:100], whole[:-1], b"x" * 200, bytes(len(whole))):
        path.write_bytes(damaged)
        with pytest.raises(CodebookError, match="no codebook"):
            Codebook.load(path)
    save_file({"mean": np.zeros(3, np.float32)}, path)
    with pytest.raises(CodebookError, match="no codebook"):
        Codebook.load(path)
    path.write_bytes(whole.replace(b'\\"format\\":2', b'\\"format\\":1'))
    with pytest.raises(CodebookError, match=r"format 1, this code reads 2; train one anew \(memory3 quantise\)"):
        Codebook.load(path)
