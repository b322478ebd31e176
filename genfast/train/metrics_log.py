"""metrics.jsonl: one JSON object a line, appended as training goes."""

import json

from genfast.io import write_bytes


class MetricsLog:
    def __init__(self, path, progress=None):
        self.path, self.progress = path, progress

    def append(self, record):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        if self.progress is not None:
            self.progress(record)

    def forget_after(self, step):
        """Drop the lines that a killed run wrote after its last checkpoint; resuming writes them again."""
        kept = [record for record in read_metrics(self.path) if record["step"] <= step]
        write_bytes(self.path, "".join(json.dumps(record) + "\n" for record in kept).encode())


def read_metrics(path):
    """All whole records of a metrics.jsonl; a kill may have left the last line unfinished."""
    records = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(record, dict) and "step" in record:
                records.append(record)
    return records
