"""`python -m recalign`, which is also what `accelerate launch -m recalign` runs."""

from recalign.cli import main

if __name__ == "__main__":
    main()
