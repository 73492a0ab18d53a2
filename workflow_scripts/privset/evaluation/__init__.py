"""Networks trained on a set and tested on the real test images, which are public here; and the augmentations of that protocol.
Nothing here touches private data."""
