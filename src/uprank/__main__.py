"""``python -m uprank``."""

from uprank.cli import main

if __name__ == "__main__":
    main()
