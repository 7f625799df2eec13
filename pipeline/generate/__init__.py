"""Image generation with a trained model: the Python API behind `tld sample`, `tld edit` and others.

Read generator.py first (the loaded model: captions to images), then image_to_image.py (variations
of an image), inpaint.py (repainting of a part), outpaint.py (images larger than the model's) with
tiling.py (where its windows lie), and interpolate.py (frames between two captions or seeds). Input
and output: input_image.py reads images and masks, request.py defines sample requests,
png_metadata.py stores them in PNG files, write_images.py writes those files, and animation.py
writes strips and videos.
"""
