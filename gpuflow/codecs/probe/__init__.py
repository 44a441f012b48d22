"""What bytes are, from their beginning alone: nothing is decoded, nothing is believed that was not checked."""

from gpuflow.codecs.probe.image import check_image as check_image
from gpuflow.codecs.probe.image import image_info as image_info
from gpuflow.codecs.probe.sniff import sniff as sniff
