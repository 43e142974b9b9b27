"""What the plan lacks, and whether what is recorded holds: `python -m tools.evidence`.

Every record's seal and parts are checked by loading it; where its weights are kept, the network is
measured again.
"""

import sys
import time

from utils.commands import status
from utils.data import ROOT, load_mnist
from utils.experiments import EXPERIMENTS
from utils.records import Record
from utils.runs import wanted_runs
from utils.store import STUDY, load_all, verify


def missing(recorded: dict[str, Record], checksum: str) -> dict[str, list[int]]:
    """The seeds of each experiment that have no record."""
    lacking: dict[str, list[int]] = {}
    for name in EXPERIMENTS:
        for run in wanted_runs(name):
            if run.key(checksum) not in recorded:
                lacking.setdefault(name, []).append(run.seed)
    return lacking


def strangers(recorded: dict[str, Record], checksum: str) -> list[str]:
    """A line for each record that no experiment asks for."""
    wanted = {run.key(checksum) for name in EXPERIMENTS for run in wanted_runs(name)}
    return [
        f"{record.path} is of no experiment of the plan: its network, recipe or seeds were edited "
        "after it ran; put them back, or give the new ones a name of their own"
        for key, record in recorded.items()
        if key not in wanted
    ]


def main() -> int:
    """Command line; returns the exit status: 1 if a record is damaged or of no experiment."""
    started = time.perf_counter()
    data, recorded = load_mnist(ROOT / "data"), load_all([STUDY])
    faults = strangers(recorded, data.checksum)
    measured = sum(verify(record, data) for record in recorded.values())
    lacking = missing(recorded, data.checksum)
    for name, seeds in lacking.items():
        print(f"missing: {name}, seeds {', '.join(map(str, seeds))}")
    count = sum(map(len, lacking.values()))
    print(
        f"{len(recorded)} records hold, {measured} networks were measured again and agree, "
        f"{count or 'no'} runs are missing ({time.perf_counter() - started:.0f} s)"
    )
    for fault in faults:
        print(fault, file=sys.stderr)
    return bool(faults)


if __name__ == "__main__":
    sys.exit(status(main))
