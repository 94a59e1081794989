"""The program of an evaluation beside the training: `python -m lerobot.training.evaluations FOLDER`.

A module of its own because the processes of the environments import the main module of the one that starts
them, unless it is called __main__: they would load torch and all of the training for nothing.
"""

import sys
from pathlib import Path

from lerobot.training.evaluations.evaluation_process import main

if __name__ == "__main__":
    main(Path(sys.argv[1]))
