"""One knowledge base under one load: sizes, operations, cache hits, drives, machines and money. Pure arithmetic.

Knows no files, no command line and no picture. Operations and sizes are `model.cost`'s, hits `popularity`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from model.config import ModelConfig
from model.cost import bytes_per_memory, crossover_uses, read_flop, write_flop
from model.plan import MemoryPlan
from services.planning.config import PlanningSettings
from services.planning.popularity import Popularity

MAX_REFERENCES = 10**15
STORABLE_FORMATS = ("record", "sparse", "int8", "int4", "vq")
"""What a bank may be stored as; "record" is what the plan's codec makes of a memory here, header included."""
SECONDS_PER_MONTH = 365.25 / 12 * 86_400
_CACHE_STEPS = (1 / 64, 1 / 16, 1 / 4, 1, 4, 16)
"""Sizes for which hits are told, as multiples of the given one."""
_GIB, _KIB, _TB, _GB, _TERA = 2**30, 2**10, 1e12, 1e9, 1e12


@dataclass(frozen=True)
class CacheLine:
    """A cache of some size, and the share of recalls whose memory it holds."""

    gib: float
    memories: float
    most_popular: float
    """It holds the most popular memories: the best there is."""
    least_recently_used: float
    """It holds the most recently used ones."""


@dataclass(frozen=True)
class Load:
    """What the requests ask of the memory tier in a second."""

    recalled_memories_per_second: float
    """Read by attention, wherever they come from."""
    drive_memories_per_second: float
    """Of these, not found in RAM (least recently used goes first)."""
    drive_bytes_per_second: float
    drive_reads_per_second: float
    """Pieces of at most `io_kib`."""


@dataclass(frozen=True)
class Hardware:
    """Drives and machines for all copies of the bank, and what asked for so many of each."""

    drives: int
    drives_for: dict[str, int]
    """By reason: "size", "bandwidth", "reads", "copies"; the largest counts."""
    machines: int
    machines_for: dict[str, int]
    """By reason: "drives", "network", "copies"; the largest counts."""


@dataclass(frozen=True)
class FormatCost:
    """What all references cost in one knowledge format, in the currency of the given prices."""

    once: float
    """Writing."""
    storage_per_month: float
    reading_per_month: float

    def after(self, months: float) -> float:
        """All of it, so many months after writing."""
        return self.once + months * (self.storage_per_month + self.reading_per_month)


@dataclass(frozen=True)
class Money:
    """Costs over time, and when writing memories pays against leaving the references as text."""

    by_format: dict[str, FormatCost]
    gpu_hours_to_write: dict[str, float]
    pays_off_months: float | None
    """Until a bank that was written whole is cheaper than text; None: never, storage costs more than it saves."""
    pays_off_uses_per_month: float | None
    """Recalls of one reference in a month from which its memory is worth its storage; None: a use saves nothing."""
    references_worth_writing: int
    """The most popular references, of which each pays for its writing and storage within the months looked ahead."""


@dataclass(frozen=True)
class Forecast:
    """Everything that is told. Operations in FLOP; sizes in bytes."""

    config: ModelConfig
    plan: MemoryPlan
    references: int
    stored_as: str
    settings: PlanningSettings
    bytes_per_memory: dict[str, int]
    write_flop: dict[str, int]
    read_flop: dict[str, int]
    crossover_uses: dict[str, float | None]
    cache: tuple[CacheLine, ...]
    load: Load
    hardware: Hardware
    money: Money

    @property
    def bank_bytes(self) -> dict[str, int]:
        """By format, one copy."""
        return {name: size * self.references for name, size in self.bytes_per_memory.items()}


def forecast(
    config: ModelConfig,
    plan: MemoryPlan,
    *,
    references: int,
    record_bytes: int,
    stored_as: str,
    settings: PlanningSettings,
) -> Forecast:
    """The forecast for `references` stored in format `stored_as`. Raises ValueError on a number out of range."""
    if not 1 <= references <= MAX_REFERENCES:
        raise ValueError(f"{references:.3g} references are too many or too few; give 1 to {MAX_REFERENCES:.0e}")
    if stored_as not in STORABLE_FORMATS:
        raise ValueError(f"a bank cannot be stored as {stored_as!r}; choose one of {', '.join(STORABLE_FORMATS)}")
    sizes = bytes_per_memory(config, plan, vq_bytes=settings.vq_bytes, int4_group=settings.int4_group)
    sizes["record"] = record_bytes
    size = sizes[stored_as]
    write, read = write_flop(config, plan, settings.training_tokens), read_flop(config, plan)
    popularity = Popularity(references, settings.zipf_exponent)
    cache = tuple(_cache_line(popularity, settings.cache_gib * step, size) for step in _CACHE_STEPS)
    hits = _cache_line(popularity, settings.cache_gib, size).least_recently_used
    load = _load(plan, size, hits, settings)
    return Forecast(
        config=config,
        plan=plan,
        references=references,
        stored_as=stored_as,
        settings=settings,
        bytes_per_memory=sizes,
        write_flop=write,
        read_flop=read,
        crossover_uses=crossover_uses(write, read),
        cache=cache,
        load=load,
        hardware=_hardware(load, size * references, size, settings),
        money=_money(write, read, load, size, popularity, settings),
    )


def recalls_per_request(plan: MemoryPlan, prompt_tokens: int, output_tokens: int) -> int:
    """Query chunks that recall: all of the prompt, and those of the output after its first one (paper 7.5)."""
    chunk = plan.query_chunk_tokens
    return ceil(prompt_tokens / chunk) + ceil(output_tokens / chunk) - 1


def _cache_line(popularity: Popularity, gib: float, memory_bytes: int) -> CacheLine:
    memories = min(gib * _GIB / memory_bytes, popularity.references)
    return CacheLine(
        gib=gib,
        memories=memories,
        most_popular=popularity.most_popular_share(memories),
        least_recently_used=popularity.least_recently_used_share(memories),
    )


def _load(plan: MemoryPlan, memory_bytes: int, hits: float, settings: PlanningSettings) -> Load:
    recalls = recalls_per_request(plan, settings.prompt_tokens, settings.output_tokens)
    recalled = settings.requests_per_second * recalls * plan.memories_per_chunk
    missed = recalled * (1 - hits)
    return Load(
        recalled_memories_per_second=recalled,
        drive_memories_per_second=missed,
        drive_bytes_per_second=missed * memory_bytes,
        drive_reads_per_second=missed * ceil(memory_bytes / (settings.io_kib * _KIB)),
    )


def _hardware(load: Load, bank_bytes: int, memory_bytes: int, settings: PlanningSettings) -> Hardware:
    drives_for = {
        "size": ceil(settings.copies * bank_bytes / (settings.drive_tb * _TB * settings.drive_fill)),
        "bandwidth": ceil(load.drive_bytes_per_second / (settings.drive_read_gb_per_second * _GB)),
        "reads": ceil(load.drive_reads_per_second / settings.drive_iops),
        "copies": settings.copies,
    }
    drives = max(drives_for.values())
    sent = load.recalled_memories_per_second * memory_bytes * 8
    machines_for = {
        "drives": ceil(drives / settings.drives_per_machine),
        "network": ceil(sent / (settings.machine_gbit_per_second * _GB)),
        "copies": settings.copies,
    }
    return Hardware(drives, drives_for, max(machines_for.values()), machines_for)


def _money(
    write: dict[str, int],
    read: dict[str, int],
    load: Load,
    memory_bytes: int,
    popularity: Popularity,
    settings: PlanningSettings,
) -> Money:
    references, uses = popularity.references, load.recalled_memories_per_second * SECONDS_PER_MONTH
    flop_price = settings.gpu_hour_price / 3600 / (settings.gpu_tflops * _TERA)
    store = settings.copies * memory_bytes / _TB * settings.tb_month_price
    by_format = {
        name: FormatCost(
            once=write[name] * references * flop_price,
            storage_per_month=store * references if name == "explicit_memory" else 0.0,
            reading_per_month=read[name] * uses * flop_price,
        )
        for name in write
    }
    memory, text = by_format["explicit_memory"], by_format["text_rag"]
    saved = text.reading_per_month - memory.reading_per_month - memory.storage_per_month
    saved_by_a_use = (read["text_rag"] - read["explicit_memory"]) * flop_price
    one_memory = write["explicit_memory"] * flop_price + store * settings.months
    return Money(
        by_format=by_format,
        gpu_hours_to_write={
            name: flop * references / (settings.gpu_tflops * _TERA) / 3600 for name, flop in write.items()
        },
        pays_off_months=memory.once / saved if saved > 0 else None,
        pays_off_uses_per_month=store / saved_by_a_use if saved_by_a_use > 0 else None,
        references_worth_writing=_worth_writing(one_memory, saved_by_a_use * uses * settings.months, popularity),
    )


def _worth_writing(cost: float, saved_by_all_uses: float, popularity: Popularity) -> int:
    return popularity.recalled_at_least(cost / saved_by_all_uses) if saved_by_all_uses > 0 else 0
