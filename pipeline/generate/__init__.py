"""Image generation with a trained model: the Python API behind `tld sample`, `tld edit` and others.

Read generator.py first (the loaded model: captions to images), then image_to_image.py (variations
of an image), inpaint.py (repainting of a part), outpaint.py (images larger than the model's) with
tiling.py (where its windows lie), and interpolate.py (frames between two captions or seeds). Input
and output: input_image.py reads images and masks, image_size.py checks sizes,
model_source.py identifies a model, request.py
defines requests, image_metadata.py what is stored of them and earlier_metadata.py what earlier
versions stored, png_metadata.py reads and writes it in PNG files, write_images.py writes those of
samples, and animation.py writes strips and videos.
"""
