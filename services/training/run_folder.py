"""A run's folder: its config, its state, and what it made.

    config.json          what the run was told; a run is only resumed with the same
    plan.json            the memory plan which that meant; a run is only resumed under the same
    state.safetensors    trained values, AdamW's averages, and the number of steps; replaced whole
    curves.jsonl         figures, a step a line; curves.png; tensorboard/
    adapter/ or model/   the result so far, renewed with every state

Nothing is pickled.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from model.plan import MemoryPlan
from services.training.config import TrainingConfig

_STATE, _CONFIG, _PLAN = "state.safetensors", "config.json", "plan.json"
_AVERAGES = ("exp_avg", "exp_avg_sq", "step")


class RunFolderError(ValueError):
    """A run's folder cannot be used: it is not empty, of another run, or damaged."""


class RunFolder:
    """Implements StateStore."""

    def __init__(
        self,
        path: Path,
        parameters: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer,
        export: Callable[[Path], None],
        result: str,
    ) -> None:
        """`export` writes the result's files into a fresh folder, which becomes `path / result`."""
        self.path = path
        self._parameters, self._optimizer, self._export, self._result = parameters, optimizer, export, result

    def save(self, step: int) -> None:
        """See `services.training.ports.StateStore`."""
        tensors = {}
        for name, value in self._parameters.items():
            tensors[f"value/{name}"] = value.detach().cpu().contiguous()
            state = self._optimizer.state[value]
            for average in _AVERAGES:
                tensors[f"{average}/{name}"] = torch.as_tensor(state[average]).detach().cpu().contiguous()
        fresh = self.path / f"{_STATE}.new"
        save_file(tensors, fresh, metadata={"steps": str(step)})
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(self.path / _STATE)
        self._renew_result()

    def restore(self) -> int:
        """Take up the state on disk; the number of steps it has behind it. Raises RunFolderError."""
        path = self.path / _STATE
        try:
            with safe_open(path, framework="pt") as file:
                steps = int(file.metadata()["steps"])
                for name, value in self._parameters.items():
                    value.data.copy_(file.get_tensor(f"value/{name}"))
                    state = {average: file.get_tensor(f"{average}/{name}") for average in _AVERAGES}
                    self._optimizer.state[value] = {
                        key: tensor if key == "step" else tensor.to(value.device) for key, tensor in state.items()
                    }
        except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
            raise RunFolderError(f"{path} cannot be taken up ({error}); start anew in another folder") from error
        return steps

    def _renew_result(self) -> None:
        fresh, old, place = (self.path / f"{self._result}{ending}" for ending in (".new", ".old", ""))
        for folder in (fresh, old):
            shutil.rmtree(folder, ignore_errors=True)
        fresh.mkdir()
        self._export(fresh)
        if place.exists():
            place.rename(old)
        fresh.rename(place)
        shutil.rmtree(old, ignore_errors=True)


def has_run(path: Path) -> bool:
    """Whether there is a state to take up."""
    return (path / _STATE).is_file()


def open_folder(path: Path, config: TrainingConfig, plan: MemoryPlan, *, resume: bool) -> bool:
    """Make a run's folder, or check that it is this run's. Whether there is a state to take up.

    Raises RunFolderError if a new run would overwrite another, or an old one had another config or plan.
    """
    has_state = has_run(path)
    if has_state and not resume:
        raise RunFolderError(f"{path} holds a run already; say --resume to go on with it, or give another --out")
    path.mkdir(parents=True, exist_ok=True)
    if has_state:
        _check_config(path / _CONFIG, config)
        _check_plan(path / _PLAN, plan)
        return True
    text = json.dumps(config.model_dump(mode="json"), indent=1)
    (path / _CONFIG).write_text(text + "\n", encoding="utf-8")
    (path / _PLAN).write_text(plan.to_json() + "\n", encoding="utf-8")
    return False


def _check_config(path: Path, config: TrainingConfig) -> None:
    try:
        # Read back as a config: keys that came later have their defaults.
        before = TrainingConfig.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}); start anew in another folder") from error
    changed = sorted(key for key in TrainingConfig.model_fields if getattr(before, key) != getattr(config, key))
    if changed:
        raise RunFolderError(
            f"{path.parent} was begun with another {', '.join(changed)}; resume with the config it has in {path.name}, "
            "or start anew in another folder"
        )


def _check_plan(path: Path, plan: MemoryPlan) -> None:
    """The config names a plan, or the adapter whose plan is meant; what lies there may have changed since."""
    try:
        before = MemoryPlan.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return  # begun before runs kept their plan
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}); start anew in another folder") from error
    changed = [field.name for field in fields(plan) if getattr(before, field.name) != getattr(plan, field.name)]
    if changed:
        raise RunFolderError(
            f"{path.parent} was begun under a memory plan with another {', '.join(changed)}; put the plan that the "
            f"config asks for back to what {path.name} says, or start anew in another folder"
        )
