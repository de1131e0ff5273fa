"""What holds for all tests: the stand-in weights, also where ImageNet's are in the cache."""

import os

os.environ["HELPERS_WEIGHTS"] = "stand-in"
