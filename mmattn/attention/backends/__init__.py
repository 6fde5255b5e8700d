"""Ways to run a program. Each says what it can run, at what cost, and runs exactly that or raises."""

from mmattn.attention.backends.base import Backend, Conditions, Estimate
from mmattn.attention.backends.eager import EagerAttention
from mmattn.attention.backends.flex import FlexAttention
from mmattn.attention.backends.reference import ReferenceAttention
from mmattn.attention.backends.sdpa import BatchedSdpa, BlockSparseSdpa, JaggedSdpa
from mmattn.attention.backends.varlen import VarlenAttention

# In the order in which `plan` lists them; the reference comes last, since it takes everything.
BACKENDS: tuple[Backend, ...] = (
    BatchedSdpa(),
    VarlenAttention(),
    JaggedSdpa(),
    BlockSparseSdpa(),
    FlexAttention(),
    EagerAttention(),
    ReferenceAttention(),
)

__all__ = ["BACKENDS", "Backend", "Conditions", "Estimate"]
