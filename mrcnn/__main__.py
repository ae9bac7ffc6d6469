"""`python -m mrcnn`: the command line."""

import sys

from mrcnn.cli.main import main

sys.exit(main())
