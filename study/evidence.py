"""What the plan lacks, and whether what is recorded holds: `python -m study.evidence`.

Every record's seal and parts are checked by loading it; where its weights are kept, the network is
measured again.
"""

import sys
import time

from study.commands import status
from study.experiments import EXPERIMENTS
from study.runs import wanted_runs
from study.store import STUDY, load_all, verify
from utils.data import ROOT, load_mnist


def main() -> int:
    """Command line; returns the exit status: 1 if a record is damaged or of no experiment."""
    started = time.perf_counter()
    data, recorded = load_mnist(ROOT / "data"), load_all([STUDY])
    wanted = {
        name: {run.key(data.checksum): run.seed for run in wanted_runs(name)}
        for name in EXPERIMENTS
    }
    measured = sum(verify(record, data) for record in recorded.values())
    missing = 0
    for name, seeds in wanted.items():
        lacking = [seed for key, seed in seeds.items() if key not in recorded]
        missing += len(lacking)
        if lacking:
            print(f"missing: {name}, seeds {', '.join(map(str, lacking))}")
    print(
        f"{len(recorded)} records hold, {measured} networks were measured again and agree, "
        f"{missing or 'no'} runs are missing ({time.perf_counter() - started:.0f} s)"
    )
    strangers = [
        record for key, record in recorded.items() if key not in wanted.get(record.run.name, ())
    ]
    for record in strangers:
        print(
            f"{record.path} is of no experiment of the plan: its network, recipe or seeds were "
            "edited after it ran; put them back, or give the new ones a name of their own",
            file=sys.stderr,
        )
    return bool(strangers)


if __name__ == "__main__":
    sys.exit(status(main))
