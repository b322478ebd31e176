"""metrics.jsonl: one JSON object per line, appended during training."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from genfast.io import MOST_JSON, JSONError, open_file, parse_json, write_bytes


class MetricsLog:
    """A metrics.jsonl that is written; `progress` is called with each record."""

    def __init__(self, path: Path, progress: Callable[[dict[str, Any]], object] | None = None) -> None:
        self.path, self.progress = path, progress

    def append(self, record: dict[str, Any]) -> None:
        """Add a line."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self.progress is not None:
            self.progress(record)

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
