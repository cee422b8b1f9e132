"""retrieve, inspect, banks, documents, delete and info, on the screen and as JSON."""

from __future__ import annotations

import json

import grpc
import pytest

from memory3.api.decoder.v1 import decoder_pb2
from memory3.api.memory.v1 import memory_pb2
from memory3.api.retrieval.v1 import retrieval_pb2
from memory3.errors import UnknownBankError
from tests.helpers.recording_servicer import RecordingServer
from tests.helpers.terminal import Terminal

ID = "ab" * 16
REFERENCE = retrieval_pb2.Reference(
    reference_id=ID,
    text="Etna is a [volcano].\nIt is \x1b[31mhot.",
    document_id="wiki/etna",
    title="Mount Etna",
    source="leads.json",
    ordinal=2,
    start_char=100,
    end_char=140,
    num_tokens=11,
)
BANK = retrieval_pb2.Bank(bank="wiki", num_references=12345, embedder_id="hash-1", dimension=384)


def describe(server: RecordingServer) -> None:
    server.reply("RetrievalService/DescribeBank", retrieval_pb2.DescribeBankResponse(bank=BANK, num_documents=800))


def test_retrieve(server: RecordingServer, terminal: Terminal) -> None:
    found = retrieval_pb2.RetrieveResponse(
        results=[{"hits": [{"reference": REFERENCE, "score": 0.875}]}], timing={"total_ns": 12_000_000}
    )
    server.reply("RetrievalService/Retrieve", found)
    screen = terminal.run("retrieve", "volcano", "--bank", "wiki", "--top-k", "3", "--document", "wiki/etna")
    assert screen.code == 0, screen.err
    assert server.calls[0].request == retrieval_pb2.RetrieveRequest(
        bank="wiki", queries=["volcano"], top_k=3, document_ids=["wiki/etna"]
    )
    assert screen.lines[1].split()[:4] == ["0.875", ID, "Mount", "Etna"]
    assert "Etna is a [vo" in screen.lines[1]
    assert max(map(len, screen.lines)) <= 80
    server.reply("RetrievalService/Retrieve", found)
    answer = terminal.run("retrieve", "volcano", "--bank", "wiki", "--json").json()
    assert answer["hits"][0]["reference"]["start_char"] == 100
    assert answer["hits"][0]["score"] == 0.875
    assert answer["timing"]["total_ns"] == 12_000_000


def test_retrieve_that_finds_nothing(server: RecordingServer, terminal: Terminal) -> None:
    server.reply("RetrievalService/Retrieve", retrieval_pb2.RetrieveResponse(results=[{}]))
    assert terminal.run("retrieve", "x", "--bank", "wiki").lines[0] == "nothing found"


def test_inspect_shows_text_place_and_memory(server: RecordingServer, terminal: Terminal) -> None:
    server.reply("RetrievalService/GetReferences", retrieval_pb2.GetReferencesResponse(references=[REFERENCE]))
    server.reply("DecoderService/Info", decoder_pb2.InfoResponse(model_fingerprint="f" * 32))
    server.reply(
        "MemoryService/Stat",
        memory_pb2.StatResponse(items=[{"reference_id": ID, "exists": True, "size_bytes": 99_840}]),
    )
    screen = terminal.run("inspect", ID, "--bank", "wiki")
    assert screen.code == 0, screen.err
    assert screen.lines[:2] == ["Etna is a [volcano].", "It is \N{REPLACEMENT CHARACTER}[31mhot."]
    assert next(line for line in screen.lines if "wiki/etna" in line).split() == [
        "wiki/etna", "Mount", "Etna", "2", "100-140", "11", "leads.json",
    ]  # fmt: skip
    assert screen.lines[-1].split() == ["f" * 32, "97.5", "KiB"]


def test_inspect_walks_all_models_on_request(server: RecordingServer, terminal: Terminal) -> None:
    server.reply("RetrievalService/GetReferences", retrieval_pb2.GetReferencesResponse(references=[REFERENCE]))
    entries = [
        memory_pb2.MemoryEntry(identity={"reference_id": name, "model_fingerprint": model}, size_bytes=5)
        for name, model in ((ID, "1" * 32), ("cd" * 16, "1" * 32), (ID, "2" * 32))
    ]
    server.reply("MemoryService/List", memory_pb2.ListResponse(memories=entries))
    memories = terminal.run("inspect", ID, "--bank", "wiki", "--all-models", "--json").json()["memories"]
    assert [memory["model_fingerprint"] for memory in memories] == ["1" * 32, "2" * 32]


def test_inspect_without_a_memory_or_a_decoder(server: RecordingServer, terminal: Terminal) -> None:
    for _ in range(2):
        server.reply("RetrievalService/GetReferences", retrieval_pb2.GetReferencesResponse(references=[REFERENCE]))
    server.reply("DecoderService/Info", decoder_pb2.InfoResponse(model_fingerprint="f" * 32))
    server.reply("MemoryService/Stat", memory_pb2.StatResponse(items=[{"reference_id": ID}]))
    assert "no memory of the running model" in terminal.run("inspect", ID, "--bank", "wiki").out
    server.reply("DecoderService/Info", grpc.StatusCode.INTERNAL)
    screen = terminal.run("inspect", ID, "--bank", "wiki")
    assert screen.code == 0
    assert "memories unknown" in screen.out


def test_inspect_of_an_unknown_reference(server: RecordingServer, terminal: Terminal) -> None:
    server.reply("RetrievalService/GetReferences", retrieval_pb2.GetReferencesResponse())
    screen = terminal.run("inspect", "nope", "--bank", "wiki")
    assert screen.code == 1
    assert screen.err.startswith("memory3: unknown reference: no reference 'nope' in bank 'wiki'")


def test_banks(server: RecordingServer, terminal: Terminal) -> None:
    server.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse(banks=[BANK]))
    describe(server)
    assert terminal.run("banks").lines[1].split() == ["wiki", "800", "12,345", "hash-1", "384"]
    server.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse(banks=[BANK]))
    describe(server)
    assert terminal.run("banks", "--json").json()["banks"][0]["num_documents"] == 800
    server.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse())
    assert "memory3 ingest" in terminal.run("banks").out


def test_documents_come_page_by_page(server: RecordingServer, terminal: Terminal) -> None:
    def pages() -> None:
        describe(server)
        for name, token in (("a", "t"), ("b", "")):
            document = retrieval_pb2.Document(document_id=name, title=f"Title {name}", num_references=7)
            page = retrieval_pb2.ListDocumentsResponse(documents=[document], next_page_token=token)
            server.reply("RetrievalService/ListDocuments", page)

    pages()
    screen = terminal.run("documents", "--bank", "wiki")
    assert [line.split() for line in screen.lines[1:]] == [
        ["a", "Title", "a", "7"],
        ["b", "Title", "b", "7"],
        ["2", "of", "800", "documents"],
    ]
    pages()
    found = terminal.run("documents", "--bank", "wiki", "--json").json()
    assert [document["document_id"] for document in found["documents"]] == ["a", "b"]


def test_documents_stops_at_the_limit(server: RecordingServer, terminal: Terminal) -> None:
    describe(server)
    page = retrieval_pb2.ListDocumentsResponse(documents=[{"document_id": "a"}], next_page_token="t")
    server.reply("RetrievalService/ListDocuments", page)
    assert terminal.run("documents", "--bank", "wiki", "--limit", "1").lines[-1] == "1 of 800 documents"
    assert server.calls[-1].request.page_size == 1


def test_delete_of_documents(server: RecordingServer, terminal: Terminal) -> None:
    removed = retrieval_pb2.DeleteResponse(num_documents=1, num_references=3, orphaned_reference_ids=[ID])
    server.reply("RetrievalService/Delete", removed)
    server.reply("MemoryService/Delete", memory_pb2.DeleteResponse(num_memories=1))
    screen = terminal.run("delete", "--bank", "wiki", "--document", "a", "--document", "b", "--yes")
    assert screen.lines == ["deleted 1 document, 3 references, 1 memory", "1 document not found"]


def test_delete_of_a_bank_as_json(server: RecordingServer, terminal: Terminal) -> None:
    server.reply("RetrievalService/Delete", retrieval_pb2.DeleteResponse(num_documents=8, num_references=9))
    server.reply("MemoryService/Delete", memory_pb2.DeleteResponse(num_memories=7))
    answer = terminal.run("delete", "--bank", "wiki", "--all", "--yes", "--json").json()
    assert answer == {"bank": "wiki", "num_documents": 8, "num_references": 9, "num_memories": 7}
    assert [call.request.whole_bank for call in server.calls] == [True, True]


@pytest.mark.parametrize(("typed", "deleted"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_delete_asks_before(server: RecordingServer, terminal: Terminal, typed: str, deleted: bool) -> None:
    describe(server)
    if deleted:
        server.reply("RetrievalService/Delete", retrieval_pb2.DeleteResponse(num_documents=8))
        server.reply("MemoryService/Delete", memory_pb2.DeleteResponse())
    terminal.type(typed)
    screen = terminal.run("delete", "--bank", "wiki", "--all")
    assert "Delete bank 'wiki' (800 documents, 12,345 references) with the memories?" in screen.out
    assert screen.code == (0 if deleted else 1)
    assert ("nothing was deleted" in screen.err) is not deleted


@pytest.mark.parametrize(
    "arguments", [[], ["--all", "--document", "a"], ["--all"], ["--document", "a", "--json"]], ids=" ".join
)
def test_delete_without_a_clear_order_does_nothing(terminal: Terminal, arguments: list[str]) -> None:
    assert terminal.run("delete", "--bank", "wiki", *arguments).code == 2


def test_an_unknown_bank_is_one_line(server: RecordingServer, terminal: Terminal) -> None:
    server.reply("RetrievalService/DescribeBank", UnknownBankError("no bank 'wikki'; memory3 banks lists them"))
    screen = terminal.run("documents", "--bank", "wikki")
    assert (screen.code, screen.err) == (1, "memory3: unknown bank: no bank 'wikki'; memory3 banks lists them\n")


def info(server: RecordingServer) -> None:
    server.reply(
        "DecoderService/Info",
        decoder_pb2.InfoResponse(
            model="SmolLM2", model_fingerprint="f" * 32, tokenizer="gpt2", max_context_tokens=2048, dtype="float32",
            memory_bytes=97_000, dense_reference_bytes=970_000, max_batch_size=4, memory_plan_json='{"layers": [15]}',
        ),
    )  # fmt: skip
    server.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse(banks=[BANK]))
    describe(server)


def test_info(server: RecordingServer, terminal: Terminal) -> None:
    info(server)
    screen = terminal.run("info")
    assert screen.code == 0, screen.err
    assert [line.split()[0] for line in screen.lines[1:4]] == ["retrieval", "memory", "decoder"]
    assert [line.split()[2] for line in screen.lines[1:4]] == ["serving"] * 3
    assert "94.7 KiB a reference (dense keys and values: 947.3 KiB, 10.0 times" in screen.out
    assert "layers [15]" in screen.out
    assert screen.lines[-1].split()[0] == "wiki"
    info(server)
    answer = terminal.run("info", "--json").json()
    assert answer["decoder"]["memory_plan"] == {"layers": [15]}
    assert [tier["state"] for tier in answer["tiers"]] == ["serving"] * 3
    assert answer["banks"][0]["bank"] == "wiki"


def test_info_when_tiers_are_down_or_not_ready(
    server: RecordingServer, terminal: Terminal, unused_address: str
) -> None:
    server.ready = False
    server.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse())
    screen = terminal.run("info", "--decoder", unused_address, "--memory", unused_address, "--json")
    assert screen.code == 0
    answer = screen.json()
    assert [tier["state"] for tier in answer["tiers"]] == ["not serving", "down", "down"]
    assert unused_address in answer["tiers"][2]["problem"]
    assert answer["decoder"] is None
    server.reply("RetrievalService/ListBanks", retrieval_pb2.ListBanksResponse())
    lines = terminal.run("info", "--decoder", unused_address, "--memory", unused_address).lines
    assert lines[1].split()[2:4] == ["not", "serving"]
    assert lines[3].split()[2] == "down"
    assert len(lines) == 4


def test_an_error_of_every_verb_is_json_on_request(terminal: Terminal, unused_address: str) -> None:
    for verb in (["banks"], ["documents", "--bank", "b"], ["retrieve", "q", "--bank", "b"]):
        screen = terminal.run(*verb, "--retrieval", unused_address, "--json")
        assert (screen.code, screen.out) == (1, "")
        assert json.loads(screen.err)["error"]["reason"] == "BACKEND_UNAVAILABLE"
