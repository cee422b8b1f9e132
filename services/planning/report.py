"""How a forecast is shown: tables for people, one JSON object for scripts. Computes nothing but units."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from services.planning.core import Forecast, recalls_per_request

TERA = 1e12
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_LABELS = {
    "dense": "dense: every head, layer and token",
    "kv_cache": "as text in a cache: KV heads",
    "sparse": "sparse, bfloat16",
    "int8": "sparse, int8",
    "int4": "sparse, int4",
    "vq": "sparse, vector-quantised",
    "record": "record of the plan's codec",
    "text_rag": "text (RAG)",
    "explicit_memory": "explicit memory",
    "parameters": "parameters",
}


def to_dict(forecast: Forecast) -> dict[str, Any]:
    """The forecast as JSON types. Sizes in bytes, operations in TFLOP (10^12), the rest as the names say."""
    return {
        "model": forecast.config.name,
        "plan": json.loads(forecast.plan.to_json()),
        "references": forecast.references,
        "stored_as": forecast.stored_as,
        "bytes_per_memory": forecast.bytes_per_memory,
        "bank_bytes": forecast.bank_bytes,
        "write_tflop": _tflop(forecast.write_flop),
        "read_tflop": _tflop(forecast.read_flop),
        "crossover_uses": forecast.crossover_uses,
        "cache": [asdict(line) for line in forecast.cache],
        "load": asdict(forecast.load),
        "hardware": asdict(forecast.hardware),
        "money": asdict(forecast.money),
        "assumptions": forecast.settings.model_dump(),
    }


def print_json(forecast: Forecast) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(to_dict(forecast), ensure_ascii=False, allow_nan=False) + "\n")


def print_tables(forecast: Forecast) -> None:
    """Everything, for a person, on stdout."""
    out = Console(highlight=False)
    plan, config = forecast.plan, forecast.config
    out.print(
        f"[bold]{escape(config.name or 'model')}[/], plan {escape(plan.name)}: memories of {plan.tokens_per_memory} of "
        f"{plan.max_reference_tokens} tokens in {len(plan.memory_layers)} of {config.num_layers} layers, "
        f"{config.num_kv_heads} KV heads; {forecast.references:,} references"
    )
    notes = (
        "* what the rest of this page reckons with",
        "reading text, and all of parameters, are lower bounds",
        f"recalls by Zipf's law, exponent {forecast.settings.zipf_exponent:g}",
    )
    for table, note in zip((_sizes(forecast), _operations(forecast), _cache(forecast)), notes, strict=True):
        out.print()
        out.print(table)
        out.print(f"[dim]{note}[/]")
    out.print()
    _print_hardware(out, forecast)
    out.print()
    out.print(_costs(forecast))
    _print_verdict(out, forecast)


def size(num_bytes: float) -> str:
    """Bytes for people, in powers of two, three digits that count."""
    value = float(num_bytes)
    for unit in _UNITS:
        if value < 999.5 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.3g} {unit}"


def number(value: float) -> str:
    """A number for people: three digits that count."""
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"


def _tflop(by_format: dict[str, int]) -> dict[str, float]:
    return {name: flop / TERA for name, flop in by_format.items()}


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", no_wrap=True)
    return table


def _sizes(forecast: Forecast) -> Table:
    table = _table("Stored as", "One memory", "Bank", "Smaller by")
    whole = forecast.bytes_per_memory["dense"]
    for name, one in forecast.bytes_per_memory.items():
        label = _LABELS[name] + (" *" if name == forecast.stored_as else "")
        table.add_row(label, size(one), size(forecast.bank_bytes[name]), f"{number(whole / one)} x")
    return table


def _operations(forecast: Forecast) -> Table:
    table = _table("Knowledge as", "Write, TFLOP", "Read once, TFLOP", "Cheapest for expected uses")
    begin = 0.0
    for name, write in forecast.write_flop.items():
        end = forecast.crossover_uses[name]
        if end == 0:
            reach = "never"
        elif end is None:
            reach = f"above {number(begin)}"
        else:
            reach, begin = f"{number(begin)} to {number(end)}", end
        read = forecast.read_flop[name]
        table.add_row(_LABELS[name], number(write / TERA), number(read / TERA), reach)
    return table


def _cache(forecast: Forecast) -> Table:
    table = _table("RAM for memories", "Memories", "Hits, most popular kept", "Hits, most recent kept")
    for line in forecast.cache:
        mark = " *" if line.gib == forecast.settings.cache_gib else ""
        table.add_row(
            f"{size(line.gib * 2**30)}{mark}",
            number(line.memories),
            f"{line.most_popular:.1%}",
            f"{line.least_recently_used:.1%}",
        )
        if line.memories == forecast.references:
            break
    return table


def _print_hardware(out: Console, forecast: Forecast) -> None:
    given, load, hardware = forecast.settings, forecast.load, forecast.hardware
    recalls = recalls_per_request(forecast.plan, given.prompt_tokens, given.output_tokens)
    out.print(
        f"{number(given.requests_per_second)} requests/s of {given.prompt_tokens} + {given.output_tokens} tokens "
        f"recall {recalls} times {forecast.plan.memories_per_chunk} memories each: "
        f"{number(load.recalled_memories_per_second)} memories/s, of which drives read "
        f"{number(load.drive_memories_per_second)}/s ({size(load.drive_bytes_per_second)}/s)."
    )
    out.print(
        f"[bold]{hardware.drives:,} drives[/] of {given.drive_tb:g} TB for {given.copies} copies "
        f"({_reasons(hardware.drives_for)}) in [bold]{hardware.machines:,} machines[/] "
        f"({_reasons(hardware.machines_for)})."
    )


def _reasons(needed: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in needed.items())


def _costs(forecast: Forecast) -> Table:
    months = forecast.settings.months
    table = _table("Cost", "Writing", "GPU hours", "Store/month", "Read/month", f"{months} months")
    for name, cost in forecast.money.by_format.items():
        table.add_row(
            _LABELS[name],
            number(cost.once),
            number(forecast.money.gpu_hours_to_write[name]),
            number(cost.storage_per_month),
            number(cost.reading_per_month),
            number(cost.after(months)),
        )
    return table


def _print_verdict(out: Console, forecast: Forecast) -> None:
    money, given = forecast.money, forecast.settings
    if money.pays_off_months is None:
        out.print(
            "A bank written whole [bold]never pays[/] against text under this load: storing costs more than it saves."
        )
    else:
        out.print(f"A bank written whole pays against text after [bold]{number(money.pays_off_months)} months[/].")
    if money.pays_off_uses_per_month is not None:
        out.print(
            f"A memory is worth its storage from {number(money.pays_off_uses_per_month)} recalls a month; within "
            f"{given.months} months writing pays for the {number(money.references_worth_writing)} most popular."
        )
