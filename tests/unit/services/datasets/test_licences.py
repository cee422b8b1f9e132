"""Questions on licences: as many yes as no, of whole families, and passages that name their licence."""

from __future__ import annotations

from collections import Counter

import pytest

from services.datasets import licences
from services.datasets.item import SPLITS, DatasetError
from services.datasets.lengths import fits
from services.datasets.registry import knowledge_base, load
from services.datasets.sources import Source


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_each_tag_is_balanced(split, seed):
    items = load("licences", split=split, items=60, seed=seed)
    assert len({item.item_id for item in items}) == 60
    counted = Counter((item.kind, item.answer) for item in items)
    for kind in {item.kind for item in items}:
        assert counted[kind, " yes"] == counted[kind, " no"]
    for item in items:
        assert item.choices == (" yes", " no")
        assert item.references == item.wrong_references == item.gold == ()


def test_answers_are_those_of_the_tags():
    by_prompt = {item.prompt: item.answer for item in load("licences", split="held-out", items=140, seed=0)}
    network = "Question: Does the {} require source code for users who interact over a network?\nAnswer:"
    assert by_prompt[network.format("GNU Affero General Public License v3.0")] == " yes"
    commercial = [(prompt, answer) for prompt, answer in by_prompt.items() if "commercial" in prompt]
    assert len(commercial) > 10
    assert all(answer == (" yes" if " allow " in prompt else " no") for prompt, answer in commercial)
    assert all(answer == " no" for prompt, answer in by_prompt.items() if "BSD" in prompt and "same license" in prompt)


def test_families_are_in_one_split():
    split = {licence.key: licence.split for licence in licences.licences()}
    assert len(split) == 47
    assert len({split[key] for key in ("gpl-2.0", "gpl-3.0", "agpl-3.0", "lgpl-2.1", "lgpl-3.0", "gfdl-1.3")}) == 1
    assert split["mit"] == split["mit-0"] == split["isc"] == split["0bsd"]
    assert split["apache-2.0"] == split["ecl-2.0"]
    assert set(split.values()) == set(SPLITS)


def test_passages_name_their_licence_and_lose_nothing():
    base = knowledge_base("licences")
    assert base.name == "licences"
    assert len({document.document_id for document in base.documents}) == len(base.documents) > 1000
    assert all(document.text.startswith(f"{document.title}: ") for document in base.documents)
    assert all(fits(document.text) for document in base.documents)
    mit = [document for document in base.documents if document.document_id.startswith("mit/")]
    text = " ".join(document.text.removeprefix(f"{document.title}: ") for document in mit)
    [whole] = [licence.text for licence in licences.licences() if licence.key == "mit"]
    assert text == " ".join(whole.split())


@pytest.mark.parametrize("content", ["no front matter", "---\nfeatured: true\n---\ntext", "---\ntitle: A\n---\n"])
def test_a_damaged_file(tmp_path, monkeypatch, request, content):
    (tmp_path / "fake_licences" / "files").mkdir(parents=True)
    (tmp_path / "fake_licences" / "files" / "a-1.txt").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(licences, "LICENCES", Source("fake_licences", "fake==1", "files"))
    licences.licences.cache_clear()
    request.addfinalizer(licences.licences.cache_clear)
    with pytest.raises(DatasetError, match=r"files of the package cannot be read .* reinstall fake==1"):
        load("licences", split="train", items=1, seed=0)
