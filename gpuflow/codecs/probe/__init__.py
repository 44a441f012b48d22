"""What bytes are and claim, from their structure alone: nothing is decoded, nothing is believed that was not checked."""

from gpuflow.codecs.probe.claims import ContainerClaims as ContainerClaims
from gpuflow.codecs.probe.claims import TrackClaims as TrackClaims
from gpuflow.codecs.probe.container import check as check
from gpuflow.codecs.probe.container import container_claims as container_claims
from gpuflow.codecs.probe.image import check_image as check_image
from gpuflow.codecs.probe.image import image_info as image_info
from gpuflow.codecs.probe.sniff import sniff as sniff
