"""The progress file."""

import sqlite3

import pytest

from services.ingest.progress import INDEXED, Progress, ProgressError, written

A, B = "a" * 32, "b" * 32


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "progress.sqlite"


def test_it_remembers_over_a_restart(path):
    first = Progress(path)
    first.finish("bank", "d", "v1", written("m"), reference_ids=[A, B])
    first.finish("bank", "d", "v1", INDEXED, reference_ids=[A, B], orphans=[B])
    first.set_rate("warm", 0.25)
    first.close()
    again = Progress(path)
    assert again.stages("bank", "d", "v1") == {written("m"), INDEXED}
    assert again.stages("bank", "d", "v2") == again.stages("other", "d", "v1") == set()
    assert again.versions("bank", INDEXED) == {"d": "v1"}
    assert list(again.references("bank", written("m"))) == [("d", [A, B])]
    assert again.orphans("bank") == [B]
    assert (again.rate("warm"), again.rate("cold")) == (0.25, None)


def test_a_new_version_forgets_the_old(path):
    progress = Progress(path)
    progress.finish("bank", "d", "v1", INDEXED, reference_ids=[A])
    progress.finish("bank", "d", "v2", written("m"), reference_ids=[B])
    assert progress.stages("bank", "d", "v1") == set()
    assert progress.versions("bank", INDEXED) == {}


def test_forgetting_is_by_bank_and_stage(path):
    progress = Progress(path)
    for bank in ("one", "two"):
        for stage in (INDEXED, written("m")):
            progress.finish(bank, "d", "v", stage, reference_ids=[A])
    progress.forget("one", INDEXED, ["d", "unknown"])
    assert progress.stages("one", "d", "v") == {written("m")}
    assert len(progress.stages("two", "d", "v")) == 2


def test_many_documents_are_read_in_pages(path):
    progress = Progress(path)
    rows = [(f"d{number:05}", b"\1" * 16) for number in range(2500)]
    with progress._transaction() as db:
        db.executemany("INSERT INTO finished VALUES ('b', ?, 'v', 'indexed', ?, 0)", rows)
    found = list(progress.references("b", INDEXED))
    assert len(found) == len(dict(found)) == 2500


def test_every_commit_is_on_disk_and_two_runs_may_share_the_file(path):
    one, two = Progress(path), Progress(path)
    assert one._db.execute("PRAGMA synchronous").fetchone() == (2,), "FULL"
    assert one._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    one.finish("bank", "d", "v", INDEXED, reference_ids=[A])
    assert two.stages("bank", "d", "v") == {INDEXED}


def test_a_failed_statement_leaves_nothing_half_done(path):
    progress = Progress(path)
    progress.finish("bank", "d", "v1", INDEXED, reference_ids=[A])
    with pytest.raises(sqlite3.Error):
        progress.finish("bank", "d", "v2", INDEXED, reference_ids=[A], orphans=[object()])
    assert progress.stages("bank", "d", "v1") == {INDEXED}
    progress.finish("bank", "d", "v3", INDEXED, reference_ids=[A])


def test_a_file_that_is_none_or_cannot_be_made_is_named(tmp_path):
    (tmp_path / "text").write_text("not a database, " * 100)
    for path in (tmp_path / "text", tmp_path / "text" / "below", tmp_path):
        with pytest.raises(ProgressError, match=r"cannot use the progress file .* set MEMORY3_INGEST_DATA_DIR"):
            Progress(path)


def test_a_full_disk_is_named_and_leaves_what_was_finished(path):
    progress = Progress(path)
    progress.finish("bank", "d", "v", INDEXED, reference_ids=[A])
    progress._db.execute("PRAGMA max_page_count=1")
    with pytest.raises(ProgressError, match=r"disk is full; make room, .* set MEMORY3_INGEST_DATA_DIR"):
        progress.finish("bank", "e", "v", INDEXED, reference_ids=[A] * 1000)
    assert progress.stages("bank", "d", "v") == {INDEXED}
    progress._db.execute("PRAGMA max_page_count=1000000")
    progress.finish("bank", "e", "v", INDEXED, reference_ids=[A])


def test_a_file_that_is_damaged_later_is_named(path):
    progress = Progress(path)
    for number in range(200):
        progress.finish("bank", f"d{number}", "v", INDEXED, reference_ids=[A] * 100)
    progress.close()
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with pytest.raises(ProgressError, match="malformed"):
        list(Progress(path).references("bank", INDEXED))
