"""Looks into a trained model of images: any function of one image, whatever its layers.

pictures    a person's files, or examples of a split
model       a function opened: layers by path, scores of classes, their gradients
traced      values inside a traced function, and what they are moved by
filters     weights that are pictures themselves
gradients   Grad-CAM, its kin, saliency, SmoothGrad, integrated gradients
occlusion   what the class loses where a part is hidden
randomised  whether a map depends on what was learnt
patches     what the units of a layer respond to most
attention   what tokens look at, and their rollout
embedding   where images lie
"""

from dlx.inspect.maps.model import Model, function_of_images
from dlx.inspect.maps.naming import Layer

__all__ = ['Layer', 'Model', 'function_of_images']
