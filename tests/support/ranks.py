"""Two processes of torch.distributed."""

import subprocess
import sys


def run_two_ranks(code, folder):
    """Run Python code in two processes, with the arguments rank and the file that they meet at; both must succeed."""
    command, store = [sys.executable, "-c", code], str(folder / "store")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen([*command, str(rank), store], **pipes) for rank in range(2)]
    for process in processes:
        output = process.communicate(timeout=120)[0]
        assert process.returncode == 0, output
