"""Named samplers: which frames each server, or each processor of Hugging Face, takes from a clip. Pure numbers."""

from gpuflow.samplers.base import ClipFacts as ClipFacts
from gpuflow.samplers.base import Sampler as Sampler
from gpuflow.samplers.base import Wish as Wish
from gpuflow.samplers.table import SAMPLERS as SAMPLERS
from gpuflow.samplers.table import sampler_named as sampler_named
