"""What a plan assumes of load, hardware and prices. The environment of services.planning is read here only."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

SECTIONS = {
    "Load": ("requests_per_second", "prompt_tokens", "output_tokens", "zipf_exponent", "cache_gib"),
    "Formats": ("vq_bytes", "int4_group", "training_tokens"),
    "Drives and machines": (
        "copies",
        "drive_tb",
        "drive_fill",
        "drive_read_gb_per_second",
        "drive_iops",
        "io_kib",
        "drives_per_machine",
        "machine_gbit_per_second",
    ),
    "Money, in whatever currency": ("gpu_tflops", "gpu_hour_price", "tb_month_price", "months"),
}
"""Every setting under the heading it is listed by."""


class PlanningSettings(BaseSettings):
    """Assumptions, each with a default to start from. None is a quote: give your own."""

    model_config = SettingsConfigDict(env_prefix="MEMORY3_PLANNING_", frozen=True, extra="ignore")

    # Load
    requests_per_second: float = Field(100.0, ge=0, allow_inf_nan=False, description="Generations begun in a second.")
    prompt_tokens: int = Field(128, ge=1, description="Length of a prompt; tokens.")
    output_tokens: int = Field(128, ge=1, description="Length of an answer; tokens.")
    zipf_exponent: float = Field(
        1.0, ge=0, le=10, description="How uneven recalls are: the i-th reference is recalled i^-x times as often."
    )
    cache_gib: float = Field(
        64.0, ge=0, allow_inf_nan=False, description="RAM that keeps memories, of all machines; GiB."
    )

    # Formats
    vq_bytes: int = Field(14, ge=1, description="Size of one quantised vector; the paper's is 14; bytes.")
    int4_group: int = Field(16, ge=1, description="Numbers that share one scale in format int4.")
    training_tokens: int = Field(2048, ge=1, description="Length of a training sequence; tokens.")

    # Drives and machines
    copies: int = Field(2, ge=1, description="Copies of every record, each on another machine.")
    drive_tb: float = Field(7.68, gt=0, allow_inf_nan=False, description="Size of a drive; 10^12 bytes.")
    drive_fill: float = Field(0.8, gt=0, le=1, description="Share of a drive that records may fill.")
    drive_read_gb_per_second: float = Field(
        5.0, gt=0, allow_inf_nan=False, description="What a drive reads; 10^9 bytes a second."
    )
    drive_iops: float = Field(400_000.0, gt=0, allow_inf_nan=False, description="Reads a drive answers in a second.")
    io_kib: int = Field(128, ge=1, description="Largest piece one read brings; KiB.")
    drives_per_machine: int = Field(8, ge=1, description="Drives in one machine.")
    machine_gbit_per_second: float = Field(
        25.0, gt=0, allow_inf_nan=False, description="What a machine sends; 10^9 bits a second."
    )

    # Money, in whatever currency
    gpu_tflops: float = Field(
        400.0, gt=0, allow_inf_nan=False, description="What a GPU sustains, not its peak; TFLOP a second."
    )
    gpu_hour_price: float = Field(2.5, ge=0, allow_inf_nan=False, description="Price of a GPU for an hour.")
    tb_month_price: float = Field(
        25.0, ge=0, allow_inf_nan=False, description="Price of 10^12 stored bytes for a month, one copy."
    )
    months: int = Field(12, ge=1, le=1200, description="How far to look ahead; months.")
