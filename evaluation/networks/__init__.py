"""Networks whose features metrics compare, each by the names of its published weights.

inception            FID's: (B, 3, H, W) uint8 -> (B, 2048)
i3d                  FVD's: (B, 3, 16, 224, 224) in -1..1 -> (B, 400); prepare: a video to its size and range
efficientnet_lite0   the stand-in that travels in a package: (B, 3, H, W) uint8 -> (B, 1280)
same_padding         what two of them have from TensorFlow
extractor            a network at work on arrays
"""

from evaluation.networks.efficientnet_lite0 import EfficientNetLite0
from evaluation.networks.extractor import Extractor
from evaluation.networks.i3d import I3D
from evaluation.networks.inception import FidInception

__all__ = ["I3D", "EfficientNetLite0", "Extractor", "FidInception"]
