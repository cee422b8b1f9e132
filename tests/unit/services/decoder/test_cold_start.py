"""What is written when it is first recalled is what bulk writing would have written."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from memory3.types import Reference, ReferenceText
from model.identity import reference_id
from services.decoder.cold_start import ColdStart
from services.decoder.encoding import Encoding
from services.decoder.model_bundle import ModelBundle
from tests.helpers.tiers import FakeMemory
from tests.helpers.waiting import until

BEHIND = ReferenceText(reference_id("a", "before"), "a", "before")


@pytest.fixture
async def cold_start(encoding: Encoding, memory: FakeMemory, model: ModelBundle) -> AsyncIterator[ColdStart]:
    made = ColdStart(encoding, memory, model.fingerprint, put_parallelism=2, put_timeout_s=1)
    yield made
    await made.close()


@pytest.fixture
def memory() -> FakeMemory:
    return FakeMemory()


async def test_what_precedes_a_reference_is_in_view(
    cold_start: ColdStart, encoding: Encoding, memory: FakeMemory
) -> None:
    found = Reference(BEHIND.reference_id, BEHIND.text, "doc", preceding=BEHIND.preceding)
    cold = await cold_start.write("bank", found)
    assert cold is not None
    bulk = await encoding.write(BEHIND, urgent=False)
    alone = await encoding.write(ReferenceText(reference_id("a"), "a"), urgent=False)
    assert cold.record == bulk.record
    assert bulk.memory.payload != alone.memory.payload
    await until(lambda: memory.records == {BEHIND.reference_id: cold.record}, "it is put")


async def test_an_id_of_other_texts_is_not_written(
    cold_start: ColdStart, memory: FakeMemory, caplog: pytest.LogCaptureFixture
) -> None:
    assert await cold_start.write("bank", Reference(BEHIND.reference_id, BEHIND.text, "doc")) is None
    assert "its id is not the hash of its text and of what precedes it; index its document again" in caplog.text
    assert memory.records == {}
