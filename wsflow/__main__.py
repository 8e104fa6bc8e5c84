"""``python -m wsflow`` is the command ``wsflow``."""

from wsflow.cli import main

if __name__ == "__main__":
    main(prog_name="wsflow")
