"""`python -m mrcnn.data.check`."""

import sys

from mrcnn.data.check import main

sys.exit(main())
