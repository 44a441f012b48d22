"""Sources to bytes, safely."""

from gpuflow.fetch.budget import ByteBudget as ByteBudget
from gpuflow.fetch.fetcher import Fetcher as Fetcher
from gpuflow.fetch.growing import GrowingBody as GrowingBody
from gpuflow.fetch.ranged import RangedBody as RangedBody
