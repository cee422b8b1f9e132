"""A retrieval tier of an evaluation's own: started as a child with an embedded index, its knowledge base ingested once.

Knows programs by their names and files by their places; no index and no embedder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from services.datasets.item import KnowledgeBase
from services.evaluation.core import EvaluationError

_LISTENING = re.compile(r"^listening on (\S+)$", re.MULTILINE)
_POLL_S = 0.1
_STOP_S = 15.0
_NOWHERE = "127.0.0.1:1"
"""For tiers that a cold ingest can do without: nothing listens there, and it is told so at once."""
_TAIL_CHARACTERS = 1500
_INDEX = "index-2.db"
"""Raise the number when retrieval refuses the banks of before: the knowledge base is indexed anew then."""


@contextlib.contextmanager
def own_retrieval(
    base: KnowledgeBase,
    *,
    environment: Mapping[str, str],
    data_dir: Path,
    model: Path,
    start_seconds: float,
    say: Callable[[str], None],
) -> Iterator[str]:
    """The address of a retrieval tier that holds the whole knowledge base; it ends with the block.

    `environment` is the child's, its own variables over ours; `model` the directory whose tokenizer cuts references.
    The index stays in `data_dir`: the first time takes minutes, later ones seconds. Raises EvaluationError.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EvaluationError(
            f"cannot write to {data_dir}: {error.strerror}; set MEMORY3_EVALUATION_DATA_DIR to another folder"
        ) from error
    inherited = {"MEMORY3_RETRIEVAL_MILVUS_URI": str(data_dir / _INDEX), **environment}
    with _child(inherited, data_dir / "retrieval.log", start_seconds) as address:
        _ingest(base, {**inherited, "MEMORY3_RETRIEVAL": address}, data_dir, model, say)
        yield address


@contextlib.contextmanager
def _child(environment: Mapping[str, str], log: Path, start_seconds: float) -> Iterator[str]:
    env = {
        **environment,
        "PYTHONUNBUFFERED": "1",
        "MEMORY3_RETRIEVAL_HOST": "127.0.0.1",
        "MEMORY3_RETRIEVAL_PORT": "0",
    }
    with log.open("wb") as output:
        # It ends when we do, however we end.
        process = subprocess.Popen(
            [sys.executable, "-m", "services.launch.child", str(os.getpid()), "services.retrieval"],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _address(process, log, time.monotonic() + start_seconds)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path, deadline: float) -> str:
    while True:
        said = log.read_text(encoding="utf-8", errors="replace")
        if (match := _LISTENING.search(said)) is not None:
            return match[1]
        if process.poll() is not None:
            raise EvaluationError(
                f"the retrieval tier ended with exit code {process.returncode}; it said last (all of it: {log}):\n"
                + said[-_TAIL_CHARACTERS:]
            )
        if time.monotonic() > deadline:
            raise EvaluationError(f"the retrieval tier does not get ready, see {log}; start one: memory3 serve")
        time.sleep(_POLL_S)


def _ingest(
    base: KnowledgeBase, environment: Mapping[str, str], data_dir: Path, model: Path, say: Callable[[str], None]
) -> None:
    """Index what is not indexed yet; memories are the evaluation's own business."""
    env = {
        **environment,
        "MEMORY3_MEMORY": _NOWHERE,
        "MEMORY3_DECODER": _NOWHERE,
        "MEMORY3_INGEST_DATA_DIR": str(data_dir / "ingest"),
        "MEMORY3_INGEST_TOKENIZER": str(model),
    }
    say(f"indexing {len(base.documents)} documents of {base.name}; the first time takes minutes")
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for document in base.documents:
            line = {"id": document.document_id, "title": document.title, "text": document.text}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        file.flush()
        command = [sys.executable, "-m", "services.ingest", file.name, "--bank", base.name, "--memories", "cold"]
        # Its progress goes to the terminal; its summary is no result of ours, unless it says what went wrong.
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise EvaluationError(
            f"the knowledge base {base.name} was not ingested (exit code {done.returncode}); see "
            f"{data_dir / 'retrieval.log'}, and run the same command again: it goes on where it was. Ingest said:\n"
            + done.stdout[-_TAIL_CHARACTERS:]
        )
