"""Whether memories must come after a memory-free start (paper 3.6, figure 11): three arms of a small model.

    python -m bench.warmup_effect                       # three seeds, two cores: see the time it says
    python -m bench.warmup_effect --steps 40 --seeds 1  # does it run

Goes on if it was stopped: an arm that is in docs/results/warmup-effect.jsonl with the same options is not run again.

All arms of a seed begin with the same weights and see the same sequences in the same order: equal tokens.

    none          no memories throughout
    from start    memories from step 0
    after warmup  memories from step --warmup-share x steps on

Text, tokenizer and references: `services.training.data`, with a vocabulary of its own, trained on the same text. Each
64-token chunk reads five references (its own and those of the four chunks before), found by exact search and filtered
for leaks. At the end every arm is measured on held-out sequences with memories and without. The verdict compares each
arm as it was trained; its error is the standard error of the paired differences over seeds.

Writes docs/warmup-effect.md and docs/images/warmup-effect.png.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from bench.machine import heading
from model.config import ModelConfig
from model.plan import MemoryPlan
from model.tokenizer import Tokenizer
from model.training.initial import initial_transformer
from model.training.step import TrainingStep
from services.datasets import registry
from services.training.config import OptimizerOptions
from services.training.core import Rhythm, Trainer
from services.training.data import text_sequences
from services.training.held_out import HeldOutSequences
from services.training.progress import duration
from services.training.sequences import Sequences, SequenceSource

PREFIX = "<s>"
DOCS = Path(__file__).parents[1] / "docs"
_T_95 = {1: math.inf, 2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}
"""By number of seeds: how many standard errors a mean must lie from zero (Student's t, two-sided, 95 %). More than
ten take the last, which asks for a little too much."""
ARMS = ("none", "from start", "after warmup")
PLAN = MemoryPlan(
    name="warmup-effect",
    memory_layers=(0, 1, 2),
    tokens_per_memory=8,
    selection="attention",
    group_combine="sum",
    prefix=PREFIX,
)
"""The paper's: the first half of the layers, eight tokens, five memories for each 64-token chunk."""


def small_config(vocab_size: int) -> ModelConfig:
    """About 3 million parameters; as the paper's models, wide attention and a narrow MLP."""
    return ModelConfig(
        name="warmup-effect",
        num_layers=6,
        num_heads=6,
        num_kv_heads=2,
        head_dim=32,
        hidden_dim=192,
        mlp_dim=512,
        vocab_size=vocab_size,
        rope_theta=10_000.0,
        rms_norm_eps=1e-5,
        tied_embeddings=True,
        max_context_tokens=1024,
    )


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    steps: int
    seeds: int
    items: int
    length: int
    documents: int
    held_out: int
    warmup_share: float
    learning_rate: float
    vocab_size: int


@dataclass(frozen=True)
class Result:
    """One arm of one seed."""

    arm: str
    seed: int
    curve: list[tuple[int, float]]
    """Step, training loss."""
    memory: float
    """Held-out NLL with memories; nats per token."""
    none: float
    """The same without."""
    seconds: float

    @property
    def as_trained(self) -> float:
        """Measured as the arm ended its training."""
        return self.none if self.arm == "none" else self.memory


class Curve:
    """Implements Recorder and StateStore: keeps the loss, saves nothing."""

    def __init__(self) -> None:
        self.points: list[tuple[int, float]] = []

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Note the loss."""
        self.points.append((step, values["loss"]))

    def save(self, _: int) -> None:
        """Nothing."""


def small_tokenizer(texts: list[str], vocab_size: int) -> Tokenizer:
    """A byte-level BPE of the texts themselves: a small model must not spend its parameters on a large vocabulary."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PREFIX],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Tokenizer(tokenizer.to_str(), None, ())


def run_arm(
    arm: str, seed: int, options: Options, tokenizer: Tokenizer, train: Sequences, held_out: Sequences
) -> Result:
    """Train one arm from scratch and measure it."""
    began = time.perf_counter()
    transformer = initial_transformer(small_config(tokenizer.vocab_size), seed)
    for parameter in transformer.parameters():
        parameter.requires_grad_(True)
    module = TrainingStep(transformer, PLAN, tokenizer.encode_special(PREFIX))
    start = {"none": None, "from start": 0, "after warmup": round(options.warmup_share * options.steps)}[arm]
    source = SequenceSource(train, PLAN, items=options.items, accumulation=1, seed=seed, memories_from=start)
    rhythm = Rhythm(options.steps, options.steps, options.steps, options.steps)
    optimizer = OptimizerOptions(
        learning_rate=options.learning_rate,
        warmup_steps=max(1, options.steps // 20),
        decay_share=0.2,
        weight_decay=0.1,
        beta2=0.95,
    )
    curve = Curve()
    Trainer(module, optimizer, source, rhythm=rhythm).run(0, curve, curve)
    measured = SequenceSource(held_out, PLAN, items=1, accumulation=1, seed=0, memories_from=None)
    figures = HeldOutSequences(module, measured, min(options.held_out, measured.num_sequences))()
    seconds = time.perf_counter() - began
    return Result(arm, seed, curve.points, figures["eval/text/memory"], figures["eval/text/none"], seconds)


class Finished:
    """Arms that were run, in a file of one line each; those of other options stay in it and are not seen."""

    def __init__(self, path: Path, options: Options) -> None:
        self._path = path
        # The number of seeds says how many arms there are, not what one of them is.
        self._options = asdict(options) | {"seeds": None}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        known = [line["result"] for line in map(json.loads, lines) if line["options"] == self._options]
        self._known = {(result["arm"], result["seed"]): Result(**result) for result in known}

    def get(self, arm: str, seed: int) -> Result | None:
        """The arm, if it was run."""
        return self._known.get((arm, seed))

    def add(self, result: Result) -> None:
        """On disk when this returns."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"options": self._options, "result": asdict(result)}) + "\n")


def difference(results: list[Result], better: str, than: str) -> tuple[float, float]:
    """Mean of the paired differences over seeds (negative: `better` has the lower loss), and its standard error."""
    by = {(result.arm, result.seed): result.as_trained for result in results}
    pairs = [by[better, seed] - by[than, seed] for arm, seed in by if arm == than]
    error = statistics.stdev(pairs) / math.sqrt(len(pairs)) if len(pairs) > 1 else float("nan")
    return statistics.fmean(pairs), error


def verdict(results: list[Result]) -> list[str]:
    """What the figures say, in words."""
    lines = []
    seeds = len({result.seed for result in results})
    for better, than in (("after warmup", "none"), ("after warmup", "from start"), ("from start", "none")):
        mean, error = difference(results, better, than)
        clear = abs(mean) > _T_95[min(seeds, max(_T_95))] * error
        word = "no clear difference" if not clear else "better" if mean < 0 else "worse"
        lines.append(f"- *{better}* against *{than}*: {mean:+.4f} ± {error:.4f} nats per token: {word}.")
    for arm in ARMS[1:]:
        worth = statistics.fmean(result.none - result.memory for result in results if result.arm == arm)
        lines.append(
            f"- In *{arm}* memories are worth {worth:.4f} nats per token to the model that was trained with them."
        )
    return lines


def markdown(results: list[Result], options: Options, num_parameters: int, train: Sequences) -> str:
    """The page."""
    rows = [
        f"| {result.arm} | {result.seed} | {result.none:.4f} | {result.memory:.4f} | {result.seconds:.0f} s |"
        for result in results
    ]
    chunks = [one for of_sequence in train.reference_of for one in of_sequence]
    covered = sum(one is not None for one in chunks) / len(chunks)
    tokens = options.steps * options.items * options.length
    return "\n".join(
        [
            "# The warm-up effect",
            "",
            "The paper (3.6, figure 11) found memories useless when they are there from step 0, and useful when they",
            "come after a memory-free start. Here the same with a small model from scratch: three arms, equal tokens.",
            "",
            f"`python -m bench.warmup_effect --steps {options.steps} --seeds {options.seeds}` · {heading()}",
            "",
            f"{num_parameters:,} parameters; {options.steps} steps of {options.items} sequences of {options.length}",
            f"tokens ({tokens:,} in each arm), drawn from {len(train.tokens):,}; rate {options.learning_rate:g};",
            f"memories after {options.warmup_share:.0%} of the steps in *after warmup*; {covered:.0%} of the chunks",
            "have a reference that passes the leak filter.",
            "",
            "![Training loss](images/warmup-effect.png)",
            "",
            "| arm | seed | held out, without memories | held out, with memories | time |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "Nats per token. ± is the standard error of the paired differences over seeds; each arm is taken as it was",
            "trained. A difference is clear if it is beyond the 95 % interval for so many seeds.",
            "",
            "## Verdict",
            "",
            *verdict(results),
            "",
            "The paper's gain of *after warmup* over both other arms is 0.02 to 0.03 nats, with a model 300 times as",
            "large and 80 billion tokens. A model that has seen few tokens hardly uses a context yet, be it text or",
            "memory: the last two lines of the verdict tell whether this run can say anything about the effect.",
            "",
        ]
    )


def plot(results: list[Result], path: Path, width: int) -> None:
    """Smoothed training loss of every arm, mean over seeds."""
    # Here: slow to import, and without pyplot no window is ever wanted.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for arm in ARMS:
        curves = [[loss for _, loss in result.curve] for result in results if result.arm == arm]
        mean = [statistics.fmean(losses) for losses in zip(*curves, strict=True)]
        smooth = [statistics.fmean(mean[max(0, i - width) : i + 1]) for i in range(len(mean))]
        axes.plot(range(1, len(smooth) + 1), smooth, label=arm)
    axes.set_xlabel("step")
    axes.set_ylabel(f"training loss, nats per token, mean of {width} steps and of the seeds")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=400, help="of each arm [%(default)s]")
    parser.add_argument("--seeds", type=int, default=3, help="[%(default)s]")
    parser.add_argument("--items", type=int, default=4, help="sequences of a step [%(default)s]")
    parser.add_argument("--length", type=int, default=512, help="tokens of a sequence [%(default)s]")
    parser.add_argument("--documents", type=int, default=6000, help="of running text [%(default)s]")
    parser.add_argument("--held-out", type=int, default=64, help="sequences measured at the end [%(default)s]")
    parser.add_argument("--warmup-share", type=float, default=0.5, help="of the steps, without memories [%(default)s]")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="[%(default)s]")
    parser.add_argument("--vocab-size", type=int, default=2048, help="[%(default)s]")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of page and plot [docs/]")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: its default [%(default)s]")
    given = vars(parser.parse_args())
    out, threads = given.pop("out"), given.pop("threads")
    options = Options(**given)
    if threads:
        torch.set_num_threads(threads)
    texts = [" ".join(pieces) for pieces in registry.text_chunks("train", 0)[: options.documents]]
    tokenizer = small_tokenizer(texts, options.vocab_size)
    train, held_out = (
        text_sequences(tokenizer, PLAN, tokenizer.vocab_size, split, documents=count, length=options.length, seed=0)
        for split, count in (("train", options.documents), ("held-out", max(200, options.documents // 4)))
    )
    num_parameters = sum(p.numel() for p in initial_transformer(small_config(tokenizer.vocab_size), 0).parameters())
    print(f"{num_parameters:,} parameters, {len(train.tokens):,} sequences, {len(train.references):,} references")
    results = []
    finished = Finished(out / "results" / "warmup-effect.jsonl", options)
    for seed in range(options.seeds):
        for arm in ARMS:
            result = finished.get(arm, seed)
            if result is None:
                result = run_arm(arm, seed, options, tokenizer, train, held_out)
                finished.add(result)
            results.append(result)
            left = (options.seeds * len(ARMS) - len(results)) * statistics.fmean(r.seconds for r in results)
            print(
                f"seed {seed}, {arm}: held out {result.none:.4f} without, {result.memory:.4f} with memories, "
                f"{result.seconds:.0f} s; about {duration(left)} left"
            )
    (out / "images").mkdir(parents=True, exist_ok=True)
    plot(results, out / "images" / "warmup-effect.png", max(1, options.steps // 30))
    (out / "warmup-effect.md").write_text(markdown(results, options, num_parameters, train), encoding="utf-8")
    print("\n".join(verdict(results)))


if __name__ == "__main__":
    main()
