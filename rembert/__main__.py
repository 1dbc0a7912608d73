"""`python -m rembert`: the same as the `rembert` command."""

import sys

from rembert.cli.main import main

sys.exit(main())
