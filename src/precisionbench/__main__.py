"""`python -m precisionbench` is the command line."""

from precisionbench.cli import main

if __name__ == "__main__":
    main(prog_name="precisionbench")
