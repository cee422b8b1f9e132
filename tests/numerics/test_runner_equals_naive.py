"""The fast path gives the logits of the naive twin, whatever stands in the batch and whenever memories are swapped."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.plan import MemoryPlan
from model.runner import PrefillItem
from tests.helpers.naive_twin import Twin
from tests.helpers.tiny_model import random_memories, random_tokens, tiny_plan, tiny_runner

CHUNK = 16
SMALL = tiny_plan(query_chunk_tokens=CHUNK, max_reference_tokens=40)
PAGED = replace(SMALL, pages_per_head=((0, 1), (3, 0)))
ONE_LAYER = replace(SMALL, pages_per_head=((0, 0), (1, 3)))
SMALL_PAGES = replace(SMALL, pages_per_head=((1, 5), (4, 2)))
PLANS = pytest.mark.parametrize(
    "plan", [SMALL, PAGED, ONE_LAYER, SMALL_PAGES], ids=["no pages", "paged", "one layer", "small pages"]
)


def test_prompt_chunks_each_with_their_own_memories():
    twin = Twin(tiny_runner())
    memories = random_memories(twin.runner, 10)
    twin.start(0)
    twin.prefill({0: (random_tokens(150), [memories[:5], memories[5:], memories[2:7]])})
    twin.check()


def test_memory_of_another_number_of_tokens_is_refused():
    runner = tiny_runner(plan=SMALL)
    (memory,) = random_memories(runner, 1, num_tokens=20)
    runner.reset(0, reads_memories=True)
    with pytest.raises(ValueError, match="keeps 6 of 4 tokens"):
        runner.set_memories(0, [replace(memory, num_reference_tokens=4)])


@pytest.mark.parametrize("num_tokens", [1, 15, 16, 17, 32, 47, 48])
@pytest.mark.parametrize("num_memories", [0, 1, 3, 5])
@PLANS
def test_any_prompt_length_and_number_of_memories(num_tokens: int, num_memories: int, plan: MemoryPlan):
    twin = Twin(tiny_runner(plan=plan))
    memories = random_memories(twin.runner, num_memories)
    twin.start(2)
    twin.prefill({2: (random_tokens(num_tokens), [memories] * -(-num_tokens // CHUNK))})
    twin.decode({2: 7})
    twin.check()


def test_batch_of_many_equals_each_alone():
    runner = tiny_runner(plan=SMALL, num_slots=4)
    memories = random_memories(runner, 12)
    prompts = {slot: random_tokens(count, seed=slot) for slot, count in enumerate((1, 16, 37, 50))}
    chunks = {
        slot: [memories[slot + i : slot + i + 5] for i in range(-(-len(prompts[slot]) // CHUNK))] for slot in prompts
    }

    def run(slots: list[int]) -> torch.Tensor:
        for slot in slots:
            runner.reset(slot, reads_memories=True)
        first = runner.prefill([PrefillItem(slot, prompts[slot], chunks[slot]) for slot in slots]).logits_BV
        return torch.stack([first, *(runner.decode(slots, [token] * len(slots)).logits_BV for token in (5, 6))])

    together = run([0, 1, 2, 3])
    alone = torch.cat([run([slot]) for slot in range(4)], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
    assert torch.equal(together.argmax(-1), alone.argmax(-1))


def test_order_of_memories_does_not_matter():
    runner = tiny_runner()
    memories = random_memories(runner, 5)
    logits = []
    for order in (memories, memories[::-1], random.Random(0).sample(memories, 5)):
        runner.reset(0, reads_memories=True)
        first = runner.prefill([PrefillItem(0, random_tokens(30), [order])]).logits_BV
        logits.append(torch.cat([first, runner.decode([0], [9]).logits_BV]))
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits[0], logits[2], atol=1e-4, rtol=0)


def test_memories_change_the_answer():
    """Guards the tests above: a read path that ignored memories would pass several of them."""
    runner = tiny_runner()
    memories = random_memories(runner, 10)
    logits = []
    for chunk in (memories[:5], memories[5:], []):
        runner.reset(0, reads_memories=True)
        logits.append(runner.prefill([PrefillItem(0, random_tokens(30), [chunk])]).logits_BV)
    assert (logits[0] - logits[1]).abs().max() > 0.05
    assert (logits[0] - logits[2]).abs().max() > 0.05


@pytest.mark.parametrize("cut", [1, 10, 16, 20, 32, 39])
def test_appended_prefill_equals_one_prefill(cut: int):
    runner = tiny_runner(plan=SMALL)
    tokens, memories = random_tokens(40), random_memories(runner, 9)
    chunks = [memories[:5], memories[2:7], memories[4:]]
    runner.reset(0, reads_memories=True)
    whole = runner.prefill([PrefillItem(0, tokens, chunks)]).logits_BV
    runner.reset(1, reads_memories=True)
    runner.prefill([PrefillItem(1, tokens[:cut], chunks[: -(-cut // CHUNK)])])
    parts = runner.prefill([PrefillItem(1, tokens[cut:], chunks[cut // CHUNK :])]).logits_BV
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=0)


def test_piece_appended_within_a_chunk_reads_the_memories_given_for_it():
    twin = Twin(tiny_runner(plan=SMALL))
    memories = random_memories(twin.runner, 10)
    twin.start(0)
    twin.prefill({0: (random_tokens(10, 1), [memories[:5]])})
    twin.prefill({0: (random_tokens(20, 2), [memories[5:], memories[:2]])})
    twin.decode({0: 3})
    twin.check()


def test_decode_inherits_the_last_chunks_memories():
    runner = tiny_runner(plan=SMALL)
    memories = random_memories(runner, 10)
    logits = []
    for slot, swap in enumerate((False, True)):
        runner.reset(slot, reads_memories=True)
        runner.prefill([PrefillItem(slot, random_tokens(20), [memories[:5], memories[5:]])])
        if swap:
            runner.set_memories(slot, memories[5:])
        logits.append(runner.decode([slot], [4]).logits_BV)
    assert torch.equal(logits[0], logits[1])


def test_swap_at_a_chunk_boundary_equals_starting_there():
    """32 tokens decoded one by one with a swap in the middle equal a prefill whose chunks read these memories."""
    runner = tiny_runner(plan=SMALL)
    tokens, memories = random_tokens(32), random_memories(runner, 8)
    runner.reset(0, reads_memories=True)
    started = runner.prefill([PrefillItem(0, tokens, [memories[:5], memories[5:]])]).logits_BV
    runner.reset(1, reads_memories=True)
    for place, token in enumerate(tokens):
        if place % CHUNK == 0:
            runner.set_memories(1, memories[:5] if place == 0 else memories[5:])
        swapped = runner.decode([1], [token]).logits_BV
    torch.testing.assert_close(swapped, started, atol=1e-4, rtol=0)


def test_swaps_in_the_middle_of_decoding():
    twin = Twin(tiny_runner(plan=SMALL))
    memories = random_memories(twin.runner, 12)
    for slot in (0, 3):
        twin.start(slot)
    twin.prefill({0: (random_tokens(5), [memories[:5]]), 3: (random_tokens(20), [memories[:1], memories[3:5]])})
    for step in range(12):
        if step % 4 == 1:
            twin.swap(0, memories[step : step + 4])
        if step == 6:
            twin.swap(3, [])
        twin.decode({3: step, 0: step + 50} if step % 2 else {0: step, 3: step + 50})
    twin.check()


@PLANS
def test_references_shorter_than_their_pages(plan: MemoryPlan):
    twin = Twin(tiny_runner(plan=plan))
    memories = [random_memories(twin.runner, 1, seed, num_tokens)[0] for seed, num_tokens in enumerate((1, 6, 8, 13))]
    twin.start(0)
    twin.prefill({0: (random_tokens(20), [memories, memories[::-1]])})
    twin.decode({0: 1})
    twin.check()


@PLANS
def test_slot_is_clean_after_another_sequence(plan: MemoryPlan):
    twin = Twin(tiny_runner(plan=plan))
    memories = random_memories(twin.runner, 5)
    for reads_memories, num_tokens in ((True, 60), (False, 20), (True, 5)):
        twin.start(1, reads_memories=reads_memories)
        chunk = memories if reads_memories else []
        twin.prefill({1: (random_tokens(num_tokens), [chunk] * -(-num_tokens // CHUNK))})
        twin.decode({1: 8})
    twin.check()


def test_broken_numbers_stay_in_their_sequence():
    """NaN in one sequence reaches neither its neighbours nor the next one in its slot."""
    twin = Twin(tiny_runner(plan=SMALL))
    good, memory = random_memories(twin.runner, 2)
    bad = replace(memory, v_LKSD=torch.full_like(memory.v_LKSD, torch.nan))
    for slot in (0, 1, 2):
        twin.start(slot)
    runner = twin.runner
    runner.prefill([PrefillItem(1, random_tokens(40), [[bad]] * 3)])
    assert runner.decode([1], [1]).logits_BV.isnan().all()
    twin.prefill({0: (random_tokens(20), [[good], [good]]), 2: (random_tokens(3), [[good]])})
    twin.decode({0: 1, 2: 2})
    twin.start(1)
    twin.prefill({1: (random_tokens(3), [[good]])})
    twin.decode({1: 1, 0: 5, 2: 9})
    twin.check()


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_grouped_heads(num_kv_heads: int):
    twin = Twin(tiny_runner(plan=SMALL, num_kv_heads=num_kv_heads))
    memories = random_memories(twin.runner, 5)
    twin.start(0)
    twin.prefill({0: (random_tokens(20), [memories, memories[:2]])})
    twin.decode({0: 1})
    twin.check()


@pytest.mark.parametrize("prefix_tokens", [(), (256,), (256, 10, 11)])
def test_prefix_of_any_length(prefix_tokens: tuple[int, ...]):
    twin = Twin(tiny_runner(plan=SMALL, prefix_tokens=prefix_tokens))
    memories = random_memories(twin.runner, 5)
    for slot in (0, 1, 3):
        twin.start(slot, reads_memories=slot != 1)
    twin.prefill({0: (random_tokens(18), [memories, memories[:2]]), 1: (random_tokens(2), [[]])})
    twin.decode({0: 1, 1: 2})
    twin.prefill({3: (random_tokens(2), [[]])})
    twin.decode({3: 5, 0: 3})
    twin.check()


def test_memory_layers_may_be_all_layers():
    twin = Twin(tiny_runner(plan=tiny_plan(memory_layers=(0, 1, 2, 3), tokens_per_memory=128)))
    twin.start(0)
    twin.prefill({0: (random_tokens(20), [random_memories(twin.runner, 5)])})
    twin.decode({0: 1})
    twin.check()


def test_bfloat16_is_near():
    twin = Twin(tiny_runner(plan=SMALL, dtype=torch.bfloat16), tolerance=0.4)
    memories = random_memories(twin.runner, 10)
    for slot in (0, 1):
        twin.start(slot)
    twin.prefill(
        {0: (random_tokens(40), [memories[:5], memories[5:], memories[3:8]]), 1: (random_tokens(3), [memories[:2]])}
    )
    twin.decode({0: 1, 1: 2})
    twin.check()


@st.composite
def _scenarios(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    """Steps (what, slot, size, seed); sizes mean tokens to prefill or memories to swap in."""
    steps = st.tuples(
        st.sampled_from(["start", "start_without", "prefill", "prefill", "swap", "decode", "decode_all"]),
        st.integers(0, 2),
        st.integers(1, 40),
        st.integers(0, 1000),
    )
    return draw(st.lists(steps, min_size=3, max_size=12))


@settings(max_examples=25, deadline=None)
@given(_scenarios(), st.sampled_from([SMALL, PAGED, ONE_LAYER, SMALL_PAGES]))
def test_any_history_equals_the_naive_twin(steps: list[tuple[str, int, int, int]], plan: MemoryPlan):
    twin = Twin(tiny_runner(plan=plan, num_slots=3, max_context_tokens=120))
    pool = random_memories(twin.runner, 8, seed=1)
    reads = dict.fromkeys(range(3), True)
    for slot in reads:
        twin.start(slot)
    for what, slot, size, seed in steps:
        rng, start = random.Random(seed), twin.runner.length(slot)
        if what.startswith("start"):
            reads[slot] = what == "start"
            twin.start(slot, reads_memories=reads[slot])
        elif what == "prefill" and start + size <= 100:
            num_chunks = (start + size - 1) // CHUNK - start // CHUNK + 1
            chunks = [rng.sample(pool, rng.randint(0, 5)) if reads[slot] else [] for _ in range(num_chunks)]
            twin.prefill({slot: (random_tokens(size, seed), chunks)})
        elif what == "swap" and reads[slot]:
            twin.swap(slot, rng.sample(pool, min(size, 5)))
        elif what == "decode":
            twin.decode({slot: seed % 256})
        elif what == "decode_all":
            slots = rng.sample(range(3), 3)
            twin.decode({slot: rng.randrange(256) for slot in slots})
    twin.check()
