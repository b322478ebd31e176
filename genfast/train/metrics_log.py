"""metrics.jsonl: one JSON object per line, appended during training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from genfast.io import MOST_JSON, JSONError, naming, open_file, parse_json, write_bytes

APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT | (0 if os.name == "nt" else os.O_NOFOLLOW)


class MetricsLog:
    """A metrics.jsonl that is written; `progress` is called with each record."""

    def __init__(self, path: Path, progress: Callable[[dict[str, Any]], object] | None = None) -> None:
        self.path, self.progress = path, progress

    def append(self, record: dict[str, Any]) -> None:
        """Add a line."""
        with naming(self.path), open(os.open(self.path, APPENDING, 0o666), "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self.progress is not None:
            self.progress(record)

    def sync(self) -> None:
        """Wait until the lines are on the disk, before the checkpoint that they belong to."""
        if self.path.exists():
            with naming(self.path), open(self.path, "rb+") as file:
                os.fsync(file.fileno())

    def forget_after(self, step: int) -> None:
        """Remove the lines after a step: those that a killed run wrote after its last checkpoint."""
        kept = [record for record in read_metrics(self.path) if record["step"] <= step]
        write_bytes(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All complete records of a metrics.jsonl; a killed run may have left an incomplete last line."""
    records = []
    try:
        with open_file(path, "metrics") as file:
            while line := file.readline(MOST_JSON):
                with suppress(JSONError):
                    record = parse_json(line)
                    if isinstance(record, dict) and type(record.get("step")) is int and _are_numbers(record):
                        records.append(record)
    except FileNotFoundError:
        pass
    return records


def _are_numbers(record: dict[str, Any]) -> bool:
    return all(isinstance(value, (int, float)) for value in record.values())
