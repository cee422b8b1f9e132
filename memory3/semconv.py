"""Every span, metric and attribute name we emit, with unit and meaning. Nothing else spells a name.

GenAI names follow OpenTelemetry's semantic conventions (still marked development there), so they stand only here.
"""

from __future__ import annotations

from typing import Final

# Service names (resource attribute service.name).
SERVICE_CLIENT: Final = "memory3"
SERVICE_DECODER: Final = "decoder"
SERVICE_WORKER: Final = "decoder-worker"
SERVICE_RETRIEVAL: Final = "retrieval"
SERVICE_MEMORY: Final = "memory"
SERVICE_INGEST: Final = "ingest"

# Spans.
SPAN_GENERATE: Final = "generate"  # client's call; again in front and worker, each under its caller
SPAN_QUEUE: Final = "queue"  # waiting for a slot
SPAN_RECALL: Final = "recall"  # retrieve + fetch + load of one query chunk, or of all prompt chunks at once
SPAN_RETRIEVE: Final = "retrieve"  # vector search, seen from the worker
SPAN_EMBED: Final = "embed"  # the embedder's batch
SPAN_SEARCH: Final = "search"  # the index
SPAN_FETCH: Final = "fetch"  # records from the memory tier, seen from the worker
SPAN_TIER_RAM: Final = "tier.ram"  # look-up in the memory service's RAM
SPAN_TIER_OBJECT: Final = "tier.object"  # read of one object
SPAN_LOAD: Final = "load"  # records -> packed memories
SPAN_WRITE: Final = "write"  # references -> memories
SPAN_PREFILL: Final = "prefill"  # prompt -> first token
SPAN_DECODE: Final = "decode"  # first token -> last; one span with counts
SPAN_INGEST: Final = "ingest"  # one document
SPAN_MILVUS: Final = "milvus"  # one call to Milvus, by db.operation.name
SPAN_S3: Final = "s3"  # one call to the S3 server, by rpc.method

# Events of spans.
EVENT_MEMORY: Final = "memory"  # on a recall: how one memory fared

# Attributes.
ATTR_SERVICE: Final = "memory3.service"  # as the resource's service.name, which some UIs do not show
ATTR_BANK: Final = "memory3.bank"
ATTR_MODE: Final = "memory3.mode"
ATTR_NUM_QUERIES: Final = "memory3.num_queries"
ATTR_NUM_HITS: Final = "memory3.num_hits"
ATTR_NUM_MEMORIES: Final = "memory3.num_memories"
ATTR_NUM_LATE: Final = "memory3.num_memories_late"
ATTR_NUM_MISSING: Final = "memory3.num_memories_missing"
ATTR_NUM_WORKER: Final = "memory3.num_memories_worker"  # read from the worker's cache; the next ones likewise
ATTR_NUM_RAM: Final = "memory3.num_memories_ram"
ATTR_NUM_OBJECT: Final = "memory3.num_memories_object"
ATTR_NUM_COLD: Final = "memory3.num_memories_cold"
ATTR_NUM_RECALLS: Final = "memory3.num_recalls"
ATTR_NUM_RECALLS_FAILED: Final = "memory3.num_recalls_failed"  # retrieval failed or was late
ATTR_TIER: Final = "memory3.tier"
ATTR_STATUS: Final = "memory3.status"
ATTR_BYTES: Final = "memory3.bytes"  # bytes
ATTR_BATCH_SIZE: Final = "memory3.batch_size"  # all that ran together, others' included
ATTR_QUEUE_LENGTH: Final = "memory3.queue_length"  # others that waited when this one came
ATTR_WAITED: Final = "memory3.waited_ms"  # for a turn, a thread or room in a batch; ms
ATTR_STALLED: Final = "memory3.stalled_ms"  # for memories, though it could have run; ms
ATTR_DEADLINE: Final = "memory3.deadline_ms"  # how long a recall may take; ms
ATTR_TTFT: Final = "memory3.ttft_ms"  # request received -> first token; ms
ATTR_QUERIES: Final = "memory3.queries"  # texts of the query chunks; only where content is recorded
ATTR_REFERENCE_ID: Final = "memory3.reference_id"
ATTR_DOCUMENT_ID: Final = "memory3.document_id"
ATTR_REASON: Final = "memory3.error_reason"
ATTR_STAGE: Final = "memory3.stage"
ATTR_GENAI_OPERATION: Final = "gen_ai.operation.name"
ATTR_GENAI_MODEL: Final = "gen_ai.request.model"
ATTR_GENAI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
ATTR_GENAI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
ATTR_GENAI_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
ATTR_GENAI_INPUT: Final = "gen_ai.input.messages"  # only where content is recorded, as is the next
ATTR_GENAI_OUTPUT: Final = "gen_ai.output.messages"
ATTR_DB_SYSTEM: Final = "db.system.name"
ATTR_DB_OPERATION: Final = "db.operation.name"
ATTR_DB_COLLECTION: Final = "db.collection.name"
ATTR_RPC_SYSTEM: Final = "rpc.system.name"
ATTR_RPC_METHOD: Final = "rpc.method"
ATTR_S3_BUCKET: Final = "aws.s3.bucket"
ATTR_S3_KEY: Final = "aws.s3.key"

# Metrics: name, unit, meaning.
METRIC_TTFT: Final = ("gen_ai.server.time_to_first_token", "s", "Front received the request -> first token sent")
METRIC_TPOT: Final = ("gen_ai.server.time_per_output_token", "s", "(last token - first token) / (tokens - 1)")
METRIC_REQUEST: Final = ("gen_ai.server.request.duration", "s", "Front received the request -> final event sent")
METRIC_RECALL: Final = ("memory3.recall.duration", "s", "One recall, by stage: recall, retrieve, fetch, load")
METRIC_STALLED: Final = ("memory3.recall.stalled", "s", "Time a sequence waited for its memories instead of running")
METRIC_MEMORIES: Final = ("memory3.recall.memories", "{memory}", "Memories recalled, by status and tier")
METRIC_WORKER_QUEUE: Final = ("memory3.decoder.queue", "{sequence}", "Sequences waiting for a slot")
METRIC_WORKER_BATCH: Final = ("memory3.decoder.batch", "{sequence}", "Sequences running")
METRIC_TOKENS: Final = ("memory3.decoder.tokens", "{token}", "Tokens generated")
METRIC_FETCH: Final = ("memory3.memory.fetch", "{record}", "Records asked for, by status and tier")
METRIC_FETCH_BYTES: Final = ("memory3.memory.fetch.bytes", "By", "Bytes of records sent, by tier")
METRIC_PUT: Final = ("memory3.memory.put", "{record}", "Records put, by status")
METRIC_RAM_BYTES: Final = ("memory3.memory.ram.bytes", "By", "Bytes held by the RAM tier")
METRIC_RAM_LIMIT: Final = ("memory3.memory.ram.limit", "By", "Bytes the RAM tier may hold")
METRIC_IN_FLIGHT_BYTES: Final = (
    "memory3.memory.in_flight.bytes",
    "By",
    "Bytes of records being read, stored or waiting for their receiver",
)
METRIC_IN_FLIGHT_LIMIT: Final = ("memory3.memory.in_flight.limit", "By", "Bytes that may be in flight at once")
METRIC_STORE_DOWN: Final = ("memory3.memory.store.down", "{store}", "1 while the object store is taken as down, else 0")
METRIC_EMBED_BATCH: Final = ("memory3.retrieval.embed.batch", "{text}", "Texts in one batch of the embedder")
METRIC_EMBED_QUEUE: Final = ("memory3.retrieval.embed.queue", "{text}", "Texts waiting for the embedder")
METRIC_SEARCH: Final = ("memory3.retrieval.search.duration", "s", "One search of the index")
METRIC_CALLS: Final = ("memory3.calls.in_flight", "{call}", "Calls being served")
METRIC_ERRORS: Final = ("memory3.errors", "{error}", "Failed calls, by reason")
METRIC_WRITTEN: Final = ("memory3.write.references", "{reference}", "References written, by status")
