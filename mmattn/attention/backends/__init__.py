"""Ways to run a program. Each says what it can run, at what cost, and runs exactly that or raises."""

from mmattn.attention.backends.base import Backend, Conditions, Estimate
from mmattn.attention.backends.eager import Eager
from mmattn.attention.backends.flex import Flex
from mmattn.attention.backends.reference import Reference
from mmattn.attention.backends.sdpa import Blocks, Jagged, Uniform
from mmattn.attention.backends.varlen import Varlen

# In the order in which `plan` lists them; the reference comes last, since it takes everything.
BACKENDS: tuple[Backend, ...] = (Uniform(), Varlen(), Jagged(), Blocks(), Flex(), Eager(), Reference())

__all__ = ["BACKENDS", "Backend", "Conditions", "Estimate"]
