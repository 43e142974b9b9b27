"""Train the search's runs that are missing and print who wins: `python -m tools.search`."""

import sys

from utils.experiments import EXPERIMENTS
from utils.runs import wanted_runs
from utils.selection import scores, short_bar, short_scores, short_winner, winner
from utils.store import STUDY
from utils.sweep import run_command
from utils.tables import search_table, short_table


def main() -> int:
    """Command line; returns the exit status."""
    wanted = [run for name in EXPERIMENTS if "-search-" in name for run in wanted_runs(name)]
    status = run_command(wanted, STUDY)
    if status:
        return status
    table, short = scores(), short_scores()
    bar = short_bar(table)
    print(search_table(table, winner(table)))
    print(short_table(short, bar, short_winner(short, bar)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
