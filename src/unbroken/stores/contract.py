"""The former name of `unbroken.stores.testing`, deprecated."""

from unbroken.stores.testing import CHECKS, Broken, Check, run

__all__ = ["CHECKS", "Broken", "Check", "run"]
