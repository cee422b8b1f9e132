"""The forecast: load, drives, machines and money from assumptions, by hand where a hand can."""

from __future__ import annotations

import pytest

from model.presets import memory_plan, model_config
from services.planning.config import SECTIONS, PlanningSettings
from services.planning.core import SECONDS_PER_MONTH, Forecast, forecast, recalls_per_request

RECORD = 232_579


def a_forecast(references: int = 112_000_000, stored_as: str = "record", **assumed: float) -> Forecast:
    return forecast(
        model_config("paper-2.4b"),
        memory_plan("paper"),
        references=references,
        record_bytes=RECORD,
        stored_as=stored_as,
        settings=PlanningSettings.model_validate(assumed),
    )


def test_every_assumption_is_listed_once() -> None:
    assert [name for names in SECTIONS.values() for name in names] == list(PlanningSettings.model_fields)


@pytest.mark.parametrize(
    ("prompt", "output", "recalls"), [(128, 128, 3), (1, 1, 1), (64, 64, 1), (65, 64, 2), (64, 65, 2), (640, 640, 19)]
)
def test_recalls_of_a_request(prompt: int, output: int, recalls: int) -> None:
    """The paper counts three for 128 tokens in and 128 out (7.5)."""
    assert recalls_per_request(memory_plan("paper"), prompt, output) == recalls


class TestLoadAndHardware:
    def test_without_a_cache_drives_read_all(self) -> None:
        result = a_forecast(cache_gib=0, requests_per_second=10)
        assert result.load.recalled_memories_per_second == result.load.drive_memories_per_second == 150
        assert result.load.drive_bytes_per_second == 150 * RECORD
        assert result.load.drive_reads_per_second == 150 * 2  # 228 KiB in pieces of 128

    def test_a_cache_that_holds_all_leaves_nothing_to_the_drives(self) -> None:
        result = a_forecast(references=1000, cache_gib=1)
        assert result.load.drive_memories_per_second == 0
        assert result.hardware.drives == result.hardware.machines == 2  # the copies still need their places

    def test_drives_by_what_asks_for_most(self) -> None:
        by_size = a_forecast(requests_per_second=0, copies=3, drive_tb=1, drive_fill=0.5)
        assert by_size.hardware.drives == by_size.hardware.drives_for["size"] == -(-3 * RECORD * 224 // 10**6)
        by_speed = a_forecast(cache_gib=0, drive_tb=1000, drive_read_gb_per_second=0.01)
        assert by_speed.hardware.drives == by_speed.hardware.drives_for["bandwidth"] == -(-1500 * RECORD // 10**7)
        by_reads = a_forecast(cache_gib=0, drive_tb=1000, drive_iops=100, io_kib=4)
        assert by_reads.hardware.drives == by_reads.hardware.drives_for["reads"] == 15 * 57

    def test_machines_by_what_asks_for_most(self) -> None:
        by_drives = a_forecast(drive_tb=1, drives_per_machine=4).hardware
        assert by_drives.machines == by_drives.machines_for["drives"] == -(-by_drives.drives // 4)
        # What RAM answers goes over the network too.
        by_network = a_forecast(references=100, machine_gbit_per_second=0.1).hardware
        assert by_network.machines == by_network.machines_for["network"] == -(-1500 * RECORD * 8 // 10**8)

    def test_the_chosen_format_is_what_is_stored(self) -> None:
        small, large = a_forecast(stored_as="vq"), a_forecast(stored_as="sparse")
        assert small.load.drive_bytes_per_second < large.load.drive_bytes_per_second / 10
        assert small.bank_bytes == large.bank_bytes
        assert small.cache[0].memories > large.cache[0].memories * 10


class TestMoney:
    def test_by_hand(self) -> None:
        result = a_forecast(
            references=1000, requests_per_second=1, gpu_tflops=100, gpu_hour_price=36, tb_month_price=10
        )
        flop_price = 36 / 3600 / 100e12
        text, memory = (result.money.by_format[name] for name in ("text_rag", "explicit_memory"))
        assert memory.once == pytest.approx(0.3081764864e12 * 1000 * flop_price)
        assert memory.storage_per_month == pytest.approx(2 * RECORD * 1000 / 1e12 * 10)
        assert (text.once, text.storage_per_month) == (0, 0)
        assert text.reading_per_month == pytest.approx(15 * SECONDS_PER_MONTH * 0.6242172928e12 * flop_price)
        assert text.after(3) == pytest.approx(3 * text.reading_per_month)
        assert result.money.gpu_hours_to_write["explicit_memory"] == pytest.approx(308.1764864 / 100 / 3600)

    def test_where_writing_pays_the_two_costs_are_equal(self) -> None:
        money = a_forecast().money
        assert money.pays_off_months is not None
        memory, text = money.by_format["explicit_memory"], money.by_format["text_rag"]
        assert memory.after(money.pays_off_months) == pytest.approx(text.after(money.pays_off_months))
        assert memory.after(2 * money.pays_off_months) < text.after(2 * money.pays_off_months)

    def test_a_bank_that_nobody_reads_never_pays(self) -> None:
        money = a_forecast(requests_per_second=0).money
        assert (money.pays_off_months, money.references_worth_writing) == (None, 0)

    def test_the_last_reference_worth_writing_breaks_even(self) -> None:
        result = a_forecast(requests_per_second=20)
        money, months = result.money, result.settings.months
        flop_price = 2.5 / 3600 / 400e12
        harmonic = sum(1 / rank for rank in range(1, 1_000_001)) + 4.71850  # ln(1.12e8 / 1e6)
        uses = 300 * SECONDS_PER_MONTH * months / harmonic
        cost = 0.3081764864e12 * flop_price + months * 2 * RECORD / 1e12 * 25
        saved_by_a_use = (0.6242172928e12 - 144_179_200) * flop_price
        assert money.references_worth_writing == pytest.approx(uses * saved_by_a_use / cost, rel=1e-4)
        assert money.pays_off_uses_per_month == pytest.approx(2 * RECORD / 1e12 * 25 / saved_by_a_use)

    def test_all_free_pays_at_once(self) -> None:
        money = a_forecast(references=10, gpu_hour_price=0, tb_month_price=0).money
        assert money.pays_off_uses_per_month is None
        assert all(cost.after(12) == 0 for cost in money.by_format.values())


@pytest.mark.parametrize("references", [0, -5, 10**16])
def test_a_number_of_references_out_of_range(references: int) -> None:
    with pytest.raises(ValueError, match=r"references are too many or too few; give 1 to 1e\+15"):
        a_forecast(references=references)


def test_an_unknown_format() -> None:
    with pytest.raises(ValueError, match="cannot be stored as 'dense'; choose one of record, sparse"):
        a_forecast(stored_as="dense")
