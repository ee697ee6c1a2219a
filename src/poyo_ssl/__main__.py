"""``python -m poyo_ssl`` is ``poyo-ssl``; ``torchrun -m poyo_ssl`` starts it in every process."""

import sys

from poyo_ssl.cli import main

if __name__ == "__main__":
    sys.exit(main())
